"""The weights of one layer in one direction, and gradients of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import PackedWeights

Array = NDArray[Any]


class Weights:
    """w_ih (G*H, I), w_hh (G*H, P), b_ih and b_hh (G*H) or None, peephole (3, H) or None, w_hr (P, H), or None where P is H;
    gradients have the same form. precision: of products with them, "float32" or "bf16". packed: the same weights as forward reads
    them, where they never change, or None."""

    NAMES = ("w_ih", "w_hh", "b_ih", "b_hh", "peephole", "w_hr")
    __slots__ = (*NAMES, "packed", "precision")
    packed: PackedWeights | None

    def __init__(
        self,
        w_ih: Array,
        w_hh: Array,
        b_ih: Array | None,
        b_hh: Array | None,
        peephole: Array | None = None,
        w_hr: Array | None = None,
        *,
        precision: str = "float32",
    ) -> None:
        self.w_ih, self.w_hh, self.b_ih, self.b_hh, self.peephole, self.w_hr = w_ih, w_hh, b_ih, b_hh, peephole, w_hr
        self.precision, self.packed = precision, None

    @property
    def P(self) -> int:
        """Numbers in h and y."""
        return self.w_hh.shape[1]

    @property
    def H(self) -> int:
        """Hidden units: numbers in c."""
        return self.P if self.w_hr is None else self.w_hr.shape[1]

    def in_precision(self, precision: str) -> Weights:
        """The same arrays, for products of this precision; not packed."""
        return Weights(*[getattr(self, name) for name in self.NAMES], precision=precision)

    def with_w_ih(self, w_ih: Array) -> Weights:
        """The same arrays but for w_ih; not packed."""
        others = [getattr(self, name) for name in self.NAMES if name != "w_ih"]
        return Weights(w_ih, *others, precision=self.precision)

    def zeros_like(self) -> Weights:
        arrays = [getattr(self, name) for name in self.NAMES]
        return Weights(*[None if a is None else np.zeros(a.shape, a.dtype) for a in arrays])  # type: ignore[arg-type]
