"""fastrnn.onnx: the recurrent operators of ONNX, RNN, GRU and LSTM, on NumPy arrays.

run_node and path_of need NumPy alone; load, nodes, save and to_model need the package onnx (pip install 'fastrnn[onnx]').
`import fastrnn` does not bring in any of it: `import fastrnn.onnx`.

Where the specification (opset 22) leaves something open, or ONNX Runtime (1.31, on the CPU) reads it otherwise, run_node does this:

- clip bounds what the activations f and g are applied to, biases and peepholes included. The cell state is not clipped on its way
  into h, as it is not in ONNX Runtime; the specification says "the input of activations" without exception.
- activation_alpha and activation_beta are handed out in order to those activations that take them, forward direction first, as in
  ONNX Runtime; then come the defaults. Values that are left over are an error, as they suggest that another order was meant.
- The defaults of alpha and beta are those of the ONNX operators of that name: LeakyRelu 0.01, ThresholdedRelu 1, HardSigmoid 0.2
  and 0.5, Elu 1. Affine (1 and 0) and ScaledTanh (1 and 1) are no operators today; ours make them the identity and Tanh. ONNX
  Runtime takes 0 for ThresholdedRelu, Affine and ScaledTanh.
- Numbers among the attributes of a file are float32. load and nodes take them as the shortest decimal numbers that round to them:
  an alpha of 0.2 is 0.2, in float64 too, and not 0.200000003.
- ThresholdedRelu keeps x = alpha, as the operators' text says; ONNX Runtime makes it 0.
- A row without steps (sequence_lens 0, or T = 0) has final states of 0, not its initial states, as in ONNX Runtime.
- Y is 0 after the end of a row and in the order of X in both directions; the reverse direction starts at the row's own end.
- With input_forget, the forget gate is 1 - i, and its weights, bias and peephole have no effect.
- clip must be above 0. An RNN in one direction may have two activations, as the specification's own default has; the first counts.
- layout 1 and float64 work here; ONNX Runtime has neither. float16 and bfloat16 are refused;
  load and nodes take a model's weights of these kinds and bring them to float32 or float64.
"""

from .export import save, to_model
from .model import Node, load, nodes
from .operator import path_of, run_node

__all__ = ["Node", "load", "nodes", "path_of", "run_node", "save", "to_model"]
