"""Plain calls take a compiled way of their own: the same bits as the general way, which takes every call that is not plain."""

from contextlib import nullcontext

import numpy as np
import pytest

import fastrnn
from fastrnn import _core
from stacks import LAYERS
from test_single_steps import MAKERS, members

FLOATS = (np.float32, np.float64)
KINDS = {name: lambda *a, make=make, fixed=fixed, **k: make(*a, **fixed, **k) for name, (make, fixed) in LAYERS.items()}
KINDS["lstm-projected"] = lambda *a, **k: fastrnn.LSTM(*a, proj_size=4, peephole=True, **k)
KINDS["gru-no-bias"] = lambda *a, **k: fastrnn.GRU(*a, bias=False, **k)
FORMS = ["time-major", "batch-first", "no batch"]
SIZES = {"one step": (1, 1, 3, 5, 1), "few items": (2, 2, 7, 19, 2), "many": (40, 9, 17, 33, 1), "stack": (6, 3, 4, 16, 3)}


class Subclass(np.ndarray):
    """What is no plain array."""


def not_plain(array):
    return array.view(Subclass)


def parts(result):
    """The bytes of all arrays."""
    if result is None:
        return [None]
    if isinstance(result, (tuple, list)):
        return [b for part in result for b in parts(part)]
    return [result.shape, result.dtype, result.tobytes()]


def poison(size, dtype):
    """Leave memory full of NaN to whoever next allocates a vector of this size."""
    vectors = [np.full(size, np.nan, dtype), _core.new_saved((1, 1, size), dtype == np.float64)]
    vectors[1][:] = np.nan


def problem(kind, dtype, form, T, B, I, H, L):
    rng = np.random.default_rng(0)
    layer = KINDS[kind](I, H, num_layers=L, batch_first=form == "batch-first", dtype=dtype, rng=0)
    B = 1 if form == "no batch" else B

    def array(*shape):
        a = rng.standard_normal(shape).astype(dtype)
        return a[..., 0, :] if form == "no batch" else a

    def sequence(n):
        a = array(T, B, n)
        return np.ascontiguousarray(a.swapaxes(0, 1)) if form == "batch-first" else a

    P = layer.proj_size or H
    state, dstate = ((array(L, B, P), array(L, B, H)) if kind.startswith("lstm") else array(L, B, P) for _ in range(2))
    return layer, sequence(I), state, sequence(P), dstate


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", SIZES)
def test_a_layer(kind, dtype, form, size, own):
    layer, x, state, dy, dstate = problem(kind, dtype, form, *SIZES[size])
    for initial in (state, None):
        expected = layer(not_plain(x), initial)
        assert parts(layer._plain.infer(x, initial, layer.batch_first)) == parts(expected)
        assert parts(layer(x, initial)) == parts(expected)
        for given in ((dy, dstate), (dy, None), (None, dstate)):
            y, final, tape = layer.forward(not_plain(x), initial)
            grads = tape.backward(*given)
            plain_y, plain_final, plain = layer.forward(x, initial)
            assert isinstance(plain._kept, _core.Recorded) and not plain_y.flags.writeable
            assert parts((plain_y, plain_final)) == parts((y, final)) == parts(expected)
            poison(layer.flat.size, dtype)
            got = plain.backward(*given)
            assert parts((got.x, got.state, got.flat)) == parts((grads.x, grads.state, grads.flat))
            assert {name: parts(a) for name, a in got.params.items()} == {name: parts(a) for name, a in grads.params.items()}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("B", [None, 1, 3, 20])
def test_a_cell(kind, dtype, B, own):
    rng, rows = np.random.default_rng(0), () if B is None else (B,)
    cell = MAKERS[kind](6, 21, dtype=dtype, rng=0)
    x, *arrays = (rng.standard_normal((*rows, n)).astype(dtype) for n in (6, 21, 21, 21, 21))
    state, dstate = (tuple(pair) if kind.startswith("lstm") else pair[0] for pair in (arrays[:2], arrays[2:]))
    for initial in (state, None):
        new, tape = cell.forward(not_plain(x), initial)
        grads = tape.backward(dstate)
        assert parts(cell._plain.step(x, initial)) == parts(cell(x, initial)) == parts(new)
        plain_new, plain = cell.forward(x, initial)
        for member in members(plain_new):
            member += 1  # the caller's to write to: the tape does not read it
        assert isinstance(plain._kept, _core.Recorded)
        poison(cell.flat.size, dtype)
        got = plain.backward(dstate)
        assert parts((got.x, got.state, got.flat)) == parts((grads.x, grads.state, grads.flat))


