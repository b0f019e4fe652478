"""How the caller's sequences and states lie, and the way from there to (T, B, .) and (L*D, B, .) and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._engine.tokens import Tokens
from . import checks
from .packed import Packed, check_packed, gather, is_packed, packed_lengths, scatter
from .tokens import are_tokens, tokens_of_steps

Array = NDArray[Any]


class Layout:
    """The form of one call's x, which is that of its y and all their gradients: (T, B, .), (B, T, .), (T, .) or packed.

    Beside a packed x, what is not packed (masks, what a tape shows, some gradients) is padded: (T, B, .), or (B, T, .) with
    batch_first.
    """

    def __init__(self, x: Any, dtype: np.dtype[Any], I: int, batch_first: bool) -> None:
        """Finds the form out; `x` becomes (T, B, I), of integers Tokens, and `lengths` what a packed x says of them."""
        self.dtype = dtype
        self.packed: Packed | None = None
        self.lengths: Array | None = None
        self.x: Array | Tokens
        if is_packed(x):
            packed = check_packed("x", x)
            self.packed, self.lengths = packed, packed_lengths(packed)
            self.T, self.B = len(packed.batch_sizes), len(self.lengths)
            self.unbatched, self.batch_first = False, batch_first
            if are_tokens(packed.data):
                raise TypeError(
                    f"x.data: expected {dtype}, got {packed.data.dtype}; integers that stand for one-hot rows are not "
                    f"taken packed: pass them as {'(B, T)' if batch_first else '(T, B)'}, with lengths"
                )
            self.x = self._padded("x.data", packed, I, "I")
            return
        if are_tokens(x):
            self.x, self.unbatched = tokens_of_steps(x, I, "input_size", dtype, batch_first)
            self.batch_first = batch_first and not self.unbatched
            self.T, self.B, _ = self.x.shape
            return
        x = checks.floats("x", x, dtype, (2, 3))
        if x.shape[-1] != I:
            raise ValueError(f"x: expected the last axis to be equal to input_size = {I}, got shape {x.shape}")
        x = checks.rows_contiguous("x", x)
        self.unbatched = x.ndim == 2
        self.batch_first = batch_first and not self.unbatched
        self.x = x = self.turned(x)
        self.T, self.B = x.shape[:2]

    @property
    def rows_first(self) -> bool:
        """Is y stored as (B, T, .)?"""
        return self.batch_first and self.packed is None

    def turned(self, a: Array) -> Array:
        """From an array in the caller's form to (T, B, .)."""
        return a[:, None] if self.unbatched else a.swapaxes(0, 1) if self.batch_first else a

    def outward(self, a: Array) -> Array:
        """From (T, B, .) to the caller's form; a view, where the caller's form is an array."""
        return a[:, 0] if self.unbatched else a.swapaxes(0, 1) if self.batch_first else a

    def returned(self, a: Array) -> Any:
        """As outward, and packed where x was."""
        return self.outward(a) if self.packed is None else gather(self.packed, a)

    def sequence(self, name: str, value: Any, n: int, symbol: str) -> Array:
        """(T, B, n) of what should be the size of y: of n numbers for each row and step."""
        if is_packed(value) and self.packed is not None:
            assert self.lengths is not None
            packed = check_packed(name, value)
            lengths = packed_lengths(packed)  # rows of one length may stand in another order than x's
            if not np.array_equal(lengths, self.lengths):
                raise ValueError(f"{name}: expected rows of the lengths of x's, {self.lengths!r:.60}, got {lengths!r:.60}")
            return self._padded(f"{name}.data", packed, n, symbol)
        value = checks.floats(name, value, self.dtype)
        if value.shape != self.shape(n):
            raise ValueError(f"{name}: expected {self.symbols(symbol)} = {self.shape(n)}, got {value.shape}")
        return self.turned(checks.rows_contiguous(name, value))

    def shape(self, *n: int) -> tuple[int, ...]:
        """The shape of an array over steps and rows in the caller's form."""
        return (self.T, *n) if self.unbatched else (self.B, self.T, *n) if self.batch_first else (self.T, self.B, *n)

    def symbols(self, *symbol: str) -> str:
        """The same in letters."""
        axes = ("T",) if self.unbatched else ("B", "T") if self.batch_first else ("T", "B")
        return f"({', '.join(axes + symbol)}{',' if len(axes + symbol) == 1 else ''})"

    def flags(self, name: str, value: Any) -> NDArray[np.bool_]:
        """(T, B) booleans, which the caller gives in the form of x without its numbers, padded where x is packed."""
        return checks.flags_of_steps(name, value, self.T, self.B, self.unbatched, self.batch_first)

    def state(self, name: str, value: Any, cells: int, n: int, symbol: str) -> Array:
        """(L*D, B, n) in C order of what the caller gives without B if x has none."""
        rows: tuple[int, ...] = () if self.unbatched else (self.B,)
        shape, symbols = (cells, *rows, n), f"(L*D, {'' if self.unbatched else 'B, '}{symbol})"
        array = checks.floats(name, value, self.dtype)
        if array.ndim != len(shape):
            what = "unbatched 2-D" if self.unbatched else "batched 3-D"
            raise ValueError(f"{name}: expected {len(shape)}-D for {what} x, {symbols} = {shape}, got {array.ndim}-D {array.shape}")
        return checks.shaped(name, array, self.dtype, symbols, shape).reshape(cells, self.B, n)

    def returned_state(self, a: Array) -> Array:
        """From (L*D, B, n) to the caller's form."""
        return a[:, 0] if self.unbatched else a

    def _padded(self, name: str, packed: Packed, n: int, symbol: str) -> Array:
        N = int(packed.batch_sizes.sum())
        data = checks.shaped(name, packed.data, self.dtype, f"(N, {symbol})", (N, n))
        padded = checks.allocate(name, f"(T, B, {symbol})", (self.T, self.B, n), self.dtype, zero=True)
        scatter(packed._replace(data=data), padded)
        return padded
