"""Inference step by step: the state is kept inside, the weights are packed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ._api import checks
from ._core import Stepper
from ._engine.cells import Cell
from ._engine.weights import Weights

Array = NDArray[Any]
State = Any

_CHUNK = 64  # items whose input products are made at once in a block call


class Stream(Stepper):
    """Layers that take a sequence step by step; made by layer.stream(batch_size).

    ``stream(x, out=None)`` takes one step, x (B, I), or (I,) where B is 1, and returns y (B, P) or (P,); or n steps, x (n, B, I),
    and returns (n, B, P). With ``out``, a C-contiguous array of the result's shape and dtype that does not overlap x, a step
    allocates nothing. P is H without a projection. The bits are those of the layer's call on the whole sequence, unless that uses
    the BLAS (`set_gemm`). The weights are a snapshot: later changes of the layer are not seen before `refresh()`. A stream serves
    one thread at a time; different streams run side by side.

    Raises
    ------
    TypeError, ValueError
        A wrong `x` or `out`; the message names it.
    RuntimeError
        Another thread is in a call of the same stream.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> layer = fastrnn.LSTM(3, 4, rng=0)
    >>> x = np.random.default_rng(0).standard_normal((7, 2, 3), np.float32)  # T=7 B=2
    >>> stream, y_t = layer.stream(2), np.empty((2, 4), np.float32)
    >>> for x_t in x:
    ...     y_t = stream(x_t, out=y_t)
    >>> y, (h_n, c_n) = layer(x)
    >>> np.allclose(y_t, y[-1], atol=1e-6), np.allclose(stream.state[1], c_n, atol=1e-6)
    (True, True)
    """

    def __init__(self, cell: Cell, weights: Weights, batch_size: int, stacked: bool = False) -> None:
        B, P, dtype = checks.integer("batch_size", batch_size, 1), weights.P, weights.w_hh.dtype
        self._I, self._P, self._dtype, self._precision = weights.w_ih.shape[1], P, dtype, weights.precision
        h = checks.allocate("batch_size", "(B, P)", (B, P), dtype, zero=True)
        c = np.zeros((B, weights.H), dtype) if cell.is_lstm else None
        super().__init__(cell, weights, h, c, max(_CHUNK, B), stacked)

    @property
    def _layers(self) -> Sequence[Stream]:
        """The lowest first."""
        return (self,)

    @property
    def batch_size(self) -> int:
        """B : int, the rows of every step."""
        return len(self.h)

    @property
    def precision(self) -> str:
        """The precision of products, "float32" or "bf16": what stream() was told, or that of the layer at that time.

        Examples
        --------
        >>> import fastrnn
        >>> fastrnn.GRU(3, 4, rng=0).stream(precision="bf16").precision
        'bf16'
        """
        return self._precision

    @property
    def state(self) -> State:
        """The state after the last step: a copy, which may be assigned.

        array (L, B, P), or of an LSTM a pair (h, c) with c (L, B, H), of the stream's dtype. Assigning None sets zeros.

        Raises
        ------
        TypeError, ValueError
            When a wrong state is assigned.
        RuntimeError
            Another thread is in a call of the same stream.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> stream = fastrnn.GRU(3, 4, rng=0).stream()
        >>> state, x_t = stream.state, np.ones(3, np.float32)
        >>> y_t = stream(x_t)
        >>> stream.state = state  # take the step back
        >>> np.array_equal(stream(x_t), y_t)
        True
        """
        with self._in_use:
            h, c = (np.stack(members) if members else None for members in self._live())
        return h if c is None else (h, c)

    @state.setter
    def state(self, value: State) -> None:
        if value is None:
            self.reset()
            return
        members = [value]
        if self.c is not None:
            if not isinstance(value, (tuple, list)) or len(value) != 2:
                raise TypeError(f"state: expected a pair (h, c), got {type(value).__name__}")
            members = list(value)
        names = ["state"] if self.c is None else ["state[0]", "state[1]"]
        new = [
            checks.shaped(name, member, self._dtype, "(L, B, H)", (len(live), *live[0].shape))
            for name, member, live in zip(names, members, self._live())
        ]
        with self._in_use:
            for member, live in zip(new, self._live()):
                for one, array in zip(member, live):
                    array[...] = one

    def _live(self) -> tuple[list[Array], list[Array]]:
        """h and, of LSTMs, c of each layer."""
        return [layer.h for layer in self._layers], [layer.c for layer in self._layers if layer.c is not None]

    def reset(self, rows: Any = None) -> None:
        """Set the state of some rows, or of all, to zero.

        Parameters
        ----------
        rows : int, integers, slice or booleans (B,), optional
            An index of rows; None for all. B integers that are all 0 or 1 are refused: they may be meant as booleans or as indices.

        Raises
        ------
        IndexError, TypeError, ValueError
            `rows` is no index of B rows.
        RuntimeError
            Another thread is in a call of the same stream.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> stream = fastrnn.GRU(3, 4, rng=0).stream(2)
        >>> y_t = stream(np.ones((2, 3), np.float32))
        >>> stream.reset([True, False])
        >>> stream.state.any(axis=2)
        array([[False,  True]])
        """
        try:
            index = slice(None) if rows is None else rows if isinstance(rows, slice) else _index(rows, self.batch_size)
            with self._in_use:
                for member in self._live():
                    for array in member:
                        array[index] = 0
        except (IndexError, TypeError, ValueError) as error:
            raise type(error)(f"rows: expected an index of {self.batch_size} rows, got {rows!r:.60}: {error}") from None

    def refresh(self) -> None:
        """Take the layer's weights of now in place of those that the stream was made with. The state stays.

        Raises
        ------
        RuntimeError
            Another thread is in a call of the same stream.
        MemoryError

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> layer, x_t = fastrnn.GRU(3, 4, rng=0), np.ones(3, np.float32)
        >>> stream = layer.stream()
        >>> layer.flat *= 0.5  # a step of training
        >>> stream.refresh()
        >>> np.allclose(stream(x_t), layer(x_t[None])[0][0], atol=1e-6)
        True
        """
        with self._in_use:  # nobody is in the layers below, either
            packed = [layer._pack() for layer in self._layers]
            for layer, weights in zip(self._layers, packed):
                layer._take(*weights)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a stream holds packed weights of this process; pickle the layer and stream.state")

    def _checked_x(self, x: Any) -> Array:
        """x in C order, or an error."""
        x = checks.floats("x", x, self._dtype, (1, 2, 3))
        B, I = self.batch_size, self._I
        if x.shape[-1] != I or (x.ndim > 1 and x.shape[-2] != B) or (x.ndim == 1 and B != 1):
            one = " or (I,)" if B == 1 else ""
            raise ValueError(f"x: expected (B, I){one} or (n, B, I) with B = {B}, I = {I}, got {x.shape}")
        return np.ascontiguousarray(x)

    def _refuse_out(self, out: Any, x: Array) -> NoReturn:
        """Say what is wrong with it."""
        shape = (*x.shape[:-1], self._P)
        if not isinstance(out, np.ndarray):
            raise TypeError(f"out: expected a NumPy array of {self._dtype}, got {type(out).__name__}")
        if out.dtype != self._dtype:
            raise TypeError(f"out: expected dtype {self._dtype}, got {out.dtype}")
        if out.shape != shape:
            raise ValueError(f"out: expected {shape}, got {out.shape}")
        if np.may_share_memory(out, x):
            raise ValueError("out: expected memory apart from x, got an array that overlaps it")
        raise ValueError("out: expected a writable, aligned, C-contiguous array, got one that is not")


def _index(rows: Any, B: int) -> Array:
    """What is an index of rows alone: a tuple, or booleans that are not a vector, would be one of single numbers."""
    if isinstance(rows, np.ma.MaskedArray):
        raise TypeError("a masked array")
    index = np.asarray(rows)
    if index.size == 0 and index.dtype != np.bool_:
        index = index.astype(np.intp)
    if index.dtype.kind not in "biu" or index.ndim > 1 or (index.dtype == np.bool_ and index.ndim == 0):
        raise TypeError(f"{index.dtype} of shape {index.shape}")
    if index.dtype.kind in "iu" and index.shape == (B,) and ((index == 0) | (index == 1)).all():
        raise ValueError("0 and 1 for each row; pass np.asarray(rows, bool) if they say which rows, slices if they are indices")
    return index


class StackedStream(Stream):
    """The stream of the last layer, fed by those below it."""

    def __init__(self, cell: Cell, weights: Sequence[Weights], batch_size: int) -> None:
        self._below = [Stream(cell, w, batch_size) for w in weights[:-1]]
        # What goes up from each layer at a single step.
        self._single = [np.empty_like(layer.h) for layer in self._below]
        super().__init__(cell, weights[-1], batch_size, stacked=True)

    @property
    def _layers(self) -> Sequence[Stream]:
        return (*self._below, self)

    def _from_below(self, x: Array, out: Array | None) -> Array:
        """What the last layer gets."""
        if out is not None or type(x) is not np.ndarray:
            x = self._below[0]._checked_x(x)
        if out is not None and not self._fits(out, x):  # before any layer has taken the step
            self._refuse_out(out, x)
        single = x.ndim < 3
        for layer, up in zip(self._below, self._single):
            x = layer(x, up if x.ndim == 2 else up[0]) if single else layer(x)
        return x

    def _fits(self, out: Any, x: Array) -> bool:
        return (
            type(out) is np.ndarray
            and out.dtype == self._dtype
            and out.shape == (*x.shape[:-1], self._P)
            and out.flags.carray
            and not np.may_share_memory(out, x)
        )


def make_stream(cell: Cell, weights: Sequence[Weights], batch_size: int) -> Stream:
    """The stream of one or several layers."""
    return Stream(cell, weights[0], batch_size) if len(weights) == 1 else StackedStream(cell, weights, batch_size)