@pytest.mark.parametrize("kind", ["tanh", "lstm", "gru-after"])
@pytest.mark.parametrize("form", FORMS)
def test_a_plain_tape_takes_what_is_not_plain(kind, form, own):
    layer, x, state, dy, dstate = problem(kind, np.float32, form, 7, 3, 4, 6, 2)
    tapes = [layer.forward(a, state)[2] for a in (x, not_plain(x))]
    outputs = [tape.outputs for tape in tapes]
    assert {name: parts(a) for name, a in outputs[0].items()} == {name: parts(a) for name, a in outputs[1].items()}
    for given in (
        {"dy": not_plain(dy), "dstate": dstate},
        {"dy": dy, "truncate": 3},
        {"doutputs": {"h_l0": dy}},
        {"dstate": list(dstate) if isinstance(dstate, tuple) else not_plain(dstate)},
    ):
        grads = [layer.forward(a, state)[2].backward(**given) for a in (x, not_plain(x))]
        assert parts((grads[0].x, grads[0].state, grads[0].flat)) == parts((grads[1].x, grads[1].state, grads[1].flat))


def test_a_plain_tape_of_a_cell_takes_what_is_not_plain(own):
    cell, rng = fastrnn.LSTMCell(4, 6, rng=0), np.random.default_rng(0)
    x, h, c, dh, dc = (rng.standard_normal((3, n), np.float32) for n in (4, 6, 6, 6, 6))
    for dstate in ((not_plain(dh), dc), [dh, dc], (None, dc)):
        grads = [cell.forward(a, (h, c))[1].backward(dstate) for a in (x, not_plain(x))]
        assert parts((grads[0].x, grads[0].state, grads[0].flat)) == parts((grads[1].x, grads[1].state, grads[1].flat))


def test_no_call_is_plain_where_the_blas_is_chosen(use, own):
    layer, x = fastrnn.GRU(3, 4, rng=0), np.ones((2, 1, 3), np.float32)
    assert layer._plain.infer(x, None, False) is not None
    tape = layer.forward(x)[2]
    use(gemm="blas")
    assert layer._plain.infer(x, None, False) is None
    assert tape._kept.backward(np.ones((2, 1, 4), np.float32), None) is None
    use(isa="scalar")
    _core.use_gemm(0)
    assert layer._plain.infer(x, None, False) is None


NOT_PLAIN = {
    "other dtype": np.ones((2, 1, 3)),
    "byte order": np.ones((2, 1, 3), ">f4"),
    "rows not contiguous": np.ones((2, 1, 6), np.float32)[..., ::2],
    "no steps": np.ones((0, 1, 3), np.float32),
    "no rows": np.ones((2, 0, 3), np.float32),
    "four axes": np.ones((1, 2, 1, 3), np.float32),
    "another size": np.ones((2, 1, 4), np.float32),
    "a list": [[[1.0, 1.0, 1.0]]],
    "masked": np.ma.ones((2, 1, 3), np.float32),
}


@pytest.mark.parametrize("x", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_what_is_not_plain_goes_the_general_way(x, own):
    assert fastrnn.GRU(3, 4, rng=0)._plain.infer(x, None, False) is None


@pytest.mark.parametrize("state", [np.ones((1, 2, 4)), np.ones((1, 2, 3), np.float32), np.ones((1, 2, 8), np.float32)[..., ::2], 0])
def test_a_state_that_is_not_plain_goes_the_general_way(state, own):
    x = np.ones((2, 2, 3), np.float32)
    assert fastrnn.GRU(3, 4, rng=0)._plain.infer(x, state, False) is None
    assert fastrnn.LSTM(3, 4, rng=0)._plain.infer(x, (None, state), False) is None
    assert fastrnn.LSTM(3, 4, rng=0)._plain.infer(x, (state, None), False) is None


def test_rows_may_lie_anywhere(own):
    """Only the numbers of a row have to be side by side."""
    layer, wide = fastrnn.GRU(3, 4, rng=0), np.random.default_rng(0).standard_normal((6, 4, 5), np.float32)
    for x in (wide[::2, :, 1:4], wide[::-1, 1:3, :3], np.broadcast_to(wide[:1, :, :3], (6, 4, 3)), wide.swapaxes(0, 1)[..., 2:]):
        assert parts(layer._plain.infer(x, None, False)) == parts(layer(np.ascontiguousarray(x)))
        dy = np.broadcast_to(np.float32(1), (*x.shape[:2], 4))  # rows that are not contiguous: the general way
        assert layer.forward(x)[2].backward(dy).flat.any()


def test_a_layer_after_a_change_of_its_parameters(own):
    layer, x = fastrnn.LSTM(3, 4, rng=0), np.ones((2, 1, 3), np.float32)
    before = layer(x)
    layer.flat *= 0.5
    assert parts(layer(x)) == parts(layer(not_plain(x))) != parts(before)
    copied = layer.astype(np.float64)
    assert parts(copied(x.astype(np.float64))) == parts(copied(not_plain(x.astype(np.float64))))


FUNCTIONS = {
    "tanh": (fastrnn.rnn, {}),
    "relu": (fastrnn.rnn, {"nonlinearity": "relu"}),
    "gru": (fastrnn.gru, {}),
    "gru-before": (fastrnn.gru, {"reset_after": False}),
    "lstm": (fastrnn.lstm, {}),
}
WEIGHTS = {
    "all": {"b_ih", "b_hh", "peephole", "w_hr"},
    "no biases": set(),
    "one bias": {"b_hh"},
    "peephole": {"b_ih", "b_hh", "peephole"},
    "projection": {"w_hr"},
}


def function_problem(kind, dtype, form, weights, T, B, I, H):
    rng = np.random.default_rng(0)
    lstm, P = kind == "lstm", H - 2 if kind == "lstm" and "w_hr" in WEIGHTS[weights] else H
    rows = {"lstm": 4, "gru": 3, "gru-before": 3}.get(kind, 1) * H
    shapes = {"w_ih": (rows, I), "w_hh": (rows, P), "b_ih": (rows,), "b_hh": (rows,), "peephole": (3, H), "w_hr": (P, H)}
    wanted = {"w_ih", "w_hh"} | (WEIGHTS[weights] if lstm else WEIGHTS[weights] - {"peephole", "w_hr"})
    arrays = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items() if name in wanted}
    batch = () if form == "no batch" else (B,)
    arrays["h0"] = rng.standard_normal((*batch, P)).astype(dtype)
    if lstm:
        arrays["c0"] = rng.standard_normal((*batch, H)).astype(dtype)
    lead = (T,) if form == "no batch" else (B, T) if form == "batch-first" else (T, B)
    x, dy = (rng.standard_normal((*lead, n)).astype(dtype) for n in (I, P))
    dstate = tuple(rng.standard_normal((*batch, n)).astype(dtype) for n in ((P, H) if lstm else (P,)))
    return x, arrays, dy, dstate if lstm else dstate[0]


