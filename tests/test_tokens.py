"""Integers in place of one-hot rows: the layer's own answer on these rows, to the bit, and the gradients of its weights."""

import copy
import inspect

import numpy as np
import pytest

import fastrnn

F32, F64 = np.float32, np.float64
LAYERS = {
    "RNN": lambda V, **k: fastrnn.RNN(V, 5, **k),
    "GRU": lambda V, **k: fastrnn.GRU(V, 17, **k),
    "GRU before": lambda V, **k: fastrnn.GRU(V, 6, reset_after=False, bias=False, **k),
    "LSTM": lambda V, **k: fastrnn.LSTM(V, 5, **k),
    "LSTM all": lambda V, **k: fastrnn.LSTM(V, 6, 2, bidirectional=True, proj_size=3, peephole=True, dropout=0.5, **k),
}
SIZES = {"few tokens": (40, 7, 11), "many rows": (3, 200, 5), "many columns": (4, 3, 50), "one row": (140, 1, 4)}
FUNCTIONS = {"rnn": fastrnn.rnn, "gru": fastrnn.gru, "lstm": fastrnn.lstm}


def one_hot(ids, V, dtype):
    return np.eye(V, dtype=dtype)[ids]


def calls(rng, T, B, shape):
    """Keywords of some calls; shape: (T, B) or (B, T)."""
    return {
        "plain": {},
        "ragged": {"lengths": rng.integers(0, T + 1, B)},
        "masked": {"mask": rng.random(shape) < 0.7, "reset": rng.random(shape) < 0.2, "masked": "hold"},
        "checkpoint": {"checkpoint": 4, "lengths": rng.integers(0, T + 1, B)},
    }


def check_both(layer, other, ids, options, same):
    """Forward and backward of two layers of the same state, on integers and on one-hot rows."""
    x = one_hot(ids, layer.input_size, layer.dtype)
    (y, state, tape), (y2, state2, tape2) = layer.forward(ids, **options), other.forward(x, **options)
    assert np.array_equal(y, y2)
    assert all(map(np.array_equal, state, state2))
    dy = np.random.default_rng(7).standard_normal(y.shape).astype(y.dtype)
    grads, grads2 = tape.backward(dy, truncate=3), tape2.backward(dy, truncate=3)
    assert grads.x is None and grads2.x.shape == x.shape
    assert grads.flat.any()
    for name in grads.params:
        same(grads.params[name], grads2.params[name])
    assert all(map(np.array_equal, grads.state, grads2.state))


def equal(a, b):
    np.testing.assert_array_equal(a, b)


def nearly(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [F32, F64])
def test_integers_are_one_hot_rows_to_the_bit(name, size, dtype):
    T, B, V = SIZES[size]
    rng = np.random.default_rng(1)
    for batch_first in (False, True):
        layer = LAYERS[name](V, dtype=dtype, batch_first=batch_first, rng=2)
        ids = rng.integers(0, V, (B, T) if batch_first else (T, B)).astype(np.uint8 if batch_first else np.int64)
        for options in calls(rng, T, B, ids.shape).values():
            check_both(layer, copy.deepcopy(layer), ids, options, equal)
            assert np.array_equal(layer(ids)[0], layer(one_hot(ids, V, dtype))[0])


def test_on_every_instruction_set_and_number_of_threads(every_isa, small_work_is_shared_out):
    rng, V, before = np.random.default_rng(3), 30, fastrnn.get_num_threads()
    try:
        for threads in (1, 2, 3):
            fastrnn.set_num_threads(threads)
            for B in (1, 40):
                layer = fastrnn.LSTM(V, 70, bidirectional=True, rng=4)
                check_both(layer, layer, rng.integers(0, V, (50, B)), {}, equal)
    finally:
        fastrnn.set_num_threads(before)


def test_beside_one_hot_products_by_blas(use):
    use(gemm="blas")  # it adds up gradients in an order of its own
    rng = np.random.default_rng(3)
    for name in LAYERS:
        layer = LAYERS[name](30, rng=4)
        ids = rng.integers(0, 30, (50, 4))
        x = one_hot(ids, 30, F32)
        (y, _, tape), (y2, _, tape2) = copy.deepcopy(layer).forward(ids), layer.forward(x)
        nearly(y, y2)
        nearly(tape.backward(y).flat, tape2.backward(y).flat)


