"""Which tensors of an ONNX graph are constants, and what they are."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

# What exporters put between stored weights and a recurrent node. Each gives the same for the same inputs.
_FOLDED = {
    *("Identity", "Cast", "DequantizeLinear", "Neg", "Add", "Sub", "Mul"),
    *("Concat", "Split", "Slice", "Gather", "Pad", "Tile", "Expand", "ConstantOfShape"),
    *("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Shape"),
}


class Scope:
    """The tensors that a graph sees: its own, and those of the graphs around it."""

    def __init__(self, onnx: Any, opsets: dict[str, int], outer: Scope | None = None, graph: Any = None) -> None:
        self.onnx, self.opsets, self._outer = onnx, opsets, outer
        self._stored = {} if graph is None else {tensor.name: tensor for tensor in graph.initializer}
        self._made_by = {} if graph is None else {name: node for node in graph.node for name in node.output}
        self._given = set() if graph is None else {value.name for value in graph.input} - set(self._stored)
        self._known: dict[str, Array | None] = {}

    def inside(self, graph: Any) -> Scope:
        """The scope of a graph within this one."""
        return Scope(self.onnx, self.opsets, self, graph)

    def value(self, name: str) -> Array | None:
        """The tensor of this name, or None if it depends on the model's inputs or is none."""
        if name not in self._known:
            self._known[name] = self._find(name) if name else None
        return self._known[name]

    def _find(self, name: str) -> Array | None:
        if name in self._stored:
            return self.onnx.numpy_helper.to_array(self._stored[name])
        if name in self._made_by:
            return self._computed(self._made_by[name], name)
        return None if name in self._given or self._outer is None else self._outer.value(name)

    def _computed(self, node: Any, name: str) -> Array | None:
        if node.domain not in ("", "ai.onnx") or node.op_type not in {"Constant", *_FOLDED}:
            return None
        feeds = {tensor: self.value(tensor) for tensor in node.input if tensor}
        if any(value is None for value in feeds.values()):
            return None
        from onnx.reference import ReferenceEvaluator

        outputs = ReferenceEvaluator(node, opsets=self.opsets).run(None, feeds)
        return dict(zip(node.output, outputs))[name]
