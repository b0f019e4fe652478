"""Andrej Karpathy's min-char-rnn.py (lossFun, sample) and his batched LSTM (LSTM.init, forward, backward).

lossFun and sample of min-char-rnn read the model from global variables, Wxh (H, V), Whh (H, H), Why (V, H), bh (H, 1), by (V, 1).
So do these: they take them from the globals of the module that calls them. With `model`, a mapping with these names, they take them
from there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._recorded import Recorded, as_floats

__all__ = ["LSTM", "lossFun", "sample"]

Array = NDArray[Any]
_NAMES = ("Wxh", "Whh", "Why", "bh", "by")


def lossFun(
    inputs: Sequence[int], targets: Sequence[int], hprev: Array, model: Mapping[str, Any] | None = None
) -> tuple[Any, Array, Array, Array, Array, Array, Array]:
    """The loss of a sequence of characters, and its gradients.

    Parameters
    ----------
    inputs, targets : sequence of int
        T integers below V.
    hprev : array (H, 1)
        The initial hidden state.
    model : mapping, optional
        Of the five names to arrays; None: the caller's globals.

    Returns
    -------
    loss : number
        The sum of -log p(target) over the steps.
    dWxh, dWhh, dWhy, dbh, dby : arrays
        As the weights, each element clipped to [-5, 5].
    hprev : array (H, 1)
        The last hidden state.

    Raises
    ------
    NameError
        The model is not among the caller's globals.
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.karpathy import lossFun
    >>> shapes = {"Wxh": (4, 3), "Whh": (4, 4), "Why": (3, 4), "bh": (4, 1), "by": (3, 1)}  # H=4 V=3
    >>> model = {name: np.zeros(shape) for name, shape in shapes.items()}
    >>> loss, *gradients, hprev = lossFun([0, 1, 2], [1, 2, 0], np.zeros((4, 1)), model)
    >>> round(float(loss), 4), hprev.shape  # 3 log(3)
    (3.2958, (4, 1))
    """
    m = _model(model)
    words, goals = _indices("inputs", inputs, len(m["Why"])), _indices("targets", targets, len(m["Why"]))
    if len(goals) != len(words):
        raise ValueError(f"targets: expected as many as inputs, {len(words)}, got {len(goals)}")
    x, Wxh = _chosen(m["Wxh"], words)
    weights = {"Wxh": Wxh, "Whh": m["Whh"], "bh": m["bh"]}
    recorded = Recorded("karpathy", "rnn", x[:, None], weights, np.asarray(hprev).T, copied=False)
    hs = recorded.y[:, 0]
    scores = hs @ m["Why"].T + m["by"].T
    scores -= scores.max(axis=1, keepdims=True)
    p = np.exp(scores)
    total = p.sum(axis=1)
    at = (np.arange(len(goals)), goals)
    loss = np.sum(np.log(total) - scores[at])
    dy = p / total[:, None]
    dy[at] -= 1
    dx, _, _, weights = recorded.backward((dy @ m["Why"])[:, None])
    dWxh = weights["Wxh"]
    if Wxh is not m["Wxh"]:
        dWxh = np.zeros_like(m["Wxh"])
        np.add.at(dWxh.T, words, dx[:, 0])
    gradients = (dWxh, weights["Whh"], dy.T @ hs, weights["bh"], dy.sum(axis=0)[:, None])
    for gradient in gradients:
        np.clip(gradient, -5, 5, out=gradient)
    dWxh, dWhh, dWhy, dbh, dby = gradients
    return loss, dWxh, dWhh, dWhy, dbh, dby, recorded.h_n.T


def sample(h: Array, seed_ix: int, n: int, model: Mapping[str, Any] | None = None) -> list[int]:
    """Indices drawn by np.random.choice one after the other.

    Parameters
    ----------
    h : array (H, 1)
        The hidden state.
    seed_ix : int
        The first input.
    n : int
        How many.
    model : mapping, optional
        Of the five names to arrays; None: the caller's globals.

    Returns
    -------
    indices : list of int

    Raises
    ------
    NameError
        The model is not among the caller's globals.
    ValueError
        Wrong shapes of the model.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.karpathy import sample
    >>> shapes = {"Wxh": (4, 3), "Whh": (4, 4), "Why": (3, 4), "bh": (4, 1), "by": (3, 1)}  # H=4 V=3
    >>> model = {name: np.zeros(shape) for name, shape in shapes.items()}
    >>> len(sample(np.zeros((4, 1)), 0, 10, model))
    10
    """
    m = _model(model)
    h, ix, chosen = np.asarray(h), seed_ix, []
    for _ in range(n):
        h = np.tanh(m["Wxh"][:, ix : ix + 1] + m["Whh"] @ h + m["bh"])
        y = m["Why"] @ h + m["by"]
        p = np.exp(y - y.max())
        ix = int(np.random.choice(len(p), p=(p / p.sum()).ravel()))  # noqa: NPY002 -- the original's generator, and its draws
        chosen.append(ix)
    return chosen


def _model(model: Mapping[str, Any] | None) -> dict[str, Array]:
    """The five arrays: of the mapping, or of who called our caller."""
    found = sys._getframe(2).f_globals if model is None else model
    missing = [name for name in _NAMES if name not in found]
    if missing:
        where = "the globals of the caller (or pass model={'Wxh': ...})" if model is None else "model"
        raise NameError(f"{missing[0]}: expected in {where}, got nothing")
    arrays = as_floats({name: found[name] for name in _NAMES})
    if arrays["Wxh"].ndim != 2 or len(arrays["Whh"]) < 1:
        raise ValueError(f"Wxh, Whh: expected (H, V), (H, H), got {arrays['Wxh'].shape}, {arrays['Whh'].shape}")
    (H, V), shapes = arrays["Wxh"].shape, {name: array.shape for name, array in arrays.items()}
    if shapes != {"Wxh": (H, V), "Whh": (H, H), "Why": (V, H), "bh": (H, 1), "by": (V, 1)}:
        raise ValueError(f"model: expected Wxh (H, V), Whh (H, H), Why (V, H), bh (H, 1), by (V, 1), got {shapes}")
    return arrays


def _chosen(Wxh: Array, words: NDArray[np.intp]) -> tuple[Array, Array]:
    """Inputs (T, .) and their weights: one-hot vectors, or, of many characters, the columns that these choose and no weights."""
    H, V = Wxh.shape
    if V > H:
        return Wxh.T[words], np.eye(H, dtype=Wxh.dtype)
    x = np.zeros((len(words), V), Wxh.dtype)
    x[np.arange(len(words)), words] = 1
    return x, Wxh


def _indices(name: str, values: Sequence[int], V: int) -> NDArray[np.intp]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    if array.ndim != 1 or not array.size or array.min() < 0 or array.max() >= V:
        raise ValueError(f"{name}: expected a list of at least one integer from 0 to {V - 1}, got {values!r:.60}")
    return array.astype(np.intp)


class LSTM:
    """The batched LSTM: n steps, b rows.

    The rows of WLSTM (1 + input_size + d, 4 d) are the bias, the weights of x and those of h; its columns are the gates i, f, o, g.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.karpathy import LSTM
    >>> Hout, C, h, cache = LSTM.forward(np.ones((7, 2, 3)), LSTM.init(3, 4))  # n=7 b=2
    >>> dX, dWLSTM, dc0, dh0 = LSTM.backward(Hout, cache)
    >>> Hout.shape, dWLSTM.shape
    ((7, 2, 4), (8, 16))
    """

    @staticmethod
    def init(input_size: int, hidden_size: int, fancy_forget_bias_init: float = 3) -> Array:
        """A random WLSTM, from np.random.randn; its bias is zero, but for the forget gate.

        Parameters
        ----------
        input_size, hidden_size : int
        fancy_forget_bias_init : float, default 3
            The bias of the forget gate.

        Returns
        -------
        WLSTM : array (1 + input_size + hidden_size, 4 * hidden_size)
        """
        rows = input_size + hidden_size
        WLSTM = np.random.randn(1 + rows, 4 * hidden_size) / np.sqrt(rows)  # noqa: NPY002 -- the original's generator
        WLSTM[0] = 0
        WLSTM[0, hidden_size : 2 * hidden_size] = fancy_forget_bias_init
        return WLSTM

    @staticmethod
    def forward(
        X: Array, WLSTM: Array, c0: Array | None = None, h0: Array | None = None
    ) -> tuple[Array, Array, Array, dict[str, Any]]:
        """The outputs and the final state.

        Parameters
        ----------
        X : array (n, b, input_size)
        WLSTM : array (1 + input_size + d, 4 * d)
        c0, h0 : array (b, d), optional
            None for zeros.

        Returns
        -------
        Hout : array (n, b, d)
        C, h : arrays (b, d)
            The final state.
        cache
            For backward.

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it.
        """
        recorded = Recorded("karpathy", "lstm", X, {"": WLSTM}, h0, c0)
        assert recorded.c_n is not None
        cache = {"WLSTM": WLSTM, "Hout": recorded.y, "c0": c0, "h0": h0, "recorded": recorded}
        return recorded.y, recorded.c_n, recorded.h_n, cache

    @staticmethod
    def backward(
        dHout_in: Array, cache: Mapping[str, Any], dcn: Array | None = None, dhn: Array | None = None
    ) -> tuple[Array, Array, Array, Array]:
        """The gradients of forward.

        Parameters
        ----------
        dHout_in : array (n, b, d)
        cache
        dcn, dhn : array (b, d), optional
            Of the final state; None for zeros.

        Returns
        -------
        dX : array (n, b, input_size)
        dWLSTM : array
        dc0, dh0 : arrays (b, d)

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it.
        """
        dX, dh0, dc0, weights = cache["recorded"].backward(dHout_in, dhn, dcn)
        return dX, weights[""], dc0, dh0
