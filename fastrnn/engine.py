"""One layer in one direction: plan, allocate, call the kernels. Everything arrives here checked, and time-major."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import blas, checks, config, products, schedule, states
from . import checkpoint as checkpoints
from ._core import Task, kept
from .plan import Plan
from .tasks import Tasks, go

Array = NDArray[Any]


class Cell(IntEnum):
    """The kernels' names of the cells (csrc/fastrnn.h)."""

    RNN_TANH = 0
    RNN_RELU = 1
    LSTM = 2
    LSTM_PEEPHOLE = 3
    GRU_AFTER = 4
    GRU_BEFORE = 5

    gates: int
    is_lstm: bool
    resets_before: bool  # a GRU whose n looks at r*h

    def __init__(self, number: int) -> None:
        self.gates = 1 if number <= 1 else 4 if number <= 3 else 3
        self.is_lstm = number in (2, 3)
        self.resets_before = number == 5


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
        arrays = [getattr(self, name) for name in self.NAMES]
        return Weights(*[None if a is None else np.zeros(a.shape, a.dtype) for a in arrays])  # type: ignore[arg-type]


Threads = int | Callable[[], int]  # of a call; or who says how many there may be
# dy, dcs, dh, dc, dx, into, truncate: see Run.backward
_Gradients = tuple[Array | None, Array | None, Array, Array | None, Array | None, Weights, int]


