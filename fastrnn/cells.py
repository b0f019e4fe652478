"""Cells: one step, for loops that are written by hand, with a tape for the exact gradients of each step."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import config
from ._api import checks
from ._api.parameters import RecurrentModule, add_forget_bias, shapes_of
from ._api.tape import Gradients, OneUse, State, gradients, is_nothing
from ._api.tokens import are_tokens, tokens_of_rows
from ._core import PlainCalls, Recorded
from ._engine.activations import ActivationLike
from ._engine.cells import Cell, gru_cell, lstm_cell, rnn_cell
from ._engine.plan import Plan
from ._engine.run import Run
from ._engine.tokens import Tokens
from .frozen import FrozenCell
from .unrolled import UnrolledCell

Array = NDArray[Any]


class CellTape(OneUse):
    """What a step of a cell kept for its backward; made by cell.forward."""

    def __init__(self, owner: RecurrentCell, kept: Recorded | tuple[Run, bool]) -> None:
        """Of a plain call, or of any other and whether it was without a batch."""
        super().__init__()
        self._owner = owner
        self._kept: Recorded | tuple[Run, bool] | None = kept

    def backward(self, dstate: State) -> Gradients:
        """Gradients of sum(h * dh), of an LSTM of sum(h * dh) + sum(c * dc).

        Parameters
        ----------
        dstate : array (B, H)
            As the returned h; of an LSTM a pair (dh, dc), either of which may be None.

        Returns
        -------
        grads : Gradients
            grads.x (B, I) or (I,), None where x was of integers; grads.state, in the form of the state; grads.params, by the names
            of cell.params; grads.flat, one vector of all of these, in the order of cell.flat.

        Raises
        ------
        RuntimeError
            At the second call, or while another thread uses this tape.
        TypeError, ValueError
            A wrong `dstate`.
        MemoryError

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> cell = fastrnn.LSTMCell(3, 4, rng=0)
        >>> (h, c), tape = cell.forward(np.ones((2, 3), np.float32))
        >>> grads = tape.backward((h - 1, None))  # of half the sum of (h - 1)**2
        >>> grads.x.shape, grads.params["weight_ih"].shape, grads.flat.shape
        ((2, 3), (16, 3), (144,))
        """
        with self._in_use:
            return self._backward(dstate)

    def _backward(self, dstate: State) -> Gradients:
        kept, owner = self._kept, self._owner
        if kept is None:
            raise RuntimeError("tape.backward: this tape has been used; a tape can be used once, call forward again for a new one")
        if isinstance(kept, Recorded):
            plain = kept.backward(None, dstate)
            if plain is not None:
                self._kept = None
                return gradients(owner, *plain)
            kept = self._kept = owner._general(kept)
        run, unbatched = kept
        if is_nothing(dstate):
            raise ValueError("dstate: expected the gradient of the new state, got None")
        given = owner._split_state("dstate", dstate, len(run.h_n), unbatched)
        ends = (run.h_n,) if run.c_n is None else (run.h_n, run.c_n)
        state = [np.zeros_like(end) if d is None else d.copy() for d, end in zip(given, ends)]
        into = owner._zeros()
        self._kept = None
        dx = run.backward(None, state[0], state[1] if len(state) > 1 else None, owner._by_cell(into.named)[0])
        dx = None if dx is None else dx[0, 0] if unbatched else dx[0]
        return Gradients(x=dx, state=owner._joined(state, unbatched), params=into, flat=into.flat)


class RecurrentCell(RecurrentModule):
    """What the three cells share. See those."""

    _cell: Cell

    def __init__(self, input_size: int, hidden_size: int, bias: bool, dtype: DTypeLike, precision: str, rng: Any) -> None:
        self.input_size = checks.size("input_size", input_size)
        self.hidden_size = checks.size("hidden_size", hidden_size)
        self.bias = checks.flag("bias", bias)
        H = self.hidden_size
        self._set_up([shapes_of(self._cell, self.input_size, H, H, self.bias)], [""], dtype, rng, precision)

    def __call__(self, x: Array, state: State = None) -> State:
        """One step of inference: nothing is kept for backward.

        Parameters
        ----------
        x, state
            As in `forward`.

        Returns
        -------
        state : array (B, H), or of an LSTM a pair (h, c)
            The new state.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As in `forward`.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> cell, h = fastrnn.GRUCell(3, 4, rng=0), None
        >>> for x_t in np.ones((7, 2, 3), np.float32):
        ...     h = cell(x_t, h)
        >>> h.shape
        (2, 4)
        """
        new = self._plain.step(x, state)
        if new is not None:
            return new
        run, unbatched = self._step(x, state, record=False)
        return self._new(run, unbatched)

    def forward(self, x: Array, state: State = None) -> tuple[State, CellTape]:
        """One step, and what its backward needs. The tape reads x and the parameters: do not change them before backward.

        Parameters
        ----------
        x : array (B, I) or (I,)
            The cell's dtype. Or integers (B,) from 0 to I - 1 that stand for one-hot rows, which have no gradient.
        state : array (B, H) or (H,), optional
            h, of an LSTM a pair (h, c); None for zeros.

        Returns
        -------
        state : array (B, H), or of an LSTM a pair (h, c)
            The new state, (H,) without a batch.
        tape : CellTape
            For one tape.backward(dh), of an LSTM tape.backward((dh, dc)).

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it.
        MemoryError

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> cell, h, tapes = fastrnn.GRUCell(3, 4, rng=0), None, []
        >>> for x_t in np.ones((7, 2, 3), np.float32):
        ...     h, tape = cell.forward(x_t, h)
        ...     tapes.append(tape)
        >>> dh, dflat = h - 1, np.zeros_like(cell.flat)  # of half the sum of (h - 1)**2
        >>> for tape in reversed(tapes):
        ...     grads = tape.backward(dh)
        ...     dh, dflat = grads.state, dflat + grads.flat
        >>> dh.shape, dflat.shape
        ((2, 4), (108,))
        """
        self._cell.check_slopes()
        plain = self._plain.record(x, state, True, False)
        if plain is not None:
            _, new, kept = plain
            return new, CellTape(self, kept)
        run, unbatched = self._step(x, state, record=True)
        return self._new(run, unbatched), CellTape(self, (run, unbatched))

    def frozen(self, precision: str | None = None) -> FrozenCell:
        """The cell for inference alone, with a snapshot of its weights that is packed once: see fastrnn.FrozenCell.

        Parameters
        ----------
        precision : "float32" or "bf16", optional
            Of its products; None: the cell's.

        Returns
        -------
        frozen : fastrnn.FrozenCell

        Raises
        ------
        TypeError, ValueError
            A wrong `precision`.
        MemoryError

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> cell, x_t = fastrnn.GRUCell(3, 4, rng=0), np.ones((2, 3), np.float32)
        >>> np.array_equal(cell.frozen()(x_t), cell(x_t))
        True
        """
        return FrozenCell(self, precision)

    def unrolled(self) -> UnrolledCell:
        """Steps for training in a loop that is written by hand, within a ``with`` block: see fastrnn.UnrolledCell.

        The weights are packed once, for the cell's precision where the block begins, and the parameters' gradients of all steps are
        added up.

        Returns
        -------
        steps : fastrnn.UnrolledCell

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> cell, h, tapes = fastrnn.GRUCell(3, 4, rng=0), None, []
        >>> with cell.unrolled() as steps:
        ...     for x_t in np.ones((7, 2, 3), np.float32):
        ...         h, tape = steps.forward(x_t, h)
        ...         tapes.append(tape)
        ...     dh = h - 1  # of half the sum of (h - 1)**2
        ...     for tape in reversed(tapes):
        ...         dh = tape.backward(dh).state
        >>> steps.grads.flat.shape
        (108,)
        """
        return UnrolledCell(self)

    @cached_property
    def _plain(self) -> PlainCalls:
        return PlainCalls(self._cell, self._cell.form, self._weights(), self.flat, False)

    def _general(self, kept: Recorded) -> tuple[Run, bool]:
        """A plain call as if it had gone the general way."""
        x, state, (y,), c, gates, _ = kept.parts()
        x, h, c0, unbatched = self._arguments(x, state)
        run = Run(self._cell, _one_step(x), x, kept.weights()[0], h, c0, config.get_num_threads)
        run.resume(False, y, c[0] if c else None, gates[0] if gates else None)
        return run, unbatched

    def _step(self, x: Any, state: State, record: bool) -> tuple[Run, bool]:
        if are_tokens(x):
            x = tokens_of_rows(x, self.input_size, self.dtype)
            h, c, unbatched = *self._split_state("state", state, x.shape[1], False), False
        else:
            x, h, c, unbatched = self._arguments(x, state)
        try:
            run = Run(self._cell, _one_step(x), x, self._weights()[0], h, c, config.get_num_threads)
            run.forward(record)
        except MemoryError as error:
            raise checks.out_of_memory("x", error) from None
        return run, unbatched

    def _arguments(self, x: Any, state: State) -> tuple[Array, Array | None, Array | None, bool]:
        """x (1, B, I), h and c (B, H) or None, and whether there was no batch."""
        x = checks.rows_contiguous("x", checks.floats("x", x, self.dtype, (1, 2)))
        if x.shape[-1] != self.input_size:
            raise ValueError(f"x: expected the last axis to be equal to input_size = {self.input_size}, got shape {x.shape}")
        unbatched = x.ndim == 1
        x = x[None, None] if unbatched else x[None]
        return x, *self._split_state("state", state, x.shape[1], unbatched), unbatched

    def _split_state(self, name: str, state: Any, B: int, unbatched: bool) -> tuple[Array | None, Array | None]:
        """h and c (B, H), or None for what is none."""
        if not self._cell.is_lstm or state is None:
            return self._member(name, state, B, unbatched), None
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(f"{name}: expected a pair (h, c), got {type(state).__name__}")
        return self._member(f"{name}[0]", state[0], B, unbatched), self._member(f"{name}[1]", state[1], B, unbatched)

    def _member(self, name: str, value: Any, B: int, unbatched: bool) -> Array | None:
        H = self.hidden_size
        symbols, shape = ("(H,)", (H,)) if unbatched else ("(B, H)", (B, H))
        return None if value is None else checks.shaped(name, value, self.dtype, symbols, shape).reshape(B, H)

    def _new(self, run: Run, unbatched: bool) -> State:
        return self._joined([run.h_n] if run.c_n is None else [run.h_n, run.c_n], unbatched)

    def _joined(self, members: list[Array], unbatched: bool) -> State:
        members = [m[0] if unbatched else m for m in members]
        return tuple(members) if self._cell.is_lstm else members[0]


def _one_step(x: Array | Tokens) -> Plan:
    return Plan(1, x.shape[1], False)


class RNNCell(RecurrentCell):
    """One step of the simple recurrent network (Elman 1990): h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or another nonlinearity.

    Its parameters: weight_ih (H, I), weight_hh (H, H), bias_ih and bias_hh (H,).

    Parameters
    ----------
    input_size, hidden_size : int
        I and H, at least 1.
    bias : bool, default True
        Whether there are bias_ih and bias_hh.
    nonlinearity : str or tuple, default "tanh"
        "tanh", "sigmoid", "relu", "leaky_relu", "thresholded_relu", "affine", "linear", "scaled_tanh", "hard_sigmoid", "elu",
        "softsign" or "softplus", as ONNX defines them, or a tuple of a name and its parameters, such as ("leaky_relu", 0.1): see
        docs/activations.md.
    dtype : dtype, default float32
        float32 or float64.
    precision : "float32" or "bf16", default "float32"
        Of products: "bf16" rounds their operands to bfloat16 and sums in float32, for float32 alone. It can be assigned later.
    rng : int or numpy.random.Generator, optional
        The source of the initial values, or its seed. All are from U(-1/sqrt(H), 1/sqrt(H)), as PyTorch's.

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
    >>> cell = fastrnn.RNNCell(3, 4, rng=0)
    >>> h = cell(np.ones((2, 3), np.float32))  # from a state of zeros
    >>> h = cell(np.ones((2, 3), np.float32), h)
    >>> h.shape
    (2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: ActivationLike = "tanh",
        *,
        dtype: DTypeLike = np.float32,
        precision: str = "float32",
        rng: Any = None,
    ) -> None:
        f = checks.activation("nonlinearity", nonlinearity)
        self.nonlinearity, self._cell = f.given, rnn_cell(f)
        super().__init__(input_size, hidden_size, bias, dtype, precision, rng)


