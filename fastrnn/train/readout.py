"""The linear layer that turns a hidden state into an answer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import checks
from ..parameters import Parameters
from ..tape import Gradients

Array = NDArray[Any]


class Linear:
    """o = h V^T + c, with the names, shapes and initial values of torch.nn.Linear.

    Args:
        input_size: H, the last axis of h.
        output_size: O, the last axis of o.
        bias: with c.
        dtype: float32 or float64.
        rng: a seed or numpy.random.Generator for the initial values, U(-1/sqrt(H), 1/sqrt(H)).

    Attributes:
        params: {"weight": V (O, H), "bias": c (O,)}: arrays that may be written to; the next call sees it.
        flat: the same numbers as one contiguous vector, for optimisers.

    Raises: TypeError, ValueError.

    >>> readout = Linear(64, 1, rng=0)
    >>> y, h_n, tape = layer.forward(x)
    >>> o, readout_tape = readout.forward(h_n[-1])      # (B, 1), from the last hidden state (B, 64)
    >>> readout_grads = readout_tape.backward(do)
    >>> grads = tape.backward(dstate=readout_grads.x[None])
    """

    def __init__(
        self, input_size: int, output_size: int, *, bias: bool = True, dtype: DTypeLike = np.float32, rng: Any = None
    ) -> None:
        self.input_size = checks.size("input_size", input_size)
        self.output_size = checks.size("output_size", output_size)
        self.bias = checks.flag("bias", bias)
        self.dtype = checks.float_dtype("dtype", dtype)
        self._parameters = self._new_parameters()
        limit = 1 / math.sqrt(input_size)
        self.flat[:] = checks.generator("rng", rng).uniform(-limit, limit, self.flat.shape)

    @property
    def params(self) -> Parameters:
        return self._parameters

    @property
    def flat(self) -> Array:
        return self._parameters.flat

    def __call__(self, h: Array) -> Array:
        """Inference: nothing is kept. Argument, result and errors as forward's, without the tape."""
        h = checks.floats("h", h, self.dtype)
        if h.ndim == 0 or h.shape[-1] != self.input_size:
            raise ValueError(f"h: expected the last axis to be input_size = {self.input_size}, got shape {h.shape}")
        o: Array = h @ self.params["weight"].T
        if self.bias:
            o += self.params["bias"]
        return o

    def forward(self, h: Array) -> tuple[Array, LinearTape]:
        """Training: keeps what backward needs, which is h itself, so leave that as it is until then.

        Args:
            h: (..., H), such as a layer's y (T, B, H) or its last state h_n[-1] (B, H). The layer's dtype.

        Returns: o (..., O) and the tape, for one tape.backward(do).

        Raises: TypeError, ValueError.
        """
        return self(h), LinearTape(self, h)

    def _new_parameters(self) -> Parameters:
        shapes: dict[str, tuple[int, ...]] = {"weight": (self.output_size, self.input_size)}
        if self.bias:
            shapes["bias"] = (self.output_size,)
        return Parameters(shapes, np.zeros(sum(map(math.prod, shapes.values())), self.dtype))

    def __repr__(self) -> str:
        return f"Linear({self.input_size}, {self.output_size}{'' if self.bias else ', bias=False'})"


class LinearTape:
    """The tape of Linear.forward. It can be used once."""

    def __init__(self, layer: Linear, h: Array) -> None:
        self._layer, self._h = layer, h
        self._used = False

    def backward(self, do: Array) -> Gradients:
        """Gradients of sum(o * do): dh = do V, dV = do^T h, dc = sum of do.

        Args:
            do: as o, (..., O).

        Returns grads.x (as h), grads.params (by the names of layer.params), grads.flat (in the order of layer.flat).

        Raises: RuntimeError at the second call; TypeError, ValueError.
        """
        if self._used:
            raise RuntimeError("tape.backward: this tape has been used; call forward again for a new one")
        layer, h, shape = self._layer, self._h, (*self._h.shape[:-1], self._layer.output_size)
        do = checks.shaped("do", do, layer.dtype, "(..., O)", shape)
        self._used = True
        into = layer._new_parameters()
        rows = do.reshape(-1, layer.output_size)
        np.matmul(rows.T, h.reshape(-1, layer.input_size), out=into["weight"])
        if layer.bias:
            rows.sum(axis=0, out=into["bias"])
        return Gradients(x=do @ layer.params["weight"], params=into, flat=into.flat)
