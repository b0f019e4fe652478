"""What is asked of ONNX's own nodes, before they are ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import quantised
from .attributes import OPERATORS


def is_quantised(proto: Any) -> bool:
    return (proto.domain, proto.op_type) == (quantised.DOMAIN, quantised.OPERATOR)


def is_read(proto: Any) -> bool:
    """Is it a node that becomes one of ours?"""
    return is_quantised(proto) or (proto.domain in ("", "ai.onnx") and proto.op_type in OPERATORS)


def subgraphs(proto: Any) -> Iterator[Any]:
    """Those of If, Loop, Scan and their like."""
    for attribute in proto.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