class Run:
    """One call of one layer in one direction.

    x (T, B, I), h0 (B, P) and c0 (B, H) or None. After forward(): y (T, B, P), h_n (B, P) and c_n (B, H). backward() may follow
    once if the run was recorded: c (T, B, H) and gates (T, B, 4*H) hold what it needs (an RNN needs y alone), or checkpoints do.
    """

    def __init__(
        self, cell: Cell, plan: Plan, x: Array, weights: Weights, h0: Array | None, c0: Array | None, threads: Threads
    ) -> None:
        self.cell, self.plan, self.x, self.weights, self._threads = cell, plan, x, weights, threads
        self.h0, self.c0 = h0, c0
        self.H, self.P = weights.H, weights.P
        self.c: Array | None = None
        self.gates: Array | None = None
        self.checkpoints: checkpoints.Checkpoints | None = None
        self.task = self.new_task()

    @property
    def threads(self) -> int:
        """How many may be used now: a limit set since forward holds for backward."""
        return self._threads if isinstance(self._threads, int) else self._threads()

    def new_task(self) -> Task:
        """The kernels' view of what comes in."""
        return Task(self.cell, self.x.dtype == checks.F64, self.plan, self.x, self.weights, self.h0, self.c0)

    def forward(self, record: bool, batch_first: bool = False, out: Array | None = None, checkpoint: int | None = None) -> None:
        """Compute y, h_n, c_n. y is `out` if that is given: (T, B, P) with any strides over T and B and numbers of a row side by
        side, such as one direction's half of a layer's output. batch_first: how y, if it is new, and dx are laid out. checkpoint:
        keep no gates, and c every so many steps only (more, where sums of the weights' gradients would be cut)."""
        go(self.forward_tasks(record, batch_first, out, checkpoint))

    def forward_tasks(
        self, record: bool, batch_first: bool, out: Array | None, checkpoint: int | None, threads: int | None = None
    ) -> Tasks[None]:
        """forward, by whoever runs each task before the next is asked for. threads: fewer than the run's."""
        self.batch_first = batch_first
        self.y = self._new_y() if out is None else out
        if out is not None and self._has_gaps():
            out[...] = 0
        whole = record and (checkpoint is None or self.cell <= Cell.RNN_RELU)
        self._allocate(whole)
        if self.plan.steps:
            yield from self._forward_steps(None if whole or not record else checkpoint, threads or self.threads)
        states.hold(self.plan, self.y, self.h0)
        self.h_n = states.final(self.plan, self.y, self.h0)
        if whole and self.c is not None:
            self.c_n: Array | None = states.final(self.plan, self.c, self.c0)
        else:
            self.c_n, self.c = states.cut_behind(self.plan, self.c), None

    def _has_gaps(self) -> bool:
        """Are there places of y that no step writes?"""
        return self.plan.padded or self.plan.steps == 0

    def _new_y(self) -> Array:
        (T, B, _), P = self.x.shape, self.P
        symbols, shape = ("(B, T, H)", (B, T, P)) if self.batch_first else ("(T, B, H)", (T, B, P))
        y = checks.allocate("x", symbols, shape, self.x.dtype, zero=self._has_gaps())
        return y.swapaxes(0, 1) if self.batch_first else y

    def _allocate(self, whole: bool) -> None:
        """c and gates of all steps; else c alone, of the last."""
        (T, B, _), H, dtype = self.x.shape, self.H, self.x.dtype
        if self.cell.is_lstm:
            self.c = new_kept("(T, B, H)", (T, B, H), dtype) if whole else states.initial(self.c0, (B, H), dtype)
        if whole and self.cell > Cell.RNN_RELU:
            self.gates = new_kept("(T, B, 4*H)", (T, B, 4 * H), dtype)

    def by_blas(self) -> bool:
        """Do the large products go to NumPy's BLAS?"""
        return config.gemm() == "blas" and blas.within(self.threads)

    def _forward_steps(self, checkpoint: int | None, threads: int) -> Tasks[None]:
        (T, B, I), task = self.x.shape, self.task
        at_once = T if checkpoint is None else min(T, checkpoint)
        how = schedule.forward(at_once, B, I, self.H, self.cell.gates, threads)
        task.keep(self.y, self.c, self.gates)
        task.prepare_forward(how)
        inputs = products.Inputs(self, task, how.chunk) if self.by_blas() and I else None
        if checkpoint is None:
            yield from products.forward_pieces(task, 0, self.plan.steps, inputs)
        else:
            self.checkpoints = checkpoints.Checkpoints(self, checkpoint)
            for s0, s1 in self.checkpoints.segments:
                self.checkpoints.keep(self.c)
                yield from products.forward_pieces(task, s0, s1, inputs)
        task.release()

    def cells(self) -> Array:
        """c (T, B, H) of a recorded run of an LSTM: behind the row's end 0; where a mask skips, 0 or what is carried over."""
        assert self.c is not None
        if self._has_gaps():
            time, row, _ = self.plan.places(0, self.plan.steps)
            gap = np.ones(self.c.shape[:2], bool)
            gap[time, row] = False
            self.c[gap] = 0  # the kernels look at the other places alone
            states.hold(self.plan, self.c, self.c0)
        return self.c

    def backward(
        self,
        dy: Array | None,
        dh: Array,
        dc: Array | None,
        into: Weights,
        dcs: Array | None = None,
        truncate: int | None = None,
    ) -> Array:
        """Add the weights' gradients to `into`; return dx. dh (B, P) and dc (B, H): gradients of the final state come in, and those
        of the initial state go out in the same arrays. dy (T, B, P), strided as `out` may be, or None. dcs (T, B, H), strided
        likewise, or None: the gradient of cells(). truncate: none flows from a row's step k, 2k, ... to the step before."""
        dx = go(self.backward_tasks(dy, dh, dc, into, dcs, truncate))
        assert dx is not None
        return dx

    def backward_tasks(
        self,
        dy: Array | None,
        dh: Array,
        dc: Array | None,
        into: Weights,
        dcs: Array | None = None,
        truncate: int | None = None,
        threads: int | None = None,
        need_x: bool = True,
    ) -> Tasks[Array | None]:
        """backward, by whoever runs each task before the next is asked for. threads: fewer than the run's. need_x: dx is None
        where nobody needs it."""
        plan, dx = self.plan, self._new_dx() if need_x else None
        dy, more = states.hold_backward(plan, dy)
        dcs, more_c = states.hold_backward(plan, dcs)
        states.cut_behind(plan, dh)
        states.cut_behind(plan, dc)
        if plan.steps:
            yield from self._backward_steps((dy, dcs, dh, dc, dx, into, min(truncate or 0, sys.maxsize)), threads or self.threads)
        if more is not None:
            dh += more
        if more_c is not None:
            dc += more_c
        return dx

    def _new_dx(self) -> Array:
        """Laid out as y, so that a batch-first x gets a batch-first gradient."""
        T, B, I = self.x.shape
        shape = (B, T, I) if self.batch_first else (T, B, I)
        dx = np.zeros(shape, self.x.dtype) if self._has_gaps() else np.empty(shape, self.x.dtype)
        return dx.swapaxes(0, 1) if self.batch_first else dx

    def _backward_steps(self, gradients: _Gradients, threads: int) -> Tasks[None]:
        (T, B, I), steps = self.x.shape, self.plan.steps
        at_once = T if self.checkpoints is None else self.checkpoints.most
        how = schedule.backward(at_once, B, I, self.H, self.cell.gates, threads)
        task = self.task if self.checkpoints is None else self.new_task()
        task.keep(self.y, self.c, self.gates)
        task.prepare_backward(*gradients, how)
        by_blas = products.Gradients(self, task, how.chunk, *gradients[4:6]) if self.by_blas() else None
        again = None if self.checkpoints is None else checkpoints.Again(self, self.checkpoints, threads)
        for s0, s1 in reversed([(0, steps)] if self.checkpoints is None else self.checkpoints.segments):
            gates, segment = self.gates, None
            if again is not None:
                c, gates = yield from again.make(s0, s1)
                segment = s0
                task.keep(self.y, c, gates, segment)
            if by_blas is None:
                yield task.backward(s0, s1, s1 == steps, s0 == 0, None)
            else:
                yield from by_blas.backward(s0, s1, gates, segment)
        task.release()


def new_kept(symbols: str, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Array:
    """What a tape keeps, in memory that the next call finds again."""
    try:
        if math.prod(shape) * dtype.itemsize > sys.maxsize // 2:
            raise MemoryError("larger than any memory")
        return kept(shape, dtype == checks.F64)
    except MemoryError as error:
        raise MemoryError(f"x: cannot allocate {symbols} = {shape} of {dtype}: {error}") from None
