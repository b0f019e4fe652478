"""fastrnn.compat.karpathy against the equations of min-char-rnn.py and of the batched LSTM."""

import numpy as np
import pytest

from derivatives import assert_gradients, sigmoid
from fastrnn.compat.karpathy import LSTM, lossFun, sample

# min-char-rnn.py keeps its model in global variables; so does this module.
Wxh, Whh, Why, bh, by = (np.random.default_rng(0).standard_normal(s) for s in ((6, 9), (6, 6), (9, 6), (6, 1), (9, 1)))
MODEL = {"Wxh": Wxh, "Whh": Whh, "Why": Why, "bh": bh, "by": by}
INPUTS, TARGETS = [3, 1, 4, 1, 5, 8, 2], [1, 4, 1, 5, 8, 2, 6]


def loss_and_state(hprev, Wxh, Whh, Why, bh, by, inputs=INPUTS, targets=TARGETS):
    h, loss = hprev, 0
    for word, target in zip(inputs, targets):
        x = np.zeros((Wxh.shape[1], 1))
        x[word] = 1
        h = np.tanh(Wxh @ x + Whh @ h + bh)
        y = Why @ h + by
        p = np.exp(y) / np.sum(np.exp(y))
        loss = loss - np.log(p[target, 0])
    return np.asarray(loss), h


def test_loss_and_gradients():
    hprev = np.random.default_rng(1).standard_normal((6, 1))
    loss, *gradients, last = lossFun(INPUTS, TARGETS, hprev)
    expected, h = loss_and_state(hprev, **MODEL)
    assert abs(loss - expected) < 1e-12
    np.testing.assert_allclose(last, h, rtol=0, atol=1e-13)
    assert np.abs(np.concatenate([g.ravel() for g in gradients])).max() < 5
    # The gradient is that of the loss alone: the last state is carried over, and nothing comes back through it.
    given = dict(zip(MODEL, gradients, strict=True))
    assert_gradients(lambda **m: loss_and_state(hprev, **m)[0], MODEL, (np.float64(1),), given)


def test_each_element_is_clipped():
    hprev = np.zeros((6, 1))
    _, *gradients, _ = lossFun(INPUTS * 20, TARGETS * 20, hprev)
    clipped = 0
    for (name, array), gradient in zip(MODEL.items(), gradients, strict=True):
        for at in np.ndindex(*array.shape):
            moved = array.astype(complex)
            moved[at] += 1e-30j
            exact = loss_and_state(hprev, **MODEL | {name: moved}, inputs=INPUTS * 20, targets=TARGETS * 20)[0].imag / 1e-30
            assert abs(gradient[at] - np.clip(exact, -5, 5)) < 1e-9
            clipped += abs(exact) > 5
    assert 0 < clipped < sum(array.size for array in MODEL.values())


def test_sample_draws_as_the_original():
    h = np.random.default_rng(2).standard_normal((6, 1))
    np.random.seed(7)
    x = np.zeros((9, 1))
    x[4] = 1
    state, expected = h, []
    for _ in range(50):
        state = np.tanh(np.dot(Wxh, x) + np.dot(Whh, state) + bh)
        y = np.dot(Why, state) + by
        p = np.exp(y) / np.sum(np.exp(y))
        ix = np.random.choice(range(9), p=p.ravel())
        x = np.zeros((9, 1))
        x[ix] = 1
        expected.append(ix)
    np.random.seed(7)
    before = h.copy()
    assert sample(h, 4, 50) == expected
    assert np.array_equal(h, before)
    assert sample(h, 4, 0) == []


def test_the_model_is_that_of_the_caller():
    scope = {"lossFun": lossFun, "hprev": np.zeros((6, 1)), **MODEL, "Why": 2 * Why}
    exec("result = lossFun([1, 2], [2, 3], hprev)", scope)
    assert scope["result"][0] == lossFun([1, 2], [2, 3], np.zeros((6, 1)), model=MODEL | {"Why": 2 * Why})[0]
    with pytest.raises(NameError, match=r"Wxh: expected in the globals of the caller \(or pass model="):
        exec("lossFun([1, 2], [2, 3], hprev)", {"lossFun": lossFun, "hprev": np.zeros((6, 1))})


