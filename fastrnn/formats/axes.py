"""Where the numbers of one array stand: a short text, and the one function that reads it.

A weight array holds, for each gate g and each unit u of the layer, n numbers: those that come in from the input (n = I), from the
hidden units (n = H), or a bias (n = 1). A layout says in which order: ``(gu)n`` is PyTorch's (G*H, n), ``n(gu)`` the transposed
array of Keras, ``(ug)n`` has the gates of a unit side by side, ``(gu)`` is a bias. Letters in brackets share an axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_AXES = "gun"  # of the arrays in between: gates, units, numbers


class Axes:
    """One layout, from its text.

    Examples
    --------
    >>> import numpy as np
    >>> kernel = np.ones((3, 16))  # (I, 4*H), as Keras has it
    >>> full, order, core = Axes("n(gu)").views({"g": 4, "u": 4, "n": 3})
    >>> kernel.reshape(full).transpose(order).reshape(core).shape  # (4, H, I)
    (4, 4, 3)
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.groups = _groups(text)
        self.letters = "".join(self.groups)
        if not self.letters or len(set(self.letters)) != len(self.letters) or not set(self.letters) <= set(_AXES):
            raise ValueError(f"axes: expected letters of {_AXES!r}, each once, got {text!r}")

    def sizes(self, shape: tuple[int, ...], known: Mapping[str, int]) -> dict[str, int] | None:
        """The size of every axis, from an array's shape and the sizes that are known already; None where they do not fit."""
        if len(shape) != len(self.groups):
            return None
        sizes = {"g": 1, "u": 1, "n": 1, **known}
        if any(sizes[axis] != 1 for axis in _AXES if axis not in self.letters):
            return None
        for group, length in zip(self.groups, shape):
            unknown = [axis for axis in group if axis not in known]
            others = math.prod(known.get(axis, 1) for axis in group)
            if len(unknown) > 1 or length % max(others, 1) or (not unknown and length != others):
                return None
            sizes.update({axis: length // max(others, 1) for axis in unknown})
        return sizes

    def views(self, sizes: Mapping[str, int]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """How an array of this layout becomes (g, u, n): what to reshape it to, how to transpose that, and (g, u, n)."""
        order = tuple(self.letters.index(axis) for axis in _AXES if axis in self.letters)
        return tuple(sizes[axis] for axis in self.letters), order, tuple(sizes[axis] for axis in _AXES)

    def write(self, core: Array) -> Array:
        """A new array of this layout from (g, u, n)."""
        sizes = dict(zip(_AXES, core.shape))
        kept = core.reshape([sizes[axis] for axis in _AXES if axis in self.letters])
        axes = [axis for axis in _AXES if axis in self.letters]
        return np.array(kept.transpose([axes.index(axis) for axis in self.letters]), order="C").reshape(self.shape(sizes))

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape of an array with these sizes of its axes."""
        return tuple(math.prod(sizes[axis] for axis in group) for group in self.groups)

    def symbols(self, g: int, u: str, n: str) -> str:
        """The shape for a reader, such as (I, 4*H)."""
        names = {"g": str(g), "u": u, "n": n if "+" not in n or self.groups.count("n") else f"({n})"}
        axes = ["*".join(names[axis] for axis in group if g > 1 or axis != "g" or group == "g") for group in self.groups]
        return f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"


def copy_into(target: Array, source: Array) -> None:
    """target[...] = source, of two axes.

    Where one lies transposed, NumPy walks down the source's columns. If its rows are a multiple of 512 bytes apart, they share a
    few sets of the cache, and each line is fetched again for each of its numbers: a few rows at a time stay there.
    """
    if source.strides[0] < source.strides[1]:
        target, source = target.T, source.T
    apart = source.strides[0]
    if apart % 512 or not apart or target.strides[0] >= target.strides[1]:
        target[...] = source
        return
    rows = max(16, 32768 // apart)
    for k in range(0, len(source), rows):
        target[k : k + rows] = source[k : k + rows]


def _groups(text: str) -> list[str]:
    """["n", "gu"] from n(gu)."""
    groups: list[str] = []
    inside = False
    for letter in text:
        if letter in "()":
            if inside is (letter == "("):
                raise ValueError(f"axes: expected balanced brackets, got {text!r}")
            inside = letter == "("
            groups += [""] if inside else []
        elif inside:
            groups[-1] += letter
        else:
            groups.append(letter)
    if inside:
        raise ValueError(f"axes: expected balanced brackets, got {text!r}")
    return groups
