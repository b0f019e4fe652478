"""Which tensors of an ONNX graph are constants, and what they are."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# What exporters put between stored weights and a recurrent node. Each gives the same for the same inputs.
_FOLDED = {
    *("Identity", "Cast", "DequantizeLinear", "Neg", "Add", "Sub", "Mul"),
    *("Concat", "Split", "Slice", "Gather", "Pad", "Tile", "Expand", "ConstantOfShape"),
    *("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Shape"),
}
_COMPUTED = {"Constant", *_FOLDED}


class Scope:
    """The tensors that a graph sees: its own, and those of the graphs around it."""

    def __init__(self, onnx: Any, opsets: dict[str, int], outer: Scope | None = None, graph: Any = None) -> None:
        self.onnx, self.opsets, self._outer = onnx, opsets, outer
        self._stored = {} if graph is None else {tensor.name: tensor for tensor in graph.initializer}
        self._sparse = {} if graph is None else {sparse.values.name: sparse for sparse in graph.sparse_initializer}
        self._made_by = {} if graph is None else {name: node for node in graph.node for name in node.output if name}
        self._given = set() if graph is None else {value.name for value in graph.input} - {*self._stored, *self._sparse}
        self._known: dict[str, Array | None] = {}
        self._keys: dict[str, Hashable | None] = {}

    def inside(self, graph: Any) -> Scope:
        """The scope of a graph within this one."""
        return Scope(self.onnx, self.opsets, self, graph)

    def value(self, name: str) -> Array | None:
        """The tensor of this name, or None if it depends on the model's inputs or is none.

        Raises: ValueError for a tensor whose data are not there.
        """
        if name not in self._known:
            self._known[name] = self._find(name) if name else None
        return self._known[name]

    def key(self, name: str) -> Hashable | None:
        """Equal for constants that are equal because of how they are made, without computing them; None for what is no constant."""
        if name not in self._keys:
            self._keys[name] = self._find_key(name) if name else None
        return self._keys[name]

    def _find(self, name: str) -> Array | None:
        if name in self._stored:
            return self._array(name, self._stored[name])
        if name in self._sparse:
            return self._dense(name, self._sparse[name])
        if name in self._made_by:
            return self._computed(self._made_by[name], name)
        return None if name in self._given or self._outer is None else self._outer.value(name)

    def _computed(self, node: Any, name: str) -> Array | None:
        if node.domain not in ("", "ai.onnx") or node.op_type not in _COMPUTED:
            return None
        if node.op_type == "Constant" and node.attribute[0].name == "sparse_value":
            return self._dense(name, node.attribute[0].sparse_tensor)
        feeds = {tensor: self.value(tensor) for tensor in node.input if tensor}
        if any(value is None for value in feeds.values()):
            return None
        from onnx.reference import ReferenceEvaluator

        outputs = ReferenceEvaluator(node, opsets=self.opsets).run(None, feeds)
        return dict(zip(node.output, outputs))[name]

    def _array(self, name: str, tensor: Any) -> Array:
        try:
            array: Array = self.onnx.numpy_helper.to_array(tensor)
        except (ValueError, OSError, self.onnx.checker.ValidationError) as error:
            where = {entry.key: entry.value for entry in tensor.external_data}.get("location")
            if where is None:
                raise ValueError(f"{name}: expected a tensor, got one that cannot be read: {error}") from None
            text = f"expected a tensor that holds its data, got one whose data are in the file {where!r}, which is not found"
            raise ValueError(f"{name}: {text}; give the path of the model") from None
        return array

    def _dense(self, name: str, sparse: Any) -> Array:
        """A sparse tensor's array. Its indices are (n,) places in the flat array, or (n, axes)."""
        values, indices = self._array(name, sparse.values), self._array(name, sparse.indices)
        shape = tuple(sparse.dims)
        dense = np.zeros(shape, values.dtype)
        try:
            places = np.unravel_index(indices, shape) if indices.ndim == 1 else tuple(indices.T)
            if any((index < 0).any() for index in places):
                raise IndexError("negative indices")
            dense[places] = values
        except (IndexError, ValueError) as error:
            raise ValueError(f"{name}: expected a sparse tensor of shape {shape}, got indices beyond it: {error}") from None
        return dense

    def _find_key(self, name: str) -> Hashable | None:
        if name in self._stored:
            tensor = self._stored[name]
            content = tensor.raw_data or tensor.SerializeToString()  # with its name: then equal ones of other names differ
            return "tensor", tensor.data_type, tuple(tensor.dims), hashlib.blake2b(content).digest()
        if name in self._sparse:
            return "sparse", name
        if name in self._made_by:
            return self._made_key(self._made_by[name], name)
        return None if name in self._given or self._outer is None else self._outer.key(name)

    def _made_key(self, node: Any, name: str) -> Hashable | None:
        if node.domain not in ("", "ai.onnx") or node.op_type not in _COMPUTED:
            return None
        keys = tuple(self.key(tensor) if tensor else "" for tensor in node.input)
        if None in keys:
            return None
        attributes = tuple(sorted(attribute.SerializeToString() for attribute in node.attribute))
        return node.op_type, attributes, keys, list(node.output).index(name)


def widened(array: Array, dtype: Any = np.float32) -> Array:
    """float16 and bfloat16 as another dtype, by default the smallest of ours; others as they are."""
    return array.astype(dtype) if array.dtype == np.float16 or array.dtype.name == "bfloat16" else array
