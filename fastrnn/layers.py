"""Layers that own their parameters: PyTorch's names, shapes and initial values, on NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import checks
from .engine import Cell, Run, Weights
from .functional import check_weights, forward, make_run
from .stream import Stream
from .tape import Gradients, State, TapeBase

Array = NDArray[Any]


class Parameters:
    """Named arrays that are views of one contiguous vector."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any]) -> None:
        self.flat: Array = np.zeros(sum(math.prod(shape) for shape in shapes.values()), dtype)
        self.named: dict[str, Array] = {}
        end = 0
        for name, shape in shapes.items():
            start, end = end, end + math.prod(shape)
            self.named[name] = self.flat[start:end].reshape(shape)


class LayerTape(TapeBase):
    """The tape of a layer's forward."""

    def __init__(self, layer: Recurrent, run: Run, batch_first: bool, unbatched: bool) -> None:
        super().__init__(run, batch_first, unbatched)
        self._layer = layer

    def backward(self, dy: Array | None = None, dstate: State = None) -> Gradients:
        """Gradients of sum(y * dy) + sum(state * dstate).

        dy: as y. dstate: as the returned state; for an LSTM a pair, either of which may be None.

        Returns grads.x, grads.state (as the state), grads.params (by the names of layer.params), grads.flat (the same numbers as
        one vector, in the order of layer.flat).

        Raises: RuntimeError at the second call; TypeError, ValueError.
        """
        try:
            into = Parameters(self._layer._shapes(), self._layer.dtype)
            dx, state = self._backward(dy, dstate, self._layer._weights(into.named))
        except MemoryError as error:
            raise checks.out_of_memory("x", error) from None
        state = tuple(s[None] for s in state) if isinstance(state, tuple) else state[None]
        return Gradients(x=dx, state=state, params=into.named, flat=into.flat)

    def _check_member(self, run: Run, name: str, member: Any, H: int) -> Array:
        if member is None:
            return super()._check_member(run, name, None, H)
        member = self._layer._check_state(name, member, run.x.shape[1], self._unbatched)
        return member.reshape(run.x.shape[1], H).copy()


