"""One layer in one direction: plan, allocate, call the kernels. Everything arrives here checked, and time-major."""

from __future__ import annotations

import math
import sys
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import blas, checks, config, schedule
from ._core import Task, kept
from .plan import FROM_INITIAL, FROM_ZERO, Plan

Array = NDArray[Any]


class Cell(IntEnum):
    """The kernels' names of the cells (csrc/fastrnn.h)."""

    RNN_TANH = 0
    RNN_RELU = 1
    LSTM = 2
    LSTM_PEEPHOLE = 3
    GRU_AFTER = 4
    GRU_BEFORE = 5

    @property
    def gates(self) -> int:
        return 1 if self <= Cell.RNN_RELU else 4 if self <= Cell.LSTM_PEEPHOLE else 3

    @property
    def is_lstm(self) -> bool:
        return self in (Cell.LSTM, Cell.LSTM_PEEPHOLE)


class Weights:
    """w_ih (G*H, I), w_hh (G*H, P), b_ih and b_hh (G*H) or None, peephole (3, H) or None, w_hr (P, H), or None where P is H;
    gradients have the same form."""

    NAMES = ("w_ih", "w_hh", "b_ih", "b_hh", "peephole", "w_hr")
    __slots__ = NAMES

    def __init__(
        self,
        w_ih: Array,
        w_hh: Array,
        b_ih: Array | None,
        b_hh: Array | None,
        peephole: Array | None = None,
        w_hr: Array | None = None,
    ) -> None:
        self.w_ih, self.w_hh, self.b_ih, self.b_hh, self.peephole, self.w_hr = w_ih, w_hh, b_ih, b_hh, peephole, w_hr

    @property
    def P(self) -> int:
        """Numbers in h and y."""
        return self.w_hh.shape[1]

    @property
    def H(self) -> int:
        """Hidden units: numbers in c."""
        return self.P if self.w_hr is None else self.w_hr.shape[1]

    def zeros_like(self) -> Weights:
        arrays = (getattr(self, name) for name in self.NAMES)
        return Weights(*(None if a is None else np.zeros_like(a) for a in arrays))  # type: ignore[arg-type]


