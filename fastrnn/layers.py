"""Layers that own their parameters: PyTorch's names, shapes and initial values, on NumPy arrays."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import config
from ._api import checks
from ._api.layer_tape import LayerTape
from ._api.layout import Layout
from ._api.parameters import add_forget_bias, shapes_of
from ._api.portable import Portable
from ._api.tape import State
from ._core import PlainCalls, Recorded
from ._engine.activations import ActivationLike
from ._engine.cells import Cell, gru_cell, lstm_cell, rnn_cell
from ._engine.plan import Plan, make_plan
from ._engine.run import Run
from ._engine.stack import Options, Pass
from .frozen import FrozenLayer
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
        precision: str,
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
        self._set_up([shapes_of(self._cell, I, H, P, self.bias) for I in sizes], suffixes, dtype, rng, precision)

    def __call__(
        self, x: Any, state: State = None, lengths: Any = None, reset: Any = None, mask: Any = None, *, masked: str = "zero"
    ) -> tuple[Any, State]:
        """Inference: nothing is kept for backward, and there is no dropout.

        Parameters
        ----------
        x, state, lengths, reset, mask, masked
            As in `forward`.

        Returns
        -------
        y : array (T, B, D*P)
            Laid out as x is; a packed sequence if x is one.
        state : array (L*D, B, P), or of an LSTM a pair (h_n, c_n)
            The final state.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As in `forward`.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> layer = fastrnn.GRU(3, 4, num_layers=2, rng=0)
        >>> y, h_n = layer(np.ones((7, 2, 3), np.float32))  # T=7 B=2 I=3
        >>> y.shape, h_n.shape
        ((7, 2, 4), (2, 2, 4))
        """
        calls = self._plain_calls(lengths, reset, mask, masked)
        plain = None if calls is None else calls.infer(x, state, self.batch_first)
        if plain is not None:
            return plain
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
        """Training: keeps what backward needs, and applies dropout.

        Of L layers and D directions (2 if bidirectional), with outputs of P numbers (proj_size, or else H). The tape reads x and
        the parameters: do not change them before backward.

        Parameters
        ----------
        x : array (T, B, I)
            (B, T, I) with `batch_first`; (T, I) without a batch; or a packed sequence (fastrnn.pack, or PyTorch's) with data (N,
            I). The layer's dtype. Or integers from 0 to I - 1, (T, B), (B, T) or (T,), that stand for one-hot rows: columns of
            weight_ih_l0 are picked, and x has no gradient. At padding they are in this range, too.
        state : array (L*D, B, P), optional
            (L*D, P) without a batch; layer by layer, forward before reverse. Of an LSTM a pair (h, c) with c (L*D, B, H). None for
            zeros.
        lengths : integers (B,), optional
            From 0 to T, in any order: the steps of each row. No time is spent on the padding after them; y is 0 there, and the
            final state is that of the row's own end.
        reset : booleans (T, B), optional
            (B, T) with `batch_first`, also if x is packed. Where True, the row is cut before step t, in every layer and direction:
            its state starts from zero.
        mask : booleans (T, B), optional
            (B, T) with `batch_first`. Where False, the step is skipped and the state carried over it, in every layer and direction.
        masked : "zero" or "hold", default "zero"
            y at a skipped step: 0, or the output carried over it.
        checkpoint : int, optional
            k, for long sequences: besides each layer's outputs the tape keeps only a state every k steps, in place of all gates and
            cell states. Backward recomputes the rest, k steps at a time: the same bits of gradient, for about the time of a
            forward. k may be rounded up, as fastrnn.lstm says; the tape of an RNN needs no more anyway. None: keep everything.

        Returns
        -------
        y : array (T, B, D*P)
            Read-only, laid out as x is; a packed sequence if x is one.
        state : array (L*D, B, P), or of an LSTM a pair (h_n, c_n)
            The final state.
        tape : LayerTape
            For one tape.backward(dy, dstate).

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it.
        MemoryError
            What has to be kept does not fit into memory.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> layer = fastrnn.LSTM(3, 4, rng=0)
        >>> x = np.random.default_rng(0).standard_normal((7, 2, 3), np.float32)
        >>> y, (h_n, c_n), tape = layer.forward(x, lengths=[7, 5])
        >>> grads = tape.backward(y - 1)  # of half the sum of (y - 1)**2
        >>> layer.flat -= 0.1 * grads.flat
        >>> grads.x.shape, grads.params["weight_hh_l0"].shape
        ((7, 2, 3), (16, 4))
        """
        self._cell.check_slopes()
        calls = self._plain_calls(lengths, reset, mask, masked)
        if calls is not None and checkpoint is None and not self._drops:
            plain = calls.record(x, state, False, self.batch_first)
            if plain is not None:
                y, state, kept = plain
                return y, state, LayerTape(self, kept)
        k = None if checkpoint is None else checks.integer("checkpoint", checkpoint, 1)
        layout, done = self._apply(x, state, lengths, reset, mask, masked, True, k)
        y = done.y.view()
        y.flags.writeable = False
        return layout.returned(y), self._final(layout, done), LayerTape(self, (layout, done))

    def stream(self, batch_size: int = 1, *, precision: str | None = None) -> Stream:
        """Inference step by step: a stream that keeps the state.

        Parameters
        ----------
        batch_size : int, default 1
            B, the rows of every step.
        precision : "float32" or "bf16", optional
            Of the stream's products; None: the layer's.

        Returns
        -------
        stream : fastrnn.Stream
            With a snapshot of the weights, which stream.refresh() takes anew, and a state of zeros.

        Raises
        ------
        TypeError, ValueError
            Also ValueError for a bidirectional layer, whose outputs depend on later steps.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> layer = fastrnn.GRU(3, 4, rng=0)
        >>> x = np.ones((7, 3), np.float32)
        >>> stream = layer.stream()
        >>> y = np.stack([stream(x_t) for x_t in x])
        >>> np.allclose(y, layer(x)[0], atol=1e-6)
        True
        """
        if self.bidirectional:
            raise ValueError(
                "bidirectional: expected False, got True; a stream gives out a step before it knows the next ones, "
                "but the reverse direction starts at the end of the sequence"
            )
        return make_stream(self._cell, self._weights(precision), batch_size)

    def frozen(self, precision: str | None = None) -> FrozenLayer:
        """The layer for inference alone, with a snapshot of its weights that is packed once: see fastrnn.FrozenLayer.

        Parameters
        ----------
        precision : "float32" or "bf16", optional
            Of its products; None: the layer's.

        Returns
        -------
        frozen : fastrnn.FrozenLayer

        Raises
        ------
        TypeError, ValueError
            A wrong `precision`.
        MemoryError

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> layer, x = fastrnn.GRU(3, 4, rng=0), np.ones((7, 2, 3), np.float32)
        >>> np.array_equal(layer.frozen()(x)[0], layer(x)[0])
        True
        """
        return FrozenLayer(self, precision)

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

    @property
    def _drops(self) -> bool:
        """Does forward apply dropout?"""
        return self.dropout > 0 and self.num_layers > 1

    @cached_property
    def _plain(self) -> PlainCalls | None:
        """The plain calls of layers in one direction."""
        return None if self.bidirectional else PlainCalls(self._cell, self._cell.form, self._weights(), self.flat, True)

    def _plain_calls(self, lengths: Any, reset: Any, mask: Any, masked: Any) -> PlainCalls | None:
        """Who may take a call with these arguments, if x and the state are plain."""
        if lengths is None and reset is None and mask is None and type(masked) is str and masked == "zero":
            return self._plain
        return None

    def _general(self, kept: Recorded) -> tuple[Layout, Pass]:
        """A plain call as if it had gone the general way."""
        x, state, ys, cs, gates, batch_first = kept.parts()
        layout = Layout(x, self.dtype, self.input_size, batch_first)
        h0, c0 = self._split_state(layout, "state", state)
        threads = config.get_num_threads
        options = Options(self._cell, 1, layout.rows_first, threads, True)
        plans = self._plans(layout, None, None, None, "zero")
        done = Pass(options, plans, kept.weights())
        x = layout.turned(x)
        for k, weights in enumerate(done.weights):
            y = ys[k] if k + 1 < len(ys) else layout.turned(ys[k])
            h, c = None if h0 is None else h0[k], None if c0 is None else c0[k]
            run = Run(self._cell, plans[0], x, weights, h, c, threads)
            run.resume(layout.rows_first, y, cs[k] if cs else None, gates[k] if gates else None)
            done.add(run)
            x = y
        return layout, done

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
        dropout = self.dropout if record and self._drops else 0.0
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
    """Layers of the simple recurrent network (Elman 1990): h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), or another
    nonlinearity.

    Parameters of layer k, in reverse with the suffix _reverse: weight_ih_l{k} (H, I), after the first layer (H, D*H);
    weight_hh_l{k} (H, H); bias_ih_l{k} and bias_hh_l{k} (H,). Initial values from U(-1/sqrt(H), 1/sqrt(H)), as PyTorch's.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H, at least 1.
    num_layers : int, default 1
        L, from 1 to 10,000. Each layer after the first reads the whole output of the one before.
    nonlinearity : str or tuple, default "tanh"
        "tanh", "sigmoid", "relu", "leaky_relu", "thresholded_relu", "affine", "linear", "scaled_tanh", "hard_sigmoid", "elu",
        "softsign" or "softplus", as ONNX defines them, or a tuple of a name and its parameters, such as ("leaky_relu", 0.1): see
        docs/activations.md.
    bias : bool, default True
        Whether there are bias_ih and bias_hh.
    batch_first : bool, default False
        x and y are (B, T, .); states stay (L*D, B, .).
    dropout : float, default 0
        The probability, from 0 to 1, to drop an element between two layers, in `forward` alone; the others are scaled by
        1 / (1 - dropout). Masks are drawn from `layer.rng`, whose state (layer.rng.bit_generator.state) reproduces them.
    bidirectional : bool, default False
        A second set of cells goes from each row's end to its start; y is both outputs, concatenated.
    dtype : dtype, default float32
        float32 or float64.
    precision : "float32" or "bf16", default "float32"
        Of products: "bf16" rounds their operands to bfloat16 and sums in float32, for float32 alone. It can be assigned later.
    rng : int or numpy.random.Generator, optional
        The source of the initial values and of dropout's masks, or its seed.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.
    MemoryError
        The parameters do not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> layer = fastrnn.RNN(3, 4, nonlinearity="relu", rng=0)
    >>> y, h_n = layer(np.ones((7, 2, 3), np.float32))  # T=7 B=2
    >>> y.shape, h_n.shape
    ((7, 2, 4), (1, 2, 4))
    >>> list(layer.params)
    ['weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0', 'bias_hh_l0']
    """

    _family = "rnn"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: ActivationLike = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: DTypeLike = np.float32,
        precision: str = "float32",
        rng: Any = None,
    ) -> None:
        f = checks.activation("nonlinearity", nonlinearity)
        self.nonlinearity, self._cell = f.given, rnn_cell(f)
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, precision, rng)


class IRNN(RNN):
    """ReLU RNNs initialised with the identity (Le, Jaitly and Hinton 2015, arXiv 1504.00941): in each layer and direction
    W_hh = recurrent_scale * identity, biases 0, W_ih ~ N(0, input_std^2).

    Parameters
    ----------
    input_size, hidden_size : int
        I and H, at least 1.
    num_layers : int, default 1
        L, from 1 to 10,000. Each layer after the first reads the whole output of the one before.
    bias : bool, default True
        Whether there are bias_ih and bias_hh.
    batch_first : bool, default False
        x and y are (B, T, .); states stay (L*D, B, .).
    dropout : float, default 0
        The probability, from 0 to 1, to drop an element between two layers, in `forward` alone; the others are scaled by
        1 / (1 - dropout). Masks are drawn from `layer.rng`, whose state (layer.rng.bit_generator.state) reproduces them.
    bidirectional : bool, default False
        A second set of cells goes from each row's end to its start; y is both outputs, concatenated.
    recurrent_scale : float, default 1
        The diagonal of W_hh.
    input_std : float, default 0.001
        The standard deviation of W_ih, at least 0.
    dtype : dtype, default float32
        float32 or float64.
    precision : "float32" or "bf16", default "float32"
        Of products: "bf16" rounds their operands to bfloat16 and sums in float32, for float32 alone. It can be assigned later.
    rng : int or numpy.random.Generator, optional
        The source of the initial values and of dropout's masks, or its seed.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.
    MemoryError
        The parameters do not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> layer = fastrnn.IRNN(2, 3, input_std=0.1, rng=0)
    >>> layer.params["weight_hh_l0"]
    array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.]], dtype=float32)
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
        precision: str = "float32",
        rng: Any = None,
    ) -> None:
        self.recurrent_scale = checks.real("recurrent_scale", recurrent_scale)
        self.input_std = checks.real("input_std", input_std, 0)
        self.nonlinearity, self._cell = "relu", Cell.RNN_RELU
        sizes = input_size, hidden_size, num_layers
        Recurrent.__init__(self, *sizes, bias, batch_first, dropout, bidirectional, dtype, precision, rng)

    def _initialise(self) -> None:
        for name, array in self.params.items():
            if name.startswith("weight_ih"):
                array[:] = self.rng.normal(0, self.input_std, array.shape)
            elif name.startswith("weight_hh"):
                np.fill_diagonal(array, self.recurrent_scale)


