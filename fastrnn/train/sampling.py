"""Sequences drawn from a trained model: a stream of the layer, the readout, and a draw, step after step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._api import checks
from .readout import Linear

Array = NDArray[Any]
Ids = NDArray[np.intp]

_CHUNK = 64  # steps whose noise is drawn at once


def draw(logits: Array, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None, rng: Any = None) -> Ids:
    """One of V classes for each row, with the probabilities softmax(logits / temperature).

    It is the largest of logits / temperature + Gumbel noise (Gumbel 1954), which needs no softmax.

    Parameters
    ----------
    logits : array (..., V)
        float32 or float64; -inf for a class that must not be drawn.
    temperature : float, default 1
        At least 0; 0 takes the likeliest class ("greedy").
    top_k : int, optional
        At least 1: draw among the k likeliest classes.
    top_p : float, optional
        Above 0, at most 1: draw among the fewest of the likeliest classes whose probabilities reach p together, the "nucleus"
        (Holtzman et al. 2020, arXiv 1904.09751); with `top_k`, among the nucleus of the k likeliest.
    rng : int or numpy.random.Generator, optional
        The source of random numbers, or its seed.

    Returns
    -------
    ids : integers (...)

    Raises
    ------
    TypeError, ValueError
        A wrong argument; also ValueError for logits with a NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train import draw
    >>> logits = np.array([[0.0, 5.0, 1.0]])
    >>> draw(logits, temperature=0)
    array([1])
    >>> ids = draw(np.repeat(logits, 1000, axis=0), top_k=2, rng=0)
    >>> np.unique(ids)
    array([1, 2])
    """
    logits = checks.floats("logits", logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits: expected (..., V) with V >= 1, got shape {logits.shape}")
    if np.isnan(logits).any():
        raise ValueError("logits: expected no NaN, got one")
    chooser, rows = _Chooser(temperature, top_k, top_p), logits.reshape(-1, logits.shape[-1])
    noise = chooser.noise(checks.generator("rng", rng), rows.shape)
    return chooser(rows, noise).reshape(logits.shape[:-1])


class _Chooser:
    """One class of each row, from the logits and noise of their shape."""

    def __init__(self, temperature: float, top_k: int | None, top_p: float | None) -> None:
        self.temperature = checks.real("temperature", temperature, 0)
        self.top_k = None if top_k is None else checks.integer("top_k", top_k, 1)
        self.top_p = None if top_p is None else checks.real("top_p", top_p)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: expected a number above 0, at most 1, got {top_p!r}")

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return np.empty(shape) if self.temperature == 0 else rng.gumbel(size=shape)

    def __call__(self, logits: Array, noise: Array) -> Ids:
        """(B, V) and (B, V) -> (B,)"""
        if self.temperature == 0:
            return logits.argmax(axis=1)
        scores = logits / np.float64(self.temperature)
        if self.top_k is None and self.top_p is None:
            scores += noise
            return scores.argmax(axis=1)
        chosen = self._likeliest(scores)  # places in the flat arrays
        kept = scores.take(chosen)
        if self.top_p is not None:
            p = np.exp(kept - kept[:, :1])
            before = p.cumsum(axis=1) - p  # the probability of those in front
            kept[before >= self.top_p * p.sum(axis=1, keepdims=True)] = -np.inf
        kept += noise.take(chosen)
        B, V = scores.shape
        best: Ids = chosen[np.arange(B), kept.argmax(axis=1)] % V
        return best

    def _likeliest(self, scores: Array) -> Ids:
        """(B, k): the places of the k likeliest classes of each row, or of all; in their order if there is a nucleus to cut out."""
        B, V = scores.shape
        rows, k, falling = V * np.arange(B)[:, None], V if self.top_k is None else min(self.top_k, V), -scores
        if k == V:
            return falling.argsort(axis=1, kind="stable") + rows
        chosen: Ids = falling.argpartition(k - 1, axis=1)[:, :k] + rows
        if self.top_p is None:
            return chosen
        order: Ids = falling.take(chosen).argsort(axis=1, kind="stable") + k * np.arange(B)[:, None]
        return chosen.take(order)


class StreamedModel:
    """A stream of a layer and its readout: classes in, logits out, in buffers that stay."""

    def __init__(self, layer: Any, readout: Linear, table: Array | None, B: int) -> None:
        V, I = readout.output_size, layer.input_size
        if table is None and I != V:
            raise ValueError(f"table: expected ({V}, {I}), a vector of the layer's input_size for each class, got None")
        self.table = None if table is None else checks.shaped("table", table, layer.dtype, "(V, I)", (V, I))
        self.stream, self.readout, self.V = layer.stream(B), readout, V
        self._weight, self._bias = readout.params["weight"].T, readout.params.get("bias")
        self._rows, self._hot = np.arange(B), np.zeros(B, np.intp)
        self._x, self._o = np.zeros((B, I), layer.dtype), np.empty((B, V), layer.dtype)

    def embed(self, ids: Ids) -> Array:
        """(n, B) -> (n, B, I)"""
        if self.table is not None:
            return self.table[ids]
        x = np.zeros((*ids.shape, self.V), self._x.dtype)
        np.put_along_axis(x, ids[..., None], 1, axis=-1)
        return x

    def logits(self, h: Array) -> Array:
        """(B, V), overwritten by the next call."""
        np.matmul(h, self._weight, out=self._o)
        if self._bias is not None:
            self._o += self._bias
        return self._o

    def step(self, ids: Ids) -> Array:
        """The logits after these classes (B,)."""
        if self.table is not None:
            return self.logits(self.stream(self.table[ids]))
        self._x[self._rows, self._hot] = 0
        self._x[self._rows, ids] = 1
        self._hot = ids
        return self.logits(self.stream(self._x))


def sample(
    layer: Any,
    readout: Linear,
    prompt: Any,
    steps: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: Any = None,
    table: Array | None = None,
    state: Any = None,
) -> tuple[Ids, Any]:
    """Continue a sequence of classes: each is drawn from the model's prediction after those before it.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        In one direction.
    readout : Linear
        Of its outputs, with V classes.
    prompt : integers (n, B) or (n,)
        From 0 to V-1, the classes so far, n >= 1; (n,) for one row.
    steps : int
        How many to draw for each row, at least 0.
    temperature : float, default 1
        At least 0; 0 takes the likeliest class ("greedy").
    top_k : int, optional
        At least 1: draw among the k likeliest classes.
    top_p : float, optional
        Above 0, at most 1: draw among the fewest of the likeliest classes whose probabilities reach p together, the "nucleus"
        (Holtzman et al. 2020, arXiv 1904.09751); with `top_k`, among the nucleus of the k likeliest.
    rng : int or numpy.random.Generator, optional
        The source of random numbers, or its seed. The same seed gives the same sequence, and with one Generator two calls, of which
        the second continues the first, draw what one call draws.
    table : array (V, I), optional
        The input vector of each class; None: one-hot vectors.
    state : array (L, B, H), or of an LSTM a pair, optional
        As the layer's, where the prompt begins; None for zeros.

    Returns
    -------
    ids : integers (steps, B) or (steps,)
        The classes drawn.
    state
        As the layer's, after the prompt and all of ids but the last, so that prompt=ids[-1:] and this state continue.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; also ValueError if the model's outputs are NaN.

    Examples
    --------
    >>> import fastrnn
    >>> from fastrnn.train import Linear, sample
    >>> layer, readout = fastrnn.LSTM(5, 8, rng=0), Linear(8, 5, rng=1)  # V=5
    >>> ids, state = sample(layer, readout, [3], 20, temperature=0.8, top_p=0.95, rng=0)
    >>> more, state = sample(layer, readout, ids[-1:], 10, state=state, rng=1)
    >>> ids.shape, more.shape
    ((20,), (10,))
    """
    ids = np.asarray(prompt)
    alone = ids.ndim == 1
    ids = ids[:, None] if alone else ids
    if isinstance(prompt, np.ma.MaskedArray) or ids.ndim != 2 or ids.size == 0 or ids.dtype.kind not in "iu":
        got = f"shape {np.shape(prompt)} of {ids.dtype} in a {type(prompt).__name__}"
        raise ValueError(f"prompt: expected (n, B) integers with n, B >= 1, got {got}")
    if ids.min() < 0 or ids.max() >= readout.output_size:
        raise ValueError(f"prompt: expected integers from 0 to V-1 = {readout.output_size - 1}, got {ids.min()} to {ids.max()}")
    steps = checks.integer("steps", steps, 0)
    choose, generator = _Chooser(temperature, top_k, top_p), checks.generator("rng", rng)
    B = ids.shape[1]
    model = StreamedModel(layer, readout, table, B)
    model.stream.state = state
    drawn = np.empty((steps, B), np.intp)
    o = model.logits(model.stream(model.embed(ids))[-1])
    for start in range(0, steps, _CHUNK):
        noise = choose.noise(generator, (min(_CHUNK, steps - start), B, model.V))
        for t, each in enumerate(noise, start=start):
            drawn[t] = choose(o if t == 0 else model.step(drawn[t - 1]), each)
    if np.isnan(o).any():  # a state that is NaN once stays so
        raise ValueError("layer, readout: expected numbers for outputs, got NaN")
    return drawn[:, 0] if alone else drawn, model.stream.state