def test_bfloat16_rounds_the_columns_and_the_gradients_as_a_product_does():
    rng, V = np.random.default_rng(5), 9
    for cls in (fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM):
        layer = cls(V, 20, num_layers=2, precision="bf16", rng=6)
        check_both(layer, layer, rng.integers(0, V, (30, 6)), {}, nearly)
        assert not np.array_equal(layer(np.arange(V))[0], cls(V, 20, num_layers=2, rng=6)(np.arange(V))[0])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_rows_without_a_batch(name):
    rng, gates, V, H = np.random.default_rng(8), {"rnn": 1, "gru": 3, "lstm": 4}[name], 6, 5
    w_ih, w_hh = (rng.standard_normal((gates * H, n)) for n in (V, H))
    for shape, options in (((7, 3), {"reverse": True}), ((3, 7), {"batch_first": True}), ((7,), {"batch_first": True})):
        ids = rng.integers(0, V, shape)
        found = [
            FUNCTIONS[name](x, w_ih, w_hh, record=True, lengths=None if len(shape) == 1 else [7, 4, 0], **options)
            for x in (ids, one_hot(ids, V, F64))
        ]
        assert np.array_equal(found[0][0], found[1][0])
        grads, grads2 = (tape.backward(y - 1) for y, _, tape in found)
        assert grads.x is None
        assert np.array_equal(grads.w_ih, grads2.w_ih) and np.array_equal(grads.w_hh, grads2.w_hh)
        assert np.array_equal(grads.h0, grads2.h0) and grads.h0.shape == grads2.h0.shape


def test_cells_frozen_layers_and_no_steps():
    ids, x = np.array([4, 0, 4]), one_hot([4, 0, 4], 5, F32)
    for cls in (fastrnn.RNNCell, fastrnn.GRUCell, fastrnn.LSTMCell):
        cell = cls(5, 4, rng=9)
        (state, tape), (state2, tape2) = cell.forward(ids), cell.forward(x)
        assert np.array_equal(state, state2)
        assert np.array_equal(cell(ids, state), cell.frozen()(x, state))
        dstate = (np.ones((3, 4), F32), None) if cls is fastrnn.LSTMCell else np.ones((3, 4), F32)
        grads, grads2 = tape.backward(dstate), tape2.backward(dstate)
        assert grads.x is None
        assert np.array_equal(grads.flat, grads2.flat)
    for V in (5, 50):
        layer = fastrnn.GRU(V, 4, num_layers=2, rng=9)
        assert np.array_equal(layer.frozen()(ids)[0], layer(one_hot(ids, V, F32))[0])
        y, _, tape = layer.forward(np.zeros((0, 3), int))
        assert y.shape == (0, 3, 4)
        assert not tape.backward(y).flat.any()


def test_which_weights_a_token_sees():
    """An infinite weight, or a NaN, reaches the tokens of its column alone; -0 and denormals count as 0 does."""
    layer = fastrnn.GRU(3, 4, bias=False, rng=10)
    w = layer.params["weight_ih_l0"]
    w[:, 0], w[:, 1] = -0.0, 1e-42
    ids = np.array([0, 1, 0, 1])
    zeros = layer(ids)[0]
    assert np.array_equal(zeros.view(np.int32), layer(one_hot(ids, 3, F32))[0].view(np.int32))
    assert not zeros.any()
    w[:, 2] = np.inf
    assert np.array_equal(layer(ids)[0], zeros)
    assert np.isnan(layer(one_hot(ids, 3, F32))[0]).any()
    w[0, 2] = np.nan
    assert np.isnan(layer(np.array([2]))[0]).any()


