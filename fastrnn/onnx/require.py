"""The onnx package, when it is asked for."""

from __future__ import annotations

from typing import Any

from .._api.optional import missing


def require_onnx(function: str) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise missing(f"fastrnn.onnx.{function}", "onnx", "onnx", error) from error
    return onnx
