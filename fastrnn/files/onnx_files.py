"""The recurrent nodes of an ONNX file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from .._api.optional import missing
from ..onnx.model import Node, inspected
from .model import Layer, Model, Wishes, skip, take
from .state_dicts import family_of, grouped


def read_onnx(where: str, model: Model, wishes: Wishes) -> None:
    try:
        import onnx
    except ImportError as error:
        raise missing("fastrnn.load_model of an ONNX file", "onnx", "onnx", error) from error
    try:
        proto = onnx.load(where)
        nodes, quantised, unread = inspected(proto, "load_model")
    except Exception as error:  # protobuf's DecodeError, and what else a damaged file brings about
        raise ValueError(f"path: expected an ONNX model, got {where!r}, which cannot be read: {error}") from error
    for text in quantised:
        warnings.warn(text, UserWarning, stacklevel=3)
    for k, node in enumerate(nodes):
        name = node.name or next((output for output in node.outputs if output), f"{node.op_type}_{k}")
        take(model, name, lambda: _layer(node, wishes), dict(node.constants))  # noqa: B023 -- called at once
    for k, text in enumerate(unread):
        skip(model, f"unread_{k}", f"it looks recurrent, but is no node that fastrnn reads: {text}")
    if unread:
        _skip_unrolled({tensor.name: tensor for tensor in proto.graph.initializer}, onnx.numpy_helper.to_array, model)


def _skip_unrolled(tensors: Mapping[str, Any], to_array: Any, model: Model) -> None:
    """Cells whose initialisers have PyTorch's names, so that who knows what they are can take the weights."""
    for (prefix, is_cell), found in grouped(tensors).items():
        weights = {f"{name}_l0" if is_cell else name: to_array(tensor) for name, tensor in found.items()}
        family = family_of(weights, "_l0")
        if family:
            kind = f"{family.upper()}{'Cell' * is_cell}"
            reason = f"its initialisers are named as those of PyTorch's {kind}; if the single operations are one, the layer is "
            skip(model, prefix.rstrip("./") or family, f"{reason}fastrnn.{family.upper()}.from_weights(weights)", weights)


def _layer(node: Node, wishes: Wishes) -> Layer:
    node.check_start()
    layer = node.layer(wishes.dtype)
    layer.batch_first = wishes.options(layer.batch_first)["batch_first"]
    return layer
