"""fastrnn.torch: PyTorch's recurrent modules, computed on the CPU by fastrnn's kernels, forward and backward.

RNN, GRU, LSTM and RNNCell, GRUCell, LSTMCell are subclasses of PyTorch's own: the constructor's arguments, parameters, state_dict,
hooks and packed sequences are theirs, the computation is ours. accelerate() gives the modules inside an existing model our forward,
and restore() gives them theirs back. Where PyTorch differentiates twice, transforms or traces, its own operators compute.
fastrnn.torch.lightning and fastrnn.torch.skorch have callbacks for models that are made inside `fit`. Needs the package torch:
pip install 'fastrnn[torch]'.

Examples
--------
>>> import torch, fastrnn.torch
>>> layer = fastrnn.torch.LSTM(10, 20, num_layers=2, batch_first=True)
>>> y, (h_n, c_n) = layer(torch.randn(8, 50, 10))
>>> y.square().mean().backward()
>>> layer.weight_ih_l0.grad.shape
torch.Size([80, 10])
"""

from .._api.optional import missing

try:
    import torch as _  # noqa: F401, our own modules import it, too: here it is explained where it is missing
except ImportError as error:
    raise missing("fastrnn.torch", "torch", "torch", error) from error

from .cells import GRUCell, LSTMCell, RNNCell
from .layers import GRU, LSTM, RNN
from .replace import Report, accelerate, restore

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "Report", "accelerate", "restore"]
