"""A layer as an ONNX model."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._api import checks
from .._engine.cells import Cell
from ..layers import GRU, LSTM, RNN
from .activations import Activation
from .require import require_onnx

Array = NDArray[Any]
OPSET = 14  # the first in which the three operators are as they are now


def to_model(layer: RNN | GRU | LSTM, *, state: bool = False, lengths: bool = False) -> Any:
    """A layer as an onnx.ModelProto (opset 14), whose inputs and outputs are named and shaped as those of layer(x).

    Inputs: x (T, B, I), or (B, T, I) with batch_first; with `state`, h0 and, of an LSTM, c0; with `lengths`, lengths (B,) int32.
    Outputs: y, h_n and, of an LSTM, c_n. T and B are free. Layers become nodes one after the other; dropout, which only training
    has, does not appear. ONNX Runtime runs such models in float32 alone, ends rows of length 0 at 0 instead of at their initial
    state, and does not support T = 0 or B = 0.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
    state : bool, default False
        Whether the initial state is an input.
    lengths : bool, default False
        Whether the lengths are an input.

    Returns
    -------
    model : onnx.ModelProto

    Raises
    ------
    TypeError
        No layer, or a flag that is no bool.
    ValueError
        proj_size, which ONNX does not have.
    ImportError
        The package onnx is missing (pip install 'fastrnn[onnx]').

    Examples
    --------
    >>> import fastrnn.onnx
    >>> model = fastrnn.onnx.to_model(fastrnn.GRU(3, 4, rng=0), state=True)
    >>> [value.name for value in model.graph.input], [value.name for value in model.graph.output]
    (['x', 'h0'], ['y', 'h_n'])
    """
    onnx = require_onnx("to_model")
    if not isinstance(layer, (RNN, GRU, LSTM)):
        raise TypeError(f"layer: expected an RNN, GRU or LSTM of fastrnn, got {type(layer).__name__}")
    if layer.proj_size:
        raise ValueError("layer: expected proj_size = 0, as ONNX has no projection of the state")
    builder = _Builder(onnx, layer, checks.flag("state", state), checks.flag("lengths", lengths))
    return builder.model()


def save(layer: RNN | GRU | LSTM, path: str | os.PathLike[str], *, state: bool = False, lengths: bool = False) -> None:
    """Write to_model(layer) to a file, for load and for any ONNX runtime.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
    path : path
        Of the .onnx file.
    state : bool, default False
        Whether the initial state is an input.
    lengths : bool, default False
        Whether the lengths are an input.

    Raises
    ------
    TypeError, ValueError, ImportError
        As in `to_model`.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> import fastrnn.onnx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "layer.onnx")
    ...     fastrnn.onnx.save(fastrnn.GRU(3, 4, rng=0), path)
    ...     fastrnn.onnx.load(path)
    [GRU(3, 4)]
    """
    model = to_model(layer, state=state, lengths=lengths)
    require_onnx("save").save(model, os.fspath(path))


class _Builder:
    """The nodes and constants of a model, gathered layer by layer."""

    def __init__(self, onnx: Any, layer: RNN | GRU | LSTM, state: bool, lengths: bool) -> None:
        self.helper, self.onnx, self.layer = onnx.helper, onnx, layer
        self.op_type = "LSTM" if isinstance(layer, LSTM) else "GRU" if isinstance(layer, GRU) else "RNN"
        self.members = ("h", "c") if self.op_type == "LSTM" else ("h",)
        self.L, self.D = layer.num_layers, 2 if layer.bidirectional else 1
        weights = layer.export_weights("onnx")
        self.weights: list[dict[str, Array]] = weights if isinstance(weights, list) else [weights]
        self.state, self.lengths = state, lengths
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def model(self) -> Any:
        x = "x"
        if self.layer.batch_first:
            x = self.node("Transpose", ["x"], ["x_time_major"], perm=[1, 0, 2])
        starts = {member: self.starts(member) for member in self.members}
        for k in range(self.L):
            x = self.recurrent(k, x, [starts[member][k] for member in self.members])
        self.node("Transpose" if self.layer.batch_first else "Identity", [x], ["y"], **self.perm())
        for member in self.members:
            self.node("Concat", [f"{member}_l{k}" for k in range(self.L)], [f"{member}_n"], axis=0)
        graph = self.helper.make_graph(self.nodes, "fastrnn", self.given(), self.results(), self.constants)
        opset = [self.helper.make_opsetid("", OPSET)]
        ir_version = self.helper.find_min_ir_version_for(opset)
        return self.helper.make_model(graph, opset_imports=opset, ir_version=ir_version, producer_name="fastrnn")

    def recurrent(self, k: int, x: str, starts: list[str]) -> str:
        """Layer k, from x (T, B, .) to the name of its output (T, B, D*H)."""
        weights = {name: self.constant(f"{name}_l{k}", array) for name, array in self.weights[k].items()}
        W, R, B, P = (weights.get(name, "") for name in "WRBP")
        inputs = [x, W, R, B, "lengths" if self.lengths else "", *starts, *([P] if self.op_type == "LSTM" else [])]
        outputs = [f"Y_l{k}", *(f"{member}_l{k}" for member in self.members)]
        self.node(self.op_type, inputs, outputs, name=f"{self.op_type}_l{k}", **self.attributes())
        side_by_side = self.node("Transpose", [f"Y_l{k}"], [f"Y_transposed_l{k}"], perm=[0, 2, 1, 3])  # (T, B, D, H)
        shape = self.constant(f"shape_l{k}", np.array([0, 0, self.D * self.layer.hidden_size], np.int64))
        return self.node("Reshape", [side_by_side, shape], [f"y_l{k}"])

    def attributes(self) -> dict[str, Any]:
        attributes: dict[str, Any] = {"hidden_size": self.layer.hidden_size}
        attributes["direction"] = "bidirectional" if self.D == 2 else "forward"
        if isinstance(self.layer, GRU):
            attributes["linear_before_reset"] = int(self.layer.reset_after)
        return attributes | self.activations()

    def activations(self) -> dict[str, Any]:
        """Of all directions, if they are not the operator's own; alpha and beta of those that have them, in order."""
        cell = self.layer._cell
        if not cell.activations:
            return {"activations": ["Relu"] * self.D} if cell == Cell.RNN_RELU else {}
        functions = [Activation.of(activation) for activation in cell.activations] * self.D
        attributes: dict[str, Any] = {"activations": [function.name for function in functions]}
        for parameter in ("alpha", "beta"):
            numbers = [number for function in functions if (number := getattr(function, parameter)) is not None]
            if numbers:
                attributes[f"activation_{parameter}"] = numbers
        return attributes

    def starts(self, member: str) -> list[str]:
        """The names of the initial states of the layers, each (D, B, H)."""
        if not self.state:
            return [""] * self.L
        names = [f"{member}0_l{k}" for k in range(self.L)]
        sizes = self.constant(f"sizes_{member}", np.full(self.L, self.D, np.int64))
        self.nodes.append(self.helper.make_node("Split", [f"{member}0", sizes], names, axis=0))
        return names

    def given(self) -> list[Any]:
        values = [self.floats("x", self.sequence(self.layer.input_size))]
        if self.state:
            values += [self.floats(f"{member}0", self.state_shape()) for member in self.members]
        if self.lengths:
            values.append(self.helper.make_tensor_value_info("lengths", self.onnx.TensorProto.INT32, ["B"]))
        return values

    def results(self) -> list[Any]:
        y = self.floats("y", self.sequence(self.D * self.layer.hidden_size))
        return [y, *(self.floats(f"{member}_n", self.state_shape()) for member in self.members)]

    def sequence(self, n: int) -> list[Any]:
        return ["B", "T", n] if self.layer.batch_first else ["T", "B", n]

    def state_shape(self) -> list[Any]:
        return [self.L * self.D, "B", self.layer.hidden_size]

    def perm(self) -> dict[str, Any]:
        return {"perm": [1, 0, 2]} if self.layer.batch_first else {}

    def floats(self, name: str, shape: list[Any]) -> Any:
        return self.helper.make_tensor_value_info(name, self.helper.np_dtype_to_tensor_dtype(self.layer.dtype), shape)

    def constant(self, name: str, array: Array) -> str:
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, op_type: str, inputs: list[str], outputs: list[str], **attributes: Any) -> str:
        """Adds a node and returns the name of its first output."""
        self.nodes.append(self.helper.make_node(op_type, inputs, outputs, **attributes))
        return outputs[0]
