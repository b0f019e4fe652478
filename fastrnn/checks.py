"""Arguments, checked once at the door: the message names the argument, what was expected, and what came."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def floats(name: str, value: Any, dtype: np.dtype[Any] | None = None, ndim: tuple[int, ...] = ()) -> Array:
    """An array of `dtype` (float32 or float64 if None), in this machine's byte order and aligned; copied only if it is not."""
    if type(value) is not np.ndarray:
        if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
            wanted = "float32 or float64" if dtype is None else str(dtype)
            raise TypeError(f"{name}: expected a NumPy array of {wanted}, got {type(value).__name__}")
        value = np.asarray(value)
    kind = value.dtype
    if kind != F32 and kind != F64:
        kind = kind.newbyteorder("=")
        if kind != F32 and kind != F64:
            raise TypeError(f"{name}: expected dtype {dtype or 'float32 or float64'}, got {value.dtype}; pass {name}.astype(np.{dtype or F32})")
        value = value.astype(kind)
    if dtype is not None and kind != dtype:
        raise TypeError(f"{name}: expected dtype {dtype}, got {kind}; pass {name}.astype(np.{dtype})")
    if ndim and value.ndim not in ndim:
        raise ValueError(f"{name}: expected {' or '.join(map(str, ndim))} dimensions, got shape {value.shape}")
    if not value.flags.aligned:
        value = value.copy()
    return value


def shaped(name: str, value: Any, dtype: np.dtype[Any], symbols: str, shape: tuple[int, ...]) -> Array:
    """A C-contiguous array of this dtype and shape."""
    value = floats(name, value, dtype)
    if value.shape != shape:
        raise ValueError(f"{name}: expected {symbols} = {shape}, got {value.shape}")
    return value if value.flags.c_contiguous else np.ascontiguousarray(value)


def rows_contiguous(value: Array) -> Array:
    """The array itself if the numbers of a row stand side by side, else a copy in which they do."""
    if value.shape[-1] > 1 and value.strides[-1] != value.itemsize:
        return np.ascontiguousarray(value)
    return value


def integers(name: str, value: Any, symbols: str, n: int, most: int) -> NDArray[np.intp]:
    """(n,) integers from 0 to most."""
    array = np.asarray(value)
    if array.size == 0 and n == 0:
        array = array.astype(np.intp)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {_what(value, array)}")
    if array.ndim == 0 and n == 1:
        array = array.reshape(1)
    if array.shape != (n,):
        raise ValueError(f"{name}: expected {symbols} = ({n},), got {array.shape}")
    wrong = np.flatnonzero((array < 0) | (array > most))
    if len(wrong):
        raise ValueError(f"{name}: expected integers from 0 to T = {most}, got {array[wrong[0]]} at row {wrong[0]}")
    return array.astype(np.intp)


def booleans(name: str, value: Any, symbols: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Booleans of this shape."""
    array = np.asarray(value)
    if array.dtype != np.bool_:
        raise TypeError(f"{name}: expected booleans, got {_what(value, array)}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected {symbols} = {shape}, got {array.shape}")
    return array


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """One integer of at least `least`; booleans are none."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None
    if number < least or (most is not None and number > most):
        limits = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: expected an integer of {limits}, got {number}")
    return number


def allocate(name: str, symbols: str, shape: tuple[int, ...], dtype: np.dtype[Any], zero: bool = False) -> Array:
    """A new array; where there is no memory for it the error says what it was for."""
    try:
        return np.zeros(shape, dtype) if zero else np.empty(shape, dtype)
    except (ValueError, MemoryError) as error:
        raise MemoryError(f"{name}: cannot allocate {symbols} = {shape} of {dtype}: {error}") from None


def _what(value: Any, array: Array) -> str:
    return f"an array of {array.dtype}" if isinstance(value, np.ndarray) else f"{value!r}"[:60]
