"""The recurrent nodes of an ONNX model, and the layers they are."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._api.pickling import Pickled
from ..layers import GRU, LSTM, RNN
from . import attributes as _attributes
from . import inputs as _inputs
from . import quantised
from .constants import Scope, widened
from .operator import path_of, run_node
from .protos import is_quantised, is_read, subgraphs
from .require import require_onnx
from .snapshot import INPUTS, Snapshot, cannot_change, locked
from .unread import unread

Array = NDArray[Any]
Layer = RNN | GRU | LSTM
WEIGHTS = ("W", "R", "B", "P")


@dataclass(frozen=True)
class Node(Pickled):
    """A recurrent node of a model; made by `nodes`.

    Attributes
    ----------
    name : str
    op_type : "RNN", "GRU" or "LSTM"
        As in the model.
    attributes : mapping
        By name, in Python's types; for run_node.
    inputs, outputs : tuples of str
        The names of its tensors in the model, "" where there is none.
    constants : mapping of names to arrays
        By the operator's names (W, R, B, ...) those inputs that do not depend on the model's, as the model has them; read-only,
        so that `run` can pack the weights once.
    """

    _not_pickled = ("_snapshots",)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        constants = {name: array if array.flags.writeable else locked(array) for name, array in self.constants.items()}
        vars(self)["constants"] = constants

    name: str
    op_type: str
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array] = field(repr=False)

    @property
    def path(self) -> str:
        """How `run` computes, "fused" or "numpy": see path_of."""
        return path_of(self.op_type, self.attributes)

    def run(self, X: Array, **inputs: Array | None) -> list[Array]:
        """run_node on X with this node's attributes and constants.

        Parameters
        ----------
        X : array
            As in `run_node`. Constants of float16 and bfloat16 are converted to its dtype.
        **inputs
            The other inputs by their names, also in place of constants.

        Returns
        -------
        outputs : list of arrays
            As in `run_node`.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As in `run_node`.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn.onnx
        >>> (node,) = fastrnn.onnx.nodes(fastrnn.onnx.to_model(fastrnn.GRU(3, 4, rng=0)))
        >>> Y, Y_h = node.run(np.ones((7, 2, 3), np.float32))
        >>> Y.shape
        (7, 1, 2, 4)
        """
        names = _inputs.NAMES[self.op_type]
        unknown = [name for name in inputs if name not in names]
        if unknown:
            raise TypeError(f"inputs: expected names of {', '.join(names)}, got {unknown}")
        dtype = getattr(X, "dtype", np.float32)
        snapshot = self._snapshot(dtype) if INPUTS.issuperset(inputs) else None
        constants = self.constants if snapshot is None else {n: a for n, a in self.constants.items() if n not in WEIGHTS}
        given = {**{name: widened(array, dtype) for name, array in constants.items()}, **inputs, "X": X}
        outputs = None if snapshot is None else snapshot.run(given)
        if outputs is not None:
            return outputs
        if snapshot is not None:
            given |= {name: widened(self.constants[name], dtype) for name in WEIGHTS if name in self.constants}
        return run_node(self.op_type, self.attributes, [given.get(name) for name in names])

    @cached_property
    def _snapshots(self) -> dict[Any, Snapshot]:
        return {}

    def _snapshot(self, dtype: Any) -> Snapshot | None:
        """The node as a frozen layer, if X is of this dtype; None where the weights can change."""
        weights = tuple(self.constants.get(name) for name in WEIGHTS)
        snapshot = self._snapshots.get(dtype)
        if snapshot is None or not snapshot.is_of(self.attributes, weights):
            if not all(array is None or cannot_change(array) for array in weights):
                return None
            snapshot = self._snapshots[dtype] = Snapshot(self.attributes, weights, self._layer_of(dtype))
        return snapshot

    def _layer_of(self, dtype: Any) -> Layer | None:
        """The layer whose parameters are the constants as `run` takes them, if there is one."""
        try:
            if any(widened(self.constants[name], dtype).dtype != dtype for name in WEIGHTS if name in self.constants):
                return None
            return self.layer(dtype)
        except (TypeError, ValueError):
            return None

    def layer(self, dtype: DTypeLike | None = None) -> Layer:
        """A layer with this node's weights; batch_first if the node has layout 1 (a layer's states stay (D, N, H)).

        The initial states, where the node has constant ones, are not the layer's: they are in node.constants.

        Parameters
        ----------
        dtype : dtype, optional
            float32 or float64, rounding if need be; None: that of the weights, float32 for float16 and bfloat16.

        Returns
        -------
        layer : RNN, GRU or LSTM

        Raises
        ------
        ValueError
            No layer computes what the node does (the message says why; `run` does it), or the weights are no constants.
        TypeError
            Another dtype.

        Examples
        --------
        >>> import fastrnn.onnx
        >>> (node,) = fastrnn.onnx.nodes(fastrnn.onnx.to_model(fastrnn.GRU(3, 4, rng=0)))
        >>> node.layer()
        GRU(3, 4)
        """
        a = _attributes.read(self.op_type, self.attributes)
        weights = self._weights(a)
        if not a.fused:
            raise self.refusal(f"no layer has its attributes, {dict(self.attributes)}; node.run does")
        if len(set(a.activations)) > 1:
            raise self.refusal("its two directions have different activations, a layer has the same in both; node.run does")
        if a.reverse == (True,):
            raise self.refusal("a layer goes forward or both ways, not in reverse alone; node.run does")
        kind: type[Layer] = {"RNN": RNN, "GRU": GRU, "LSTM": LSTM}[self.op_type]
        options: dict[str, Any] = {"batch_first": a.batch_first}
        f, *rest = (activation.fused().given for activation in a.activations[0])
        if len(set(rest)) > 1:
            raise self.refusal(
                f"its g and h are different activations, {rest[0]!r} and {rest[1]!r}, a layer has one; node.run does"
            )
        if kind is RNN:
            options["nonlinearity"] = f
        else:
            options |= {"activation": rest[0], "recurrent_activation": f}
        if kind is GRU:
            options["reset_after"] = a.linear_before_reset
        return kind.from_weights(weights, "onnx", dtype=dtype, **options)

    def check_start(self) -> None:
        """Raise if the node starts from a constant state that is not 0, which a layer does not have.

        Raises
        ------
        ValueError
            The message names the node.
        """
        for name in ("initial_h", "initial_c"):
            if np.any(self.constants.get(name, 0)):
                raise self.refusal(f"{name} is a constant that is not 0, and a layer has none; use fastrnn.onnx.nodes")

    def _weights(self, a: _attributes.Attributes) -> dict[str, Array]:
        """The weights, checked as run_node checks them; the sequence and the states are left empty."""
        names = _inputs.NAMES[self.op_type]
        for name, tensor in zip(names, self.inputs):
            if name in WEIGHTS and tensor and name not in self.constants:
                raise self.refusal(f"{name} ({tensor!r}) is not a constant of the model")
        weights = {name: widened(self.constants[name]) for name in WEIGHTS if name in self.constants}
        W = weights["W"]
        if W.ndim != 3:
            raise self.refusal(f"W: expected 3 dimensions, got shape {W.shape}")
        given = {**weights, "X": np.zeros((0, 0, W.shape[2]), W.dtype)}
        _inputs.read(a, [given.get(name) for name in names])
        return weights

    def refusal(self, why: str) -> ValueError:
        """The error that names this node and says why it cannot be used.

        Parameters
        ----------
        why : str

        Returns
        -------
        error : ValueError
        """
        return ValueError(f"{self.op_type} node {self.name!r}: {why}")


def nodes(path_or_model: Any) -> list[Node]:
    """The nodes RNN, GRU and LSTM of a model in the order of its graph, including those inside If, Loop, Scan and functions.

    Constants are initialisers, Constant nodes, and what is computed from them by reshaping, slicing, joining, casting or
    dequantising. ONNX Runtime's DynamicQuantizeLSTM becomes an LSTM with the real numbers that its weights stand for, with a
    warning that its activations were of 8 bits. Of what looks recurrent otherwise (a Loop or Scan that carries a state, an unrolled
    cell, an operator of another domain) a warning gives the names.

    Parameters
    ----------
    path_or_model : path or onnx.ModelProto
        The path of an .onnx file, or a model.

    Returns
    -------
    nodes : list of Node

    Raises
    ------
    TypeError
        Neither a path nor a model.
    ValueError
        A tensor whose data are not there.
    ImportError
        The package onnx is missing (pip install 'fastrnn[onnx]').
    Exception
        What onnx.load raises.

    Examples
    --------
    >>> import fastrnn.onnx
    >>> model = fastrnn.onnx.to_model(fastrnn.LSTM(3, 4, num_layers=2, rng=0))
    >>> [(node.name, node.op_type, node.path) for node in fastrnn.onnx.nodes(model)]
    [('LSTM_l0', 'LSTM', 'fused'), ('LSTM_l1', 'LSTM', 'fused')]
    """
    return _nodes(path_or_model, "nodes")


def load(path_or_model: Any, *, dtype: DTypeLike | None = None) -> list[Layer]:
    """The recurrent nodes of a model as layers, in the order of its graph: one layer per node, with the node's weights.

    `nodes` gives the names, and the nodes that no layer can compute; it also explains the warnings.

    Parameters
    ----------
    path_or_model : path or onnx.ModelProto
        The path of an .onnx file, or a model.
    dtype : dtype, optional
        float32 or float64, rounding if need be; None: that of the weights, float32 for float16 and bfloat16.

    Returns
    -------
    layers : list of RNN, GRU or LSTM

    Raises
    ------
    ValueError
        No layer computes what a node does, or a node starts from a constant state that is not 0.
    TypeError
        Neither a path nor a model, or another dtype.
    ImportError
        The package onnx is missing (pip install 'fastrnn[onnx]').
    Exception
        What onnx.load raises.

    Examples
    --------
    >>> import fastrnn.onnx
    >>> model = fastrnn.onnx.to_model(fastrnn.GRU(3, 4, bidirectional=True, rng=0))
    >>> fastrnn.onnx.load(model)
    [GRU(3, 4, bidirectional=True)]
    """
    found = _nodes(path_or_model, "load")
    for node in found:
        node.check_start()
    return [node.layer(dtype) for node in found]


def _nodes(path_or_model: Any, function: str) -> list[Node]:
    """Those of `nodes`, for the caller of this function's caller, who gets the warnings."""
    found, quantised_texts, unread_texts = inspected(path_or_model, function)
    for text in quantised_texts:
        warnings.warn(text, UserWarning, stacklevel=3)
    for text in unread_texts:
        warnings.warn(f"looks recurrent, but is not among the nodes that fastrnn reads: {text}", UserWarning, stacklevel=3)
    return found


