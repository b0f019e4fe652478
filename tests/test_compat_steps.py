"""The single steps of fastrnn.compat against the courses' equations, and what all of its functions owe to arrays that change."""

import numpy as np
import pytest

import originals
from fastrnn.compat import coursera, cs231n, karpathy
from fastrnn.formats.axes import copy_into

SIZES = [(1, 8, 8), (3, 5, 7), (1, 160, 130), (16, 160, 160)]  # N, D, H: the larger have products in memory of their own


def same(results, expected, tolerance):
    if isinstance(expected, dict):
        assert set(results) == set(expected)
        results, expected = zip(*((results[name], expected[name]) for name in expected))
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == wanted.dtype
        assert result.shape == wanted.shape
        assert result.flags.writeable
        np.testing.assert_allclose(result, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("dtypes", ["dd", "ff", "fd", "df"], ids=str)
@pytest.mark.parametrize("N, D, H", SIZES)
@pytest.mark.parametrize("G", [1, 4])
def test_cs231n(G, N, D, H, dtypes):
    """dtypes: of the rows and of the weights."""
    rng, tolerance = np.random.default_rng(0), 1e-12 if dtypes == "dd" else 2e-4
    rows = [rng.standard_normal(shape).astype(dtypes[0]) for shape in [(N, D)] + 4 * [(N, H)]]
    weights = [(rng.standard_normal(shape) / 4).astype(dtypes[1]) for shape in ((D, G * H), (H, G * H), G * H)]
    x, h, c, dh, dc = rows
    if G == 1:
        (next_h, cache), (wanted_h, wanted_cache) = (m.rnn_step_forward(x, h, *weights) for m in (cs231n, originals))
        same([next_h], [wanted_h], tolerance)
        same(cs231n.rnn_step_backward(dh, cache), originals.rnn_step_backward(dh, wanted_cache), tolerance)
        return
    *new, cache = cs231n.lstm_step_forward(x, h, c, *weights)
    *wanted, wanted_cache = originals.lstm_step_forward(x, h, c, *weights)
    same(new, wanted, tolerance)
    same(cs231n.lstm_step_backward(dh, dc, cache), originals.lstm_step_backward(dh, dc, wanted_cache), tolerance)


@pytest.mark.parametrize("dtypes", ["dd", "ff", "fd", "df"], ids=str)
@pytest.mark.parametrize("m, n_x, n_a", SIZES)
def test_coursera(m, n_x, n_a, dtypes):
    rng, tolerance = np.random.default_rng(1), 1e-12 if dtypes == "dd" else 2e-4
    xt, a, c, da, dc = (rng.standard_normal(shape).astype(dtypes[0]) for shape in [(n_x, m)] + 4 * [(n_a, m)])
    shapes = {"Wax": (n_a, n_x), "Waa": (n_a, n_a), "ba": (n_a, 1), "Wya": (3, n_a), "Wy": (3, n_a), "by": (3, 1)}
    shapes |= {f"W{gate}": (n_a, n_a + n_x) for gate in "fico"} | {f"b{gate}": (n_a, 1) for gate in "fico"}
    p = {name: (rng.standard_normal(shape) / 4).astype(dtypes[1]) for name, shape in shapes.items()}
    *new, cache = coursera.rnn_cell_forward(xt, a, p)
    *wanted, wanted_cache = originals.rnn_cell_forward(xt, a, p)
    same(new, wanted, tolerance)
    same(coursera.rnn_cell_backward(da, cache), originals.rnn_cell_backward(da, wanted_cache), tolerance)
    *new, cache = coursera.lstm_cell_forward(xt, a, c, p)
    *wanted, wanted_cache = originals.lstm_cell_forward(xt, a, c, p)
    same(new, wanted, tolerance)
    same(coursera.lstm_cell_backward(da, dc, cache), originals.lstm_cell_backward(da, dc, wanted_cache), tolerance)


def test_steps_of_large_numbers_do_not_overflow():
    x, weights = np.array([[1e3, -1e3]]), (np.eye(2, 8), np.zeros((2, 8)), np.zeros(8))
    with np.errstate(all="raise", under="ignore"):
        for function in (cs231n.lstm_step_forward, cs231n.lstm_forward):
            rows = (np.zeros((1, 2)),) * 2 if function is cs231n.lstm_step_forward else (np.zeros((1, 2)),)
            given = x if function is cs231n.lstm_step_forward else x[:, None]
            assert np.isfinite(function(given, *rows, *weights)[0]).all()


# --- weights that change between calls, in place ----------------------------------------------------------------------------


def of_cs231n(form):
    G = 4 if form == "lstm" else 1
    shapes = {"Wx": (3, G * 4), "Wh": (4, G * 4), "b": (G * 4,)}
    forward = getattr(cs231n, f"{form}_forward")
    return shapes, lambda w: forward(np.ones((2, 5, 3)), np.ones((2, 4)), **w)[0]


def of_coursera(form):
    shapes = {"Wax": (4, 3), "Waa": (4, 4), "ba": (4, 1), "Wya": (2, 4), "by": (2, 1)}
    if form == "lstm":
        shapes = {f"W{gate}": (4, 7) for gate in "fico"} | {f"b{gate}": (4, 1) for gate in "fico"} | {"Wy": (2, 4), "by": (2, 1)}
    forward = getattr(coursera, f"{form}_forward")
    return shapes, lambda w: np.concatenate([a.ravel() for a in forward(np.ones((3, 2, 5)), np.ones((4, 2)), w)[:2]])


def of_karpathy(form):
    if form == "lstm":
        return {"WLSTM": (8, 16)}, lambda w: karpathy.LSTM.forward(np.ones((5, 2, 3)), **w)[0]
    shapes = {"Wxh": (4, 3), "Whh": (4, 4), "Why": (3, 4), "bh": (4, 1), "by": (3, 1)}
    return shapes, lambda w: np.concatenate([np.ravel(a) for a in karpathy.lossFun([0, 1, 2], [1, 2, 0], np.ones((4, 1)), w)])


def of_autograd(form):
    autograd = pytest.importorskip("fastrnn.compat.autograd", reason="the package autograd is not installed", exc_type=ImportError)
    create = autograd.init_lstm_params if form == "lstm" else autograd.create_rnn_params
    predict = autograd.lstm_predict if form == "lstm" else autograd.rnn_predict
    return {name: a.shape for name, a in create(3, 4, 2).items()}, lambda w: np.stack(predict(w, np.ones((5, 2, 3))))


@pytest.mark.parametrize("form", ["rnn", "lstm"])
@pytest.mark.parametrize("of", [of_cs231n, of_coursera, of_karpathy, of_autograd])
def test_weights_that_changed_in_place_are_seen(of, form):
    rng, (shapes, call) = np.random.default_rng(2), of(form)
    weights = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    results = [call(weights)]
    for name in [*weights, *weights]:
        weights[name] *= -0.5
        results.append(call(weights))
        assert np.array_equal(results[-1], call({key: array.copy() for key, array in weights.items()}))
        assert not np.array_equal(results[-1], results[-2])


# --- layouts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("characters", [3, 40], ids=["one-hot", "chosen"])
def test_few_and_many_characters(characters):
    """Against one-hot vectors, a step at a time."""
    rng, H, T = np.random.default_rng(3), 10, 6
    shapes = {"Wxh": (H, characters), "Whh": (H, H), "Why": (characters, H), "bh": (H, 1), "by": (characters, 1)}
    m = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    inputs, targets = rng.integers(characters, size=(2, T)).tolist()
    loss, *_, h = karpathy.lossFun(inputs, targets, np.zeros((H, 1)), m)
    expected, state = 0.0, np.zeros((H, 1))
    for word, target in zip(inputs, targets):
        state = np.tanh(m["Wxh"] @ np.eye(characters)[:, [word]] + m["Whh"] @ state + m["bh"])
        expected -= np.log(originals.softmax(m["Why"] @ state + m["by"])[target, 0])
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(h, state, rtol=1e-12)


def test_large_results_are_in_c_order_and_belong_to_the_caller():
    rng, (n_x, m, T, n_a) = np.random.default_rng(4), (64, 64, 32, 64)  # all strides are powers of two, and all arrays large
    p = {f"W{gate}": rng.standard_normal((n_a, n_a + n_x)) / 8 for gate in "fico"}
    p |= {f"b{gate}": np.zeros((n_a, 1)) for gate in "fico"} | {"Wy": rng.standard_normal((3, n_a)), "by": np.zeros((3, 1))}
    x, a0 = rng.standard_normal((n_x, m, T)), np.zeros((n_a, m))
    a, y, c, caches = coursera.lstm_forward(x, a0, p)
    gradients = coursera.lstm_backward(a, caches)
    for array in (a, y, c, *gradients.values()):
        assert array.flags.c_contiguous
        assert array.flags.writeable
    at, ct = a0, a0
    for t in range(T):
        at, ct, yt, _ = originals.lstm_cell_forward(x[:, :, t], at, ct, p)
        for all_steps, step in ((a, at), (c, ct), (y, yt)):
            np.testing.assert_allclose(all_steps[:, :, t], step, rtol=0, atol=1e-12)
    kept = a.copy(), gradients["dx"].copy()
    other = coursera.lstm_forward(x + 1, a0, p)
    coursera.lstm_backward(other[0], other[3])
    assert np.array_equal(a, kept[0])
    assert np.array_equal(gradients["dx"], kept[1])


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 64), (64, 40), (70, 128), (128, 300), (200, 1024)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_copies_where_one_lies_transposed(shape, dtype):
    source = np.random.default_rng(5).standard_normal(shape).astype(dtype)
    for given in (source, np.asfortranarray(source), source[::-1], source[:, ::2]):
        for order in "CF":
            target = np.zeros(given.shape, dtype, order)
            copy_into(target, given)
            assert np.array_equal(target, given)
