"""One call of a whole layer: a Run for each of its cells (a layer of the stack in one direction), and the way back.

Everything arrives here checked and time-major. Of L layers and D directions, cell k*D + d is layer k in direction d; P is the width
of one direction's output, which is H but for an LSTM with a projection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import checks, schedule
from .engine import Cell, Run, Threads, Weights
from .plan import Plan
from .tasks import go_all

Array = NDArray[Any]
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

    y: (T, B, D*P); h_n: (L*D, B, P); c_n: (L*D, B, H) of an LSTM. runs: of each cell (empty unless recorded).
    """

    def __init__(self, options: Options, plans: list[Plan], x: Array, weights: list[Weights], h0: Any, c0: Any) -> None:
        """plans: of each direction. x (T, B, I). h0 (L*D, B, P), c0 (L*D, B, H), or None."""
        self.options, self.plans, self.runs = options, plans, list[Run]()
        self.dropouts: list[Dropout | None] = []
        h_n, c_n, D = [], [], options.directions
        for first in range(0, len(weights), D):
            dropout = None
            if first and options.dropout:
                assert options.draw is not None
                dropout = Dropout(x.shape, options.dropout, options.draw)
                x = dropout(x)
            cells = range(first, first + D)
            states = [(None if h0 is None else h0[k], None if c0 is None else c0[k]) for k in cells]
            runs = [Run(options.cell, plan, x, weights[k], *state, options.threads) for plan, k, state in zip(plans, cells, states)]
            x = self._forward(runs)
            h_n += [run.h_n for run in runs]
            c_n += [run.c_n for run in runs if run.c_n is not None]
            if options.record:
                self.runs += runs
                self.dropouts.append(dropout)
        self.y, self.h_n, self.c_n = x, _stacked(h_n), _stacked(c_n) if c_n else None

    def _forward(self, runs: list[Run]) -> Array:
        """All directions of a layer, each into its part of one array."""
        options = self.options
        if len(runs) == 1:
            runs[0].forward(options.record, options.batch_first, None, options.checkpoint)
            return runs[0].y
        (T, B, _), P = runs[0].x.shape, len(runs[0].weights.w_hh[0])
        n = len(runs) * P
        shape = (B, T, n) if options.batch_first else (T, B, n)
        y = checks.allocate("x", "(B, T, D*H)" if options.batch_first else "(T, B, D*H)", shape, runs[0].x.dtype)
        y = y.swapaxes(0, 1) if options.batch_first else y
        parts, beside = [y[..., d * P : (d + 1) * P] for d in range(len(runs))], side_by_side(runs)
        how = (options.checkpoint, 1 if beside else None)
        go_all([run.forward_tasks(options.record, options.batch_first, part, *how) for run, part in zip(runs, parts)], beside)
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
        """Add the weights' gradients to `into`; return dx (T, B, I), or None where nobody needs it.

        dy (T, B, D*P): of the output. dhs, dcs: of each cell's sequences, (T, B, P) and (T, B, H). dh, dc (L*D, B, .): of the final
        state; those of the initial state go out in the same arrays. truncate: as Run.backward's.
        """
        D, runs = self.options.directions, self.runs
        for first in reversed(range(0, len(runs), D)):
            rows, beside = [], side_by_side(runs[first:])
            for d, k in enumerate(range(first, first + D)):
                P, ends = runs[k].P, (dh[k], None if dc is None else dc[k])
                dy_k = _sum(None if dy is None else dy[..., d * P : (d + 1) * P], dhs[k])
                threads = 1 if beside else None
                rows.append(runs[k].backward_tasks(dy_k, *ends, into[k], dcs[k], truncate, threads, need_x or first > 0))
            dx, *others = go_all(rows, beside)
            for other in others:
                if dx is not None and other is not None:
                    dx += other
            del runs[first:]  # their memory is free for what comes
            dropout = self.dropouts[first // D]
            dy = dx if dropout is None or dx is None else dropout(dx)
        return dy


def side_by_side(runs: list[Run]) -> bool:
    """Do the directions of a layer go at the same time?"""
    run = runs[0]
    T, B, I = run.x.shape
    return not run.by_blas() and schedule.side_by_side(len(runs), T, B, I, run.H, run.cell.gates, run.threads)


def _stacked(states: list[Array]) -> Array:
    return states[0][None] if len(states) == 1 else np.stack(states)


def _sum(a: Array | None, b: Array | None) -> Array | None:
    return b if a is None else a if b is None else a + b
