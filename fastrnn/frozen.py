"""Inference on a snapshot of the weights, packed once: for many threads, and calls so short that packing would show."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._api.parameters import Parameters
from ._api.tape import State
from ._core import PackedWeights
from .stream import Stream

Array = NDArray[Any]


class _Frozen:
    """What both share: a copy of the layer or the cell whose weights do not change, and are packed."""

    def __init__(self, owner: Any, precision: str | None = None) -> None:
        copied: Any = owner.astype(owner.dtype)
        if precision is not None:
            copied.precision = precision
        copied.flat.flags.writeable = False
        for weights in copied._weights():
            weights.packed = PackedWeights(copied._cell, weights)
        self._owner = copied

    @property
    def params(self) -> Parameters:
        """The parameters by PyTorch's names, as they were when it was frozen: read-only."""
        params: Parameters = self._owner.params
        return params

    @property
    def flat(self) -> Array:
        """All parameters as one vector, read-only."""
        flat: Array = self._owner.flat
        return flat

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype, float32 or float64."""
        return self.flat.dtype

    @property
    def precision(self) -> str:
        """The precision of products, "float32" or "bf16": what frozen() was told, or that of the layer or cell at that time."""
        precision: str = self._owner.precision
        return precision

    def __repr__(self) -> str:
        return f"{self._owner!r}.frozen()"

    def __reduce__(self) -> Any:
        return type(self), (self._owner,)


class FrozenLayer(_Frozen):
    """A layer for inference alone, of the weights that it had when layer.frozen() made it.

    It is called as the layer is, with the same options and the same bits. The weights are packed once, so short calls take a
    fraction of the layer's time. It never changes: any number of threads may call it at the same time. Pickles hold the weights.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> layer = fastrnn.LSTM(3, 4, rng=0)
    >>> frozen, x_t, state = layer.frozen(), np.ones((1, 2, 3), np.float32), None  # T=1 B=2 I=3
    >>> for _ in range(5):
    ...     y, state = frozen(x_t, state)
    >>> np.array_equal(y, layer(np.ones((5, 2, 3), np.float32))[0][-1:])
    True
    >>> frozen
    LSTM(3, 4).frozen()
    """

    def __call__(
        self, x: Any, state: State = None, lengths: Any = None, reset: Any = None, mask: Any = None, *, masked: str = "zero"
    ) -> tuple[Any, State]:
        """The layer's call.

        Parameters
        ----------
        x, state, lengths, reset, mask, masked
            As of the layer's forward.

        Returns
        -------
        y : array (T, B, D*P)
            Laid out as x is; a packed sequence if x is one.
        state : array (L*D, B, P), or of an LSTM a pair (h_n, c_n)
            The final state.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As the layer's forward.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> frozen = fastrnn.GRU(3, 4, bidirectional=True, rng=0).frozen()
        >>> y, h_n = frozen(np.ones((7, 2, 3), np.float32), lengths=[7, 5])
        >>> y.shape, h_n.shape
        ((7, 2, 8), (2, 2, 4))
        """
        result: tuple[Any, State] = self._owner(x, state, lengths, reset, mask, masked=masked)
        return result

    def stream(self, batch_size: int = 1) -> Stream:
        """Inference step by step, as layer.stream; all streams of a frozen layer share its packed weights.

        Parameters
        ----------
        batch_size : int, default 1
            B, the rows of every step.

        Returns
        -------
        stream : fastrnn.Stream

        Raises
        ------
        TypeError, ValueError
            As layer.stream.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> frozen = fastrnn.GRU(3, 4, rng=0).frozen()
        >>> streams = [frozen.stream() for user in range(3)]
        >>> [stream(np.ones(3, np.float32)).shape for stream in streams]
        [(4,), (4,), (4,)]
        """
        stream: Stream = self._owner.stream(batch_size)
        return stream


class FrozenCell(_Frozen):
    """A cell for inference alone, of the weights that it had when cell.frozen() made it.

    It is called as the cell is, with the same bits. The weights are packed once. It never changes: any number of threads may call
    it at the same time. Pickles hold the weights.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> cell = fastrnn.GRUCell(3, 4, rng=0)
    >>> frozen, h = cell.frozen(), None
    >>> for x_t in np.ones((7, 2, 3), np.float32):
    ...     h = frozen(x_t, h)
    >>> h.shape
    (2, 4)
    >>> frozen
    GRUCell(3, 4).frozen()
    """

    def __call__(self, x: Array, state: State = None) -> State:
        """One step.

        Parameters
        ----------
        x, state
            As of cell.forward.

        Returns
        -------
        state : array (B, H), or of an LSTM a pair (h, c)
            The new state.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As cell.forward.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> frozen = fastrnn.LSTMCell(3, 4, rng=0).frozen()
        >>> h, c = frozen(np.ones(3, np.float32))
        >>> h.shape, c.shape
        ((4,), (4,))
        """
        new: State = self._owner(x, state)
        return new
