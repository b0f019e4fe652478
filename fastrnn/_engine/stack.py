"""One call of a whole layer: a Run for each of its cells (a layer of the stack in one direction), and the way back.

Everything arrives here checked and time-major. Of L layers and D directions, cell k*D + d is layer k in direction d; P is the width
of one direction's output, which is H but for an LSTM with a projection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._core import run_together
from . import schedule
from .cells import Cell
from .memory import allocate
from .plan import Plan
from .run import Run, Threads
from .tokens import Tokens
from .weights import Weights

Array = NDArray[Any]
# dy, dh, dc, into, dcs, truncate, need_x: see Run.backward
_Arguments = tuple[Array | None, Array, Array | None, Weights, Array | None, int | None, bool]
Draw = Callable[[tuple[int, ...], float], NDArray[np.bool_]]  # of a shape and p: which elements dropout lets through


class Options(NamedTuple):
    """How a layer is called. dropout: probability between layers; draw: who draws its masks. checkpoint: as Run.forward's."""

    cell: Cell
    directions: int
    batch_first: bool
    threads: Threads
    record: bool
    dropout: float = 0.0
    draw: Draw | None = None
    checkpoint: int | None = None


class Dropout:
    """Zeros with probability p, the rest times 1 / (1 - p): PyTorch's between the layers, drawn anew for every element."""

    def __init__(self, shape: tuple[int, ...], p: float, draw: Draw) -> None:
        self.kept = draw(shape, p)
        self.scale = 1 / (1 - p) if p < 1 else 0.0

    def __call__(self, a: Array) -> Array:
        out = np.multiply(a, self.kept)
        out *= self.scale
        return out


class Pass:
    """A forward through all cells and, if it was recorded, once backward.

    plans: of each direction. After forward(), y: (T, B, D*P); h_n: (L*D, B, P); c_n: (L*D, B, H) of an LSTM. runs: of each cell
    (empty unless recorded).
    """

    y: Array
    h_n: Array
    c_n: Array | None

    def __init__(self, options: Options, plans: list[Plan], weights: list[Weights]) -> None:
        self.options, self.plans, self.weights, self.runs = options, plans, weights, list[Run]()
        self._dropouts: list[Dropout | None] = []

    def forward(self, x: Array | Tokens, h0: Array | None, c0: Array | None) -> None:
        """x (T, B, I), or Tokens. h0 (L*D, B, P), c0 (L*D, B, H), or None."""
        options, weights = self.options, self.weights
        h_n, c_n, D = [], [], options.directions
        for first in range(0, len(weights), D):
            dropout = None
            if first and options.dropout:
                assert options.draw is not None and not isinstance(x, Tokens)
                dropout = Dropout(x.shape, options.dropout, options.draw)
                x = dropout(x)
            cells = range(first, first + D)
            states = [(None if h0 is None else h0[k], None if c0 is None else c0[k]) for k in cells]
            runs = [
                Run(options.cell, plan, x, weights[k], *state, options.threads) for plan, k, state in zip(self.plans, cells, states)
            ]
            self.y = x = self._forward_layer(runs)
            h_n += [run.h_n for run in runs]
            c_n += [run.c_n for run in runs if run.c_n is not None]
            if options.record:
                self.runs += runs
                self._dropouts.append(dropout)
        self.h_n, self.c_n = _stacked(h_n), _stacked(c_n) if c_n else None

    def add(self, run: Run) -> None:
        """The run of the next layer of a single direction, whose forward is done: in place of forward()."""
        self.runs.append(run)
        self._dropouts.append(None)
        self.y = run.y
        self.h_n = _stacked([run.h_n for run in self.runs])
        self.c_n = None if run.c_n is None else _stacked([run.c_n for run in self.runs if run.c_n is not None])

    def _forward_layer(self, runs: list[Run]) -> Array:
        """All directions of a layer, each into its part of one array."""
        options = self.options
        if len(runs) == 1:
            runs[0].forward(options.record, options.batch_first, None, options.checkpoint)
            return runs[0].y
        (T, B, _), P = runs[0].x.shape, len(runs[0].weights.w_hh[0])
        n = len(runs) * P
        shape = (B, T, n) if options.batch_first else (T, B, n)
        y = allocate("x", "(B, T, D*H)" if options.batch_first else "(T, B, D*H)", shape, runs[0].x.dtype)
        y = y.swapaxes(0, 1) if options.batch_first else y
        parts = [y[..., d * P : (d + 1) * P] for d in range(len(runs))]
        if not self._side_by_side(runs):
            for run, part in zip(runs, parts):
                run.forward(options.record, options.batch_first, part, options.checkpoint)
            return y
        for run, part in zip(runs, parts):
            run.begin_forward(options.record, options.batch_first, part, options.checkpoint, threads=1)
        run_together([run.task for run in runs])
        for run in runs:
            run.end_forward()
        return y

    def backward(
        self,
        dy: Array | None,
        dhs: list[Array | None],
        dcs: list[Array | None],
        dh: Array,
        dc: Array | None,
        into: list[Weights],
        truncate: int | None,
        need_x: bool = True,
    ) -> Array | None:
        """Add the weights' gradients to `into`; return dx (T, B, I), or None where nobody needs it, as of tokens.

        dy (T, B, D*P): of the output. dhs, dcs: of each cell's sequences, (T, B, P) and (T, B, H). dh, dc (L*D, B, .): of the final
        state; those of the initial state go out in the same arrays. truncate: as Run.backward's.
        """
        D, runs = self.options.directions, self.runs
        for first in reversed(range(0, len(runs), D)):
            arguments: list[_Arguments] = []
            for d, k in enumerate(range(first, first + D)):
                P, ends = runs[k].P, (dh[k], None if dc is None else dc[k])
                dy_k = _sum(None if dy is None else dy[..., d * P : (d + 1) * P], dhs[k])
                arguments.append((dy_k, *ends, into[k], dcs[k], truncate, need_x or first > 0))
            dx, *others = self._backward_layer(runs[first:], arguments)
            for other in others:
                if dx is not None and other is not None:
                    dx += other
            del runs[first:]  # their memory is free for what comes
            dropout = self._dropouts[first // D]
            dy = dx if dropout is None or dx is None else dropout(dx)
        return dy

    def _backward_layer(self, runs: list[Run], arguments: list[_Arguments]) -> list[Array | None]:
        """dx of each direction."""
        if not self._side_by_side(runs):
            return [run.backward(*given) for run, given in zip(runs, arguments)]
        for run, given in zip(runs, arguments):
            run.begin_backward(*given, threads=1)
        run_together([run.task for run in runs])
        return [run.end_backward() for run in runs]

    def _side_by_side(self, runs: list[Run]) -> bool:
        """Do the directions of a layer go at the same time, on one thread each?"""
        run = runs[0]
        T, B, _ = run.x.shape
        in_segments = self.options.checkpoint is not None and run.cell.form.saves
        if in_segments or run.by_blas() or not run.plan.steps:
            return False
        return schedule.side_by_side(len(runs), T, B, run.multiplied, run.H, run.cell.gates, run.threads)


def _stacked(states: list[Array]) -> Array:
    return states[0][None] if len(states) == 1 else np.stack(states)


def _sum(a: Array | None, b: Array | None) -> Array | None:
    return b if a is None else a if b is None else a + b