class GRU(Recurrent):
    """Layers of gated recurrent units (Cho et al. 2014, arXiv 1406.1078); the equations are those of fastrnn.gru.

    Parameters of layer k, in reverse with the suffix _reverse: weight_ih_l{k} (3*H, I), after the first layer (3*H, D*H);
    weight_hh_l{k} (3*H, H); bias_ih_l{k} and bias_hh_l{k} (3*H,); row blocks r, z, n. Initial values from U(-1/sqrt(H), 1/sqrt(H)),
    as PyTorch's.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H, at least 1.
    num_layers : int, default 1
        L, from 1 to 10,000. Each layer after the first reads the whole output of the one before.
    bias : bool, default True
        Whether there are bias_ih and bias_hh.
    batch_first : bool, default False
        x and y are (B, T, .); states stay (L*D, B, .).
    dropout : float, default 0
        The probability, from 0 to 1, to drop an element between two layers, in `forward` alone; the others are scaled by
        1 / (1 - dropout). Masks are drawn from `layer.rng`, whose state (layer.rng.bit_generator.state) reproduces them.
    bidirectional : bool, default False
        A second set of cells goes from each row's end to its start; y is both outputs, concatenated.
    reset_after : bool, default True
        PyTorch's and cuDNN's form, r * (W_hn h + b_hn); False: that of Cho et al., W_hn (r * h) + b_hn.
    activation, recurrent_activation : str or tuple, default "tanh" and "sigmoid"
        In place of tanh and of sigmoid: "tanh", "sigmoid", "relu", "leaky_relu", "thresholded_relu", "affine", "linear",
        "scaled_tanh", "hard_sigmoid", "elu", "softsign" or "softplus", as ONNX defines them, or a tuple of a name and its
        parameters, such as ("hard_sigmoid", 0.2, 0.5): see docs/activations.md.
    dtype : dtype, default float32
        float32 or float64.
    precision : "float32" or "bf16", default "float32"
        Of products: "bf16" rounds their operands to bfloat16 and sums in float32, for float32 alone. It can be assigned later.
    rng : int or numpy.random.Generator, optional
        The source of the initial values and of dropout's masks, or its seed.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.
    MemoryError
        The parameters do not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> layer = fastrnn.GRU(3, 4, num_layers=2, bidirectional=True, rng=0)
    >>> y, h_n = layer(np.ones((7, 2, 3), np.float32))  # T=7 B=2
    >>> y.shape, h_n.shape
    ((7, 2, 8), (4, 2, 4))
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
        activation: ActivationLike = "tanh",
        recurrent_activation: ActivationLike = "sigmoid",
        dtype: DTypeLike = np.float32,
        precision: str = "float32",
        rng: Any = None,
    ) -> None:
        self.reset_after = checks.flag("reset_after", reset_after)
        self._cell = gru_cell(reset_after, *self._take_activations(activation, recurrent_activation))
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, precision, rng)


class LSTM(Recurrent):
    """Layers of long short-term memory (Hochreiter and Schmidhuber 1997); the equations are those of fastrnn.lstm.

    Parameters of layer k, in reverse with the suffix _reverse: weight_ih_l{k} (4*H, I), after the first layer (4*H, D*P);
    weight_hh_l{k} (4*H, P); bias_ih_l{k} and bias_hh_l{k} (4*H,); row blocks i, f, g, o; with `proj_size` weight_hr_l{k} (P, H);
    with `peephole` weight_ch_l{k} (3, H), rows i, f, o. P is H without `proj_size`. Initial values from U(-1/sqrt(H), 1/sqrt(H)),
    as PyTorch's.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H, at least 1.
    num_layers : int, default 1
        L, from 1 to 10,000. Each layer after the first reads the whole output of the one before.
    bias : bool, default True
        Whether there are bias_ih and bias_hh.
    batch_first : bool, default False
        x and y are (B, T, .); states stay (L*D, B, .).
    dropout : float, default 0
        The probability, from 0 to 1, to drop an element between two layers, in `forward` alone; the others are scaled by
        1 / (1 - dropout). Masks are drawn from `layer.rng`, whose state (layer.rng.bit_generator.state) reproduces them.
    bidirectional : bool, default False
        A second set of cells goes from each row's end to its start; y is both outputs, concatenated.
    proj_size : int, default 0
        P, less than H: the output is W_hr h_t, of P numbers (Sak et al. 2014, arXiv 1402.1128). 0 for no projection.
    peephole : bool, default False
        i and f also see c_{t-1}, and o sees c_t (Gers and Schmidhuber 2000).
    activation, recurrent_activation : str or tuple, default "tanh" and "sigmoid"
        In place of both tanh and of sigmoid: "tanh", "sigmoid", "relu", "leaky_relu", "thresholded_relu", "affine", "linear",
        "scaled_tanh", "hard_sigmoid", "elu", "softsign" or "softplus", as ONNX defines them, or a tuple of a name and its
        parameters, such as ("hard_sigmoid", 0.2, 0.5): see docs/activations.md.
    forget_bias : float, default 0
        Added to the initial values of the forget gate's rows of bias_ih in every layer and direction, so that cells remember from
        the start (Gers, Schmidhuber and Cummins 2000; 1 by Jozefowicz, Zaremba and Sutskever 2015). It needs `bias`.
    dtype : dtype, default float32
        float32 or float64.
    precision : "float32" or "bf16", default "float32"
        Of products: "bf16" rounds their operands to bfloat16 and sums in float32, for float32 alone. It can be assigned later.
    rng : int or numpy.random.Generator, optional
        The source of the initial values and of dropout's masks, or its seed.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.
    MemoryError
        The parameters do not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> layer = fastrnn.LSTM(3, 4, rng=0)
    >>> y, (h_n, c_n) = layer(np.ones((7, 2, 3), np.float32))  # T=7 B=2
    >>> y.shape, h_n.shape, c_n.shape
    ((7, 2, 4), (1, 2, 4), (1, 2, 4))
    >>> np.array_equal(y[-1], h_n[0])
    True
    """

    _family = "lstm"
    forget_bias = 0.0  # also of pickles that say nothing of it

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
        activation: ActivationLike = "tanh",
        recurrent_activation: ActivationLike = "sigmoid",
        forget_bias: float = 0.0,
        dtype: DTypeLike = np.float32,
        precision: str = "float32",
        rng: Any = None,
    ) -> None:
        self.peephole = checks.flag("peephole", peephole)
        self.forget_bias = checks.forget_bias(forget_bias, checks.flag("bias", bias))
        self.proj_size = checks.projection("proj_size", proj_size, checks.size("hidden_size", hidden_size))
        self._cell = lstm_cell(peephole, *self._take_activations(activation, recurrent_activation))
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, precision, rng)

    def _initialise(self) -> None:
        super()._initialise()
        add_forget_bias(self.params, self.hidden_size, self.forget_bias)
