"""What layers build on: one run at a time, and several side by side."""

import numpy as np
import pytest

from cases import CELLS, Case, problem
from fastrnn.checks import F32
from fastrnn.engine import Cell
from fastrnn.functional import check_weights, make_run

CELL = dict(zip(CELLS, (Cell.RNN_TANH, Cell.RNN_RELU, Cell.LSTM, Cell.LSTM_PEEPHOLE, Cell.GRU_AFTER, Cell.GRU_BEFORE)))
each_cell = pytest.mark.parametrize("cell", CELLS)


def run_of(p, threads=1):
    """The run of a time-major problem."""
    a, k = p.arrays, p.keywords
    w = check_weights(CELL[p.case.cell], F32, *(a.get(n) for n in ("w_ih", "w_hh", "b_ih", "b_hh", "peephole")))
    of_rows = (k.get("lengths"), k.get("reset"), p.case.reverse, False, threads, k.get("mask"), k.get("masked", "zero"))
    return make_run(CELL[p.case.cell], a["x"], w, a.get("h0"), a.get("c0"), *of_rows)


def finish(run, p, dy=None):
    """All that comes out of a run that has gone forward."""
    into = run.weights.zeros_like()
    dh, dc = p.dstate if p.case.is_lstm else (p.dstate, None)
    dh, dc = dh.copy(), None if dc is None else dc.copy()
    dx = run.backward(p.dy if dy is None else dy, dh, dc, into)
    all_weights = [getattr(into, n) for n in into.NAMES]
    return [a.tobytes() for a in (run.y, run.h_n, run.c_n, dx, dh, dc, *all_weights) if a is not None]


@each_cell
@pytest.mark.parametrize("options", [{}, {"lengths": True}, {"mask": True, "hold": True, "reset": True, "reverse": True}])
def test_y_and_dy_may_be_parts_of_larger_arrays(cell, options, own):
    """Two directions write the halves of one array; what lies beside is not touched, and gaps become zeros."""
    p = problem(Case(cell, T=9, B=5, H=19, **options), np.float32)
    plain = run_of(p)
    plain.forward(True)
    expected = finish(plain, p)
    for shape, turn in (((9, 5, 50), False), ((5, 9, 50), True)):
        large = np.full(shape, np.nan, np.float32)
        whole = large.swapaxes(0, 1) if turn else large
        dy = np.full_like(whole, np.nan)
        dy[..., 7:26] = p.dy
        run = run_of(p)
        run.forward(True, out=whole[..., 7:26])
        assert np.isnan(large[..., :7]).all() and np.isnan(large[..., 26:]).all()
        assert finish(run, p, dy[..., 7:26]) == expected
