"""Rows of different lengths in one padded batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._api import checks

Array = NDArray[Any]


def valid_steps(T: int, B: int, lengths: Any) -> NDArray[np.bool_]:
    """(T, B) booleans: True at the steps of each row, False in the padding after them. Raises: TypeError, ValueError."""
    return np.arange(T)[:, None] < checks.integers("lengths", lengths, "(B,)", B, T)


def reverse_padded(x: Array, lengths: Any = None, *, batch_first: bool = False) -> Array:
    """Reverse each row within its own length; the padding stays where it is.

    Twice is the original, so this is its own backward too: the gradient of x is reverse_padded of that of the result. Reading a
    source sentence in reverse brings its start close to the start of the translation (Sutskever, Vinyals and Le 2014, arXiv
    1409.3215).

    Parameters
    ----------
    x : array (T, B, ...)
        (B, T, ...) with `batch_first`. Any dtype.
    lengths : integers (B,), optional
        From 0 to T; None: all rows are T long.
    batch_first : bool, default False

    Returns
    -------
    reversed : array
        A new one, of x's shape and dtype.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train import reverse_padded
    >>> reverse_padded(np.array([[1, 2, 3], [1, 2, 0]]), lengths=[3, 2], batch_first=True)
    array([[3, 2, 1],
           [2, 1, 0]])
    """
    if not isinstance(x, np.ndarray):
        raise TypeError(f"x: expected a NumPy array, got {type(x).__name__}")
    if x.ndim < 2:
        raise ValueError(f"x: expected at least 2 dimensions, got shape {x.shape}")
    if checks.flag("batch_first", batch_first):
        return np.ascontiguousarray(reverse_padded(x.swapaxes(0, 1), lengths).swapaxes(0, 1))
    T, B = x.shape[:2]
    if lengths is None:
        return x[::-1].copy()
    ends = checks.integers("lengths", lengths, "(B,)", B, T)
    time = np.arange(T)[:, None]
    reversed_: Array = x[np.where(time < ends, ends - 1 - time, time), np.arange(B)]
    return reversed_
