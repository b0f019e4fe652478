"""The recurrent nodes of an ONNX model, and the layers they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layers import GRU, LSTM, RNN
from . import attributes as _attributes
from . import inputs as _inputs
from .constants import Scope
from .operator import path_of, run_node
from .require import require_onnx

Array = NDArray[Any]
Layer = RNN | GRU | LSTM
WEIGHTS = ("W", "R", "B", "P")


@dataclass(frozen=True)
class Node:
    """A recurrent node of a model.

    name, op_type ("RNN", "GRU", "LSTM"): as in the model.
    attributes: by name, in Python's types; for run_node.
    inputs, outputs: the names of its tensors in the model, "" where there is none.
    constants: by the operator's names (W, R, B, ...) those inputs that do not depend on the model's.
    """

    name: str
    op_type: str
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array] = field(repr=False)

    @property
    def path(self) -> str:
        """Which way run goes, "fused" or "numpy": see path_of."""
        return path_of(self.op_type, self.attributes)

    def run(self, X: Array, **inputs: Array | None) -> list[Array]:
        """run_node on X with this node's attributes and constants; the other inputs by their names, and in place of constants.

        Raises: TypeError, ValueError, MemoryError.

        >>> Y, Y_h = node.run(X, initial_h=h)
        """
        names = _inputs.NAMES[self.op_type]
        unknown = [name for name in inputs if name not in names]
        if unknown:
            raise TypeError(f"inputs: expected names of {', '.join(names)}, got {unknown}")
        given = {**self.constants, **inputs, "X": X}
        return run_node(self.op_type, self.attributes, [given.get(name) for name in names])

    def layer(self) -> Layer:
        """A layer with this node's weights; batch_first if the node has layout 1 (a layer's states stay (D, N, H)).

        The initial states, where the node has constant ones, are not the layer's: they are in node.constants.

        Raises: ValueError where no layer computes what the node does (it says why; `run` does it), or where weights are no
        constants; TypeError for other dtypes than float32 and float64.

        >>> layer = fastrnn.onnx.nodes("model.onnx")[0].layer()
        >>> y, state = layer(x)
        """
        a = _attributes.read(self.op_type, self.attributes)
        weights = self._weights(a)
        if not a.fused:
            raise self.refusal(f"no layer has its attributes, {dict(self.attributes)}; node.run does")
        if a.reverse == (True,):
            raise self.refusal("a layer goes forward or both ways, not in reverse alone; node.run does")
        kind: type[Layer] = {"RNN": RNN, "GRU": GRU, "LSTM": LSTM}[self.op_type]
        options: dict[str, Any] = {"batch_first": a.batch_first}
        if kind is GRU:
            options["reset_after"] = a.linear_before_reset
        if kind is RNN:
            names = {activations[0].name.lower() for activations in a.activations}
            if len(names) > 1:
                raise self.refusal("its two directions have different activations, a layer has one nonlinearity; node.run does")
            options["nonlinearity"] = names.pop()
        return kind.from_weights(weights, "onnx", **options)

    def _weights(self, a: _attributes.Attributes) -> dict[str, Array]:
        """The weights, checked as run_node checks them; the sequence and the states are left empty."""
        names = _inputs.NAMES[self.op_type]
        for name, tensor in zip(names, self.inputs):
            if name in WEIGHTS and tensor and name not in self.constants:
                raise self.refusal(f"{name} ({tensor!r}) is not a constant of the model")
        weights = {name: self.constants[name] for name in WEIGHTS if name in self.constants}
        W = weights["W"]
        if W.ndim != 3:
            raise self.refusal(f"W: expected 3 dimensions, got shape {W.shape}")
        given = {**weights, "X": np.zeros((0, 0, W.shape[2]), W.dtype)}
        _inputs.read(a, [given.get(name) for name in names])
        return weights

    def refusal(self, why: str) -> ValueError:
        """The error that names this node and says why it cannot be taken."""
        return ValueError(f"{self.op_type} node {self.name!r}: {why}")


def nodes(path_or_model: Any) -> list[Node]:
    """The nodes RNN, GRU and LSTM of a model in the order of its graph, those inside If, Loop and Scan included.

    path_or_model: the path of an .onnx file, or an onnx.ModelProto. Constants are initialisers, Constant nodes, and what is
    computed from them by reshaping, slicing, joining, casting or dequantising. Model-local functions are not looked into.

    Raises: ImportError without the onnx package; what onnx.load raises.

    >>> for node in fastrnn.onnx.nodes("model.onnx"):
    ...     print(node.name, node.op_type, node.path)
    """
    onnx = require_onnx("nodes")
    if isinstance(path_or_model, (str, os.PathLike)):
        path_or_model = onnx.load(path_or_model)
    if not isinstance(path_or_model, onnx.ModelProto):
        raise TypeError(f"path_or_model: expected a path or an onnx.ModelProto, got {type(path_or_model).__name__}")
    opsets = {opset.domain: opset.version for opset in path_or_model.opset_import}
    return list(_walk(path_or_model.graph, Scope(onnx, opsets)))


def load(path_or_model: Any) -> list[Layer]:
    """The recurrent nodes of a model as ready layers, in the order of its graph: one layer per node, with the node's weights.

    path_or_model: the path of an .onnx file, or an onnx.ModelProto. `nodes` gives the names, and the nodes that no layer can be.

    Raises: ValueError where no layer computes what a node does, or where a node starts from a constant state that is not 0;
    TypeError for other dtypes than float32 and float64; ImportError without the onnx package; what onnx.load raises.

    >>> encoder, decoder = fastrnn.onnx.load("model.onnx")
    >>> y, state = encoder(x)
    """
    found = nodes(path_or_model)
    for node in found:
        for name in ("initial_h", "initial_c"):
            if np.any(node.constants.get(name, 0)):
                raise node.refusal(f"{name} is a constant that is not 0, and a layer has none; use fastrnn.onnx.nodes")
    return [node.layer() for node in found]


def _walk(graph: Any, outer: Scope) -> Iterator[Node]:
    scope = outer.inside(graph)
    for proto in graph.node:
        if proto.domain in ("", "ai.onnx") and proto.op_type in _attributes.OPERATORS:
            yield _node(proto, scope)
        for attribute in proto.attribute:
            for subgraph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _walk(subgraph, scope)


def _node(proto: Any, scope: Scope) -> Node:
    value_of = scope.onnx.helper.get_attribute_value
    attributes = {attribute.name: value_of(attribute) for attribute in proto.attribute}
    attributes = {name: _decoded(value) for name, value in attributes.items()}
    values = {name: scope.value(tensor) for name, tensor in zip(_inputs.NAMES[proto.op_type], proto.input)}
    constants = {name: value for name, value in values.items() if value is not None}
    return Node(proto.name, proto.op_type, attributes, tuple(proto.input), tuple(proto.output), constants)


def _decoded(value: Any) -> Any:
    """Strings are bytes in a model."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return [_decoded(item) for item in value] if isinstance(value, list) else value
