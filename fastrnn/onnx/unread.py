"""What looks recurrent in a model and is no node that we read: so that nobody takes an empty list for "there is none"."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import Any

from .constants import Scope
from .protos import is_read, subgraphs

_NAME = re.compile("rnn|gru|lstm", re.IGNORECASE)
# The operators that multiply by weights, and the inputs that can be these.
_PRODUCTS = {
    **dict.fromkeys(("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulInteger"), (0, 1)),
    **dict.fromkeys(("QLinearMatMul", "QGemm"), (0, 3)),
    **dict.fromkeys(("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulNBits", "Conv", "FusedConv", "ConvInteger"), (1,)),
    "QLinearConv": (3,),
    "Einsum": (0, 1, 2),
}


def unread(graph: Any, outer: Scope) -> Iterator[str]:
    """Texts, each of which names something in the graph or one of its subgraphs."""
    scope = outer.inside(graph)
    for node in graph.node:
        if is_read(node):
            continue
        if any(_NAME.search(name) for name in _operators(node)):
            yield f"{node.op_type} node {node.name!r} of the domain {node.domain!r}"
        elif node.op_type in ("Loop", "Scan") and not _reads_inside(node):
            carried = _carried(scope.onnx, node)
            if carried:
                yield f"{node.op_type} node {node.name!r}, which carries {', '.join(map(repr, carried))} from step to step"
        for subgraph in subgraphs(node):
            yield from unread(subgraph, scope)
    yield from _unrolled(graph, scope)


def _operators(node: Any) -> list[str]:
    """What a node may be called by: its operator, and that which one of PyTorch's own stands for."""
    aten = [a.s.decode(errors="replace") for a in node.attribute if node.op_type == "ATen" and a.name == "operator"]
    return [node.op_type, *aten]


def _reads_inside(node: Any) -> bool:
    return any(is_read(inner) or _reads_inside(inner) for graph in subgraphs(node) for inner in graph.node)


def _carried(onnx: Any, node: Any) -> list[str]:
    """The states of a Loop or Scan that its steps change, by their names inside; counters, flags and lists do not count."""
    (body,) = subgraphs(node)
    if node.op_type == "Loop":
        n = len(node.input) - 2
        states, ends = list(body.input)[2:], [value.name for value in body.output][1 : 1 + n]
    else:
        scanned = next(a.i for a in node.attribute if a.name == "num_scan_inputs")
        n = len(body.input) - scanned
        states, ends = list(body.input)[:n], [value.name for value in body.output][:n]
    same = {name: inner.input[0] for inner in body.node if inner.op_type == "Identity" for name in inner.output}
    return [state.name for state, end in zip(states, ends) if same.get(end, end) != state.name and _is_real(onnx, state.type)]


def _is_real(onnx: Any, type_: Any) -> bool:
    """Can it be a tensor of real numbers? Types may be left out."""
    if type_.WhichOneof("value") is None:
        return True
    tensor = onnx.TensorProto
    real = (tensor.UNDEFINED, tensor.FLOAT, tensor.DOUBLE, tensor.FLOAT16, tensor.BFLOAT16)
    return bool(type_.HasField("tensor_type") and type_.tensor_type.elem_type in real)


def _unrolled(graph: Any, scope: Scope) -> Iterator[str]:
    """Products whose weights are multiplied by what they themselves have made before."""
    found: dict[Hashable, list[Any]] = {}
    for node in graph.node:
        for key in _weights(node, scope):
            found.setdefault(key, []).append(node)
    bits = {key: 1 << k for k, key in enumerate(key for key, nodes in found.items() if len(nodes) > 1)}
    made_with: dict[str, int] = {}  # by tensor: whose weights are in it
    again: dict[Hashable, list[Any]] = {}
    for node in graph.node if bits else ():
        mask = 0
        for name in _used(node):
            mask |= made_with.get(name, 0)
        for key in _weights(node, scope):
            if mask & bits.get(key, 0):
                again.setdefault(key, [found[key][0]]).append(node)
            mask |= bits.get(key, 0)
        made_with.update(dict.fromkeys(node.output, mask))
    if again:
        chains = [f"{nodes[0].op_type} nodes {_label(nodes[0])} to {_label(nodes[-1])}" for nodes in again.values()]
        yield f"{', '.join(chains)}, which multiply by the same weights again what these have made: an unrolled cell"


def _weights(node: Any, scope: Scope) -> set[Hashable]:
    """The constants that a product multiplies by."""
    positions = [k for k in _PRODUCTS.get(node.op_type, ()) if k < len(node.input)]
    return {key for key in (scope.key(node.input[k]) for k in positions) if key is not None}


def _used(node: Any) -> Iterator[str]:
    """The tensors that a node reads, its subgraphs' included."""
    yield from node.input
    for graph in subgraphs(node):
        for inner in graph.node:
            yield from _used(inner)


def _label(node: Any) -> str:
    return repr(node.name or next(iter(node.output), ""))
