"""fastrnn.compat.cs231n against the assignment's equations and the numbers that its notebooks expect."""

import numpy as np
import pytest

from derivatives import assert_gradients, sigmoid
from fastrnn.compat import cs231n

SIZES = [(2, 3, 4, 5), (1, 1, 1, 1), (7, 9, 3, 8), (3, 0, 2, 2)]  # N, T, D, H


def rnn_step(x, prev_h, Wx, Wh, b):
    return np.tanh(x @ Wx + prev_h @ Wh + b)


def lstm_step(x, prev_h, prev_c, Wx, Wh, b):
    a = x @ Wx + prev_h @ Wh + b
    H = prev_h.shape[1]
    i, f, o, g = (a[:, k * H : (k + 1) * H] for k in range(4))
    next_c = sigmoid(f) * prev_c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(next_c), next_c


def rnn(x, h0, Wx, Wh, b):
    h, hs = h0, []
    for t in range(x.shape[1]):
        h = rnn_step(x[:, t], h, Wx, Wh, b)
        hs.append(h)
    return np.stack(hs, axis=1) if hs else np.zeros((len(x), 0, h0.shape[1]))


def lstm(x, h0, Wx, Wh, b):
    h, c, hs = h0, np.zeros_like(h0), []
    for t in range(x.shape[1]):
        h, c = lstm_step(x[:, t], h, c, Wx, Wh, b)
        hs.append(h)
    return np.stack(hs, axis=1) if hs else np.zeros((len(x), 0, h0.shape[1]))


def weights(rng, G, D, H):
    return {"Wx": rng.standard_normal((D, G * H)), "Wh": rng.standard_normal((H, G * H)), "b": rng.standard_normal(G * H)}


SEQUENCES = [(rnn, cs231n.rnn_forward, cs231n.rnn_backward, 1), (lstm, cs231n.lstm_forward, cs231n.lstm_backward, 4)]


@pytest.mark.parametrize("N, T, D, H", SIZES)
@pytest.mark.parametrize("plain, forward, backward, G", SEQUENCES, ids=["rnn", "lstm"])
def test_sequences(plain, forward, backward, G, N, T, D, H):
    rng = np.random.default_rng(0)
    args = {"x": rng.standard_normal((N, T, D)), "h0": rng.standard_normal((N, H)), **weights(rng, G, D, H)}
    before = {name: array.copy() for name, array in args.items()}
    h, cache = forward(**args)
    assert h.dtype == np.float64
    np.testing.assert_allclose(h, plain(**args), rtol=0, atol=1e-13)
    dh = rng.standard_normal(h.shape)
    gradients = dict(zip(("x", "h0", "Wx", "Wh", "b"), backward(dh, cache), strict=True))
    assert_gradients(plain, args, (dh,), gradients)
    assert all(np.array_equal(args[name], array) for name, array in before.items())


@pytest.mark.parametrize("plain, forward, backward, G", SEQUENCES, ids=["rnn", "lstm"])
def test_a_cache_serves_more_than_once_and_h_is_the_callers(plain, forward, backward, G):
    rng = np.random.default_rng(1)
    x, h0, w = rng.standard_normal((2, 5, 3)), rng.standard_normal((2, 4)), weights(rng, G, 3, 4)
    h, cache = forward(x, h0, **w)
    dh = rng.standard_normal(h.shape)
    first = backward(dh, cache)
    h *= 0  # as the originals' h, it may be written to
    for one, two in zip(first, backward(dh, cache), strict=True):
        assert np.array_equal(one, two)
    for one, two in zip(first, backward(np.asfortranarray(2 * dh), cache), strict=True):
        np.testing.assert_allclose(two, 2 * one, rtol=1e-14)