def inspected(path_or_model: Any, function: str) -> tuple[list[Node], list[str], list[str]]:
    """The nodes of a model, what is to be said of the quantised ones, and what looks recurrent and is not read.

    Parameters
    ----------
    path_or_model : path or onnx.ModelProto
    function : str
        Who asks, for the error where onnx is missing.

    Returns
    -------
    nodes : list of Node
    quantised, unread : lists of str
    """
    onnx = require_onnx(function)
    model = onnx.load(path_or_model) if isinstance(path_or_model, (str, os.PathLike)) else path_or_model
    if not isinstance(model, onnx.ModelProto):
        raise TypeError(f"path_or_model: expected a path or an onnx.ModelProto, got {type(model).__name__}")
    if len(model.functions):
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    scope = Scope(onnx, {opset.domain: opset.version for opset in model.opset_import})
    protos = list(_walk(model.graph, scope))
    of_8_bits = [
        f"{proto.op_type} node {proto.name!r} becomes an LSTM of real numbers; in ONNX Runtime x and h have 8 bits, "
        "so that results differ"
        for proto, _ in protos
        if is_quantised(proto)
    ]
    return [_node(proto, inner) for proto, inner in protos], of_8_bits, list(unread(model.graph, scope))


def _walk(graph: Any, outer: Scope) -> Iterator[tuple[Any, Scope]]:
    """The recurrent nodes, and what each sees."""
    scope = outer.inside(graph)
    for proto in graph.node:
        if is_read(proto):
            yield proto, scope
        for subgraph in subgraphs(proto):
            yield from _walk(subgraph, scope)


def _node(proto: Any, scope: Scope) -> Node:
    value_of = scope.onnx.helper.get_attribute_value
    attributes = {attribute.name: _decoded(value_of(attribute)) for attribute in proto.attribute}
    if is_quantised(proto):
        inputs = tuple(proto.input)[: len(quantised.INPUTS)]
        constants = {name: locked(value) for name, value in quantised.constants(proto, scope).items()}
        return Node(proto.name, "LSTM", attributes, inputs, tuple(proto.output), constants)
    values = {name: scope.value(tensor) for name, tensor in zip(_inputs.NAMES[proto.op_type], proto.input)}
    constants = {name: locked(value) for name, value in values.items() if value is not None}
    return Node(proto.name, proto.op_type, attributes, tuple(proto.input), tuple(proto.output), constants)


def _decoded(value: Any) -> Any:
    """Strings are bytes in a model, and numbers float32: they stand for the shortest decimal ones, 0.2 for 0.200000003."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float):
        return float(str(np.float32(value)))
    return [_decoded(item) for item in value] if isinstance(value, list) else value
