"""RNNCell, GRUCell and LSTMCell: a loop of single steps is the function over the whole sequence, forward and backward."""

import numpy as np
import pytest

import fastrnn
from cases import FLOATS, Case, call, problem

MAKERS = {
    "tanh": fastrnn.RNNCell,
    "relu": lambda *a, **k: fastrnn.RNNCell(*a, nonlinearity="relu", **k),
    "lstm": fastrnn.LSTMCell,
    "lstm-peephole": lambda *a, **k: fastrnn.LSTMCell(*a, peephole=True, **k),
    "gru-after": fastrnn.GRUCell,
    "gru-before": lambda *a, **k: fastrnn.GRUCell(*a, reset_after=False, **k),
}
NAMES = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh", "peephole": "weight_ch"}

each_cell = pytest.mark.parametrize("cell", MAKERS)
each_dtype = pytest.mark.parametrize("dtype", FLOATS)


def cell_of(p):
    """A cell with the parameters of a problem, and its initial state."""
    dtype, bias = p.arrays["x"].dtype, "b_ih" in p.arrays
    cell = MAKERS[p.case.cell](p.case.I, p.case.H, bias, dtype=dtype, rng=0)
    cell.load_state_dict({NAMES[name]: a for name, a in p.arrays.items() if name in NAMES})
    state = tuple(p.arrays[name] for name in ("h0", "c0") if name in p.arrays)
    return cell, (state if p.case.is_lstm else state[0]) if state else None


def members(state):
    return state if isinstance(state, tuple) else (state,)


OPTIONS = {
    "plain": {},
    "wide": {"B": 9, "I": 17, "H": 33},
    "unbatched": {"unbatched": True, "B": 1},
    "no bias": {"without": ("b_ih", "b_hh")},
    "no state": {"without": ("h0", "c0")},
    "no rows": {"B": 0},
}


@each_cell
@each_dtype
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_loop_of_steps_is_the_function(cell, dtype, options, isa):
    p = problem(Case(cell, T=5, **options), dtype)
    module, state = cell_of(p)
    expected_y, expected_final, _ = call(fastrnn, cell, p.arrays)
    tapes, final = [], state
    for x_t, y_t in zip(p.arrays["x"], expected_y):
        inferred = module(x_t, final)
        final, tape = module.forward(x_t, final)
        assert [a.tobytes() for a in members(inferred)] == [a.tobytes() for a in members(final)]
        assert members(final)[0].tobytes() == y_t.tobytes()
        tapes.append(tape)
    assert [a.tobytes() for a in members(final)] == [a.tobytes() for a in members(expected_final)]
    check_the_way_back(p, tapes)


def check_the_way_back(p, tapes):
    """Rounding differs where the function sums over all steps at once; the order of the steps is the same."""
    _, _, tape = call(fastrnn, p.case.cell, p.arrays, record=True)
    expected = tape.backward(p.dy, p.dstate)
    d, sums, dx = list(members(p.dstate)), 0, []
    for dy_t, tape in zip(p.dy[::-1], tapes[::-1]):
        d[0] = d[0] + dy_t
        grads = tape.backward(tuple(d) if p.case.is_lstm else d[0])
        d, sums = list(members(grads.state)), sums + grads.flat
        dx.append(grads.x)
    names = [name for name in NAMES if name in p.arrays]
    whole = np.concatenate([getattr(expected, name).ravel() for name in names])
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if whole.dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-13}
    np.testing.assert_allclose(np.stack(dx[::-1]), expected.x, **tolerance)
    for a, b in zip(d, members(expected.state)):
        np.testing.assert_allclose(a, b, **tolerance)
    np.testing.assert_allclose(sums, whole, **tolerance)


@each_cell
@pytest.mark.parametrize("options", [OPTIONS["plain"], OPTIONS["unbatched"], OPTIONS["no bias"]], ids=str)
def test_gradients(cell, options):
    p = problem(Case(cell, T=1, **{"B": 2, "I": 2, "H": 3, **options}))
    module, state = cell_of(p)
    result = fastrnn.gradcheck(module, p.arrays["x"][0], state)
    states = {"state[0]", "state[1]"} if p.case.is_lstm else {"state"}
    assert result.table.keys() == {"x", *states, *module.params}