@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_function(kind, dtype, form, weights, own):
    function, fixed = FUNCTIONS[kind]
    x, arrays, dy, dstate = function_problem(kind, dtype, form, weights, 5, 3, 4, 19)
    options = {**fixed, **arrays, "batch_first": form == "batch-first"}
    *expected, tape = function(not_plain(x), **options, record=True)
    poison(arrays["w_hh"].size, dtype)
    grads = vars(tape.backward(dy, dstate))
    assert parts(function(x, **options)[:2]) == parts(function(x, **options, threads=1)[:2]) == parts(expected)
    for given in ((dy, dstate), (not_plain(dy), dstate)):
        *got, plain = function(x, **options, record=True)
        assert plain._kept is not None and parts(got) == parts(expected) and not got[0].flags.writeable
        if kind == "lstm":
            assert parts(function(x, **options, record=True)[2].c) == parts(function(not_plain(x), **options, record=True)[2].c)
        found = vars(plain.backward(*given))
        assert list(found) == list(grads)
        for name, expected_grad in grads.items():
            assert parts(found[name]) == parts(expected_grad), name
        with pytest.raises(RuntimeError, match="this tape has been used"):
            plain.backward(dy)


def test_weights_that_are_not_plain_go_the_general_way(own):
    x, arrays, *_ = function_problem("lstm", np.float32, "time-major", "all", 5, 3, 4, 19)
    for name in arrays:
        for wrong in (arrays[name].astype(np.float64), not_plain(arrays[name]), arrays[name][..., :-1]):
            with pytest.raises((TypeError, ValueError)) if not isinstance(wrong, Subclass) else nullcontext():
                fastrnn.lstm(x, **{**arrays, name: wrong})
        turned = np.asfortranarray(np.stack([arrays[name], arrays[name]], axis=-1))[..., 0]
        assert parts(fastrnn.lstm(x, **{**arrays, name: turned})) == parts(fastrnn.lstm(x, **arrays))


@pytest.mark.parametrize("name, value", [
    ("threads", 0), ("threads", True), ("record", 1), ("batch_first", 1), ("masked", "zeros"), ("checkpoint", 0), ("reverse", 0),
])
def test_a_wrong_option_is_an_error_all_the_same(name, value, own):
    x, arrays, *_ = function_problem("gru", np.float32, "time-major", "all", 5, 3, 4, 19)
    with pytest.raises((TypeError, ValueError), match=f"^{name}: expected"):
        fastrnn.gru(x, **arrays, **{name: value})


@pytest.mark.parametrize("shape", [(6, 3, 6), (7, 2, 6), (7, 3, 5), (7, 6), (3, 7, 6)])
def test_a_gradient_of_another_shape_is_an_error(shape, own):
    tape = fastrnn.GRU(4, 6, rng=0).forward(np.ones((7, 3, 4), np.float32))[2]
    with pytest.raises(ValueError, match=r"^dy: expected"):
        tape.backward(np.ones(shape, np.float32))
    assert tape.backward(np.ones((7, 3, 6), np.float32)).flat.any()


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")  # from NumPy 2.5 on
@pytest.mark.parametrize("form", FORMS)
def test_the_caller_may_give_y_another_shape(form, own):
    """It is the caller's own view: whatever the tape does after that, it has the numbers as they were."""
    layer, x, state, dy, dstate = problem("gru-after", np.float32, form, 7, 3, 4, 6, 2)
    results = []
    for reshape in (False, True):
        y, _, tape = layer.forward(x, state)
        if reshape:
            y.shape = (-1, 3)
        grads = tape.backward(not_plain(dy), dstate)
        results.append(parts((grads.x, grads.state, grads.flat)))
    assert results[0] == results[1]