class Recurrent:
    """What RNN, GRU and LSTM share. See those."""

    _cell: Cell

    def __init__(self, input_size: int, hidden_size: int, bias: bool, batch_first: bool, dtype: DTypeLike, rng: Any) -> None:
        self.input_size = checks.integer("input_size", input_size, 1)
        self.hidden_size = checks.integer("hidden_size", hidden_size, 1)
        self.bias = checks.flag("bias", bias)
        self.batch_first = checks.flag("batch_first", batch_first)
        self.dtype = checks.float_dtype("dtype", dtype)
        generator = checks.generator("rng", rng)
        try:
            self._parameters = Parameters(self._shapes(), self.dtype)
            self._initialise(generator)
        except (MemoryError, ValueError, OverflowError) as error:  # ValueError, OverflowError: not even countable
            raise checks.out_of_memory("input_size, hidden_size", error) from None

    @property
    def params(self) -> dict[str, Array]:
        """The parameters by PyTorch's names: arrays that may be written to; the next call sees it."""
        return self._parameters.named

    @property
    def flat(self) -> Array:
        """The same numbers as one contiguous vector, for optimisers."""
        return self._parameters.flat

    def __call__(self, x: Array, state: State = None, lengths: Any = None, reset: Any = None) -> tuple[Array, State]:
        """Inference: nothing is kept. Arguments, results and errors as forward's, without the tape."""
        y, state, _ = self._apply(x, state, lengths, reset, record=False)
        return y, state

    def forward(self, x: Array, state: State = None, lengths: Any = None, reset: Any = None) -> tuple[Array, State, LayerTape]:
        """Training: keeps what backward needs.

        Args:
            x: (T, B, I); (B, T, I) with batch_first; (T, I) without a batch. The layer's dtype.
            state: (1, B, H), or (1, H) without a batch; an LSTM's is a pair (h, c); None for zeros.
            lengths: (B,) integers from 0 to T, in any order: the steps of each row; y is 0 behind them.
            reset: (T, B) booleans: where True, the row is cut in front of step t and its state starts from zero.

        Returns: y (T, B, H), read-only; the final state; the tape, for one tape.backward(dy, dstate).

        Raises: TypeError, ValueError (the message names the argument), MemoryError.

        >>> y, state, tape = layer.forward(x)
        >>> grads = tape.backward(dy)
        >>> layer.flat -= 0.1 * grads.flat
        """
        y, state, tape = self._apply(x, state, lengths, reset, record=True)
        assert tape is not None
        return y, state, tape

    def stream(self, batch_size: int = 1) -> Stream:
        """Inference step by step for `batch_size` rows: see fastrnn.Stream. Raises: TypeError, ValueError.

        >>> stream = layer.stream()
        >>> y_t = stream(x_t)
        """
        return Stream(self._cell, self._checked_weights(), batch_size)

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters by name, as torch's state_dict in NumPy."""
        return {name: array.copy() for name, array in self.params.items()}

    def load_state_dict(self, mapping: Mapping[str, Array]) -> None:
        """Take over the parameters from a mapping of names to arrays; all or none.

        Raises: KeyError with the names that are missing or unexpected, ValueError for a wrong shape, TypeError for a wrong dtype
        or what is no mapping.
        """
        if not isinstance(mapping, Mapping):
            raise TypeError(f"mapping: expected a mapping of names to arrays, got {type(mapping).__name__}")
        missing = [name for name in self.params if name not in mapping]
        unexpected = [name for name in mapping if name not in self.params]
        if missing or unexpected:
            raise KeyError(f"mapping: expected the names of params, missing {missing}, unexpected {unexpected}")
        new = {  # copies, because the arrays may be views of these very parameters, in another order
            name: checks.shaped(name, mapping[name], self.dtype, "its shape", array.shape).copy()
            for name, array in self.params.items()
        }
        for name, array in self.params.items():
            array[...] = new[name]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._configuration())})"

    def _configuration(self) -> list[str]:
        shown = [str(self.input_size), str(self.hidden_size)]
        shown += [] if self.bias else ["bias=False"]
        shown += ["batch_first=True"] if self.batch_first else []
        shown += [] if self.dtype == checks.F32 else [f"dtype={self.dtype}"]
        return shown

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        rows, H = self._cell.gates * self.hidden_size, self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih_l0": (rows, self.input_size), "weight_hh_l0": (rows, H)}
        if self.bias:
            shapes |= {"bias_ih_l0": (rows,), "bias_hh_l0": (rows,)}
        if self._cell == Cell.LSTM_PEEPHOLE:
            shapes["weight_ch_l0"] = (3, H)
        return shapes

    def _initialise(self, rng: np.random.Generator) -> None:
        """PyTorch's: all from U(-1/sqrt(H), 1/sqrt(H))."""
        limit = 1 / math.sqrt(self.hidden_size)
        self.flat[:] = rng.uniform(-limit, limit, self.flat.shape)

    def _weights(self, named: Mapping[str, Array]) -> Weights:
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_ch_l0")
        return Weights(*(named.get(name) for name in names))  # type: ignore[arg-type]

    def _checked_weights(self) -> Weights:
        w = self._weights(self.params)
        return check_weights(self._cell, self.dtype, w.w_ih, w.w_hh, w.b_ih, w.b_hh, w.peephole)

    def _check_state(self, name: str, value: Any, B: int, unbatched: bool) -> Array:
        H = self.hidden_size
        symbols, shape = ("(1, H)", (1, H)) if unbatched else ("(1, B, H)", (1, B, H))
        return checks.shaped(name, value, self.dtype, symbols, shape)[0]

    def _split_state(self, state: State, B: int, unbatched: bool) -> tuple[Array | None, Array | None]:
        if state is None:
            return None, None
        if not self._cell.is_lstm:
            return self._check_state("state", state, B, unbatched), None
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(f"state: expected a pair (h, c), got {type(state).__name__}")
        h, c = (None if s is None else self._check_state(f"state[{i}]", s, B, unbatched) for i, s in enumerate(state))
        return h, c

    def _apply(self, x: Any, state: State, lengths: Any, reset: Any, record: bool) -> tuple[Array, State, LayerTape | None]:
        x = checks.floats("x", x, self.dtype, (2, 3))
        if x.shape[-1] != self.input_size:
            raise ValueError(f"x: expected the last axis to be input_size = {self.input_size}, got shape {x.shape}")
        unbatched = x.ndim == 2
        batch_first = self.batch_first and not unbatched
        h0, c0 = self._split_state(state, 1 if unbatched else x.shape[0 if batch_first else 1], unbatched)
        run = make_run(self._cell, x, self._checked_weights(), h0, c0, lengths, reset, False, batch_first, None)
        forward(run, record, batch_first)
        y = run.y[:, 0] if unbatched else run.y.swapaxes(0, 1) if batch_first else run.y
        members = [m if unbatched else m[None] for m in (run.h_n, run.c_n) if m is not None]
        final = tuple(members) if self._cell.is_lstm else members[0]
        if not record:
            return y, final, None
        y = y.view()
        y.flags.writeable = False
        return y, final, LayerTape(self, run, batch_first, unbatched)


