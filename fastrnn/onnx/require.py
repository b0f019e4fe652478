"""The onnx package, when it is asked for."""

from __future__ import annotations

from typing import Any


def require_onnx(function: str) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ImportError(f"fastrnn.onnx.{function} needs the package onnx: pip install 'fastrnn[onnx]'") from error
    return onnx
