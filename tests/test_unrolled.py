"""Unrolled steps: the bits of a cell's steps, and parameters' gradients that are added up over all of them."""

import threading
from contextlib import suppress

import numpy as np
import pytest

import fastrnn
from fastrnn import _core
from fastrnn._engine import schedule
from stacks import LAYERS
from test_plain import Subclass, not_plain, parts
from test_single_steps import MAKERS, members

FLOATS = (np.float32, np.float64)


def loop(cell, x, state, dys):
    """The final state, dx of all steps, the gradient of the initial state, and the parameters'."""
    tapes, dx = [], []
    with cell.unrolled() as steps:
        for x_t in x:
            state, tape = steps.forward(x_t, state)
            tapes.append(tape)
        dstate = [np.zeros_like(member) for member in members(state)]
        for dy, tape in zip(dys[::-1], tapes[::-1]):
            dstate[0] = dstate[0] + dy
            grads = tape.backward(tuple(dstate) if len(dstate) == 2 else dstate[0])
            dstate = list(members(grads.state))
            dx.append(grads.x)
    return state, np.stack(dx[::-1]), tuple(dstate), steps.grads


def by_steps(cell, x, state, dys):
    """The same by the cell's own tapes."""
    tapes, dx, flat = [], [], 0
    for x_t in x:
        state, tape = cell.forward(x_t, state)
        tapes.append(tape)
    dstate = [np.zeros_like(member) for member in members(state)]
    for dy, tape in zip(dys[::-1], tapes[::-1]):
        dstate[0] = dstate[0] + dy
        grads = tape.backward(tuple(dstate) if len(dstate) == 2 else dstate[0])
        dstate, flat = list(members(grads.state)), flat + grads.flat.astype(np.float64)
        dx.append(grads.x)
    return state, np.stack(dx[::-1]), tuple(dstate), flat


def arrays(dtype, T, B, I, H, seed=0):
    rng, rows = np.random.default_rng(seed), () if B is None else (B,)
    return [rng.standard_normal((T, *rows, n)).astype(dtype) for n in (I, H)]


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("T, B", [(1, None), (5, 1), (7, 3), (9, 40), (3, 150), (200, 1)])
def test_a_loop(kind, dtype, T, B, isa):
    """dx and states bit for bit; the parameters' gradients up to rounding."""
    cell, (x, dys) = MAKERS[kind](6, 21, dtype=dtype, rng=0), arrays(dtype, T, B, 6, 21)
    for given in (x, x[..., ::-1].copy()[..., ::-1]):  # the second is not contiguous
        state, dx, dstate, grads = loop(cell, given, None, dys)
        expected_state, expected_dx, expected_dstate, flat = by_steps(cell, given, None, dys)
        assert parts((state, dx, dstate)) == parts((expected_state, expected_dx, expected_dstate))
        tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-11, "atol": 1e-12}
        np.testing.assert_allclose(grads.flat, flat, **tolerance)
        assert np.concatenate([a.ravel() for a in grads.params.values()]).tobytes() == grads.flat.tobytes()


