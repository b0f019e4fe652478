"""fastrnn.compat.coursera against the notebook's equations and the numbers that its tests expect."""

import numpy as np
import pytest

from derivatives import assert_gradients, sigmoid
from fastrnn.compat import coursera

n_x, m, n_a, n_y, T_x = 3, 10, 5, 2, 4
GATES = "fico"


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum(axis=0)


def rnn_parameters(rng, n_x=n_x, n_a=n_a, n_y=n_y):
    shapes = {"Waa": (n_a, n_a), "Wax": (n_a, n_x), "Wya": (n_y, n_a), "ba": (n_a, 1), "by": (n_y, 1)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def lstm_parameters(rng, n_x=n_x, n_a=n_a, n_y=n_y):
    shapes = {f"W{gate}": (n_a, n_a + n_x) for gate in GATES} | {f"b{gate}": (n_a, 1) for gate in GATES}
    shapes |= {"Wy": (n_y, n_a), "by": (n_y, 1)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def rnn_cell(xt, a_prev, p):
    a_next = np.tanh(p["Waa"] @ a_prev + p["Wax"] @ xt + p["ba"])
    return a_next, (a_next, a_prev, xt, p)


def lstm_cell(xt, a_prev, c_prev, p):
    both = np.concatenate((a_prev, xt), axis=0)
    ft, it, ot = (sigmoid(p[f"W{gate}"] @ both + p[f"b{gate}"]) for gate in "fio")
    cct = np.tanh(p["Wc"] @ both + p["bc"])
    c_next = ft * c_prev + it * cct
    a_next = ot * np.tanh(c_next)
    return a_next, c_next, (a_next, c_next, a_prev, c_prev, ft, it, cct, ot, xt, p)


def rnn(x, a0, **p):
    a, states = a0, []
    for t in range(x.shape[2]):
        a, _ = rnn_cell(x[:, :, t], a, p)
        states.append(a)
    return np.stack(states, axis=2)


def lstm(x, a0, **p):
    a, c, states, cells = a0, np.zeros_like(a0), [], []
    for t in range(x.shape[2]):
        a, c, _ = lstm_cell(x[:, :, t], a, c, p)
        states.append(a)
        cells.append(c)
    return np.stack(states, axis=2), np.stack(cells, axis=2)


def test_rnn_cell():
    rng = np.random.default_rng(0)
    args, p = {"xt": rng.standard_normal((n_x, m)), "a_prev": rng.standard_normal((n_a, m))}, rnn_parameters(rng)
    a_next, yt, cache = coursera.rnn_cell_forward(**args, parameters=p)
    expected, expected_cache = rnn_cell(**args, p=p)
    np.testing.assert_allclose(a_next, expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(yt, softmax(p["Wya"] @ a_next + p["by"]), rtol=0, atol=1e-14)
    assert_same_cache(cache, expected_cache)
    da = rng.standard_normal((n_a, m))
    gradients = coursera.rnn_cell_backward(da, cache)
    assert list(gradients) == ["dxt", "da_prev", "dWax", "dWaa", "dba"]
    weights = {name: p[name] for name in ("Wax", "Waa", "ba")}
    assert_gradients(lambda xt, a_prev, **p: rnn_cell(xt, a_prev, p)[0], args | weights, (da,), named(gradients))


def test_lstm_cell():
    rng = np.random.default_rng(1)
    args, p = {"xt": rng.standard_normal((n_x, m)), "a_prev": rng.standard_normal((n_a, m))}, lstm_parameters(rng)
    args["c_prev"] = rng.standard_normal((n_a, m))
    a_next, c_next, yt, cache = coursera.lstm_cell_forward(**args, parameters=p)
    expected_a, expected_c, expected_cache = lstm_cell(**args, p=p)
    np.testing.assert_allclose((a_next, c_next), (expected_a, expected_c), rtol=0, atol=1e-14)
    np.testing.assert_allclose(yt, softmax(p["Wy"] @ a_next + p["by"]), rtol=0, atol=1e-14)
    assert_same_cache(cache, expected_cache)
    da, dc = rng.standard_normal((2, n_a, m))
    gradients = coursera.lstm_cell_backward(da, dc, cache)
    assert set(gradients) == {"dxt", "da_prev", "dc_prev", *(f"d{kind}{gate}" for kind in "Wb" for gate in GATES)}
    weights = {name: array for name, array in p.items() if name not in ("Wy", "by")}
    plain = lambda xt, a_prev, c_prev, **p: lstm_cell(xt, a_prev, c_prev, p)[:2]  # noqa: E731
    assert_gradients(plain, args | weights, (da, dc), named(gradients))


@pytest.mark.parametrize("m, T", [(m, T_x), (1, 1), (3, 9)])
def test_rnn(m, T):
    rng = np.random.default_rng(2)
    x, a0, p = rng.standard_normal((n_x, m, T)), rng.standard_normal((n_a, m)), rnn_parameters(rng)
    a, y, caches = coursera.rnn_forward(x, a0, p)
    np.testing.assert_allclose(a, rnn(x, a0, **p), rtol=0, atol=1e-13)
    for t in range(T):
        np.testing.assert_allclose(y[:, :, t], softmax(p["Wya"] @ a[:, :, t] + p["by"]), rtol=0, atol=1e-13)
    a_prev = a0
    for t, cache in enumerate(caches[0]):
        a_prev, expected = rnn_cell(x[:, :, t], a_prev, p)
        assert_same_cache(cache, expected)
    assert caches[1] is x
    da = rng.standard_normal(a.shape)
    gradients = coursera.rnn_backward(da, caches)
    assert list(gradients) == ["dx", "da0", "dWax", "dWaa", "dba"]
    args = {"x": x, "a0": a0, **{name: p[name] for name in ("Wax", "Waa", "ba")}}
    assert_gradients(rnn, args, (da,), named(gradients))


@pytest.mark.parametrize("m, T", [(m, T_x), (1, 1), (3, 9)])
def test_lstm(m, T):
    rng = np.random.default_rng(3)
    x, a0, p = rng.standard_normal((n_x, m, T)), rng.standard_normal((n_a, m)), lstm_parameters(rng)
    a, y, c, caches = coursera.lstm_forward(x, a0, p)
    for got, expected in zip((a, c), lstm(x, a0, **p), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)
    for t in range(T):
        np.testing.assert_allclose(y[:, :, t], softmax(p["Wy"] @ a[:, :, t] + p["by"]), rtol=0, atol=1e-13)
    a_prev, c_prev = a0, np.zeros_like(a0)
    for t, cache in enumerate(caches[0]):
        a_prev, c_prev, expected = lstm_cell(x[:, :, t], a_prev, c_prev, p)
        assert_same_cache(cache, expected)
    da = rng.standard_normal(a.shape)
    gradients = coursera.lstm_backward(da, caches)
    weights = {name: array for name, array in p.items() if name not in ("Wy", "by")}
    assert set(gradients) == {"dx", "da0", *(f"d{name}" for name in weights)}
    assert_gradients(lambda x, a0, **p: lstm(x, a0, **p)[0], {"x": x, "a0": a0} | weights, (da,), named(gradients))


def test_caches_go_together_with_steps_of_ones_own():
    rng = np.random.default_rng(4)
    x, a0, p = rng.standard_normal((n_x, m, T_x)), rng.standard_normal((n_a, m)), lstm_parameters(rng)
    a, _, _, caches = coursera.lstm_forward(x, a0, p)
    da = rng.standard_normal(a.shape)
    gradients = coursera.lstm_backward(da, caches)
    # A loop over steps, with our caches; then our backward, with caches of a loop.
    da_prev, dc_prev, dWf = np.zeros((n_a, m)), np.zeros((n_a, m)), 0
    for t in reversed(range(T_x)):
        one = coursera.lstm_cell_backward(da[:, :, t] + da_prev, dc_prev, caches[0][t])
        da_prev, dc_prev, dWf = one["da_prev"], one["dc_prev"], dWf + one["dWf"]
    np.testing.assert_allclose(da_prev, gradients["da0"], rtol=0, atol=1e-13)
    np.testing.assert_allclose(dWf, gradients["dWf"], rtol=0, atol=1e-12)
    again = coursera.lstm_backward(da, (list(caches[0]), x))
    assert all(np.array_equal(again[name], array) for name, array in gradients.items())
    assert len(caches[0][1:3]) == 2
    assert np.array_equal(caches[0][-1][0], a[:, :, -1])
    with pytest.raises(IndexError):
        caches[0][T_x]
    p = rnn_parameters(rng)
    _, _, caches = coursera.rnn_forward(x, a0, p)
    gradients = coursera.rnn_backward(da, caches)
    again = coursera.rnn_backward(da, (list(caches[0]), x))
    assert all(np.array_equal(again[name], array) for name, array in gradients.items())


def test_the_numbers_of_the_course():
    """From the public tests of the notebook (2021)."""
    rng = np.random.RandomState(17)
    x, a0 = rng.randn(4, 8, 13), rng.randn(7, 8)
    p = {
        name: rng.randn(*shape)
        for name, shape in (("Waa", (7, 7)), ("Wax", (7, 4)), ("Wya", (3, 7)), ("ba", (7, 1)), ("by", (3, 1)))
    }
    a, y, caches = coursera.rnn_forward(x, a0, p)
    np.testing.assert_allclose(a[5, 2, 2:6], [0.99999291, 0.99332189, 0.9921928, 0.99503445], rtol=1e-5)
    np.testing.assert_allclose(y[2, 1, 1:5], [0.19428, 0.14292, 0.24993, 0.00119], rtol=0, atol=1e-4)
    assert (len(caches), len(caches[0])) == (2, 13)
    # And of the first release: np.random.seed(1), and everything drawn in this order.
    rng = np.random.RandomState(1)
    x, a0 = rng.randn(3, 10, 4), rng.randn(5, 10)
    p = {
        name: rng.randn(*shape)
        for name, shape in (("Wax", (5, 3)), ("Waa", (5, 5)), ("Wya", (2, 5)), ("ba", (5, 1)), ("by", (2, 1)))
    }
    a, _, caches = coursera.rnn_forward(x, a0, p)
    gradients = coursera.rnn_backward(rng.randn(5, 10, 4), caches)
    np.testing.assert_allclose(gradients["dx"][1][2], [-2.07101689, -0.59255627, 0.02466855, 0.01483317], rtol=0, atol=6e-9)
    np.testing.assert_allclose(gradients["da0"][2][3], -0.314942375127, rtol=1e-10)
    np.testing.assert_allclose(gradients["dWax"][3][1], 11.2641044965, rtol=1e-10)
    np.testing.assert_allclose(gradients["dWaa"][1][2], 2.30333312658, rtol=1e-10)
    np.testing.assert_allclose(gradients["dba"][4], [-0.74747722], rtol=1e-7)


def test_float32_stays():
    rng = np.random.default_rng(5)
    p = {name: array.astype(np.float32) for name, array in lstm_parameters(rng).items()}
    x, a0 = rng.standard_normal((n_x, m, T_x), np.float32), rng.standard_normal((n_a, m), np.float32)
    a, y, c, caches = coursera.lstm_forward(x, a0, p)
    arrays = [a, y, c, *caches[0][1][:-1], *coursera.lstm_backward(a, caches).values()]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": np.zeros((3, 10))}, r"x, a0: expected \(n_x, m, T_x\), \(n_a, m\), got \(3, 10\), \(5, 10\)"),
        ({"a0": np.zeros((5, 9))}, r"h0: expected \(B, H\) = \(10, 5\), got \(9, 5\)"),
        ({"Wf": np.zeros((5, 7))}, r"Wi: expected \(H, H\+I\) with H = 5, I = 2, got \(5, 8\)"),
        ({"bf": np.zeros(5)}, r"bf: expected \(H, 1\) with H = 5, I = 3, got \(5,\)"),
    ],
)
def test_errors(change, message):
    p = lstm_parameters(np.random.default_rng(6)) | {name: array for name, array in change.items() if name[0] in "Wb"}
    args = {"x": np.zeros((n_x, m, T_x)), "a0": np.zeros((n_a, m))} | {name: a for name, a in change.items() if name in ("x", "a0")}
    with pytest.raises(ValueError, match=message):
        coursera.lstm_forward(**args, parameters=p)


def assert_same_cache(cache, expected):
    assert isinstance(cache, tuple)
    assert len(cache) == len(expected)
    assert cache[-1] is expected[-1]
    for one, other in zip(cache[:-1], expected[:-1]):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)


def named(gradients):
    """By the names of what they are gradients of."""
    return {name[1:]: array for name, array in gradients.items()}
