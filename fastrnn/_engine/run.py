"""One layer in one direction: plan, allocate, call the kernels. Everything arrives here checked, and time-major."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._core import Task
from . import blas, blas_products, schedule, states
from .cells import Cell
from .memory import allocate, allocate_saved
from .plan import Plan
from .recompute import Checkpoints, Recompute
from .tokens import Columns, Table, Tokens
from .weights import Weights

Array = NDArray[Any]
Threads = int | Callable[[], int]  # of a call; or who says how many there may be


class _Gradients(NamedTuple):
    """What a backward takes and gives: see Run.backward. In the order of Task.prepare_backward."""

    dy: Array | None
    dcs: Array | None
    dh: Array
    dc: Array | None
    dx: Array | None
    into: Weights
    truncate: int


class Run:
    """One call of one layer in one direction.

    x (T, B, I), or Tokens; h0 (B, P) and c0 (B, H) or None. After forward(): y (T, B, P), h_n (B, P) and c_n (B, H). backward() may
    follow once if the run was recorded: c (T, B, H) and gates (T, B, 4*H) hold what it needs (an RNN needs y alone), or checkpoints
    do.

    Runs that do not depend on each other can go side by side: begin_forward() of each, their tasks together, end_forward() of each;
    likewise backward. That is for runs that are one task: those without checkpoints, whose large products are the kernels' own.
    """

    def __init__(
        self, cell: Cell, plan: Plan, x: Array | Tokens, weights: Weights, h0: Array | None, c0: Array | None, threads: Threads
    ) -> None:
        self.cell, self.plan, self.x, self.weights, self._threads = cell, plan, x, weights, threads
        self.h0, self.c0 = h0, c0
        self.H, self.P = weights.H, weights.P
        self.c: Array | None = None
        self.gates: Array | None = None
        self.checkpoints: Checkpoints | None = None
        self.columns = Columns(x, weights) if isinstance(x, Tokens) else None
        self.task = self.new_task()

    def resume(self, batch_first: bool, y: Array, c: Array | None, gates: Array | None) -> None:
        """In place of forward(record=True): what such a forward has made elsewhere."""
        self.batch_first, self._whole = batch_first, True
        self.y, self.c, self.gates = y, c, gates
        self.end_forward()

    @property
    def threads(self) -> int:
        """How many may be used now: a limit set since forward holds for backward."""
        return self._threads if isinstance(self._threads, int) else self._threads()

    def new_task(self) -> Task:
        """The kernels' view of what comes in."""
        columns = self.columns
        x, weights = (self.x, self.weights) if columns is None else (columns, columns.weights)
        return Task(self.cell, self.plan, x, weights, self.h0, self.c0)

    @property
    def multiplied(self) -> int:
        """Numbers of x in the input product of an item: tokens need none."""
        return self.x.shape[2] if self.columns is None else 0

    def inputs(self, task: Task, chunk: int) -> blas_products.Inputs | Table | None:
        """Input products that are not the kernels' own, for a task that is prepared for forward."""
        if self.columns is not None:
            return self.columns.inputs(task)
        return blas_products.Inputs(self, task, chunk) if self.by_blas() and self.x.shape[2] else None

    def by_blas(self) -> bool:
        """Do the large products go to NumPy's BLAS? It has no products of bfloat16, and none by tokens."""
        if self.columns is not None:
            return False
        return self.weights.precision == "float32" and blas.chosen() == "blas" and blas.within(self.threads)

    # --- forward ----------------------------------------------------------------------------------------------------------

    def forward(self, record: bool, batch_first: bool = False, out: Array | None = None, checkpoint: int | None = None) -> None:
        """Compute y, h_n, c_n.

        y is `out` if that is given: (T, B, P) with any strides over T and B and numbers of a row side by side, such as one
        direction's part of a layer's output. batch_first: how y, if it is new, and dx are laid out. checkpoint: save no gates,
        and c every so many steps only (more, where sums of the weights' gradients would be cut)."""
        self.begin_forward(record, batch_first, out, checkpoint)
        if self.plan.steps and not self.checkpoints and not self.by_blas():
            self.task.run()
        elif self.plan.steps:
            self._forward_in_pieces()
        self.end_forward()

    def begin_forward(
        self, record: bool, batch_first: bool, out: Array | None, checkpoint: int | None = None, threads: int | None = None
    ) -> None:
        """Allocate and prepare: what is next is the task. threads: fewer than the run's."""
        self.batch_first = batch_first
        self.y = self._new_y() if out is None else out
        if out is not None and self._has_gaps():
            out[...] = 0
        saves = self.cell.form.saves
        self._whole = record and (checkpoint is None or not saves)
        self._allocate()
        if not self.plan.steps:
            return
        (T, B, _), task = self.x.shape, self.task
        checkpoint = checkpoint if record and saves else None
        task.keep(self.y, self.c, self.gates)
        self._how = schedule.forward(min(T, checkpoint or T), B, self.multiplied, self.H, self.cell.gates, threads or self.threads)
        task.prepare_forward(self._how)
        if checkpoint is not None:
            self.checkpoints = Checkpoints(self, checkpoint)
        self._inputs = self.inputs(task, self._how.chunk)
        task.forward(0, self.plan.steps, self._inputs.rows if isinstance(self._inputs, Table) else None)

    def _forward_in_pieces(self) -> None:
        for s0, s1 in [(0, self.plan.steps)] if self.checkpoints is None else self.checkpoints.segments:
            if self.checkpoints is not None:
                self.checkpoints.keep(self.c)
            blas_products.run_forward(self.task, s0, s1, self._inputs)

    def end_forward(self) -> None:
        """Give back workspace, and find the final state."""
        self.task.release()
        self._inputs = None
        states.hold(self.plan, self.y, self.h0)
        self.h_n = states.final(self.plan, self.y, self.h0)
        if self._whole and self.c is not None:
            self.c_n: Array | None = states.final(self.plan, self.c, self.c0)
        else:
            self.c_n, self.c = states.cut_after(self.plan, self.c), None

    def _has_gaps(self) -> bool:
        """Are there places of y that no step writes?"""
        return self.plan.padded or self.plan.steps == 0

    def _new_y(self) -> Array:
        (T, B, _), P = self.x.shape, self.P
        symbols, shape = ("(B, T, H)", (B, T, P)) if self.batch_first else ("(T, B, H)", (T, B, P))
        y = allocate("x", symbols, shape, self.x.dtype, zero=self._has_gaps())
        return y.swapaxes(0, 1) if self.batch_first else y

    def _allocate(self) -> None:
        """c and gates of all steps; else c alone, of the last."""
        (T, B, _), H, dtype = self.x.shape, self.H, self.x.dtype
        if self.cell.is_lstm:
            self.c = allocate_saved("(T, B, H)", (T, B, H), dtype) if self._whole else states.initial(self.c0, (B, H), dtype)
        if self._whole and self.cell.form.saves:
            self.gates = allocate_saved("(T, B, 4*H)", (T, B, 4 * H), dtype)

    def cells(self) -> Array:
        """c (T, B, H) of a recorded run of an LSTM: after the row's end 0; where a mask skips, 0 or what is carried over."""
        assert self.c is not None
        if self._has_gaps():
            time, row, _ = self.plan.places(0, self.plan.steps)
            gap = np.ones(self.c.shape[:2], bool)
            gap[time, row] = False
            self.c[gap] = 0  # the kernels look at the other places alone
            states.hold(self.plan, self.c, self.c0)
        return self.c

    # --- backward ---------------------------------------------------------------------------------------------------------

    def backward(
        self,
        dy: Array | None,
        dh: Array,
        dc: Array | None,
        into: Weights,
        dcs: Array | None = None,
        truncate: int | None = None,
        need_x: bool = True,
    ) -> Array | None:
        """Add the weights' gradients to `into`; return dx, or None where nobody needs it, as of tokens.

        dh (B, P) and dc (B, H): gradients of the final state come in, and those of the initial state go out in the same arrays.
        dy (T, B, P), strided as `out` may be, or None. dcs (T, B, H), strided likewise, or None: the gradient of cells().
        truncate: none flows from a row's step k, 2k, ... to the step before."""
        self.begin_backward(dy, dh, dc, into, dcs, truncate, need_x)
        if self.plan.steps and not self.checkpoints and not self.by_blas():
            self.task.run()
        elif self.plan.steps:
            self._backward_in_pieces()
        return self.end_backward()

    def begin_backward(
        self,
        dy: Array | None,
        dh: Array,
        dc: Array | None,
        into: Weights,
        dcs: Array | None,
        truncate: int | None,
        need_x: bool,
        *,
        threads: int | None = None,
    ) -> None:
        """Allocate and prepare: what is next is the task. threads: fewer than the run's."""
        plan, (T, B, _) = self.plan, self.x.shape
        dx = self._new_dx() if need_x and self.columns is None else None
        dy, self._dh_held = states.hold_backward(plan, dy)
        dcs, self._dc_held = states.hold_backward(plan, dcs)
        states.cut_after(plan, dh)
        states.cut_after(plan, dc)
        self._gradients = _Gradients(dy, dcs, dh, dc, dx, into, min(truncate or 0, sys.maxsize))
        if not plan.steps:
            return
        at_once = T if self.checkpoints is None else self.checkpoints.most
        self._how = schedule.backward(at_once, B, self.multiplied, self.H, self.cell.gates, threads or self.threads)
        if self.checkpoints is not None:
            self.task = self.new_task()
        self.task.keep(self.y, self.c, self.gates)
        given = self._gradients
        self._summed = given.into if self.columns is None else self.columns.gradients(given.into)
        self.task.prepare_backward(*given._replace(into=self._summed), self._how)
        self.task.backward(0, plan.steps, True, True, None)

    def _backward_in_pieces(self) -> None:
        steps, task, gradients = self.plan.steps, self.task, self._gradients
        products = None
        if self.by_blas():
            products = blas_products.Gradients(self, task, self._how.chunk, gradients.dx, gradients.into)
        recompute = None if self.checkpoints is None else Recompute(self, self.checkpoints)
        for s0, s1 in reversed([(0, steps)] if self.checkpoints is None else self.checkpoints.segments):
            gates, first_step = self.gates, None
            if recompute is not None:
                c, gates = recompute(s0, s1)
                first_step = s0
                task.keep(self.y, c, gates, first_step)
            if products is None:
                task.backward(s0, s1, s1 == steps, s0 == 0, None).run()
            else:
                products.backward(s0, s1, gates, first_step)

    def end_backward(self) -> Array | None:
        """Give back workspace, and add what held outputs bring to the initial state."""
        self.task.release()
        if self.columns is not None and self.plan.steps:
            self.columns.add(self._summed, self._gradients.into)
        dh, dc = self._gradients.dh, self._gradients.dc
        if self._dh_held is not None:
            dh += self._dh_held
        if self._dc_held is not None:
            dc += self._dc_held
        return self._gradients.dx

    def _new_dx(self) -> Array:
        """Laid out as y, so that a batch-first x gets a batch-first gradient."""
        T, B, I = self.x.shape
        shape = (B, T, I) if self.batch_first else (T, B, I)
        dx = np.zeros(shape, self.x.dtype) if self._has_gaps() else np.empty(shape, self.x.dtype)
        return dx.swapaxes(0, 1) if self.batch_first else dx