class Run:
    """One call of one layer in one direction.

    x (T, B, I), h0 (B, P) and c0 (B, H) or None. After forward(): y (T, B, P), h_n (B, P) and c_n (B, H). backward() may follow
    once if the run was recorded: c (T, B, H) and gates (T, B, 4*H) hold what it needs (an RNN needs y alone).
    """

    def __init__(
        self, cell: Cell, plan: Plan, x: Array, weights: Weights, h0: Array | None, c0: Array | None, threads: int
    ) -> None:
        self.cell, self.plan, self.x, self.weights, self.threads = cell, plan, x, weights, threads
        self.h0, self.c0 = h0, c0
        self.H, self.P = weights.H, weights.P
        self.c: Array | None = None
        self.gates: Array | None = None
        self.task = Task(cell, x.dtype == checks.F64, plan, x, weights, h0, c0)

    def forward(self, record: bool, batch_first: bool = False, out: Array | None = None) -> None:
        """Compute y, h_n, c_n. y is `out` if that is given: (T, B, P) with any strides over T and B and numbers of a row side by
        side, such as one direction's half of a layer's output. batch_first: how y, if it is new, and dx are laid out."""
        (T, B, _), H, dtype = self.x.shape, self.H, self.x.dtype
        self.batch_first = batch_first
        self.y = self._new_y() if out is None else out
        if out is not None and self._has_gaps():
            out[...] = 0
        if self.cell.is_lstm:
            self.c = _kept("(T, B, H)", (T, B, H), dtype) if record else self._initial(self.c0, H)
        if record and self.cell > Cell.RNN_RELU:
            self.gates = _kept("(T, B, 4*H)", (T, B, 4 * H), dtype)
        if self.plan.steps:
            self._run_forward()
        self._hold(self.y, self.h0)
        self.h_n = self._final(self.y, self.h0)
        self.c_n = self._final(self.c, self.c0) if record and self.c is not None else self._cut_behind(self.c)

    def _has_gaps(self) -> bool:
        """Are there places of y that no step writes?"""
        return self.plan.padded or self.plan.steps == 0

    def _new_y(self) -> Array:
        (T, B, _), P = self.x.shape, self.P
        symbols, shape = ("(B, T, H)", (B, T, P)) if self.batch_first else ("(T, B, H)", (T, B, P))
        y = checks.allocate("x", symbols, shape, self.x.dtype, zero=self._has_gaps())
        return y.swapaxes(0, 1) if self.batch_first else y

    def _by_blas(self) -> bool:
        return config.gemm() == "blas" and blas.within(self.threads)

    def _run_forward(self) -> None:
        (T, B, I), task, steps = self.x.shape, self.task, self.plan.steps
        how = schedule.forward(T, B, I, self.H, self.cell.gates, self.threads)
        by_blas = self._by_blas() and I > 0
        task.prepare_forward(self.y, self.c, self.gates, how)
        if not by_blas:
            task.forward(0, steps, None)
        else:
            matrix = np.empty((I, task.input_width()), self.x.dtype)
            bias = np.empty(task.input_width(), self.x.dtype)
            task.input_matrix(matrix, bias)
            cuts = self.plan.cuts(how.chunk)
            for s0, s1 in zip(cuts, cuts[1:]):
                task.forward(s0, s1, self._input_products(s0, s1, matrix, bias))
        task.release()

    def _input_products(self, s0: int, s1: int, matrix: Array, bias: Array) -> Array:
        """x W_ih + b of the items of the steps s0 to s1-1, by NumPy's BLAS."""
        x, pre = (
            self._items(self.x, s0, s1),
            np.empty((self.plan.items(s0, s1).stop - self.plan.items(s0, s1).start, len(bias)), matrix.dtype),
        )
        np.matmul(x, matrix, out=pre)
        pre += bias
        return pre

    def _items(self, sequence: Array, s0: int, s1: int) -> Array:
        """(items, n): the rows of a (T, B, n) array at the items of these steps, in their order."""
        if self.plan.first is None:
            piece = sequence[self.plan.T - s1 : self.plan.T - s0][::-1] if self.plan.reverse else sequence[s0:s1]
            return piece.reshape(-1, sequence.shape[2])
        time, row, _ = self.plan.places(s0, s1)
        return sequence[time, row]

    def _initial(self, state: Array | None, n: int) -> Array:
        return np.zeros((self.x.shape[1], n), self.x.dtype) if state is None else state.copy()

    def _final(self, sequence: Array, initial: Array | None) -> Array:
        """The state behind each row's last item."""
        last = self.plan.last
        if last is not None:
            return self._states(sequence, initial, last, np.arange(len(last)))
        if self.plan.steps == 0:
            return self._initial(initial, sequence.shape[2])
        return sequence[0 if self.plan.reverse else -1].copy()

    def _cut_behind(self, state: Array | None) -> Array | None:
        """The same with zeros in the rows that are cut behind their last step."""
        if state is not None and self.plan.last is not None:
            state[self.plan.last == FROM_ZERO] = 0
        return state

    @staticmethod
    def _states(sequence: Array, initial: Array | None, source: Array, row: Array) -> Array:
        """(n, H or P): the states of these rows, each from a time of the sequence, or FROM_INITIAL, or FROM_ZERO."""
        states = sequence[np.maximum(source, 0), row]
        states[source == FROM_ZERO] = 0
        first = source == FROM_INITIAL
        states[first] = 0 if initial is None else initial[row[first]]
        return states

    def _hold(self, sequence: Array, initial: Array | None) -> None:
        """At the steps that a mask skips, the state that is carried over them, if that is wanted."""
        if self.plan.held is not None:
            row, time, source = self.plan.held
            sequence[time, row] = self._states(sequence, initial, source, row)

    def _hold_backward(self, d: Array | None) -> tuple[Array | None, Array | None]:
        """The gradient of a sequence with that of each held output added to the step that it came from; and what so came from the
        initial state (B, H)."""
        if d is None or self.plan.held is None:
            return d, None
        row, time, source = self.plan.held
        d, initial = d.copy(), np.zeros(d.shape[1:], d.dtype)
        if len(row):  # what has one source stands together: the list goes row by row
            starts = np.flatnonzero(np.r_[True, (np.diff(row) != 0) | (np.diff(source) != 0)])
            sums = np.add.reduceat(d[time, row], starts, axis=0)
            row, source = row[starts], source[starts]
            d[source[source >= 0], row[source >= 0]] += sums[source >= 0]
            initial[row[source == FROM_INITIAL]] = sums[source == FROM_INITIAL]
        return d, initial

    def cells(self) -> Array:
        """c (T, B, H) of a recorded run of an LSTM: behind the row's end 0; where a mask skips, 0 or what is carried over."""
        assert self.c is not None
        if self._has_gaps():
            time, row, _ = self.plan.places(0, self.plan.steps)
            gap = np.ones(self.c.shape[:2], bool)
            gap[time, row] = False
            self.c[gap] = 0  # the kernels look at the other places alone
            self._hold(self.c, self.c0)
        return self.c

    def backward(
        self,
        dy: Array | None,
        dh: Array,
        dc: Array | None,
        into: Weights,
        need_x: bool = True,
        dcs: Array | None = None,
        truncate: int | None = None,
    ) -> Array | None:
        """Add the weights' gradients to `into`; return dx. dh (B, P) and dc (B, H): gradients of the final state come in, and those
        of the initial state go out in the same arrays. dy (T, B, P), strided as `out` may be, or None. dcs (T, B, H), strided
        likewise, or None: the gradient of cells(). truncate: none flows from a row's step k, 2k, ... to the step before."""
        plan, x = self.plan, self.x
        dx = None
        if need_x:  # laid out as y, so that a batch-first x gets a batch-first gradient
            T, B, I = x.shape
            shape = (B, T, I) if self.batch_first else (T, B, I)
            dx = np.zeros(shape, x.dtype) if self._has_gaps() else np.empty(shape, x.dtype)
            dx = dx.swapaxes(0, 1) if self.batch_first else dx
        dy, more = self._hold_backward(dy)
        dcs, more_c = self._hold_backward(dcs)
        self._cut_behind(dh)
        self._cut_behind(dc)
        if plan.steps:
            self._run_backward(dy, dcs, dh, dc, dx, into, truncate or 0)
        if more is not None:
            dh += more
        if more_c is not None:
            dc += more_c
        return dx

    def _run_backward(
        self,
        dy: Array | None,
        dcs: Array | None,
        dh: Array,
        dc: Array | None,
        dx: Array | None,
        into: Weights,
        truncate: int,
    ) -> None:
        (T, B, I), task, steps = self.x.shape, self.task, self.plan.steps
        how = schedule.backward(T, B, I, self.H, self.cell.gates, self.threads)
        by_blas = self._by_blas()
        task.prepare_backward(dy, dcs, dh, dc, dx, into, truncate, how)
        if not by_blas:
            task.backward(0, steps, True, True, None)
        else:
            cuts = self.plan.cuts(how.chunk)
            most = max(self.plan.items(a, b).stop - self.plan.items(a, b).start for a, b in zip(cuts, cuts[1:]))
            dgates = np.empty((most, task.dgates_layout()[0]), self.x.dtype)
            for s0, s1 in reversed(list(zip(cuts, cuts[1:]))):
                task.backward(s0, s1, s1 == steps, s0 == 0, dgates)
                self._products(s0, s1, dgates, dx, into)
        task.release()

    def _products(self, s0: int, s1: int, dgates: Array, dx: Array | None, into: Weights) -> None:
        """dx and the weights' gradients of the steps s0 to s1-1 by NumPy's BLAS, from dgates (items, columns)."""
        H, G, cell = self.H, self.cell.gates, self.cell
        time, row, prev = (a[::-1] for a in self.plan.places(s0, s1))
        # The kernels list steps downwards and the rows of a step upwards; here both run downwards.
        counts = self._step_counts(s0, s1)
        n, x_at = len(time), self.task.dgates_layout()[1]
        d = dgates[:n][_rows_downwards(counts)]
        dx_part = d[:, x_at : x_at + G * H]
        if dx is not None:
            dx[time, row] = np.matmul(dx_part, self.weights.w_ih)
        into.w_ih += np.matmul(dx_part.T, self.x[time, row])
        h = self._states(self.y, self.h0, prev, row)
        if cell == Cell.GRU_AFTER:  # columns n, r, z
            into.w_hh[: 2 * H] += np.matmul(d[:, H : 3 * H].T, h)
            into.w_hh[2 * H :] += np.matmul(d[:, :H].T, h)
        elif cell == Cell.GRU_BEFORE:
            assert self.gates is not None
            into.w_hh[: 2 * H] += np.matmul(d[:, : 2 * H].T, h)
            into.w_hh[2 * H :] += np.matmul(d[:, 2 * H : 3 * H].T, self.gates[time, row, 3 * H :])
        else:
            into.w_hh += np.matmul(d[:, : G * H].T, h)
        if into.w_hr is not None:  # behind the dgates, dh (P) and m (H)
            dh, m = d[:, G * H : G * H + self.P], d[:, G * H + self.P : G * H + self.P + H]
            into.w_hr += np.matmul(dh.T, m)

    def _step_counts(self, s0: int, s1: int) -> Array:
        if self.plan.first is None:
            return np.full(s1 - s0, self.plan.B)
        return np.diff(self.plan.first[s0 : s1 + 1])


def _kept(symbols: str, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Array:
    """What a tape keeps, in memory that the next call finds again."""
    try:
        if math.prod(shape) * dtype.itemsize > sys.maxsize // 2:
            raise MemoryError("larger than any memory")
        return kept(shape, dtype == checks.F64)
    except MemoryError as error:
        raise MemoryError(f"x: cannot allocate {symbols} = {shape} of {dtype}: {error}") from None


def _rows_downwards(counts: Array) -> Array:
    """Positions in a list (steps downwards, rows upwards) of the items of the list (steps downwards, rows downwards)."""
    counts = counts[::-1]
    start = np.repeat(np.cumsum(counts) - counts, counts)
    end = np.repeat(np.cumsum(counts), counts) - 1
    return start + end - np.arange(len(start))