@pytest.mark.parametrize("kind, T, B", [
    (kind, T, B) for kind in MAKERS for T, B in ((1, 1), (1, 200), (20, 1), (128, 1), (5, 16)) if T == 1 or "gru" not in kind
])
def test_gradients_have_the_bits_of_a_layer_s(kind, T, B, own):
    """Where a single sum takes all items. Over several steps, a GRU adds dy to dh before the product, which a loop cannot."""
    make, fixed = LAYERS[kind]
    layer, (x, dy) = make(6, 21, **fixed, rng=0), arrays(np.float32, T, B, 6, 21)
    cell = MAKERS[kind](6, 21, rng=0)
    cell.flat[:] = layer.flat
    grads = layer.forward(x)[2].backward(dy)
    _, dx, _, got = loop(cell, x, None, dy)
    assert parts((dx, got.flat)) == parts((grads.x, grads.flat))


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("threads", [1, 2])
def test_tapes_in_any_order(kind, threads, own, small_work_is_shared_out):
    """Tapes that are left out, rows that change their number, gradients in between."""
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(threads)
    try:
        cell, rng, expected = MAKERS[kind](4, 18, dtype=np.float64, rng=0), np.random.default_rng(0), 0
        with cell.unrolled() as steps:
            tapes = []
            for B in (3, 1, 3, 3, 7):
                x, *arrays = (rng.standard_normal((B, n)) for n in (4, 18, 18, 18, 18))
                state, dstate = (tuple(p) if "lstm" in kind else p[0] for p in (arrays[:2], arrays[2:]))
                tapes.append((steps.forward(x, state)[1], cell.forward(x, state)[1], dstate))
            for k in (3, 0, 4, 1):
                tape, own_tape, dstate = tapes[k]
                grads, of_cell = tape.backward(dstate), own_tape.backward(dstate)
                assert parts((grads.x, grads.state)) == parts((of_cell.x, of_cell.state))
                expected = expected + of_cell.flat
                if k == 0:
                    np.testing.assert_allclose(steps.grads.flat, expected, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(steps.grads.flat, expected, rtol=1e-11, atol=1e-12)
    finally:
        fastrnn.set_num_threads(before)


def test_a_differentiable_loop_agrees_with_differences():
    """A decoder whose next input is a function of its state."""
    cell, rng = fastrnn.LSTMCell(3, 5, dtype=np.float64, rng=0), np.random.default_rng(0)
    start, mix = rng.standard_normal((2, 3)), rng.standard_normal((5, 3))

    def loss():
        x, state = start, None
        for _ in range(4):
            state = cell(x, state)
            x = state[0] @ mix
        return (x**2).sum() / 2

    with cell.unrolled() as steps:
        x, state, tapes = start, None, []
        for _ in range(4):
            state, tape = steps.forward(x, state)
            tapes.append(tape)
            x = state[0] @ mix
        dx, dstate = x, (np.zeros((2, 5)), np.zeros((2, 5)))
        for tape in reversed(tapes):
            grads = tape.backward((dstate[0] + dx @ mix.T, dstate[1]))
            dx, dstate = grads.x, grads.state
    for i in rng.choice(cell.flat.size, 12, replace=False):
        at = cell.flat[i]
        ends = []
        for change in (1e-6, -1e-6):
            cell.flat[i] = at + change
            ends.append(loss())
        cell.flat[i] = at
        np.testing.assert_allclose(steps.grads.flat[i], (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-8)


def test_the_caller_s_arrays_are_free_after_backward(own):
    cell, (x, dy) = fastrnn.GRUCell(6, 21, rng=0), arrays(np.float32, 3, 2, 6, 21)
    _, _, _, expected = loop(cell, x, None, dy)
    with cell.unrolled() as steps:
        tapes, h = [], None
        for x_t in x:
            x_t = x_t.copy()
            h, tape = steps.forward(x_t, h)
            tapes.append((x_t, h, tape))
        dh = np.zeros_like(h)
        for (x_t, h, tape), dy_t in zip(tapes[::-1], dy[::-1]):
            dh = tape.backward(dh + dy_t).state
            x_t[:] = h[:] = np.nan
    assert parts(steps.grads.flat) == parts(expected.flat)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_weights_are_those_of_the_beginning(kind, own):
    cell, (x, dy) = MAKERS[kind](6, 21, rng=0), arrays(np.float32, 1, 2, 6, 21)
    expected = loop(cell, x, None, dy)
    with cell.unrolled() as steps:
        cell.flat[:] = np.nan
        state, tape = steps.forward(x[0])
        grads = tape.backward((dy[0], None) if "lstm" in kind else dy[0])
    assert parts((state, grads.x[None], steps.grads.flat)) == parts((expected[0], expected[1], expected[3].flat))


def test_what_is_not_plain(own):
    cell, (x, dy) = fastrnn.LSTMCell(6, 21, rng=0), arrays(np.float32, 1, 3, 6, 21)
    h, c = dy[0] + 1, dy[0] - 1
    expected = None
    for given_x, state in ((x[0], (h, c)), (not_plain(x[0]), [h, c]), (np.asfortranarray(x[0]), (h.view(Subclass), c))):
        for dstate in ((dy[0], None), [dy[0], None], (np.asfortranarray(dy[0]), None)):
            with cell.unrolled() as steps:
                new, tape = steps.forward(given_x, state)
                grads = tape.backward(dstate)
            got = parts((new, grads.x, grads.state, steps.grads.flat))
            expected = expected or got
            assert got == expected


def test_no_rows_and_no_steps():
    cell = fastrnn.GRUCell(3, 4, rng=0)
    with cell.unrolled() as steps:
        h, tape = steps.forward(np.ones((0, 3), np.float32))
        assert h.shape == (0, 4) and tape.backward(h).x.shape == (0, 3)
    assert not steps.grads.flat.any() and steps.grads.flat.shape == cell.flat.shape


ERRORS = {
    "before the block": lambda cell, steps: cell.unrolled().forward(np.ones(3, np.float32)),
    "gradients before the block": lambda cell, steps: cell.unrolled().grads,
    "a block in the block": lambda cell, steps: steps.__enter__(),
}


@pytest.mark.parametrize("what", ERRORS.values(), ids=ERRORS)
def test_calls_out_of_turn(what):
    cell = fastrnn.GRUCell(3, 4, rng=0)
    with cell.unrolled() as steps, pytest.raises(RuntimeError, match="unrolled steps"):
        what(cell, steps)


def test_calls_after_the_block():
    cell, x = fastrnn.GRUCell(3, 4, rng=0), np.ones(3, np.float32)
    with cell.unrolled() as steps:
        h, used = steps.forward(x)
        _, tape = steps.forward(x)
        used.backward(h)
        with pytest.raises(RuntimeError, match="a tape can be used once"):
            used.backward(h)
        with pytest.raises(ValueError, match="dstate: expected the gradient"):
            tape.backward(None)
        with pytest.raises(TypeError, match="dstate: expected dtype float32"):
            tape.backward(np.ones(4))
    for call in (lambda: steps.forward(x), lambda: tape.backward(h), steps.__enter__):
        with pytest.raises(RuntimeError, match="unrolled steps"):
            call()


def test_an_error_in_the_block_is_not_swallowed():
    cell = fastrnn.GRUCell(3, 4, rng=0)
    with pytest.raises(ValueError, match="x: expected the last axis"), cell.unrolled() as steps:
        steps.forward(np.ones((1, 2), np.float32))


def test_whoever_comes_second_gets_an_error():
    cell, x = fastrnn.LSTMCell(40, 40, rng=0), np.ones((30, 40), np.float32)
    errors, calls = [], []
    with cell.unrolled() as steps:

        def hammer():
            for _ in range(200):
                try:
                    (h, c), tape = steps.forward(x)
                    tape.backward((h, c))
                    calls.append(1)
                except RuntimeError as error:
                    errors.append(str(error))

        threads = [threading.Thread(target=hammer) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert all("in use by another thread" in error for error in errors)
    assert len(errors) + len(calls) == 800 and np.isfinite(steps.grads.flat).all()


def test_an_error_where_a_sum_is_made_leaves_the_step_to_be_taken_again(monkeypatch, own):
    """64 rows: every second step fills a sum, and the next one makes it."""
    cell, x, d = fastrnn.LSTMCell(6, 5, rng=0), np.ones((64, 6), np.float32), (np.ones((64, 5), np.float32), None)
    expected = sum(cell.forward(x)[1].backward(d).flat for _ in range(6))
    backward, failed = schedule.backward, []

    def fails_once_of_each_size(T, *others):
        if T > 1 and len(failed) < 2:
            failed.append(T)
            raise MemoryError
        return backward(T, *others)

    with cell.unrolled() as steps:
        tapes = [steps.forward(x)[1] for _ in range(6)]
        monkeypatch.setattr(schedule, "backward", fails_once_of_each_size)
        _core.forget_schedules()
        for tape in tapes:
            while tape._kept is not None:
                with suppress(MemoryError):
                    tape.backward(d)
    assert failed == [2, 2]
    np.testing.assert_allclose(steps.grads.flat, expected, rtol=1e-5)
