"""x of integers, which stand for one-hot rows, checked at the door."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._engine.memory import out_of_memory
from .._engine.tokens import Tokens

Array = NDArray[Any]


def are_tokens(x: Any) -> bool:
    """Is this an array of integers? Booleans are none. A mask has no meaning here."""
    return isinstance(x, np.ndarray) and x.dtype.kind in "iu" and not isinstance(x, np.ma.MaskedArray)


def within(name: str, value: Array, n: int, limit: str) -> NDArray[np.intp]:
    """A copy of these integers, in C order, that are all from 0 to n - 1."""
    try:
        index = np.array(value, order="C", subok=False)  # what is checked stays as it is, whatever other threads write
        wrong = (index < 0) | (index >= n)
        if not wrong.any():
            return index.astype(np.intp, copy=False)
    except MemoryError as error:
        raise out_of_memory(name, error) from None
    place = tuple(map(int, np.unravel_index(wrong.argmax(), wrong.shape)))
    at = f" at {place if len(place) > 1 else place[0]}" if place else ""
    raise ValueError(f"{name}: expected integers from 0 to {limit} - 1 = {n - 1}, got {index[place]}{at}")


def tokens_of_steps(x: Array, I: int, limit: str, dtype: np.dtype[Any], batch_first: bool) -> tuple[Tokens, bool]:
    """(T, B), (B, T) with batch_first, or (T,) without a batch; and whether it was without."""
    if x.ndim not in (1, 2):
        axes = "(B, T)" if batch_first else "(T, B)"
        raise TypeError(
            f"x: expected {dtype}, or integers {axes} or (T,) that stand for one-hot rows, got {x.dtype} of shape {x.shape}; "
            f"pass x.astype(np.{dtype}) where they are numbers"
        )
    index = within("x", x, I, limit)
    unbatched = index.ndim == 1
    index = index[:, None] if unbatched else np.ascontiguousarray(index.T) if batch_first else index
    return Tokens(index, I, dtype), unbatched


def tokens_of_rows(x: Array, I: int, dtype: np.dtype[Any]) -> Tokens:
    """(B,), of one step."""
    if x.ndim != 1:
        raise TypeError(
            f"x: expected {dtype}, or integers (B,) that stand for one-hot rows, got {x.dtype} of shape {x.shape}; "
            f"pass x.astype(np.{dtype}) where they are numbers"
        )
    return Tokens(within("x", x, I, "input_size")[None], I, dtype)
