"""ONNX Runtime's DynamicQuantizeLSTM as an LSTM: what onnxruntime.quantization.quantize_dynamic makes of one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .constants import Scope

Array = NDArray[Any]
DOMAIN, OPERATOR = "com.microsoft", "DynamicQuantizeLSTM"
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")  # then the scales and zero points, as in _SCALES
_SCALES = {"W": (8, 9), "R": (10, 11)}  # where an input's scale and zero point are


def constants(proto: Any, scope: Scope) -> dict[str, Array]:
    """The node's constants by the names of an LSTM's inputs, W and R as the numbers that the integers stand for."""
    inputs = [*proto.input, *[""] * 12]
    found = {name: scope.value(tensor) for name, tensor in zip(INPUTS, inputs)}
    for name, (scale, zero_point) in _SCALES.items():
        integers, scales, zeros = found[name], scope.value(inputs[scale]), scope.value(inputs[zero_point])
        known = integers is not None and scales is not None and (zeros is not None or not inputs[zero_point])
        found[name] = _real(integers, scales, zeros) if known else None
    return {name: array for name, array in found.items() if array is not None}


def _real(integers: Any, scale: Any, zero_point: Any) -> Array:
    """(D, 4*H, n) from (D, n, 4*H) integers; a scale and a zero point are of shape (D,) or (D, 4*H)."""
    shape = (-1, 1, scale.shape[1] if scale.ndim == 2 else 1)
    shifted = integers.astype(np.float32) - (0 if zero_point is None else zero_point.astype(np.float32).reshape(shape))
    return np.ascontiguousarray((shifted * scale.reshape(shape)).swapaxes(1, 2))
