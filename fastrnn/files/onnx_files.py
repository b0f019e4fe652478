"""The recurrent nodes of an ONNX file."""

from __future__ import annotations

import warnings

from .._api.optional import missing
from ..onnx.model import Node, inspected
from .model import Layer, Model, Wishes


def read_onnx(where: str, model: Model, wishes: Wishes) -> None:
    try:
        import onnx  # noqa: F401 -- the error of inspected would name another function
    except ImportError as error:
        raise missing("fastrnn.load_model of an ONNX file", "onnx", "onnx", error) from error
    try:
        nodes, quantised, unread = inspected(where, "load_model")
    except Exception as error:  # protobuf's DecodeError, and what else a damaged file brings about
        raise ValueError(f"path: expected an ONNX model, got {where!r}, which cannot be read: {error}") from error
    for text in quantised:
        warnings.warn(text, UserWarning, stacklevel=3)
    for k, node in enumerate(nodes):
        name = node.name or next((output for output in node.outputs if output), f"{node.op_type}_{k}")
        model.add(name, lambda: _layer(node, wishes), dict(node.constants))  # noqa: B023 -- called at once
    for k, text in enumerate(unread):
        model.skip(f"unread_{k}", f"it looks recurrent, but is no node that fastrnn reads: {text}")


def _layer(node: Node, wishes: Wishes) -> Layer:
    node.check_start()
    layer = node.layer(wishes.dtype)
    layer.batch_first = wishes.options(layer.batch_first)["batch_first"]
    return layer