@each_cell
def test_a_row_alone_is_the_row_in_a_batch(cell):
    p = problem(Case(cell, T=1, B=7, I=9, H=21), np.float32)
    module, state = cell_of(p)
    x = p.arrays["x"][0]
    together = members(module(x, state))
    for b in range(7):
        row = tuple(m[b] for m in members(state))
        alone = members(module(x[b], row if p.case.is_lstm else row[0]))
        assert [a.tobytes() for a in alone] == [m[b].tobytes() for m in together]


@pytest.mark.parametrize("cell", ["lstm", "lstm-peephole"])
def test_an_lstm_takes_half_a_state_and_half_a_gradient(cell):
    p = problem(Case(cell, T=1))
    module, (h, c) = cell_of(p)
    x = p.arrays["x"][0]
    for half, whole in (((h, None), (h, 0 * c)), ([None, c], (0 * h, c)), ((None, None), None)):
        (a, tape), (b, other) = module.forward(x, half), module.forward(x, whole)
        assert all(np.array_equal(m, n) for m, n in zip(a, b))
        if whole is None:  # a pair of nothing is no gradient
            continue
        zeros = tuple(0 * h if m is None else m for m in half)
        assert tape.backward(half).flat.tobytes() == other.backward(zeros).flat.tobytes()


def test_a_tape_can_be_used_once():
    cell = fastrnn.GRUCell(3, 4, rng=0)
    x = np.ones((2, 3), np.float32)
    h, tape = cell.forward(x)
    for wrong, error in ((None, ValueError), (h[:1], ValueError), (h.astype(float), TypeError), ((h, h), TypeError)):
        with pytest.raises(error, match=r"^dstate: expected .*, got "):
            tape.backward(wrong)
    tape.backward(h)  # what was refused was no use
    with pytest.raises(RuntimeError, match="this tape has been used"):
        tape.backward(h)


@pytest.mark.parametrize(
    "x, state, error, message",
    [
        (np.zeros((1, 2, 3), np.float32), None, ValueError, r"x: expected 1 or 2 dimensions, got shape \(1, 2, 3\)"),
        (np.zeros((2, 4), np.float32), None, ValueError, r"x: expected the last axis .* input_size = 3, got shape \(2, 4\)"),
        (np.zeros((2, 3)), None, TypeError, r"x: expected dtype float32, got float64"),
        ([1.0, 2.0, 3.0], None, TypeError, r"x: expected a NumPy array of float32, got list"),
        (np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32), TypeError, r"state: expected a pair \(h, c\), got ndarray"),
        (np.zeros((2, 3), np.float32), (np.zeros((3, 4), np.float32), None), ValueError, r"state\[0\]: expected \(B, H\) = "),
        (np.zeros(3, np.float32), (None, np.zeros((1, 4), np.float32)), ValueError, r"state\[1\]: expected \(H,\) = \(4,\)"),
    ],
)
def test_wrong_arguments(x, state, error, message):
    cell = fastrnn.LSTMCell(3, 4)
    for step in (cell, cell.forward):
        with pytest.raises(error, match=f"^{message}"):
            step(x, state)


def test_inputs_are_not_written_to_and_results_are_the_callers():
    cell = fastrnn.LSTMCell(3, 4, rng=0)
    rng = np.random.default_rng(0)
    x, h, c = (rng.standard_normal((2, n)).astype(np.float32) for n in (3, 4, 4))
    before = [a.tobytes() for a in (x, h, c)]
    (h1, c1), tape = cell.forward(x, (h, c))
    grads = tape.backward((h, c))
    h1[:] = c1[:] = grads.x[:] = grads.state[0][:] = grads.state[1][:] = 7
    assert [a.tobytes() for a in (x, h, c)] == before
