"""Stanford CS231n, assignment 3: the functions of cs231n/rnn_layers.py.

N rows, T steps, D inputs, H hidden units; gates of the LSTM in the order i, f, o, g. Caches are objects to pass on; that of a whole
sequence is good for any number of backward calls.
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
    """One step of a tanh RNN.

    Parameters
    ----------
    x : array (N, D)
    prev_h : array (N, H)
    Wx : array (D, H)
    Wh : array (H, H)
    b : array (H,)

    Returns
    -------
    next_h : array (N, H)
    cache
        For backward.
    """
    next_h = np.tanh(x.dot(Wx) + prev_h.dot(Wh) + b)
    return next_h, (x, prev_h, Wx, Wh, next_h)


def rnn_step_backward(dnext_h: Array, cache: Cache) -> tuple[Array, Array, Array, Array, Array]:
    """The gradients of rnn_step_forward.

    Parameters
    ----------
    dnext_h : array (N, H)
    cache

    Returns
    -------
    dx : array (N, D)
    dprev_h : array (N, H)
    dWx, dWh, db : arrays
        As the weights.
    """
    x, prev_h, Wx, Wh, next_h = cache
    return _affine_backward(dnext_h * (1 - next_h * next_h), x, prev_h, Wx, Wh)


def rnn_forward(x: Array, h0: Array, Wx: Array, Wh: Array, b: Array) -> tuple[Array, Cache]:
    """A tanh RNN over a sequence.

    Parameters
    ----------
    x : array (N, T, D)
    h0 : array (N, H)
    Wx : array (D, H)
    Wh : array (H, H)
    b : array (H,)

    Returns
    -------
    h : array (N, T, H)
    cache
        For backward.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.cs231n import rnn_backward, rnn_forward
    >>> h, cache = rnn_forward(np.ones((2, 7, 3)), np.zeros((2, 4)), np.ones((3, 4)), np.ones((4, 4)), np.zeros(4))  # N=2 T=7
    >>> dx, dh0, dWx, dWh, db = rnn_backward(np.ones_like(h), cache)
    >>> h.shape, dWx.shape
    ((2, 7, 4), (3, 4))
    """
    cache = Recorded("cs231n", "rnn", x, {"Wx": Wx, "Wh": Wh, "b": b}, h0, batch_first=True)
    return cache.y, cache


def rnn_backward(dh: Array, cache: Cache) -> tuple[Array, Array, Array, Array, Array]:
    """The gradients of rnn_forward.

    Parameters
    ----------
    dh : array (N, T, H)
    cache

    Returns
    -------
    dx : array (N, T, D)
    dh0 : array (N, H)
    dWx, dWh, db : arrays
        As the weights.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.cs231n import rnn_backward, rnn_forward
    >>> h, cache = rnn_forward(np.ones((2, 7, 3)), np.zeros((2, 4)), np.ones((3, 4)), np.ones((4, 4)), np.zeros(4))  # N=2 T=7
    >>> [d.shape for d in rnn_backward(h, cache)]
    [(2, 7, 3), (2, 4), (3, 4), (4, 4), (4,)]
    """
    dx, dh0, _, weights = cache.backward(dh)
    return dx, dh0, weights["Wx"], weights["Wh"], weights["b"]


def lstm_step_forward(x: Array, prev_h: Array, prev_c: Array, Wx: Array, Wh: Array, b: Array) -> tuple[Array, Array, Cache]:
    """One step of an LSTM.

    Parameters
    ----------
    x : array (N, D)
    prev_h, prev_c : array (N, H)
    Wx : array (D, 4*H)
    Wh : array (H, 4*H)
    b : array (4*H,)
        Gates i, f, o, g.

    Returns
    -------
    next_h, next_c : arrays (N, H)
    cache
        For backward.
    """
    a = x.dot(Wx) + prev_h.dot(Wh) + b
    a = np.ascontiguousarray(a.reshape(len(a), 4, -1).swapaxes(0, 1))
    ifo, g = _step.sigmoid(a[:3]), np.tanh(a[3])
    i, f, o = ifo
    next_h, next_c = _step.forward(i, f, g, o, prev_c)
    return next_h, next_c, (x, prev_h, prev_c, Wx, Wh, ifo, g, next_c)


def lstm_step_backward(dnext_h: Array, dnext_c: Array, cache: Cache) -> tuple[Array, Array, Array, Array, Array, Array]:
    """The gradients of lstm_step_forward.

    Parameters
    ----------
    dnext_h, dnext_c : array (N, H)
    cache

    Returns
    -------
    dx : array (N, D)
    dprev_h, dprev_c : arrays (N, H)
    dWx, dWh, db : arrays
        As the weights.
    """
    x, prev_h, prev_c, Wx, Wh, ifo, g, next_c = cache
    i, f, o = ifo
    tanh_c = np.tanh(next_c)
    dc = dnext_c + dnext_h * o * (1 - tanh_c * tanh_c)
    da = np.empty((4, *dc.shape), dc.dtype)
    np.multiply(dc, g, da[0])
    np.multiply(dc, prev_c, da[1])
    np.multiply(dnext_h, tanh_c, da[2])
    da[:3] *= ifo * (1 - ifo)
    np.multiply(dc * i, 1 - g * g, da[3])
    dx, dprev_h, dWx, dWh, db = _affine_backward(da.swapaxes(0, 1).reshape(len(dc), -1), x, prev_h, Wx, Wh)
    return dx, dprev_h, dc * f, dWx, dWh, db


def lstm_forward(x: Array, h0: Array, Wx: Array, Wh: Array, b: Array) -> tuple[Array, Cache]:
    """An LSTM over a sequence, from a cell state of zeros.

    Parameters
    ----------
    x : array (N, T, D)
    h0 : array (N, H)
    Wx : array (D, 4*H)
    Wh : array (H, 4*H)
    b : array (4*H,)
        Gates i, f, o, g.

    Returns
    -------
    h : array (N, T, H)
    cache
        For backward.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.cs231n import lstm_forward
    >>> h, cache = lstm_forward(np.ones((2, 7, 3)), np.zeros((2, 4)), np.ones((3, 16)), np.ones((4, 16)), np.zeros(16))  # N=2 T=7
    >>> h.shape
    (2, 7, 4)
    """
    cache = Recorded("cs231n", "lstm", x, {"Wx": Wx, "Wh": Wh, "b": b}, h0, batch_first=True)
    return cache.y, cache


def lstm_backward(dh: Array, cache: Cache) -> tuple[Array, Array, Array, Array, Array]:
    """The gradients of lstm_forward.

    Parameters
    ----------
    dh : array (N, T, H)
    cache

    Returns
    -------
    dx : array (N, T, D)
    dh0 : array (N, H)
    dWx, dWh, db : arrays
        As the weights.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.cs231n import lstm_backward, lstm_forward
    >>> h, cache = lstm_forward(np.ones((2, 7, 3)), np.zeros((2, 4)), np.ones((3, 16)), np.ones((4, 16)), np.zeros(16))  # N=2 T=7
    >>> [d.shape for d in lstm_backward(h, cache)]
    [(2, 7, 3), (2, 4), (3, 16), (4, 16), (16,)]
    """
    return rnn_backward(dh, cache)


def word_embedding_forward(x: Array, W: Array) -> tuple[Array, Cache]:
    """The vectors of words.

    Parameters
    ----------
    x : integers (N, T)
        Below V.
    W : array (V, D)

    Returns
    -------
    out : array (N, T, D)
    cache
        For backward.
    """
    return W[x], (x, W.shape)


def word_embedding_backward(dout: Array, cache: Cache) -> Array:
    """The gradient of word_embedding_forward; the words have none.

    Parameters
    ----------
    dout : array (N, T, D)
    cache

    Returns
    -------
    dW : array (V, D)
    """
    x, shape = cache
    dW = np.zeros(shape, dout.dtype)
    np.add.at(dW, x, dout)
    return dW


def temporal_affine_forward(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """The same affine map at each step.

    Parameters
    ----------
    x : array (N, T, D)
    w : array (D, M)
    b : array (M,)

    Returns
    -------
    out : array (N, T, M)
    cache
        For backward.
    """
    return (x.reshape(-1, x.shape[2]) @ w).reshape(*x.shape[:2], -1) + b, (x, w)


def temporal_affine_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """The gradients of temporal_affine_forward.

    Parameters
    ----------
    dout : array (N, T, M)
    cache

    Returns
    -------
    dx : array (N, T, D)
    dw : array (D, M)
    db : array (M,)
    """
    x, w = cache
    flat = dout.reshape(-1, dout.shape[2])
    return (flat @ w.T).reshape(x.shape), x.reshape(-1, x.shape[2]).T @ flat, flat.sum(axis=0)


def temporal_softmax_loss(x: Array, y: Array, mask: Array, verbose: bool = False) -> tuple[Any, Array]:
    """Cross-entropy of scores and words, summed over the steps where mask is True, averaged over the N rows.

    Parameters
    ----------
    x : array (N, T, V)
        The scores.
    y : integers (N, T)
        The words, below V.
    mask : booleans (N, T)
    verbose : bool, default False
        Print the shape of the gradient.

    Returns
    -------
    loss : number
    dx : array (N, T, V)

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.cs231n import temporal_softmax_loss
    >>> loss, dx = temporal_softmax_loss(np.zeros((1, 2, 4)), np.zeros((1, 2), int), np.array([[True, False]]))
    >>> round(float(loss), 4), dx[0, 0]  # log(4)
    (1.3863, array([-0.75,  0.25,  0.25,  0.25]))
    """
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
    if Wx.size < _step.SMALL > Wh.size:
        return da.dot(Wx.T), da.dot(Wh.T), x.T.dot(da), h.T.dot(da), np.add.reduce(da, 0)
    return da.dot(Wx.T), da.dot(Wh.T), _step.product(x.T, da), _step.product(h.T, da), np.add.reduce(da, 0)
