"""Inference step by step: the state stays inside, the weights are packed once."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from . import checks
from ._core import Stepper
from .engine import Cell, Weights

Array = NDArray[Any]
State = Any

_CHUNK = 64  # items whose input products are made at once in a block call


class Stream(Stepper):
    """A layer that takes a sequence as it comes; made by layer.stream(batch_size).

    ``stream(x_t)`` takes one step, x_t (B, I), or (I,) where B is 1, and returns y_t (B, H) or (H,); ``stream(x)`` with x (n, B, I)
    takes n steps. With ``out=`` (of the result's shape, not overlapping x) nothing is allocated. The results are bit for bit those
    of the layer's call on the whole sequence. The weights are a snapshot: later changes of the layer are not seen. A stream belongs
    to one thread at a time; different streams run side by side.

    Raises: TypeError, ValueError.

    >>> stream = layer.stream()
    >>> for x_t in x[:, 0]:
    ...     y_t = stream(x_t)
    """

    def __init__(self, cell: Cell, weights: Weights, batch_size: int) -> None:
        B, P, dtype = checks.integer("batch_size", batch_size, 1), weights.P, weights.w_hh.dtype
        self._cell, self._I, self._P, self._dtype = cell, weights.w_ih.shape[1], P, dtype
        h = checks.allocate("batch_size", "(B, P)", (B, P), dtype, zero=True)
        c = np.zeros((B, weights.H), dtype) if cell.is_lstm else None
        super().__init__(cell, dtype == checks.F64, weights, h, c, max(_CHUNK, B))

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.h)

    @property
    def state(self) -> State:
        """A copy of the state behind the last step, (1, B, H), or a pair of them for an LSTM. Assign to it to set the state; None
        is zeros."""
        h = self.h[None].copy()
        return h if self.c is None else (h, self.c[None].copy())

    @state.setter
    def state(self, value: State) -> None:
        if value is None:
            self.reset()
            return
        members = [value]
        if self.c is not None:
            if not isinstance(value, (tuple, list)) or len(value) != 2:
                raise TypeError(f"state: expected a pair (h, c), got {type(value).__name__}")
            members = list(value)
        shape = (1, *self.h.shape)
        names = ["state"] if self.c is None else ["state[0]", "state[1]"]
        new = [checks.shaped(name, member, self._dtype, "(1, B, H)", shape) for name, member in zip(names, members)]
        self.h[...] = new[0][0]
        if self.c is not None:
            self.c[...] = new[1][0]

    def reset(self, rows: Any = None) -> None:
        """Start these rows from zero (an index, a list of them, a slice or a mask of booleans), or all.

        >>> stream.reset(done)
        """
        index = slice(None) if rows is None else rows
        try:
            self.h[index] = 0
            if self.c is not None:
                self.c[index] = 0
        except (IndexError, TypeError, ValueError) as error:
            raise type(error)(f"rows: expected an index of {self.batch_size} rows, got {rows!r}: {error}") from None

    def __reduce__(self) -> NoReturn:
        raise TypeError("a stream holds packed weights of this process; pickle the layer and stream.state")

    def _checked_x(self, x: Any) -> Array:
        """x in C order, or an error."""
        x = checks.floats("x", x, self._dtype, (1, 2, 3))
        B, I = self.batch_size, self._I
        if x.shape[-1] != I or (x.ndim > 1 and x.shape[-2] != B) or (x.ndim == 1 and B != 1):
            one = " or (I,)" if B == 1 else ""
            raise ValueError(f"x: expected (B, I){one} or (n, B, I) with B = {B}, I = {I}, got {x.shape}")
        return np.ascontiguousarray(x)

    def _refuse_out(self, out: Any, x: Array) -> NoReturn:
        """Say what is wrong with it."""
        shape = (*x.shape[:-1], self._P)
        if not isinstance(out, np.ndarray):
            raise TypeError(f"out: expected a NumPy array of {self._dtype}, got {type(out).__name__}")
        if out.dtype != self._dtype:
            raise TypeError(f"out: expected dtype {self._dtype}, got {out.dtype}")
        if out.shape != shape:
            raise ValueError(f"out: expected {shape}, got {out.shape}")
        if np.may_share_memory(out, x):
            raise ValueError("out: expected memory apart from x, got an array that overlaps it")
        raise ValueError("out: expected a writable, aligned, C-contiguous array, got one that is not")
