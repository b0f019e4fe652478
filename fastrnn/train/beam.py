"""Beam search: the likeliest sequences that a decoder can find."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._api import checks
from .._api.pickling import reduced
from .readout import Linear
from .sampling import StreamedModel

Array = NDArray[Any]
Ids = NDArray[np.intp]


class Beam(NamedTuple):
    """One answer of a beam search: a named tuple.

    Attributes
    ----------
    ids : integers (n,)
        Without the first class, with the end if it came.
    log_probability : float
    ended : bool
        Whether the end came.
    """

    ids: Ids  # (n,), without the first class, with the end if it came
    log_probability: float
    ended: bool

    def __reduce__(self) -> Any:
        return reduced(self)


def beam_search(
    layer: Any,
    readout: Linear,
    start: int,
    end: int,
    steps: int,
    *,
    width: int = 4,
    length_penalty: float = 0.0,
    table: Array | None = None,
    state: Any = None,
) -> list[Beam]:
    """The likeliest sequences that a decoder can find while it follows `width` of them at a time.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        The decoder, in one direction.
    readout : Linear
        Of its outputs, with V classes.
    start, end : int
        From 0 to V-1: the class that comes in first, and the class that ends a sequence.
    steps : int
        The classes of a sequence at most, at least 1.
    width : int, default 4
        At least 1; with 1 it is greedy.
    length_penalty : float, default 0
        alpha of ((5 + n) / 6)^alpha, by which the log probability of n classes is divided for the ranking (Wu et al. 2016, arXiv
        1609.08144, section 7); at least 0, and 0 ranks by the probability.
    table : array (V, I), optional
        The input vector of each class; None: one-hot vectors.
    state : array (L, 1, H), or of an LSTM a pair, optional
        Where the decoder begins, of one row, such as the encoder's final state; None for zeros.

    Returns
    -------
    beams : list of Beam
        At most `width`, the best first; those that `steps` cut off come after those that ended.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; also ValueError if the model's outputs are NaN.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> from fastrnn.train import Linear, beam_search
    >>> encoder, decoder, readout = fastrnn.GRU(3, 8, rng=0), fastrnn.GRU(5, 8, rng=1), Linear(8, 5, rng=2)  # V=5
    >>> _, state = encoder(np.ones((7, 1, 3), np.float32))  # a source (T, 1, I)
    >>> beams = beam_search(decoder, readout, start=0, end=1, steps=10, width=3, state=state)
    >>> len(beams), [beam.log_probability <= beams[0].log_probability for beam in beams if beam.ended]
    (3, [True, True, True])
    """
    V = readout.output_size
    start = checks.integer("start", start, 0, V - 1)
    steps = checks.integer("steps", steps, 1)
    beams = _Beams(checks.integer("width", width, 1), start, checks.integer("end", end, 0, V - 1), steps, length_penalty)
    model = StreamedModel(layer, readout, table, beams.width)
    if state is not None:
        model.stream.state = _rows(state, np.zeros(beams.width, np.intp), 1)
    for _ in range(steps):
        parents = beams.extend(_log_softmax(model.step(beams.last)))
        if beams.settled():
            break
        model.stream.state = _rows(model.stream.state, parents, beams.width)
    return beams.answers()


class _Beams:
    """The sequences that are followed, and those that have ended."""

    def __init__(self, width: int, start: int, end: int, steps: int, length_penalty: float) -> None:
        self.width, self.end, self.steps = width, end, steps
        self.penalty = checks.real("length_penalty", length_penalty, 0)
        self.last = np.full(width, start)
        self.ids = np.zeros((0, width), np.intp)
        self.scores = np.where(np.arange(width) == 0, 0.0, -np.inf)  # log probabilities; there is one beam at first
        self.ended: list[Beam] = []

    def extend(self, log_p: Array) -> Ids:
        """Take the best classes that may come next, from log_p (width, V). Returns where each beam comes from."""
        total = self.scores[:, None] + log_p
        best = np.argsort(-total, axis=None, kind="stable")[: 2 * self.width]  # at most half of them end
        parents, classes = np.divmod(best, log_p.shape[1])
        for parent in parents[: self.width][classes[: self.width] == self.end]:
            if total[parent, self.end] > -np.inf:
                ids = np.append(self.ids[:, parent], self.end)
                self.ended.append(Beam(ids, float(total[parent, self.end]), True))
        self.ended = sorted(self.ended, key=lambda beam: -self._rank(beam.log_probability, len(beam.ids)))[: self.width]
        going = np.flatnonzero(classes != self.end)[: self.width]
        scores = total[parents[going], classes[going]]
        empty = self.width - len(going)  # fewer classes than beams
        self.scores = np.append(scores, np.full(empty, -np.inf))
        parents, self.last = (np.append(a[going], np.zeros(empty, np.intp)) for a in (parents, classes))
        self.ids = np.concatenate([self.ids[:, parents], self.last[None]])
        return parents

    def settled(self) -> bool:
        """Whether no beam can come among the best any more: probabilities only fall, so the penalty at the full length is its best
        hope."""
        if self.scores[0] == -np.inf:
            return True
        if len(self.ended) < self.width:
            return False
        worst = self._rank(self.ended[-1].log_probability, len(self.ended[-1].ids))
        return worst >= self._rank(float(self.scores[0]), self.steps)

    def answers(self) -> list[Beam]:
        alive = [k for k in range(self.width) if self.scores[k] > -np.inf]
        cut_off = [Beam(self.ids[:, k].copy(), float(self.scores[k]), False) for k in alive]
        return (self.ended + cut_off)[: self.width]

    def _rank(self, log_probability: float, n: int) -> float:
        return log_probability / ((5 + n) / 6) ** self.penalty


def _log_softmax(o: Array) -> Array:
    if np.isnan(o).any():
        raise ValueError("layer, readout: expected numbers for outputs, got NaN")
    shifted = o - o.max(axis=1, keepdims=True).astype(np.float64)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _rows(state: Any, rows: Ids, B: int) -> Any:
    """These rows of a state of B rows."""
    if isinstance(state, (tuple, list)):
        return tuple(_rows(member, rows, B) for member in state)
    if not isinstance(state, np.ndarray) or state.ndim != 3 or state.shape[1] != B:
        raise ValueError(f"state: expected that of one row, (1, 1, H), got {getattr(state, 'shape', type(state).__name__)}")
    return state[:, rows]
