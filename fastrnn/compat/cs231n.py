"""Stanford CS231n, assignment 3: the functions of cs231n/rnn_layers.py.

N rows, T steps, D inputs, H hidden units; gates of the LSTM in the order i, f, o, g. Caches are objects to pass on; that of a whole
sequence is good for any number of backward calls.

>>> from fastrnn.compat.cs231n import lstm_backward, lstm_forward
>>> h, cache = lstm_forward(x, h0, Wx, Wh, b)
>>> dx, dh0, dWx, dWh, db = lstm_backward(dh, cache)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _step
from ._recorded import Recorded
from ._step import sigmoid

__all__ = [
    "lstm_backward",
    "lstm_forward",
    "lstm_step_backward",
    "lstm_step_forward",
    "rnn_backward",
    "rnn_forward",
    "rnn_step_backward",
    "rnn_step_forward",
    "sigmoid",
    "temporal_affine_backward",
    "temporal_affine_forward",
    "temporal_softmax_loss",
    "word_embedding_backward",
    "word_embedding_forward",
]

Array = NDArray[Any]
Cache = Any


def rnn_step_forward(x: Array, prev_h: Array, Wx: Array, Wh: Array, b: Array) -> tuple[Array, Cache]:
    """One step: x (N, D), prev_h (N, H), Wx (D, H), Wh (H, H), b (H,) -> next_h (N, H), cache."""
    next_h = np.tanh(x @ Wx + prev_h @ Wh + b)
    return next_h, (x, prev_h, Wx, Wh, next_h)


def rnn_step_backward(dnext_h: Array, cache: Cache) -> tuple[Array, Array, Array, Array, Array]:
    """dnext_h (N, H) -> dx, dprev_h, dWx, dWh, db."""
    x, prev_h, Wx, Wh, next_h = cache
    return _affine_backward(dnext_h * (1 - next_h**2), x, prev_h, Wx, Wh)


def rnn_forward(x: Array, h0: Array, Wx: Array, Wh: Array, b: Array) -> tuple[Array, Cache]:
    """A sequence: x (N, T, D), h0 (N, H) -> h (N, T, H), cache."""
    cache = Recorded("cs231n", "rnn", x, {"Wx": Wx, "Wh": Wh, "b": b}, h0, batch_first=True)
    return cache.y, cache


def rnn_backward(dh: Array, cache: Cache) -> tuple[Array, Array, Array, Array, Array]:
    """dh (N, T, H) -> dx (N, T, D), dh0 (N, H), dWx, dWh, db."""
    dx, dh0, _, weights = cache.backward(dh)
    return dx, dh0, weights["Wx"], weights["Wh"], weights["b"]


def lstm_step_forward(x: Array, prev_h: Array, prev_c: Array, Wx: Array, Wh: Array, b: Array) -> tuple[Array, Array, Cache]:
    """One step: x (N, D), prev_h and prev_c (N, H), Wx (D, 4H), Wh (H, 4H), b (4H,) -> next_h, next_c (N, H), cache."""
    i, f, o, g = np.split(x @ Wx + prev_h @ Wh + b, 4, axis=1)
    next_h, next_c, gates = _step.forward(i, f, g, o, prev_c)
    return next_h, next_c, (x, prev_h, prev_c, Wx, Wh, gates, next_c)


def lstm_step_backward(dnext_h: Array, dnext_c: Array, cache: Cache) -> tuple[Array, Array, Array, Array, Array, Array]:
    """dnext_h and dnext_c (N, H) -> dx, dprev_h, dprev_c, dWx, dWh, db."""
    x, prev_h, prev_c, Wx, Wh, gates, next_c = cache
    d, dprev_c = _step.backward(dnext_h, dnext_c, gates, prev_c, next_c)
    dx, dprev_h, dWx, dWh, db = _affine_backward(np.hstack([d.i, d.f, d.o, d.g]), x, prev_h, Wx, Wh)
    return dx, dprev_h, dprev_c, dWx, dWh, db


def lstm_forward(x: Array, h0: Array, Wx: Array, Wh: Array, b: Array) -> tuple[Array, Cache]:
    """A sequence, from a cell state of zeros: x (N, T, D), h0 (N, H) -> h (N, T, H), cache."""
    cache = Recorded("cs231n", "lstm", x, {"Wx": Wx, "Wh": Wh, "b": b}, h0, batch_first=True)
    return cache.y, cache


def lstm_backward(dh: Array, cache: Cache) -> tuple[Array, Array, Array, Array, Array]:
    """dh (N, T, H) -> dx (N, T, D), dh0 (N, H), dWx, dWh, db."""
    return rnn_backward(dh, cache)


def word_embedding_forward(x: Array, W: Array) -> tuple[Array, Cache]:
    """Words x (N, T), integers below V, and vectors W (V, D) -> out (N, T, D), cache."""
    return W[x], (x, W.shape)


def word_embedding_backward(dout: Array, cache: Cache) -> Array:
    """dout (N, T, D) -> dW (V, D); there is no gradient of the words."""
    x, shape = cache
    dW = np.zeros(shape, dout.dtype)
    np.add.at(dW, x, dout)
    return dW


def temporal_affine_forward(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """The same affine map at each step: x (N, T, D), w (D, M), b (M,) -> out (N, T, M), cache."""
    return (x.reshape(-1, x.shape[2]) @ w).reshape(*x.shape[:2], -1) + b, (x, w)


def temporal_affine_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dout (N, T, M) -> dx (N, T, D), dw (D, M), db (M,)."""
    x, w = cache
    flat = dout.reshape(-1, dout.shape[2])
    return (flat @ w.T).reshape(x.shape), x.reshape(-1, x.shape[2]).T @ flat, flat.sum(axis=0)


def temporal_softmax_loss(x: Array, y: Array, mask: Array, verbose: bool = False) -> tuple[Any, Array]:
    """Cross-entropy of scores x (N, T, V) and words y (N, T) where mask (N, T) is True: summed over the steps, averaged over the N
    rows -> loss, dx (N, T, V)."""
    N, T, V = x.shape
    scores = x.reshape(N * T, V)
    shifted = scores - scores.max(axis=1, keepdims=True)
    exp = np.exp(shifted)
    total = exp.sum(axis=1, keepdims=True)
    at, weight = (np.arange(N * T), y.reshape(N * T)), mask.reshape(N * T)
    loss = -np.sum(weight * (shifted[at] - np.log(total[:, 0]))) / N
    dx = exp / total
    dx[at] -= 1
    dx *= weight[:, None] / x.dtype.type(N)
    if verbose:
        print("dx_flat: ", dx.shape)
    return loss, dx.reshape(N, T, V)


def _affine_backward(da: Array, x: Array, h: Array, Wx: Array, Wh: Array) -> tuple[Array, Array, Array, Array, Array]:
    """dx, dh, dWx, dWh, db from the gradient of x Wx + h Wh + b."""
    return da @ Wx.T, da @ Wh.T, x.T @ da, h.T @ da, da.sum(axis=0)
