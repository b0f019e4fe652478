"""Integers in place of one-hot rows: the product with such a row is a column of w_ih, so columns are picked, nothing is multiplied.

The kernels start each sum at bias + column, from a table of all tokens, and add up the gradient of each column over its items, in
the order in which the product with one-hot rows would.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .weights import Weights

if TYPE_CHECKING:
    from .._core import Task

Array = NDArray[Any]


class Tokens:
    """x (T, B, I) of one-hot rows: index (T, B) in C order says where the 1 of each stands. dtype: that of the weights."""

    __slots__ = ("dtype", "index", "shape")

    def __init__(self, index: NDArray[np.intp], I: int, dtype: np.dtype[Any]) -> None:
        self.index, self.dtype = index, dtype
        self.shape = (*index.shape, I)


class Columns:
    """What a run of tokens reads of w_ih: all columns, or, where they are more than the tokens, those that are used alone.

    index (T, B): the place of each token among them. weights: with these columns as w_ih.
    """

    def __init__(self, x: Tokens, weights: Weights) -> None:
        T, B, I = x.shape
        self.index, self.weights = x.index, weights
        self._used: NDArray[np.intp] | None = None
        if T * B < I and weights.packed is None:
            self._used, index = np.unique(x.index, return_inverse=True)
            self.index = index.reshape(T, B)
            self.weights = weights.with_w_ih(weights.w_ih.take(self._used, axis=1))

    def inputs(self, task: Task) -> Table:
        """The products of a task that is prepared for forward."""
        w_ih = self.weights.w_ih
        rows = np.empty((w_ih.shape[1] + 1, task.input_width()), w_ih.dtype)
        task.token_table(rows)
        return Table(rows)

    def gradients(self, into: Weights) -> Weights:
        """`into`, but with a new w_ih (columns, G*H) for the kernels to add to."""
        w_ih = self.weights.w_ih
        return into.with_w_ih(np.zeros(w_ih.shape[::-1], w_ih.dtype))

    def add(self, summed: Weights, into: Weights) -> None:
        """Add what the kernels have made to the gradient of all columns."""
        into.w_ih[:, slice(None) if self._used is None else self._used] += summed.w_ih.T


class Table:
    """As blas_products.Inputs: one for all steps."""

    def __init__(self, rows: Array) -> None:
        self.rows = rows

    def pieces(self, s0: int, s1: int) -> Iterator[tuple[int, int, Array]]:
        yield s0, s1, self.rows
