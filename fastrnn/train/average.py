"""Averages of the parameters over the steps of a training, which often do better than the last parameters."""

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

    with a = p at the first update, as in torch.optim.swa_utils.AveragedModel. No update allocates, but for parameters that are not
    contiguous. An average serves one thread at a time, and inside `with average.swapped()` none: a method raises RuntimeError while
    it is in use.

    Parameters
    ----------
    params : array or list of arrays
        float32 or float64.
    decay : float, optional
        0 <= decay < 1; None: the mean.

    Attributes
    ----------
    n : int
        The updates so far.
    average : list of arrays
        One for each of params; before the first update a copy of them.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; also ValueError for a read-only array, or arrays that overlap.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train import Average
    >>> p = np.zeros(2)
    >>> average = Average(p)
    >>> for step in range(3):
    ...     p += 1
    ...     average.update()
    >>> with average.swapped():
    ...     print(p)
    [2. 2.]
    >>> p
    array([3., 3.])
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
        """Take the parameters as they are now into the average.

        Raises
        ------
        RuntimeError
            The average is in use.
        """
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
        """A context in which the parameters and their averages are exchanged, in place.

        Raises
        ------
        RuntimeError
            The average is in use.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import Average
        >>> p = np.ones(1)
        >>> average = Average(p)
        >>> p *= 5
        >>> with average.swapped():
        ...     print(p)
        [1.]
        """
        with self._in_use:
            self._swap()
            try:
                yield
            finally:
                self._swap()

    def state_dict(self) -> dict[str, Array]:
        """Copies of n and the averages ("average.0", ...).

        Returns
        -------
        state : dict of arrays

        Raises
        ------
        RuntimeError
            The average is in use.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import Average
        >>> Average(np.ones(1)).state_dict()
        {'n': array(0), 'average.0': array([1.])}
        """
        with self._in_use:
            return state.copies(self._live())

    def load_state_dict(self, mapping: Mapping[str, Any]) -> None:
        """Continue where another average, of parameters of the same shapes, stopped.

        Parameters
        ----------
        mapping : mapping of names to arrays
            As `state_dict` returns it.

        Raises
        ------
        KeyError, TypeError, ValueError
            Wrong names, dtypes or shapes; then nothing was changed.
        RuntimeError
            The average is in use.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import Average
        >>> average = Average(np.ones(1))
        >>> average.load_state_dict({"n": np.array(5), "average.0": np.array([3.0])})
        >>> average.n, average.average
        (5, [array([3.])])
        """
        with self._in_use:
            live = self._live()
            state.take_over(live, mapping)
            self.n = int(live["n"])

    def _swap(self) -> None:
        apply(Rule.EXCHANGE, (), self._columns)

    def _live(self) -> dict[str, Array]:
        return {"n": np.array(self.n, np.int64)} | {f"average.{k}": a for k, a in enumerate(self.average)}
