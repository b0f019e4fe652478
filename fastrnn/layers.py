"""Layers that own their parameters: PyTorch's names, shapes and initial values, on NumPy arrays."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import config
from ._api import checks
from ._api.layer_tape import LayerTape
from ._api.layout import Layout
from ._api.parameters import shapes_of
from ._api.portable import Portable
from ._api.tape import State
from ._engine.cells import Cell, gru_cell, lstm_cell, rnn_cell
from ._engine.plan import Plan, make_plan
from ._engine.stack import Options, Pass
from .stream import Stream, make_stream

Array = NDArray[Any]
MAX_LAYERS = 10_000  # each has names and views, so that more would fill any memory before a parameter is made


class Recurrent(Portable):
    """What RNN, GRU and LSTM share. See those."""

    _cell: Cell
    proj_size = 0

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        dtype: DTypeLike,
        rng: Any,
    ) -> None:
        self.input_size = checks.size("input_size", input_size)
        self.hidden_size = checks.size("hidden_size", hidden_size)
        self.num_layers = checks.size("num_layers", num_layers, MAX_LAYERS)
        self.bias = checks.flag("bias", bias)
        self.batch_first = checks.flag("batch_first", batch_first)
        self.dropout = checks.probability("dropout", dropout)
        self.bidirectional = checks.flag("bidirectional", bidirectional)
        if self.dropout and self.num_layers == 1:
            text = "dropout adds dropout after all but the last layer, so it expects num_layers greater than 1, got "
            warnings.warn(f"dropout: {text}dropout={dropout} and num_layers=1", UserWarning, stacklevel=3)
        D, H, P = self._directions, self.hidden_size, self._output_size
        suffixes = [f"_l{k}{direction}" for k in range(self.num_layers) for direction in ("", "_reverse")[:D]]
        sizes = [self.input_size if k < D else D * P for k in range(len(suffixes))]
        self._set_up([shapes_of(self._cell, I, H, P, self.bias) for I in sizes], suffixes, dtype, rng)

    def __call__(
        self, x: Any, state: State = None, lengths: Any = None, reset: Any = None, mask: Any = None, *, masked: str = "zero"
    ) -> tuple[Any, State]:
        """Inference: nothing is kept, and there is no dropout. Arguments, results and errors as forward's, without the tape."""
        layout, done = self._apply(x, state, lengths, reset, mask, masked)
        return layout.returned(done.y), self._final(layout, done)

    def forward(
        self,
        x: Any,
        state: State = None,
        lengths: Any = None,
        reset: Any = None,
        mask: Any = None,
        *,
        masked: str = "zero",
        checkpoint: int | None = None,
    ) -> tuple[Any, State, LayerTape]:
        """Training: keeps what backward needs, and drops out. x and the parameters are part of that: leave them as they are until
        backward.

        Of L layers and D directions (2 if bidirectional), with outputs of P numbers (proj_size, or else H):

        Args:
            x: (T, B, I); (B, T, I) with batch_first; (T, I) without a batch; or a packed sequence (fastrnn.pack, or PyTorch's) of
                data (N, I). The layer's dtype.
            state: (L*D, B, P), or (L*D, P) without a batch, layer by layer, forward before reverse; an LSTM's is a pair (h, c) with
                c (L*D, B, H); None for zeros.
            lengths: (B,) integers from 0 to T, in any order: the steps of each row. Nothing is spent on the padding behind them; y
                is 0 there, and the final state is that of the row's own end.
            reset: (T, B) booleans, or (B, T) with batch_first, also beside a packed x: where True, the row is cut in front of step
                t, in every layer and direction, and its state starts from zero.
            mask: (T, B) booleans, or (B, T) with batch_first: where False, the step is skipped and the state carried over it, in
                every layer and direction.
            masked: what y is at a skipped step: "zero", or "hold" for the output carried over.
            checkpoint: k, for long sequences: beside each layer's outputs the tape keeps only a state every k steps, in place of
                all gates and cell states, and backward makes the rest again, k steps at a time: the same bits of gradient, for
                about a forward's time. k may be rounded up, as fastrnn.lstm says. An RNN's tape needs no more anyway.

        Returns: y (T, B, D*P), read-only, or as x is (a packed sequence, if x is one); the final state; the tape, for one
        tape.backward(dy, dstate).

        Raises: TypeError, ValueError (the message names the argument), MemoryError.

        >>> y, state, tape = layer.forward(x)
        >>> grads = tape.backward(dy)
        >>> layer.flat -= 0.1 * grads.flat
        """
        k = None if checkpoint is None else checks.integer("checkpoint", checkpoint, 1)
        layout, done = self._apply(x, state, lengths, reset, mask, masked, True, k)
        y = done.y.view()
        y.flags.writeable = False
        return layout.returned(y), self._final(layout, done), LayerTape(self, layout, done)

    def stream(self, batch_size: int = 1) -> Stream:
        """Inference step by step for `batch_size` rows: see fastrnn.Stream.

        Raises: ValueError for a bidirectional layer, whose outputs depend on steps that are still to come; TypeError.

        >>> stream = layer.stream()
        >>> y_t = stream(x_t)
        """
        if self.bidirectional:
            raise ValueError(
                "bidirectional: expected False, got True; a stream gives out a step before it knows the next ones, "
                "but the reverse direction starts at the end of the sequence"
            )
        return make_stream(self._cell, self._weights(), batch_size)

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _output_size(self) -> int:
        """P: of one direction."""
        return self.proj_size or self.hidden_size

    @property
    def _output_symbol(self) -> str:
        """The last axis of y in letters."""
        return ("2*" if self.bidirectional else "") + ("P" if self.proj_size else "H")

    def _apply(
        self,
        x: Any,
        state: Any,
        lengths: Any,
        reset: Any,
        mask: Any,
        masked: Any,
        record: bool = False,
        checkpoint: int | None = None,
    ) -> tuple[Layout, Pass]:
        layout = Layout(x, self.dtype, self.input_size, self.batch_first)
        h0, c0 = self._split_state(layout, "state", state)
        plans = self._plans(layout, lengths, reset, mask, checks.choice("masked", masked, "zero", "hold"))
        dropout = self.dropout if record and self.num_layers > 1 else 0.0
        threads = config.get_num_threads
        options = Options(self._cell, self._directions, layout.rows_first, threads, record, dropout, self._draw, checkpoint)
        try:
            done = Pass(options, plans, self._weights())
            done.forward(layout.x, h0, c0)
            return layout, done
        except MemoryError as error:
            raise checks.out_of_memory("x", error) from None

    def _draw(self, shape: tuple[int, ...], p: float) -> NDArray[np.bool_]:
        """Which elements dropout lets through."""
        return self.rng.random(shape, np.float32) >= p

    def _plans(self, layout: Layout, lengths: Any, reset: Any, mask: Any, masked: str) -> list[Plan]:
        """Which steps there are: for each direction."""
        T, B = layout.T, layout.B
        if layout.packed is not None:
            if lengths is not None:
                raise ValueError(f"lengths: expected None for a packed x, which has its own, got {type(lengths).__name__}")
            lengths = layout.lengths
        elif lengths is not None:
            lengths = checks.integers("lengths", lengths, "(B,)", B, T)
        reset = None if reset is None else layout.flags("reset", reset)
        mask = None if mask is None else layout.flags("mask", mask)
        try:
            ways = (False, True)[: self._directions]
            return [make_plan(T, B, reverse, lengths, reset, mask, masked == "hold") for reverse in ways]
        except (MemoryError, ValueError) as error:  # its lists of up to T*B items; ValueError: not even countable
            name = "lengths" if lengths is not None else "reset" if reset is not None else "mask"
            raise checks.out_of_memory(name, error) from None

    def _split_state(self, layout: Layout, name: str, state: Any) -> tuple[Array | None, Array | None]:
        """h (L*D, B, P) and c (L*D, B, H), or None for what is none."""
        cells, h, c = len(self._suffixes), state, None
        if self._cell.is_lstm and state is not None:
            if not isinstance(state, (tuple, list)) or len(state) != 2:
                raise TypeError(f"{name}: expected a pair (h, c), got {type(state).__name__}")
            h, c = state
        names = (f"{name}[0]", f"{name}[1]") if self._cell.is_lstm else (name, "")
        width = "P" if self.proj_size else "H"
        h = None if h is None else layout.state(names[0], h, cells, self._output_size, width)
        return h, None if c is None else layout.state(names[1], c, cells, self.hidden_size, "H")

    def _final(self, layout: Layout, done: Pass) -> State:
        h_n = layout.returned_state(done.h_n)
        return h_n if done.c_n is None else (h_n, layout.returned_state(done.c_n))