def wrong_calls():
    layer, cell, ids = fastrnn.GRU(5, 4, rng=0), fastrnn.GRUCell(5, 4, rng=0), np.zeros((7, 2), int)
    first = fastrnn.LSTM(5, 4, batch_first=True, rng=0)
    w_ih, w_hh = np.ones((4, 5)), np.ones((4, 4))
    packed = fastrnn.pack(np.ones((7, 2, 5), F32), [7, 2])._replace(data=np.zeros(9, int))
    return {
        "too large": (lambda: layer(ids + 5), ValueError, "x: expected integers from 0 to input_size - 1 = 4, got 5 at (0, 0)"),
        "negative": (lambda: layer.forward(ids - np.arange(2)), ValueError, "from 0 to input_size - 1 = 4, got -1 at (0, 1)"),
        "of the last row": (lambda: first(np.array([[0, 0, 0], [0, 0, 9]])), ValueError, "= 4, got 9 at (1, 2)"),
        "huge": (lambda: layer(np.array([0, 2**64 - 1], np.uint64)), ValueError, f"got {2**64 - 1} at 1"),
        "booleans": (lambda: layer(ids == 0), TypeError, "x: expected dtype float32, got bool"),
        "three axes": (lambda: layer(ids[None]), TypeError, "x: expected float32, or integers (T, B) or (T,)"),
        "no axes": (lambda: layer(np.array(3)), TypeError, "x: expected float32, or integers (T, B) or (T,)"),
        "masked": (lambda: layer(np.ma.array(ids, mask=ids == 0)), TypeError, "got MaskedArray"),
        "packed": (lambda: layer(packed), TypeError, "x.data: expected float32, got int64"),
        "of a cell": (lambda: cell(np.array([1, 7])), ValueError, "x: expected integers from 0 to input_size - 1 = 4, got 7 at 1"),
        "axes of a cell": (lambda: cell(ids), TypeError, "x: expected float32, or integers (B,)"),
        "of a function": (lambda: fastrnn.rnn(ids + 5, w_ih, w_hh), ValueError, "x: expected integers from 0 to I - 1 = 4, got 5"),
        "weights": (lambda: fastrnn.rnn(ids, w_ih.astype(int), w_hh), TypeError, "w_ih: expected dtype float32 or float64"),
        "stream": (lambda: layer.stream(2)(ids[0]), TypeError, "x: expected dtype float32, got int64"),
    }  # fmt: skip


@pytest.mark.parametrize("case", wrong_calls())
def test_what_is_no_token_is_an_error_that_says_so(case):
    call, error, message = wrong_calls()[case]
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)


# --- forget_bias ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [fastrnn.LSTM, fastrnn.LSTMCell])
def test_forget_bias_is_added_to_what_is_drawn(make):
    options = {"num_layers": 2, "bidirectional": True} if make is fastrnn.LSTM else {}
    plain, same, biased = (make(3, 4, rng=1, **k, **options) for k in ({}, {"forget_bias": 0.0}, {"forget_bias": 1.5}))
    assert np.array_equal(plain.flat, same.flat)
    assert plain.rng.bit_generator.state == biased.rng.bit_generator.state
    for name, array in biased.params.items():
        added = np.zeros_like(array)
        if name.startswith("bias_ih"):
            added[4:8] = 1.5
        assert np.array_equal(array, plain.params[name] + added)
    assert repr(biased).endswith("forget_bias=1.5)") and "forget" not in repr(plain)
    assert inspect.signature(make).parameters["forget_bias"].kind is inspect.Parameter.KEYWORD_ONLY


def test_forget_bias_that_would_go_nowhere_is_an_error():
    for make in (fastrnn.LSTM, fastrnn.LSTMCell):
        with pytest.raises(ValueError, match="forget_bias: expected 0 with bias=False"):
            make(3, 4, bias=False, forget_bias=1)
        with pytest.raises(ValueError, match="forget_bias: expected a finite number"):
            make(3, 4, forget_bias=np.inf)
        with pytest.raises(TypeError, match="forget_bias: expected a number"):
            make(3, 4, forget_bias="one")
    with pytest.raises(ValueError, match="forget_bias: expected none here"):
        fastrnn.LSTM.from_weights(fastrnn.LSTM(3, 4, rng=0).state_dict(), forget_bias=1.0)