def test_steps():
    rng = np.random.default_rng(2)
    args = {"x": rng.standard_normal((4, 5)), "prev_h": rng.standard_normal((4, 6)), **weights(rng, 1, 5, 6)}
    next_h, cache = cs231n.rnn_step_forward(**args)
    np.testing.assert_allclose(next_h, rnn_step(**args), rtol=0, atol=1e-14)
    dnext_h, dnext_c = rng.standard_normal((2, 4, 6))
    assert_gradients(rnn_step, args, (dnext_h,), dict(zip(args, cs231n.rnn_step_backward(dnext_h, cache), strict=True)))

    args = {"x": args["x"], "prev_h": args["prev_h"], "prev_c": rng.standard_normal((4, 6)), **weights(rng, 4, 5, 6)}
    next_h, next_c, cache = cs231n.lstm_step_forward(**args)
    np.testing.assert_allclose((next_h, next_c), lstm_step(**args), rtol=0, atol=1e-14)
    gradients = cs231n.lstm_step_backward(dnext_h, dnext_c, cache)
    assert_gradients(lstm_step, args, (dnext_h, dnext_c), dict(zip(args, gradients, strict=True)))


def linspaced(*shapes):
    return [np.linspace(low, high, int(np.prod(shape))).reshape(shape) for low, high, shape in shapes]


def test_the_numbers_of_the_notebooks():
    x, h0, Wx, Wh, b = linspaced(
        (-0.1, 0.3, (2, 3, 4)), (-0.3, 0.1, (2, 5)), (-0.2, 0.4, (4, 5)), (-0.4, 0.1, (5, 5)), (-0.7, 0.1, (5,))
    )
    h, _ = cs231n.rnn_forward(x, h0, Wx, Wh, b)
    expected = [
        [-0.42070749, -0.27279261, -0.11074945, 0.05740409, 0.22236251],
        [-0.39525808, -0.22554661, -0.0409454, 0.14649412, 0.32397316],
        [-0.42305111, -0.24223728, -0.04287027, 0.15997045, 0.35014525],
        [-0.55857474, -0.39065825, -0.19198182, 0.02378408, 0.23735671],
        [-0.27150199, -0.07088804, 0.13562939, 0.33099728, 0.50158768],
        [-0.51014825, -0.30524429, -0.06755202, 0.17806392, 0.40333043],
    ]
    np.testing.assert_allclose(h.reshape(6, 5), expected, rtol=0, atol=6e-9)
    x, prev_h, prev_c, Wx, Wh, b = linspaced(
        (-0.4, 1.2, (3, 4)), (-0.3, 0.7, (3, 5)), (-0.4, 0.9, (3, 5)), (-2.1, 1.3, (4, 20)), (-0.7, 2.2, (5, 20)), (0.3, 0.7, (20,))
    )  # fmt: skip
    next_h, next_c, _ = cs231n.lstm_step_forward(x, prev_h, prev_c, Wx, Wh, b)
    np.testing.assert_allclose(next_h[0], [0.24635157, 0.28610883, 0.32240467, 0.35525807, 0.38474904], rtol=0, atol=6e-9)
    np.testing.assert_allclose(next_c[2], [0.74192008, 0.90592151, 1.07717006, 1.25120233, 1.42395676], rtol=0, atol=6e-9)


def test_words_and_scores():
    rng = np.random.default_rng(3)
    words, W = rng.integers(0, 5, (2, 7)), rng.standard_normal((5, 3))
    out, cache = cs231n.word_embedding_forward(words, W)
    assert np.array_equal(out, W[words])
    dout = rng.standard_normal(out.shape)
    dW = cs231n.word_embedding_backward(dout, cache)
    np.testing.assert_allclose(dW, [dout[words == k].sum(axis=0) for k in range(5)], rtol=1e-13, atol=1e-15)

    args = {"x": rng.standard_normal((2, 7, 3)), "w": rng.standard_normal((3, 4)), "b": rng.standard_normal(4)}
    out, cache = cs231n.temporal_affine_forward(**args)
    np.testing.assert_allclose(out, np.einsum("ntd,dm->ntm", args["x"], args["w"]) + args["b"], rtol=0, atol=1e-14)
    dout = rng.standard_normal(out.shape)
    gradients = dict(zip(args, cs231n.temporal_affine_backward(dout, cache), strict=True))
    assert_gradients(lambda x, w, b: np.einsum("ntd,dm->ntm", x, w) + b, args, (dout,), gradients)


