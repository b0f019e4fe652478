"""Arguments, checked once at the door: the message names the argument, what was expected, and what came."""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._engine.activations import KINDS, Activation
from .._engine.memory import F32, F64, allocate, out_of_memory

__all__ = ["F32", "F64", "allocate", "out_of_memory"]

Array = NDArray[Any]


def floats(name: str, value: Any, dtype: np.dtype[Any] | None = None, ndim: tuple[int, ...] = ()) -> Array:
    """An array of `dtype` (float32 or float64 if None), in this machine's byte order and aligned; copied only if it is not."""
    if type(value) is not np.ndarray:
        if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
            wanted = "float32 or float64" if dtype is None else str(dtype)
            raise TypeError(f"{name}: expected a NumPy array of {wanted}, got {type(value).__name__}")
        value = np.asarray(value)
    value = value.view()  # our own: once it is checked, no other thread changes the shape of this one
    kind = value.dtype
    if kind is not F32 and kind is not F64 and kind != F32 and kind != F64:
        if kind.char not in "fd":
            expected = "float32 or float64" if dtype is None else str(dtype)
            raise TypeError(f"{name}: expected dtype {expected}, got {kind}; pass {name}.astype(np.{dtype or F32})")
        kind = F32 if kind.char == "f" else F64
        value = _copy(name, value, kind)
    if dtype is not None and kind is not dtype and kind != dtype:
        raise TypeError(f"{name}: expected dtype {dtype}, got {kind}; pass {name}.astype(np.{dtype})")
    if ndim and value.ndim not in ndim:
        raise ValueError(f"{name}: expected {' or '.join(map(str, ndim))} dimensions, got shape {value.shape}")
    return value if value.flags.aligned else _copy(name, value, kind)


def shaped(name: str, value: Any, dtype: np.dtype[Any], symbols: str, shape: tuple[int, ...]) -> Array:
    """A C-contiguous array of this dtype and shape."""
    return fitting(name, floats(name, value, dtype), symbols, shape)


def fitting(name: str, value: Array, symbols: str, shape: tuple[int, ...]) -> Array:
    """The same of an array that has passed `floats`."""
    if value.shape != shape:
        raise ValueError(f"{name}: expected {symbols} = {shape}, got {value.shape}")
    return value if value.flags.c_contiguous else _copy(name, value, value.dtype)


def rows_contiguous(name: str, value: Array) -> Array:
    """The array itself if the numbers of a row stand side by side, else a copy in which they do."""
    if value.shape[-1] > 1 and value.strides[-1] != value.itemsize:
        return _copy(name, value, value.dtype)
    return value


def _copy(name: str, value: Array, dtype: np.dtype[Any]) -> Array:
    """In C order, aligned, in this machine's byte order."""
    try:
        return np.array(value, dtype, order="C")
    except MemoryError as error:
        raise out_of_memory(name, error) from None


def integers(name: str, value: Any, symbols: str, n: int, most: int) -> NDArray[np.intp]:
    """(n,) integers from 0 to most."""
    array = _plain(name, value, "integers")
    if array.size == 0 and n == 0:
        array = array.astype(np.intp)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {_what(value, array)}")
    if array.ndim == 0 and n == 1:
        array = array.reshape(1)
    if array.shape != (n,):
        raise ValueError(f"{name}: expected {symbols} = ({n},), got {array.shape}")
    try:
        array = array.copy()  # what is checked stays as it is, whatever other threads write
        wrong = np.flatnonzero((array < 0) | (array > most))
        if not len(wrong):
            return array.astype(np.intp)
    except MemoryError as error:
        raise out_of_memory(name, error) from None
    row = wrong[0]
    raise ValueError(f"{name}: expected integers from 0 to T = {most}, got {array[row]} at row {row}")


def booleans(name: str, value: Any, symbols: str, shape: tuple[int, ...], why: str = ",") -> NDArray[np.bool_]:
    """Booleans of this shape."""
    array = _plain(name, value, "booleans")
    if array.dtype != np.bool_:
        raise TypeError(f"{name}: expected booleans, got {_what(value, array)}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected {symbols} = {shape}{why} got {array.shape}")
    return array


def flags_of_steps(name: str, value: Any, T: int, B: int, unbatched: bool, batch_first: bool) -> NDArray[np.bool_]:
    """(T, B) booleans, which the caller gives as x lies: (T, B), (B, T) with batch_first, or (T,) without a batch."""
    symbols, shape = ("(T,)", (T,)) if unbatched else ("(B, T)", (B, T)) if batch_first else ("(T, B)", (T, B))
    array = booleans(name, value, symbols, shape, ", as x lies,")
    return array.T if batch_first and not unbatched else array.reshape(T, B)


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {_shown(value)}")
    return bool(value)


def integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """One integer of at least `least`; booleans are none."""
    number = _integer(name, value)
    if number < least or (most is not None and number > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: expected an integer {limits}, got {_shown(number)}")
    return number


def size(name: str, value: Any, most: int | None = None) -> int:
    """One integer greater than zero."""
    number = _integer(name, value)
    if most is not None and number > most:
        raise ValueError(f"{name}: expected at most {most}, got {_shown(number)}")
    if number < 1:
        raise ValueError(f"{name}: expected an integer greater than zero, got {_shown(number)}")
    return number


def probability(name: str, value: Any) -> float:
    number = real(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name}: expected a number in range [0, 1], a probability, got {_shown(value)}")
    return number


def projection(name: str, value: Any, hidden_size: int) -> int:
    """The size of an LSTM's projection."""
    number = _integer(name, value)
    if number < 0:
        raise ValueError(f"{name}: expected a positive integer, or zero to disable projections, got {_shown(number)}")
    if number >= hidden_size:
        raise ValueError(f"{name}: expected an integer smaller than hidden_size = {hidden_size}, got {_shown(number)}")
    return number


def forget_bias(value: Any, bias: bool) -> float:
    """What is added to an LSTM's forget gate."""
    number = real("forget_bias", value)
    if number and not bias:
        raise ValueError(f"forget_bias: expected 0 with bias=False, which leaves no bias to add it to, got {_shown(value)}")
    return number


def real(name: str, value: Any, least: float | None = None) -> float:
    """One finite real number; booleans are none."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a number, got {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or (least is not None and number < least):
        limit = "" if least is None else f" of at least {least}"
        raise ValueError(f"{name}: expected a finite number{limit}, got {_shown(value)}")
    return number


def positive(name: str, value: Any) -> float:
    """One finite real number greater than zero."""
    number = real(name, value)
    if number <= 0:
        raise ValueError(f"{name}: expected a number greater than zero, got {_shown(value)}")
    return number


def choice(name: str, value: Any, *options: str) -> str:
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name}: expected {' or '.join(map(repr, options))}, got {_shown(value)}")
    return value


def activation(name: str, value: Any) -> Activation:
    """A name in KINDS, or a tuple of one and its parameters, alpha first; those that are left out at the end are the defaults."""
    kind, *given = value if isinstance(value, tuple) and value else (value,)
    if not isinstance(kind, str) or kind not in KINDS:
        names = ", ".join(map(repr, KINDS))
        raise ValueError(f"{name}: expected one of {names}, or a tuple of one and its parameters, got {_shown(value)}")
    defaults = KINDS[kind].parameters
    if len(given) > len(defaults):
        raise ValueError(f"{name}: expected at most {len(defaults)} parameters of {kind!r}, got {_shown(value)}")
    return Activation(str(kind), (*(real(name, number) for number in given), *defaults[len(given) :]))


def precision(value: Any, dtype: np.dtype[Any]) -> str:
    """What products are computed of: "float32", the arrays' own numbers, or "bf16", those of float32 arrays rounded to bfloat16."""
    if choice("precision", value, "float32", "bf16") == "float32":
        return "float32"
    if dtype != F32:
        raise TypeError(
            f"precision: 'bf16' rounds the operands of products to 16 bits, so it is for float32; got {dtype}, "
            "which wants precision='float32': products of its own numbers"
        )
    return "bf16"


def float_dtype(name: str, value: Any) -> np.dtype[Any]:
    """float32 or float64, in whatever way NumPy lets one say it; but None, NumPy's float64, is a slip."""
    try:
        kind = None if value is None else np.dtype(value)
    except (TypeError, ValueError):
        kind = None
    if kind is None or (kind != F32 and kind != F64):
        raise TypeError(f"{name}: expected float32 or float64, got {_shown(value)}")
    return kind


def generator(name: str, value: Any) -> np.random.Generator:
    """A generator, or that of a seed."""
    try:
        return np.random.default_rng(value)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: expected a seed or a numpy.random.Generator, got {_shown(value)}") from None


def _integer(name: str, value: Any) -> int:
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {_shown(value)}") from None


def _plain(name: str, value: Any, wanted: str) -> Array:
    """Any array-like as an array; a mask has no meaning here."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected {wanted}, got {type(value).__name__}")
    try:
        return np.asarray(value)
    except MemoryError as error:
        raise out_of_memory(name, error) from None
    except (TypeError, ValueError, RuntimeError):  # lists of different lengths; a tensor that needs a gradient
        raise TypeError(f"{name}: expected {wanted}, got {value!r:.60}") from None


def _what(value: Any, array: Array) -> str:
    return f"an array of {array.dtype}" if isinstance(value, np.ndarray) else _shown(value)


def _shown(value: Any) -> str:
    return f"{value!r}"[:60]
