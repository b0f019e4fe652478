"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): c every so many steps; the gates are recomputed in backward.
Because y is kept, every h is known, and the steps of a segment need not wait for each other: they are one product."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from . import blas_products, schedule
from .memory import allocate_saved

if TYPE_CHECKING:
    from .run import Run

Array = NDArray[Any]


class Checkpoints:
    """The steps of a run in segments of `every` steps or a few more, and an LSTM's c before each.

    Segments end where a sum of the weights' gradients does (csrc/sequence/chunk.h), so that they do not show in the bits.
    """

    def __init__(self, run: Run, every: int) -> None:
        steps, of_sum = run.plan.steps, run.task.sum_steps()
        self.most = -(-min(every, steps) // of_sum) * of_sum
        self.segments = list(pairwise([*range(0, steps, self.most), steps]))
        self._c: list[Array] = []

    def keep(self, c: Array | None) -> None:
        """c (B, H) before the next segment."""
        if c is not None:
            self._c.append(c.copy())

    def at(self, s0: int) -> Array:
        """c (B, H) before the segment that begins at step s0."""
        return self._c[s0 // self.most]


class Recompute:
    """Recomputes c and gates of one segment after the other, in the same memory."""

    def __init__(self, run: Run, checkpoints: Checkpoints) -> None:
        (_, B, _), I, H, G, dtype = run.x.shape, run.multiplied, run.H, run.cell.gates, run.x.dtype
        steps = checkpoints.most
        self._run, self._checkpoints, self._task = run, checkpoints, run.new_task()
        self._c = allocate_saved("(T, B, H)", (steps + 1, B, H), dtype) if run.cell.is_lstm else None
        self._gates = allocate_saved("(T, B, 4*H)", (steps, B, 4 * H), dtype)
        self._task.keep(run.y, self._c, self._gates, 0)
        self._task.prepare_forward(schedule.recompute(steps, B, I, H, G, run.threads))
        forward = schedule.forward(run.plan.T, B, I, H, G, run.threads)
        self._inputs = run.inputs(self._task, forward.chunk)

    def __call__(self, s0: int, s1: int) -> tuple[Array | None, Array]:
        """c (1 + steps, B, H), first that before the segment, and gates (steps, B, 4*H) of the steps s0 to s1-1."""
        if self._c is not None:
            self._c[0] = self._checkpoints.at(s0)
        self._task.keep(self._run.y, self._c, self._gates, s0)
        blas_products.run_forward(self._task, s0, s1, self._inputs)
        return self._c, self._gates