def test_softmax_loss(capsys):
    rng = np.random.default_rng(4)
    x, y, mask = rng.standard_normal((3, 4, 5)), rng.integers(0, 5, (3, 4)), rng.random((3, 4)) < 0.5

    def plain(x):
        p = np.exp(x) / np.exp(x).sum(axis=2, keepdims=True)
        return -np.sum(np.log(np.take_along_axis(p, y[:, :, None], 2)[:, :, 0]) * mask) / 3

    loss, dx = cs231n.temporal_softmax_loss(x, y, mask)
    assert abs(loss - plain(x)) < 1e-14
    assert_gradients(plain, {"x": x}, (np.float64(1),), {"x": dx})
    assert not dx[~mask].any()
    assert capsys.readouterr().out == ""
    shifted, _ = cs231n.temporal_softmax_loss(x + 1000, y, mask, verbose=True)
    assert abs(shifted - loss) < 1e-12
    assert capsys.readouterr().out == "dx_flat:  (12, 5)\n"


@pytest.mark.parametrize(
    "given, result", [(np.float32, np.float32), (np.float64, np.float64), (int, np.float64), (np.float16, np.float32)]
)
def test_dtypes(given, result):
    rng = np.random.default_rng(5)
    x, h0, w = (3 * rng.standard_normal((2, 5, 3))).astype(given), np.zeros((2, 4), given), weights(rng, 4, 3, 4)
    w = {name: array.astype(given) for name, array in w.items()}
    h, cache = cs231n.lstm_forward(x, h0, **w)
    assert {a.dtype for a in (h, *cs231n.lstm_backward(np.ones_like(h), cache))} == {np.dtype(result)}
    wide = {name: array.astype(np.float64) for name, array in w.items()}
    np.testing.assert_allclose(
        h, lstm(x.astype(np.float64), h0.astype(np.float64), **wide), rtol=0, atol=1e-5 if result == np.float32 else 1e-13
    )


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"Wx": np.zeros((3, 15))}, ValueError, r"Wx: expected \(I, 4\*H\), got \(3, 15\)"),
        ({"Wh": np.zeros((5, 16))}, ValueError, r"Wh: expected \(H, 4\*H\) with H = 4, I = 3, got \(5, 16\)"),
        ({"b": np.zeros(15)}, ValueError, r"b: expected \(4\*H,\)"),
        ({"x": np.zeros((2, 3))}, ValueError, r"x: expected 3 dimensions, got shape \(2, 3\)"),
        ({"x": np.zeros((2, 5, 2))}, ValueError, "x: expected the last axis to be I = 3"),
        ({"h0": np.zeros((3, 4))}, ValueError, r"h0: expected \(B, H\) = \(2, 4\), got \(3, 4\)"),
        ({"x": "abc"}, TypeError, "x: expected an array of real numbers"),
        ({"b": np.zeros(16, complex)}, TypeError, "b: expected an array of real numbers, got complex128"),
        ({"h0": np.zeros((2, 4), np.longdouble)}, TypeError, "h0: expected at most float64"),
        ({"h0": np.ma.zeros((2, 4))}, TypeError, "h0: expected an array, got MaskedArray"),
    ],
)
def test_errors(change, error, message):
    args = {"x": np.zeros((2, 5, 3)), "h0": np.zeros((2, 4)), "Wx": np.zeros((3, 16)), "Wh": np.zeros((4, 16)), "b": np.zeros(16)}
    with pytest.raises(error, match=message):
        cs231n.lstm_forward(**args | change)
