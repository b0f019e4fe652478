"""A single step of an LSTM in NumPy, from the preactivations of its gates."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Gates(NamedTuple):
    """The gates after their activations, or their gradients before them."""

    i: Array
    f: Array
    g: Array
    o: Array


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)).

    Parameters
    ----------
    x : array

    Returns
    -------
    y : array
    """
    half = x.dtype.type(0.5) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else 0.5
    return half * (1 + np.tanh(half * x))


def forward(i: Array, f: Array, g: Array, o: Array, c: Array) -> tuple[Array, Array, Gates]:
    """h and c of the next step, and the gates, from the preactivations and c."""
    gates = Gates(sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o))
    c = gates.f * c + gates.i * gates.g
    return gates.o * np.tanh(c), c, gates


def backward(dh: Array, dc: Array, gates: Gates, c_prev: Array, c: Array) -> tuple[Gates, Array]:
    """Gradients of the preactivations and of c_prev, from those of h and c."""
    i, f, g, o = gates
    tanh_c = np.tanh(c)
    dc = dc + dh * o * (1 - tanh_c**2)
    di, df, dg, do = dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dc * i * (1 - g**2), dh * tanh_c * o * (1 - o)
    return Gates(di, df, dg, do), dc * f
