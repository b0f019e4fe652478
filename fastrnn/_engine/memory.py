"""New arrays, with errors that say which argument asked for them."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import new_saved

Array = NDArray[Any]
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
_LARGE = 1 << 16  # bytes, as of the free list


def allocate(name: str, symbols: str, shape: tuple[int, ...], dtype: np.dtype[Any], zero: bool = False) -> Array:
    """A new array; where there is no memory for it the error says what it was for."""
    try:
        return np.zeros(shape, dtype) if zero else np.empty(shape, dtype)
    except (ValueError, MemoryError) as error:
        raise MemoryError(f"{name}: cannot allocate {symbols} = {shape} of {dtype}: {error}") from None


def allocate_saved(symbols: str, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Array:
    """What a tape saves, uninitialised, from the free list of large blocks."""
    try:
        if math.prod(shape) * dtype.itemsize > sys.maxsize // 2:
            raise MemoryError("larger than any memory")
        return new_saved(shape, dtype == F64)
    except MemoryError as error:
        raise MemoryError(f"x: cannot allocate {symbols} = {shape} of {dtype}: {error}") from None


def new_array(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Uninitialised; a large one from the free list, since pages that the system has to find first cost more than a copy."""
    bytes = math.prod(shape) * dtype.itemsize
    if dtype not in (F32, F64) or not _LARGE <= bytes <= sys.maxsize // 2:
        return np.empty(shape, dtype)
    return new_saved((1, 1, bytes // dtype.itemsize), dtype == F64).reshape(shape)


def out_of_memory(name: str, error: Exception) -> MemoryError:
    """A failed allocation, or a size beyond all memory, that says which argument asked for it."""
    text = str(error)
    return MemoryError(text if text.startswith(f"{name}: ") else f"{name}: {text}")
