"""Backward from little: c every so many steps, and the gates made again when backward gets there (Chen et al. 2016, arXiv
1604.06174). Because y is kept, every h is known, and the steps of a segment need not wait for each other: they are one product."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from . import products, schedule

if TYPE_CHECKING:
    from .engine import Run
    from .tasks import Tasks

Array = NDArray[Any]


class Checkpoints:
    """The steps of a run in segments of `every` steps or a few more, and an LSTM's c in front of each.

    Segments end where a sum of the weights' gradients does (csrc/call.tmpl.h), so that they do not show in the bits.
    """

    def __init__(self, run: Run, every: int) -> None:
        steps, of_sum = run.plan.steps, run.task.sum_steps()
        self.most = -(-min(every, steps) // of_sum) * of_sum
        self.segments = list(pairwise([*range(0, steps, self.most), steps]))
        self._c: list[Array] = []

    def keep(self, c: Array | None) -> None:
        """c (B, H) in front of the next segment."""
        if c is not None:
            self._c.append(c.copy())

    def at(self, s0: int) -> Array:
        """c (B, H) in front of the segment that begins at step s0."""
        return self._c[s0 // self.most]


class Again:
    """Makes c and gates of one segment after the other, in the same memory."""

    def __init__(self, run: Run, checkpoints: Checkpoints, threads: int) -> None:
        from .engine import new_kept

        (_, B, I), H, G, dtype, steps = run.x.shape, run.H, run.cell.gates, run.x.dtype, checkpoints.most
        self._run, self._checkpoints, self._task = run, checkpoints, run.new_task()
        self._c = new_kept("(T, B, H)", (steps + 1, B, H), dtype) if run.cell.is_lstm else None
        self._gates = new_kept("(T, B, 4*H)", (steps, B, 4 * H), dtype)
        how = schedule.again(steps, B, I, H, G, threads)
        self._task.keep(run.y, self._c, self._gates, 0)
        self._task.prepare_forward(how)
        forward = schedule.forward(run.plan.T, B, I, H, G, threads)
        self._inputs = products.Inputs(run, self._task, forward.chunk) if run.by_blas() and I else None

    def make(self, s0: int, s1: int) -> Tasks[tuple[Array | None, Array]]:
        """c (1 + steps, B, H), first that in front of the segment, and gates (steps, B, 4*H) of the steps s0 to s1-1."""
        if self._c is not None:
            self._c[0] = self._checkpoints.at(s0)
        self._task.keep(self._run.y, self._c, self._gates, s0)
        yield from products.forward_pieces(self._task, s0, s1, self._inputs)
        return self._c, self._gates
