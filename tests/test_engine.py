"""What layers build on: one run at a time, and several side by side."""

import tracemalloc

import numpy as np
import pytest

import fastrnn
from cases import CELLS, Case, call, problem, results
from fastrnn import _core
from fastrnn._api.checks import F32
from fastrnn._engine.cells import Cell
from fastrnn._engine.weights import Weights
from fastrnn.functional import check_weights, make_run
from fastrnn.stream import Stream

KERNELS = (Cell.RNN_TANH, Cell.RNN_RELU, Cell.LSTM, Cell.LSTM_PEEPHOLE, Cell.LSTM, Cell.GRU_AFTER, Cell.GRU_BEFORE)
CELL = dict(zip(CELLS, KERNELS))
each_cell = pytest.mark.parametrize("cell", CELLS)


def weights_of(p):
    return check_weights(CELL[p.case.cell], F32, *(p.arrays.get(n) for n in Weights.NAMES))


def run_of(p, threads=1):
    """The run of a time-major problem."""
    a, k, w = p.arrays, p.keywords, weights_of(p)
    of_rows = (k.get("lengths"), k.get("reset"), p.case.reverse, False, threads, k.get("mask"), k.get("masked", "zero"))
    return make_run(CELL[p.case.cell], a["x"], w, a.get("h0"), a.get("c0"), False, *of_rows)


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
        end = 7 + p.case.P
        dy = np.full_like(whole, np.nan)
        dy[..., 7:end] = p.dy
        run = run_of(p)
        run.forward(True, out=whole[..., 7:end])
        assert np.isnan(large[..., :7]).all() and np.isnan(large[..., end:]).all()
        assert finish(run, p, dy[..., 7:end]) == expected


@each_cell
@pytest.mark.parametrize("B", [1, 3, 7])
def test_a_stream_of_functions_weights(cell, B, isa):
    """Also with a projection, where h has fewer numbers than c."""
    p = problem(Case(cell, T=70, B=B, H=21, without=("h0", "c0")), np.float32)
    y, state, _ = call(fastrnn, cell, p.arrays)
    stream, x = Stream(CELL[cell], weights_of(p), B), p.arrays["x"]
    pieces = [stream(x[:1]), stream(x[1])[None], stream(x[2:67]), stream(x[67:])]
    assert np.concatenate(pieces).tobytes() == y.tobytes()
    final = state if isinstance(state, tuple) else (state,)
    assert [a.tobytes() for a in (stream.h, stream.c) if a is not None] == [s.tobytes() for s in final]


# --- checkpoints ------------------------------------------------------------------------------------------------


def peak(p, **keywords):
    """The most bytes that a training step needs at once, beyond its inputs."""
    _core.empty_free_list()
    tracemalloc.start()
    try:
        _, _, tape = call(fastrnn, p.case.cell, p.arrays, record=True, **keywords)
        p.backward(tape)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell not in ("tanh", "relu")])
def test_checkpoints_need_little_memory(cell, own):
    """Beyond y and dx, what grows with T is one c for each k steps."""
    sizes = {}
    for T in (20000, 40000):
        p = problem(Case(cell, T=T, B=1, I=8, H=64), np.float32)
        kept = 4 * T * (p.case.P + p.case.I)
        sizes[T] = peak(p) - kept, peak(p, checkpoint=256) - kept
        _core.empty_free_list()
    state = 4 * 64 * (cell.startswith("lstm"))
    assert sizes[40000][0] - sizes[20000][0] >= 0.99 * 20000 * 4 * 64 * 4  # gates
    assert sizes[40000][1] - sizes[20000][1] <= 2 * 20000 / 256 * (state + 200)  # and the objects around it
    assert sizes[40000][1] < 3 << 20


@pytest.mark.parametrize("cell", ["lstm-projected", "gru-before", "gru-after"])
@pytest.mark.parametrize("options", [{}, {"lengths": True, "mask": True, "reset": True, "reverse": True}])
def test_checkpoints_beside_blas(cell, options, use):
    if not fastrnn._engine.blas.known():
        pytest.skip("this BLAS does not tell its number of threads")
    use(gemm="blas")
    p = problem(Case(cell, T=300, B=3, I=5, H=21, **options))
    expected = results(fastrnn, p, threads=64)
    expected.pop("c", None)
    got = results(fastrnn, p, threads=64, checkpoint=50)
    for name, a in expected.items():
        np.testing.assert_allclose(got[name], a, rtol=1e-10, atol=1e-12, err_msg=name)


def test_a_tape_with_checkpoints_has_no_c():
    p = problem(Case("lstm"))
    _, _, tape = call(fastrnn, "lstm", p.arrays, record=True, checkpoint=5)
    with pytest.raises(RuntimeError, match=r"tape.c: expected a tape without checkpoints"):
        tape.c  # noqa: B018


def test_only_the_output_that_a_tape_reads_is_read_only():
    x, w_ih, w_hh = np.ones((3, 2, 4)), np.ones((5, 4)), np.ones((5, 5))
    for record in (False, True):
        y, _, _ = fastrnn.rnn(x, w_ih, w_hh, record=record)
        assert y.flags.writeable != record
