"""One vector or several, as everything here takes them: a list of arrays that may be written to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Array | Sequence[Array]


def vectors(name: str, value: Arrays) -> list[Array]:
    """The arrays of `value` themselves, float32 or float64, of any shape. Raises TypeError."""
    arrays = [value] if isinstance(value, np.ndarray) else list(value)
    for k, array in enumerate(arrays):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name}[{k}]: expected a NumPy array, got {type(array).__name__}")
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"{name}[{k}]: expected float32 or float64, got {array.dtype}")
    return arrays


def writable(name: str, arrays: list[Array]) -> list[Array]:
    """The same list. Raises ValueError if one of them is read-only."""
    for k, array in enumerate(arrays):
        if not array.flags.writeable:
            raise ValueError(f"{name}[{k}]: expected an array that may be written to, got a read-only one")
    return arrays
