"""The large products by NumPy's BLAS, for the engine "blas": those outside the recurrence, a piece of time at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import states

if TYPE_CHECKING:
    from .._core import Task
    from .run import Run
    from .tokens import Table
    from .weights import Weights

Array = NDArray[Any]


class Inputs:
    """x W_ih + b, in the order of the kernels."""

    def __init__(self, run: Run, task: Task, chunk: int) -> None:
        self._run, self._chunk = run, chunk
        self._matrix = np.empty((run.x.shape[2], task.input_width()), run.x.dtype)
        self._bias = np.empty(task.input_width(), run.x.dtype)
        task.input_matrix(self._matrix, self._bias)

    def pieces(self, s0: int, s1: int) -> Iterator[tuple[int, int, Array]]:
        """(first step, last + 1, products (items, width)) of one piece of the steps s0 to s1-1 after the other."""
        for a, b in pairwise(self._run.plan.cuts(self._chunk, s0, s1)):
            xw = np.matmul(self._items(a, b), self._matrix)
            xw += self._bias
            yield a, b, xw

    def _items(self, s0: int, s1: int) -> Array:
        """(items, I): the rows of x at the items of these steps, in their order."""
        plan, x = self._run.plan, self._run.x
        assert isinstance(x, np.ndarray)  # of tokens there is no product
        if plan.first is None:
            piece = x[plan.T - s1 : plan.T - s0][::-1] if plan.reverse else x[s0:s1]
            return piece.reshape(-1, x.shape[2])
        time, row, _ = plan.places(s0, s1)
        return x[time, row]


def run_forward(task: Task, s0: int, s1: int, inputs: Inputs | Table | None) -> None:
    """Run the steps s0 to s1-1 of a task that is prepared for them; in pieces, where BLAS makes the input products."""
    if inputs is None:
        task.forward(s0, s1, None).run()
    else:
        for a, b, xw in inputs.pieces(s0, s1):
            task.forward(a, b, xw).run()


class Gradients:
    """dx and the weights' gradients, from the dgates of a prepared task."""

    def __init__(self, run: Run, task: Task, chunk: int, dx: Array | None, into: Weights) -> None:
        self._run, self._task, self._chunk, self._dx, self._into = run, task, chunk, dx, into
        self._width, self._x_at = task.dgates_layout()
        self._dgates = np.empty((max(chunk, run.plan.B), self._width), run.x.dtype)  # one for all: a piece reads that of the last

    def backward(self, s0: int, s1: int, gates: Array | None, first_step: int | None) -> None:
        """The steps s1-1 down to s0, chain and products. gates (T, B, 4*H), or those of the steps from first_step on."""
        plan, task = self._run.plan, self._task
        self._gates, self._first_step = gates, first_step
        for a, b in reversed(list(pairwise(plan.cuts(self._chunk, s0, s1)))):
            items = plan.items(a, b).stop - plan.items(a, b).start
            task.backward(a, b, b == plan.steps, a == 0, self._dgates).run()
            self._multiply(a, b, items)

    def _multiply(self, s0: int, s1: int, items: int) -> None:
        run, into = self._run, self._into
        H, P, GH = run.H, run.P, run.cell.gates * run.H
        time, row, prev = (a[::-1] for a in run.plan.places(s0, s1))
        # The kernels list steps downwards and the rows of a step upwards; here both run downwards.
        counts = self._step_counts(s0, s1)
        d = self._dgates[:items][_rows_downwards(counts)]
        dx_part = d[:, self._x_at : self._x_at + GH]
        if self._dx is not None:
            self._dx[time, row] = np.matmul(dx_part, run.weights.w_ih)
        assert isinstance(run.x, np.ndarray)
        into.w_ih += np.matmul(dx_part.T, run.x[time, row])
        h = states.gather(run.y, run.h0, prev, row)
        for g in run.cell.form.hidden:
            operand = self._reset_h(s0, counts, time, row) if g.of_reset_h else h
            columns = d[:, g.dgates * H : (g.dgates + g.blocks) * H]
            into.w_hh[g.row * H : (g.row + g.blocks) * H] += np.matmul(columns.T, operand)
        if into.w_hr is not None:  # after the dgates, dh (P) and m (H)
            into.w_hr += np.matmul(d[:, GH : GH + P].T, d[:, GH + P : GH + P + H])

    def _reset_h(self, s0: int, counts: Array, time: Array, row: Array) -> Array:
        """(items, H): r*h of a reset-before GRU."""
        assert self._gates is not None
        place = time if self._first_step is None else np.repeat(np.arange(len(counts)), counts)[::-1] + s0 - self._first_step
        return self._gates[place, row, 3 * self._run.H :]

    def _step_counts(self, s0: int, s1: int) -> Array:
        plan = self._run.plan
        return np.full(s1 - s0, plan.B) if plan.first is None else np.diff(plan.first[s0 : s1 + 1])


def _rows_downwards(counts: Array) -> Array:
    """Positions in a list (steps downwards, rows upwards) of the items of the list (steps downwards, rows downwards)."""
    counts = counts[::-1]
    start = np.repeat(np.cumsum(counts) - counts, counts)
    end = np.repeat(np.cumsum(counts), counts) - 1
    return start + end - np.arange(len(start))
