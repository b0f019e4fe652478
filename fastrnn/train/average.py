"""Averages of the parameters over the steps of a training, which often answer better than the last parameters do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from .._api import checks
from .._api.pickling import Pickled
from .._core import InUse
from . import state
from .vectors import Array, Arrays, Rule, apply, vectors, writable


class Average(Pickled):
    """The mean of the parameters (Polyak and Juditsky 1992), or their exponential moving average.

        decay None: a = a + (p - a) / n                  decay: a = decay a + (1 - decay) p

    with a = p at the first update, as in torch.optim.swa_utils.AveragedModel.

    Args:
        params: an array or several, float32 or float64.
        decay: None or a number, 0 <= decay < 1.

    Attributes:
        n: the updates so far.
        average: one array for each of params; before the first update a copy of them.

    No update allocates, but for parameters that are not contiguous. An average serves one thread at a time, and inside
    `with average.swapped()` nobody.

    Raises: TypeError; ValueError, also for a read-only array. Every method: RuntimeError where the average is in use.

    >>> average = Average([layer.flat, readout.flat], decay=0.999)
    >>> adam.step(grads)
    >>> average.update()
    >>> with average.swapped():                 # the layer and the readout answer with their averages
    ...     judge(layer, readout)
    """

    def __init__(self, params: Arrays, decay: float | None = None) -> None:
        self.decay = None if decay is None else checks.real("decay", decay)
        if self.decay is not None and not 0 <= self.decay < 1:
            raise ValueError(f"decay: expected None or a number, 0 <= decay < 1, got {decay!r}")
        self.params = writable("params", vectors("params", params))
        self.average = [np.array(p, order="C") for p in self.params]
        self._columns = tuple(self.average), tuple(self.params)
        self.n = 0
        self._in_use = InUse("average", "wait for it, or for the end of average.swapped()")

    def update(self) -> None:
        """Take the parameters as they are now into the average."""
        with self._in_use:
            self._update()

    def _update(self) -> None:
        self.n += 1
        weight = 1 / self.n if self.decay is None or self.n == 1 else 1 - self.decay
        averages, params = self._columns
        if weight == 1:
            for a, p in zip(averages, params):
                a[...] = p
        else:
            apply(Rule.AVERAGE, (weight,), (averages,), (params,))

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The parameters and their averages change places for a while, in place."""
        with self._in_use:
            self._swap()
            try:
                yield
            finally:
                self._swap()

    def state_dict(self) -> dict[str, Array]:
        """Copies of n and the averages ("average.0", ...)."""
        with self._in_use:
            return state.copies(self._live())

    def load_state_dict(self, mapping: Mapping[str, Any]) -> None:
        """Go on where another one stopped. Raises: KeyError, TypeError, ValueError; then nothing was changed."""
        with self._in_use:
            live = self._live()
            state.take_over(live, mapping)
            self.n = int(live["n"])

    def _swap(self) -> None:
        apply(Rule.EXCHANGE, (), self._columns)

    def _live(self) -> dict[str, Array]:
        return {"n": np.array(self.n, np.int64)} | {f"average.{k}": a for k, a in enumerate(self.average)}