class RNN(Recurrent):
    """A layer of the simple recurrent network: h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), or relu.

    Args:
        input_size, hidden_size: I and H.
        nonlinearity: "tanh" or "relu".
        bias: with bias_ih_l0 and bias_hh_l0.
        batch_first: x and y are (B, T, .).
        dtype: float32 or float64.
        rng: a seed or numpy.random.Generator for the initial values.

    Raises: TypeError, ValueError.

    >>> layer = fastrnn.RNN(3, 64, nonlinearity="relu", rng=0)
    >>> y, h_n = layer(x)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dtype: DTypeLike = np.float32,
        rng: Any = None,
    ) -> None:
        self.nonlinearity = checks.choice("nonlinearity", nonlinearity, "tanh", "relu")
        self._cell = Cell.RNN_TANH if nonlinearity == "tanh" else Cell.RNN_RELU
        super().__init__(input_size, hidden_size, bias, batch_first, dtype, rng)

    def _configuration(self) -> list[str]:
        shown = super()._configuration()
        return shown if self.nonlinearity == "tanh" else [*shown[:2], "nonlinearity='relu'", *shown[2:]]


class IRNN(RNN):
    """A ReLU RNN that starts as an identity (Le, Jaitly and Hinton 2015, arXiv 1504.00941): W_hh = recurrent_scale * identity,
    biases 0, W_ih ~ N(0, input_std). Arguments else as RNN's.

    >>> layer = fastrnn.IRNN(2, 64, input_std=0.1, rng=0)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        recurrent_scale: float = 1.0,
        input_std: float = 0.001,
        bias: bool = True,
        batch_first: bool = False,
        dtype: DTypeLike = np.float32,
        rng: Any = None,
    ) -> None:
        self.recurrent_scale = checks.real("recurrent_scale", recurrent_scale)
        self.input_std = checks.real("input_std", input_std, 0)
        super().__init__(input_size, hidden_size, nonlinearity="relu", bias=bias, batch_first=batch_first, dtype=dtype, rng=rng)

    def _initialise(self, rng: np.random.Generator) -> None:
        self.flat[:] = 0
        self.params["weight_ih_l0"][:] = rng.normal(0, self.input_std, (self.hidden_size, self.input_size))
        np.fill_diagonal(self.params["weight_hh_l0"], self.recurrent_scale)

    def _configuration(self) -> list[str]:
        shown = [part for part in super()._configuration() if not part.startswith("nonlinearity")]
        return [*shown[:2], f"recurrent_scale={self.recurrent_scale}", f"input_std={self.input_std}", *shown[2:]]


class GRU(Recurrent):
    """A layer of gated recurrent units; the equations are fastrnn.gru's. Arguments as RNN's, and

    reset_after: PyTorch's form (True), or that of Cho et al. 2014.

    >>> layer = fastrnn.GRU(3, 64, rng=0)
    >>> y, h_n = layer(x)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        reset_after: bool = True,
        bias: bool = True,
        batch_first: bool = False,
        dtype: DTypeLike = np.float32,
        rng: Any = None,
    ) -> None:
        self.reset_after = checks.flag("reset_after", reset_after)
        self._cell = Cell.GRU_AFTER if reset_after else Cell.GRU_BEFORE
        super().__init__(input_size, hidden_size, bias, batch_first, dtype, rng)

    def _configuration(self) -> list[str]:
        shown = super()._configuration()
        return shown if self.reset_after else [*shown[:2], "reset_after=False", *shown[2:]]


class LSTM(Recurrent):
    """A layer of long short-term memory; the equations are fastrnn.lstm's. Arguments as RNN's, and

    peephole: with weight_ch_l0 (3, H), rows i, f, o.

    >>> layer = fastrnn.LSTM(3, 64, rng=0)
    >>> y, (h_n, c_n) = layer(x)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        batch_first: bool = False,
        peephole: bool = False,
        dtype: DTypeLike = np.float32,
        rng: Any = None,
    ) -> None:
        self.peephole = checks.flag("peephole", peephole)
        self._cell = Cell.LSTM_PEEPHOLE if peephole else Cell.LSTM
        super().__init__(input_size, hidden_size, bias, batch_first, dtype, rng)

    def _configuration(self) -> list[str]:
        shown = super()._configuration()
        return [*shown[:2], "peephole=True", *shown[2:]] if self.peephole else shown