@pytest.mark.parametrize(
    "inputs, targets, change, error, message",
    [
        ([1, 9], [1, 2], {}, ValueError, "inputs: expected a list of at least one integer from 0 to 8, got"),
        ([1, -1], [1, 2], {}, ValueError, "inputs: expected a list of at least one integer from 0 to 8, got"),
        ([], [], {}, ValueError, "inputs: expected a list of at least one integer"),
        ([0.5], [1], {}, TypeError, "inputs: expected integers, got float64"),
        ([1, 2], [1], {}, ValueError, "targets: expected as many as inputs, 2, got 1"),
        ([1], [1], {"bh": np.zeros(6)}, ValueError, r"model: expected Wxh \(H, V\), .* got"),
        ([1], [1], {"Wxh": np.zeros(6)}, ValueError, r"Wxh, Whh: expected \(H, V\), \(H, H\), got \(6,\), \(6, 6\)"),
    ],
)
def test_errors(inputs, targets, change, error, message):
    with pytest.raises(error, match=message):
        lossFun(inputs, targets, np.zeros((6, 1)), model=MODEL | change)


# --- the batched LSTM -----------------------------------------------------------------------------------------------


def batched(X, WLSTM, c0, h0):
    h, c, Hout = h0, c0, []
    for x in X:
        a = np.hstack([np.ones((len(x), 1)), x, h]) @ WLSTM
        i, f, o, g = np.split(a, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        Hout.append(h)
    return np.stack(Hout), c, h


def arguments(rng, n=5, b=3, d=4, input_size=10):
    shapes = {"X": (n, b, input_size), "WLSTM": (1 + input_size + d, 4 * d), "c0": (b, d), "h0": (b, d)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def test_batched_lstm():
    rng = np.random.default_rng(3)
    args = arguments(rng)
    Hout, Cn, hn, cache = LSTM.forward(**args)
    for got, expected in zip((Hout, Cn, hn), batched(**args), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)
    dHout, dcn, dhn = (rng.standard_normal(a.shape) for a in (Hout, Cn, hn))
    dX, dWLSTM, dc0, dh0 = LSTM.backward(dHout, cache, dcn, dhn)
    assert_gradients(batched, args, (dHout, dcn, dhn), {"X": dX, "WLSTM": dWLSTM, "c0": dc0, "h0": dh0})
    again = LSTM.backward(dHout, cache)
    zero = np.zeros_like(dcn)
    assert_gradients(batched, args, (dHout, zero, zero), dict(zip(("X", "WLSTM", "c0", "h0"), again, strict=True)))
    assert all(np.array_equal(one, two) for one, two in zip(again, LSTM.backward(dHout, cache, zero, zero), strict=True))
    assert (cache["WLSTM"] is args["WLSTM"], cache["Hout"] is Hout) == (True, True)


def test_sequence_and_steps_are_the_same():
    rng = np.random.default_rng(4)
    args = arguments(rng)
    Hout, Cn, _, cache = LSTM.forward(**args)
    c, h, caches = args["c0"], args["h0"], []
    for t in range(5):
        _, c, h, step = LSTM.forward(args["X"][t : t + 1], args["WLSTM"], c, h)
        caches.append(step)
        assert np.array_equal(h, Hout[t])
    assert np.array_equal(c, Cn)
    dH, dc, dh, dW = rng.standard_normal(Hout.shape), None, None, 0
    for t in reversed(range(5)):
        _, dWt, dc, dh = LSTM.backward(dH[t : t + 1], caches[t], dc, dh)
        dW = dW + dWt
    _, dWLSTM, dc0, dh0 = LSTM.backward(dH, cache)
    for got, expected in ((dW, dWLSTM), (dc, dc0), (dh, dh0)):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_zeros_are_the_default_and_init_is_the_originals():
    np.random.seed(0)
    W = LSTM.init(10, 4)
    np.random.seed(0)
    expected = np.random.randn(15, 16) / np.sqrt(14)
    assert np.array_equal(W[1:], expected[1:])
    assert np.array_equal(W[0], [0] * 4 + [3] * 4 + [0] * 8)
    X = np.random.default_rng(5).standard_normal((3, 2, 10))
    zero = np.zeros((2, 4))
    assert np.array_equal(LSTM.forward(X, W)[0], LSTM.forward(X, W, zero, zero)[0])
    with pytest.raises(ValueError, match=r"weights: expected \(1\+I\+H, 4\*H\)"):
        LSTM.forward(X, W[:, :-1])