class RNN(Recurrent):
    """Layers of the simple recurrent network: h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), or relu.

    Args:
        input_size, hidden_size: I and H.
        num_layers: L, from 1 to 10,000; each layer above the first reads the whole output of the one below.
        nonlinearity: "tanh" or "relu".
        bias: with bias_ih and bias_hh.
        batch_first: x and y are (B, T, .); states stay (L*D, B, H).
        dropout: the probability to drop an element between two layers, in forward alone; the rest is scaled by 1 / (1 - dropout).
            The masks are drawn from `layer.rng`, whose state brings them back: layer.rng.bit_generator.state.
        bidirectional: a second set of cells goes from each row's end to its start; y is the output of both, side by side.
        dtype: float32 or float64.
        rng: a seed or numpy.random.Generator for the initial values and the dropout.

    Parameters, for layer k and, in reverse, with the suffix _reverse: weight_ih_l{k} (H, I), or (H, D*H) above the first layer,
    weight_hh_l{k} (H, H), bias_ih_l{k} and bias_hh_l{k} (H,).

    Raises: TypeError, ValueError.

    >>> layer = fastrnn.RNN(3, 64, nonlinearity="relu", rng=0)
    >>> y, h_n = layer(x)
    """

    _family = "rnn"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: DTypeLike = np.float32,
        rng: Any = None,
    ) -> None:
        self.nonlinearity = checks.choice("nonlinearity", nonlinearity, "tanh", "relu")
        self._cell = rnn_cell(nonlinearity)
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng)


