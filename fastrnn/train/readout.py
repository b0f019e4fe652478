"""The linear readout of a hidden state."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._api import checks
from .._api.parameters import Module, Shapes
from .._api.tape import Gradients, OneUse

Array = NDArray[Any]
Place = tuple[Array, tuple[Array, Array]]  # rows, and the index of their last vectors in h


class Linear(Module):
    """o = h V^T + c, with the names, shapes and initial values of torch.nn.Linear.

    Parameters
    ----------
    input_size : int
        H, the last axis of h.
    output_size : int
        O, the last axis of o.
    bias : bool, default True
        Whether there is c.
    dtype : dtype, default float32
        float32 or float64.
    rng : int or numpy.random.Generator, optional
        The source of the initial values, U(-1/sqrt(H), 1/sqrt(H)), or its seed.

    Attributes
    ----------
    params : Parameters
        {"weight": V (O, H), "bias": c (O,)}: arrays that may be written to; the next call sees it.
    flat : array
        The same numbers as one contiguous vector, for optimisers.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.
    MemoryError

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> from fastrnn.train import Linear, squared_error
    >>> layer, readout = fastrnn.GRU(3, 4, rng=0), Linear(4, 1, rng=1)
    >>> y, h_n, tape = layer.forward(np.ones((7, 2, 3), np.float32))  # T=7 B=2
    >>> o, readout_tape = readout.forward(h_n[-1])  # (B, 1), from the last hidden state (B, 4)
    >>> loss, do = squared_error(o, np.ones((2, 1)))
    >>> readout_grads = readout_tape.backward(do)
    >>> grads = tape.backward(dstate=readout_grads.x[None])
    >>> grads.flat.shape, readout_grads.flat.shape
    ((108,), (5,))
    """

    def __init__(
        self, input_size: int, output_size: int, *, bias: bool = True, dtype: DTypeLike = np.float32, rng: Any = None
    ) -> None:
        self.input_size = checks.size("input_size", input_size)
        self.output_size = checks.size("output_size", output_size)
        self.bias = checks.flag("bias", bias)
        shapes: Shapes = {"weight": (self.output_size, self.input_size)}
        self._set_up([shapes | ({"bias": (self.output_size,)} if self.bias else {})], [""], dtype, rng)

    def __call__(self, h: Array, steps: str = "all", lengths: Any = None, *, batch_first: bool = False) -> Array:
        """Inference: nothing is kept for backward.

        Parameters
        ----------
        h, steps, lengths, batch_first
            As in `forward`.

        Returns
        -------
        o : array (..., O)

        Raises
        ------
        TypeError, ValueError
            As in `forward`.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import Linear
        >>> Linear(4, 1, rng=0)(np.ones((7, 2, 4), np.float32)).shape
        (7, 2, 1)
        """
        return self._apply(self._choose(h, steps, lengths, batch_first)[0])

    def forward(self, h: Array, steps: str = "all", lengths: Any = None, *, batch_first: bool = False) -> tuple[Array, LinearTape]:
        """Training: keeps what backward needs, which is h itself, so do not change it before backward.

        For a layer in one direction h_n[-1] is the same as the last steps, and its gradient, dstate, is smaller than that of y.

        Parameters
        ----------
        h : array (..., H)
            Such as a layer's y (T, B, H) or its last state h_n[-1] (B, H). The layer's dtype.
        steps : "all" or "last", default "all"
            "all": an answer for every vector of h. "last": h is (T, B, H), and the answer is that of each row's last step.
        lengths : integers (B,), optional
            With "last": from 0 to T, where each row ends. The h of a row of length 0 counts as 0.
        batch_first : bool, default False
            With "last": h is (B, T, H).

        Returns
        -------
        o : array (..., O)
            (B, O) for "last".
        tape : LinearTape
            For one tape.backward(do).

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import Linear
        >>> y = np.ones((7, 2, 4), np.float32)  # T=7 B=2
        >>> o, tape = Linear(4, 1, rng=0).forward(y, "last", lengths=[7, 5])
        >>> dy = tape.backward(np.ones((2, 1), np.float32)).x  # 0 but at the last steps
        >>> o.shape, dy.any(axis=2).nonzero()
        ((2, 1), (array([4, 6]), array([1, 0])))
        """
        chosen, place = self._choose(h, steps, lengths, batch_first)
        return self._apply(chosen), LinearTape(self, chosen, h.shape, place)

    def _choose(self, h: Any, steps: str, lengths: Any, batch_first: bool) -> tuple[Array, Place | None]:
        """The vectors that are read, and where in h they stand; None: they are all of it."""
        h = checks.floats("h", h, self.dtype)
        if h.ndim == 0 or h.shape[-1] != self.input_size:
            raise ValueError(f"h: expected the last axis to be input_size = {self.input_size}, got shape {h.shape}")
        batch_first = checks.flag("batch_first", batch_first)
        if checks.choice("steps", steps, "all", "last") == "all":
            if lengths is not None:
                raise ValueError('lengths: expected None with steps="all": what stands after the ends is the loss\'s to leave out')
            return h, None
        if h.ndim != 3:
            raise ValueError(f'h: expected (T, B, H) with steps="last", got shape {h.shape}')
        B, T = h.shape[:2] if batch_first else h.shape[1::-1]
        ends = np.full(B, T) if lengths is None else checks.integers("lengths", lengths, "(B,)", B, T)
        rows = np.flatnonzero(ends)
        place = (rows, ends[rows] - 1) if batch_first else (ends[rows] - 1, rows)
        chosen = np.zeros((B, self.input_size), self.dtype)
        chosen[rows] = h[place]
        return chosen, (rows, place)

    def _apply(self, h: Array) -> Array:
        rows = h.reshape(-1, self.input_size)  # one product, not one for each step
        o: Array = rows @ self.params["weight"].T
        if self.bias:
            o += self.params["bias"]
        return o.reshape(*h.shape[:-1], self.output_size)

    def _initialise(self) -> None:
        limit = 1 / math.sqrt(self.input_size)
        self.flat[:] = self.rng.uniform(-limit, limit, self.flat.shape)


class LinearTape(OneUse):
    """The tape of Linear.forward. It can be used once."""

    def __init__(self, layer: Linear, h: Array, shape: tuple[int, ...], place: Place | None) -> None:
        super().__init__()
        self._layer, self._h, self._shape, self._place = layer, h, shape, place
        self._used = False

    def backward(self, do: Array) -> Gradients:
        """Gradients of sum(o * do): dh = do V, dV = do^T h, dc = sum of do.

        Parameters
        ----------
        do : array (..., O)
            As o.

        Returns
        -------
        grads : Gradients
            grads.x, as h; grads.params, by the names of layer.params; grads.flat, one vector of all of these, in the order of
            layer.flat.

        Raises
        ------
        RuntimeError
            At the second call, or while another thread uses this tape.
        TypeError, ValueError
            A wrong `do`.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import Linear
        >>> o, tape = Linear(4, 1, rng=0).forward(np.ones((2, 4), np.float32))
        >>> grads = tape.backward(np.ones((2, 1), np.float32))
        >>> grads.params["weight"], grads.params["bias"]
        (array([[2., 2., 2., 2.]], dtype=float32), array([2.], dtype=float32))
        """
        with self._in_use:
            return self._backward(do)

    def _backward(self, do: Array) -> Gradients:
        if self._used:
            raise RuntimeError("tape.backward: this tape has been used; call forward again for a new one")
        layer, h = self._layer, self._h
        do = checks.shaped("do", do, layer.dtype, "(..., O)", (*h.shape[:-1], layer.output_size))
        self._used = True
        into = layer._zeros()
        rows = do.reshape(-1, layer.output_size)
        np.matmul(rows.T, h.reshape(-1, layer.input_size), out=into["weight"])
        if layer.bias:
            rows.sum(axis=0, out=into["bias"])
        dh: Array = (rows @ layer.params["weight"]).reshape(h.shape)
        if self._place is not None:
            which, place = self._place
            dh, last = np.zeros(self._shape, layer.dtype), dh
            dh[place] = last[which]
        return Gradients(x=dh, params=into, flat=into.flat)