class GRUCell(RecurrentCell):
    """One step of a gated recurrent unit (Cho et al. 2014, arXiv 1406.1078); the equations are those of fastrnn.gru.

    Its parameters: weight_ih (3*H, I), weight_hh (3*H, H), bias_ih and bias_hh (3*H,); row blocks r, z, n.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H, at least 1.
    bias : bool, default True
        Whether there are bias_ih and bias_hh.
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
        The source of the initial values, or its seed. All are from U(-1/sqrt(H), 1/sqrt(H)), as PyTorch's.

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
    >>> cell = fastrnn.GRUCell(3, 4, rng=0)
    >>> cell(np.ones((2, 3), np.float32)).shape
    (2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
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
        super().__init__(input_size, hidden_size, bias, dtype, precision, rng)


class LSTMCell(RecurrentCell):
    """One step of long short-term memory (Hochreiter and Schmidhuber 1997); the equations are those of fastrnn.lstm.

    Its parameters: weight_ih (4*H, I), weight_hh (4*H, H), bias_ih and bias_hh (4*H,); row blocks i, f, g, o; with `peephole`
    weight_ch (3, H), rows i, f, o.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H, at least 1.
    bias : bool, default True
        Whether there are bias_ih and bias_hh.
    peephole : bool, default False
        i and f also see c_{t-1}, and o sees c_t (Gers and Schmidhuber 2000).
    activation, recurrent_activation : str or tuple, default "tanh" and "sigmoid"
        In place of both tanh and of sigmoid: "tanh", "sigmoid", "relu", "leaky_relu", "thresholded_relu", "affine", "linear",
        "scaled_tanh", "hard_sigmoid", "elu", "softsign" or "softplus", as ONNX defines them, or a tuple of a name and its
        parameters, such as ("hard_sigmoid", 0.2, 0.5): see docs/activations.md.
    forget_bias : float, default 0
        Added to the initial values of the forget gate's rows of bias_ih, so that the cell remembers from the start (Gers,
        Schmidhuber and Cummins 2000; 1 by Jozefowicz, Zaremba and Sutskever 2015). It needs `bias`.
    dtype : dtype, default float32
        float32 or float64.
    precision : "float32" or "bf16", default "float32"
        Of products: "bf16" rounds their operands to bfloat16 and sums in float32, for float32 alone. It can be assigned later.
    rng : int or numpy.random.Generator, optional
        The source of the initial values, or its seed. All are from U(-1/sqrt(H), 1/sqrt(H)), as PyTorch's.

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
    >>> cell = fastrnn.LSTMCell(3, 4, rng=0)
    >>> h, c = cell(np.ones((2, 3), np.float32))  # from a state of zeros
    >>> h, c = cell(np.ones((2, 3), np.float32), (h, c))
    >>> h.shape, c.shape
    ((2, 4), (2, 4))
    """

    forget_bias = 0.0  # also of pickles that say nothing of it

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
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
        self._cell = lstm_cell(peephole, *self._take_activations(activation, recurrent_activation))
        super().__init__(input_size, hidden_size, bias, dtype, precision, rng)

    def _initialise(self) -> None:
        super()._initialise()
        add_forget_bias(self.params, self.hidden_size, self.forget_bias)