class IRNN(RNN):
    """ReLU RNNs that start as an identity (Le, Jaitly and Hinton 2015, arXiv 1504.00941): in each layer and direction
    W_hh = recurrent_scale * identity, biases 0, W_ih ~ N(0, input_std). Arguments else as RNN's.

    >>> layer = fastrnn.IRNN(2, 64, input_std=0.1, rng=0)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        recurrent_scale: float = 1.0,
        input_std: float = 0.001,
        dtype: DTypeLike = np.float32,
        rng: Any = None,
    ) -> None:
        self.recurrent_scale = checks.real("recurrent_scale", recurrent_scale)
        self.input_std = checks.real("input_std", input_std, 0)
        self.nonlinearity, self._cell = "relu", Cell.RNN_RELU
        Recurrent.__init__(self, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng)

    def _initialise(self) -> None:
        for name, array in self.params.items():
            if name.startswith("weight_ih"):
                array[:] = self.rng.normal(0, self.input_std, array.shape)
            elif name.startswith("weight_hh"):
                np.fill_diagonal(array, self.recurrent_scale)


class GRU(Recurrent):
    """Layers of gated recurrent units; the equations are fastrnn.gru's. Arguments as RNN's, and

    reset_after: PyTorch's form (True), or that of Cho et al. 2014.

    Parameters as RNN's, with 3*H rows: the blocks r, z, n.

    >>> layer = fastrnn.GRU(3, 64, num_layers=2, bidirectional=True, rng=0)
    >>> y, h_n = layer(x)  # (T, B, 128), (4, B, 64)
    """

    _family = "gru"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reset_after: bool = True,
        dtype: DTypeLike = np.float32,
        rng: Any = None,
    ) -> None:
        self.reset_after = checks.flag("reset_after", reset_after)
        self._cell = gru_cell(reset_after)
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng)


class LSTM(Recurrent):
    """Layers of long short-term memory; the equations are fastrnn.lstm's. Arguments as RNN's, and

    proj_size: P, less than H, or 0: the output is W_hr h_t, of P numbers (Sak et al. 2014, arXiv 1402.1128).
    peephole: i and f also see c_{t-1}, and o sees c_t.

    Parameters as RNN's, with 4*H rows: the blocks i, f, g, o; with proj_size weight_hh_l{k} (4*H, P), weight_ih_l{k} (4*H, D*P)
    above the first layer, and weight_hr_l{k} (P, H); with peephole weight_ch_l{k} (3, H), rows i, f, o.

    >>> layer = fastrnn.LSTM(3, 64, rng=0)
    >>> y, (h_n, c_n) = layer(x)
    """

    _family = "lstm"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        peephole: bool = False,
        dtype: DTypeLike = np.float32,
        rng: Any = None,
    ) -> None:
        self.peephole = checks.flag("peephole", peephole)
        self.proj_size = checks.projection("proj_size", proj_size, checks.size("hidden_size", hidden_size))
        self._cell = lstm_cell(peephole)
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, rng)
