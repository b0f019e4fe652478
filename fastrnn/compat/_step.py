"""A single step in NumPy, its sigmoids by the kernels.

For arrays of a few hundred numbers, the time is NumPy's own, in its calls. So there are as few as possible, and gates go through
them together. dot takes half the time of @ for a small product, and a quarter for an outer one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._api.checks import F32, F64
from .._core import vmath
from .._engine.memory import new_array

Array = NDArray[Any]
SMALL = 20_000  # numbers, below which memory is fast enough as NumPy gets it


class Gates(NamedTuple):
    """The gates after their activations, or their gradients before them."""

    i: Array
    f: Array
    g: Array
    o: Array


def _is_plain(x: Any) -> bool:
    """Is this an array that the kernels take as it is?"""
    return type(x) is np.ndarray and (x.dtype == F64 or x.dtype == F32) and x.flags.c_contiguous and x.flags.aligned


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)).

    Parameters
    ----------
    x : array

    Returns
    -------
    y : array
    """
    if _is_plain(x):
        y: Array = vmath("sigmoid", x)
        return y
    half = x.dtype.type(0.5) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else 0.5
    return half * (1 + np.tanh(half * x))


def product(a: Array, b: Array) -> Array:
    """a b, a large one into memory whose pages are there already."""
    if len(a) * b.shape[1] < SMALL or a.dtype != b.dtype:
        return np.dot(a, b)
    multiply = np.dot if a.shape[1] == 1 else np.matmul
    return multiply(a, b, out=new_array((len(a), b.shape[1]), a.dtype))


def forward(i: Array, f: Array, g: Array, o: Array, c_prev: Array) -> tuple[Array, Array]:
    """h and c of the next step, from the gates and c."""
    c = f * c_prev
    c += i * g
    h = np.tanh(c)
    h *= o
    return h, c


def backward(dh: Array, dc: Array, gates: Gates, c_prev: Array, c: Array) -> tuple[Gates, Array]:
    """Gradients of the preactivations and of c_prev, from those of h and c."""
    i, f, g, o = gates
    tanh_c = np.tanh(c)
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    di, df, dg, do = dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)
    return Gates(di, df, dg, do), dc * f
