"""Two other recurrences of the textbook (Goodfellow, Bengio and Courville 2016, chapter 10), on the kernels of the usual one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._api import checks
from .._api.parameters import Module, Shapes
from .._api.tape import Gradients, OneUse
from ..functional import rnn
from .padding import valid_steps

Array = NDArray[Any]


class _Model(Module):
    """U (H, I), W, b (H,), V (O, H), c (O,): a recurrence with its outputs."""

    _feeds_back: str  # what W multiplies: "H" or "O"
    _least_inputs: int

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        *,
        nonlinearity: str = "tanh",
        dtype: DTypeLike = np.float32,
        rng: Any = None,
    ) -> None:
        self.input_size = checks.integer("input_size", input_size, self._least_inputs)
        self.hidden_size = checks.size("hidden_size", hidden_size)
        self.output_size = checks.size("output_size", output_size)
        self.nonlinearity = checks.choice("nonlinearity", nonlinearity, "tanh", "relu")
        I, H, O = self.input_size, self.hidden_size, self.output_size
        shapes: Shapes = {"U": (H, I), "W": (H, H if self._feeds_back == "H" else O), "b": (H,), "V": (O, H), "c": (O,)}
        self._set_up([shapes], [""], dtype, rng)

    def _check(self, x: Any, state: Any, width: int, lengths: Any) -> tuple[Array, Array, NDArray[np.intp] | None]:
        """x, the initial state (B, width), and the lengths."""
        x = checks.floats("x", x, self.dtype, (3,))
        if x.shape[-1] != self.input_size:
            raise ValueError(f"x: expected the last axis to be input_size = {self.input_size}, got shape {x.shape}")
        T, B, _ = x.shape
        first = np.zeros((B, width), self.dtype)
        if state is not None:
            first = checks.shaped("state", state, self.dtype, f"(1, B, {self._feeds_back})", (1, B, width))[0].copy()
        return x, first, None if lengths is None else checks.integers("lengths", lengths, "(B,)", B, T)


class _Tape(OneUse):
    """What both tapes share: they can be used once, and padding has neither outputs nor gradients."""

    _used = False

    def __init__(self, model: _Model, shape: tuple[int, int], lengths: NDArray[np.intp] | None) -> None:
        super().__init__()
        self._model, (self._T, self._B), self._lengths = model, shape, lengths
        self._valid = None if lengths is None else valid_steps(self._T, self._B, lengths)

    def within(self, sequence: Array) -> Array:
        """(T, B, .), with 0 after each row's end."""
        return sequence if self._valid is None else np.where(self._valid[:, :, None], sequence, 0)

    def ends(self) -> tuple[Array, Array, Array]:
        """The rows that have steps, their last steps, and the rows that have none."""
        lengths = np.full(self._B, self._T) if self._lengths is None else self._lengths
        rows = np.flatnonzero(lengths)
        return rows, lengths[rows] - 1, np.flatnonzero(lengths == 0)

    def last(self, sequence: Array, first: Array) -> Array:
        """(1, B, .): the sequence at each row's end, the first state where there is none."""
        state = first.copy()
        rows, at, _ = self.ends()
        state[rows] = sequence[at, rows]
        return state[None]

    def _gradient(self, name: str, value: Any, symbols: str, shape: tuple[int, ...]) -> Array:
        """A new array; zeros where none is given."""
        if value is None:
            return np.zeros(shape, self._model.dtype)
        return checks.shaped(name, value, self._model.dtype, symbols, shape).copy()

    def _use(self, *given: Any) -> None:
        if self._used:
            raise RuntimeError("tape.backward: this tape has been used; call forward again for a new one")
        if all(value is None for value in given):
            raise ValueError("tape.backward: expected a gradient of the output, of the state or of both, got neither")


class PreactivationRNN(_Model):
    """The network whose state is what goes into phi: h_t = b + U x_t + W phi(h_{t-1}), y_t = c + V phi(h_t).

    The recurrence is that of Goodfellow, Bengio and Courville 2016, chapter 10. With s_t = phi(h_t) it is the usual s_t = phi(b + U
    x_t + W s_{t-1}), so it runs on the kernels of fastrnn.rnn, and what gradients h gets by itself (dstate, dh) come in by h_t = b
    + U x_t + W s_{t-1}, in products over all steps. One step of it has the Jacobian W diag(phi'(h_{t-1})), where the usual form has
    diag(phi'(h_t)) W.

    Parameters
    ----------
    input_size : int
        I, at least 1.
    hidden_size, output_size : int
        H and O, at least 1.
    nonlinearity : "tanh" or "relu", default "tanh"
        phi.
    dtype : dtype, default float32
        float32 or float64.
    rng : int or numpy.random.Generator, optional
        The source of the initial values, all from U(-1/sqrt(H), 1/sqrt(H)), or its seed.

    Attributes
    ----------
    params : Parameters
        {"U": (H, I), "W": (H, H), "b": (H,), "V": (O, H), "c": (O,)}.
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
    >>> from fastrnn.train import PreactivationRNN
    >>> model = PreactivationRNN(3, 4, 2, rng=0)
    >>> y, h_n, tape = model.forward(np.ones((7, 5, 3), np.float32))  # T=7 B=5
    >>> grads = tape.backward(y - 1)  # of half the sum of (y - 1)**2
    >>> y.shape, h_n.shape, grads.flat.shape
    ((7, 5, 2), (1, 5, 4), (42,))
    """

    _feeds_back = "H"
    _least_inputs = 1

    def __call__(self, x: Array, state: Array | None = None, lengths: Any = None) -> tuple[Array, Array]:
        """Inference: the results of `forward` without the tape.

        Parameters
        ----------
        x, state, lengths
            As in `forward`.

        Returns
        -------
        y : array (T, B, O)
        state : array (1, B, H)

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it.
        MemoryError

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import PreactivationRNN
        >>> y, h_n = PreactivationRNN(3, 4, 2, rng=0)(np.ones((7, 5, 3), np.float32))
        >>> y.shape
        (7, 5, 2)
        """
        y, state, _ = self.forward(x, state, lengths)
        return y, state

    def forward(self, x: Array, state: Array | None = None, lengths: Any = None) -> tuple[Array, Array, PreactivationTape]:
        """Training: the outputs, the final state and the tape.

        Parameters
        ----------
        x : array (T, B, I)
            The model's dtype.
        state : array (1, B, H), optional
            h_0; None for zeros.
        lengths : integers (B,), optional
            From 0 to T: the steps of each row; y and h are 0 after them.

        Returns
        -------
        y : array (T, B, O)
        state : array (1, B, H)
            h at each row's own end.
        tape : PreactivationTape
            For one tape.backward(dy); it has h (T, B, H), too.

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it.
        MemoryError

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import PreactivationRNN
        >>> model = PreactivationRNN(3, 4, 2, rng=0)
        >>> y, h_n, tape = model.forward(np.ones((7, 5, 3), np.float32))
        >>> np.array_equal(tape.h[-1], h_n[0])
        True
        """
        x, h0, checked = self._check(x, state, self.hidden_size, lengths)
        U, W, b, V, c = self.params.values()
        s0 = np.tanh(h0) if self.nonlinearity == "tanh" else np.maximum(h0, 0)
        s, _, tape = rnn(x, U, W, b, None, s0, nonlinearity=self.nonlinearity, lengths=checked, record=True)
        mine = PreactivationTape(self, x.shape[:2], checked)
        mine._tape, mine._x, mine._s, mine._h0, mine._s0 = tape, mine.within(x), s, h0, s0
        y = mine.within(s @ V.T + c)
        return y, mine.last(mine.h, h0), mine


class PreactivationTape(_Tape):
    """The tape of PreactivationRNN.forward. It can be used once."""

    _tape: Any
    _x: Array
    _s: Array
    _h0: Array
    _s0: Array

    @property
    def h(self) -> Array:
        """(T, B, H), a new array: h_t = b + U x_t + W phi(h_{t-1}), 0 after each row's end."""
        U, W, b, *_ = self._model.params.values()
        return self.within(self._x @ U.T + self._before() @ W.T + b)

    def backward(self, dy: Array | None = None, dstate: Array | None = None, dh: Array | None = None) -> Gradients:
        """Gradients of sum(y * dy) + sum(state * dstate) + sum(h * dh).

        Parameters
        ----------
        dy : array (T, B, O), optional
        dstate : array (1, B, H), optional
        dh : array (T, B, H), optional
            As y, the state, h; None for zeros. One of them is needed.

        Returns
        -------
        grads : Gradients
            grads.x (T, B, I); grads.state (1, B, H); grads.params, by the names of the model's params; grads.flat, one vector of
            these.

        Raises
        ------
        RuntimeError
            At the second call, or while another thread uses this tape.
        TypeError, ValueError
            A wrong argument; the message names it.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import PreactivationRNN
        >>> y, h_n, tape = PreactivationRNN(3, 4, 2, rng=0).forward(np.ones((7, 5, 3), np.float32))
        >>> grads = tape.backward(dstate=h_n)  # of half the sum of h_n**2
        >>> bool(grads.params["V"].any()), grads.x.shape
        (False, (7, 5, 3))
        """
        with self._in_use:
            return self._backward(dy, dstate, dh)

    def _backward(self, dy: Array | None, dstate: Array | None, dh: Array | None) -> Gradients:
        self._use(dy, dstate, dh)
        model, T, B = self._model, self._T, self._B
        O, H = model.output_size, model.hidden_size
        do = self.within(self._gradient("dy", dy, "(T, B, O)", (T, B, O)))
        dlast = self._gradient("dstate", dstate, "(1, B, H)", (1, B, H))[0]
        da = self.within(self._gradient("dh", dh, "(T, B, H)", (T, B, H)))
        self._used = True
        rows, at, idle = self.ends()
        da[at, rows] += dlast[rows]
        U, W, _, V, _ = model.params.values()
        dprevious = da @ W  # of phi(h_{t-1}), by way of h_t
        ds = do @ V
        ds[:-1] += dprevious[1:]
        grads = self._tape.backward(ds)
        into = model._zeros()
        into["U"][...] = grads.w_ih + _outer(da, self._x)
        into["W"][...] = grads.w_hh + _outer(da, self._before())
        into["b"][...] = grads.b_ih + da.sum(axis=(0, 1))
        into["V"][...] = _outer(do, self._s)
        into["c"][...] = do.sum(axis=(0, 1))
        ds0 = grads.h0 + dprevious[0] if T else grads.h0
        slope = 1 - self._s0**2 if model.nonlinearity == "tanh" else self._h0 > 0
        dh0 = ds0 * slope
        dh0[idle] += dlast[idle]
        return Gradients(x=grads.x + da @ U, state=dh0[None], params=into, flat=into.flat)

    def _before(self) -> Array:
        """phi(h_{t-1}) for every t."""
        return np.concatenate([self._s0[None], self._s])[: self._T]


class OutputRNN(_Model):
    """The network whose outputs are fed back (Jordan 1986): h_t = phi(b + W o_{t-1} + U x_t), o_t = c + V h_t.

    Given the targets, o_{t-1} can be replaced by what it should have been ("teacher forcing", Williams and Zipser 1989): then no
    step waits for another, and all of them are one product. In closed loop, W o_{t-1} = W c + (W V) h_{t-1}, so it is the usual
    recurrence with the matrix W V of rank O, and runs on the kernels of fastrnn.rnn. Scheduled sampling is in between: where a
    target is fed, the recurrence is cut. The gradients are exact in all three. It is weaker than a network with recurrent hidden
    units, because all that it can remember has to be in its outputs.

    Parameters
    ----------
    input_size : int
        I; 0 for a network that runs by itself.
    hidden_size, output_size : int
        H and O, at least 1.
    nonlinearity : "tanh" or "relu", default "tanh"
        phi.
    dtype : dtype, default float32
        float32 or float64.
    rng : int or numpy.random.Generator, optional
        The source of the initial values, all from U(-1/sqrt(H), 1/sqrt(H)), or its seed.

    Attributes
    ----------
    params : Parameters
        {"U": (H, I), "W": (H, O), "b": (H,), "V": (O, H), "c": (O,)}.
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
    >>> from fastrnn.train import OutputRNN, squared_error
    >>> model, x, targets = OutputRNN(3, 4, 2, rng=0), np.ones((7, 5, 3), np.float32), np.ones((7, 5, 2), np.float32)  # T=7 B=5
    >>> o, o_n, tape = model.forward(x, targets)  # teacher forcing
    >>> loss, do = squared_error(o, targets)
    >>> grads = tape.backward(do)
    >>> o, o_n = model(x)  # closed loop
    >>> o.shape, o_n.shape, grads.flat.shape
    ((7, 5, 2), (1, 5, 2), (34,))
    """

    _feeds_back = "O"
    _least_inputs = 0

    def __call__(
        self, x: Array, targets: Array | None = None, forced: Any = None, state: Array | None = None, lengths: Any = None
    ) -> tuple[Array, Array]:
        """Inference: the results of `forward` without the tape.

        Parameters
        ----------
        x, targets, forced, state, lengths
            As in `forward`.

        Returns
        -------
        o : array (T, B, O)
        state : array (1, B, O)

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it.
        MemoryError

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import OutputRNN
        >>> o, o_n = OutputRNN(3, 4, 2, rng=0)(np.ones((7, 5, 3), np.float32))
        >>> np.array_equal(o[-1], o_n[0])
        True
        """
        o, last, _ = self.forward(x, targets, forced, state, lengths)
        return o, last

    def forward(
        self, x: Array, targets: Array | None = None, forced: Any = None, state: Array | None = None, lengths: Any = None
    ) -> tuple[Array, Array, OutputTape]:
        """Training: the outputs, the last of them and the tape.

        Parameters
        ----------
        x : array (T, B, I)
            The model's dtype.
        targets : array (T, B, O), optional
            What o should be; None: closed loop.
        forced : booleans (T, B), optional
            Where True, step t gets targets[t-1] and not o_{t-1}; None: everywhere, if there are targets. At t = 0 it has no
            meaning: that step gets the state. `scheduled_sampling` draws one.
        state : array (1, B, O), optional
            o_0, what the first step gets; None for zeros.
        lengths : integers (B,), optional
            From 0 to T: the steps of each row; o is 0 after them.

        Returns
        -------
        o : array (T, B, O)
        state : array (1, B, O)
            The o of each row's own end.
        tape : OutputTape
            For one tape.backward(do).

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it.
        MemoryError

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import OutputRNN, scheduled_sampling
        >>> x, targets = np.ones((7, 5, 3), np.float32), np.ones((7, 5, 2), np.float32)  # T=7 B=5
        >>> forced = scheduled_sampling(7, 5, probability=0.5, rng=0)
        >>> o, o_n, tape = OutputRNN(3, 4, 2, rng=0).forward(x, targets, forced, lengths=[7, 5, 3, 1, 0])
        >>> o.shape, bool(o[5:, 1].any())
        ((7, 5, 2), False)
        """
        x, o0, checked = self._check(x, state, self.output_size, lengths)
        U, W, b, V, c = self.params.values()
        T, B, _ = x.shape
        cut, fed = self._feed(targets, forced, o0, T, B)
        mine = OutputTape(self, (T, B), checked)
        mine._both, mine._cut = np.concatenate([x, fed], axis=2), cut
        mine._alone = bool(cut.all())
        weights = (np.concatenate([U, W], axis=1), W @ V, b)
        options: dict[str, Any] = {"nonlinearity": self.nonlinearity, "record": True}
        if mine._alone:  # all steps side by side, as rows of one; those of the padding have length 0
            side = mine._both.reshape(1, T * B, self.input_size + self.output_size)
            each = None if mine._valid is None else mine._valid.reshape(-1).astype(int)
            h, _, mine._tape = rnn(side, *weights, lengths=each, **options)
        else:
            h, _, mine._tape = rnn(mine._both, *weights, lengths=checked, reset=cut, **options)
        mine._h = h.reshape(T, B, self.hidden_size)
        o = mine.within(mine._h @ V.T + c)
        return o, mine.last(o, o0), mine

    def _feed(self, targets: Any, forced: Any, o0: Array, T: int, B: int) -> tuple[NDArray[np.bool_], Array]:
        """Where the recurrence is cut (T, B), and what W multiplies besides the way through h (T, B, O)."""
        O = self.output_size
        if targets is None and forced is not None:
            raise ValueError("forced: expected None without targets, got an array")
        cut, fed = np.zeros((T, B), bool), np.broadcast_to(self.params["c"], (T, B, O)).copy()
        if targets is not None:
            targets = checks.shaped("targets", targets, self.dtype, "(T, B, O)", (T, B, O))
            cut = np.ones((T, B), bool) if forced is None else checks.booleans("forced", forced, "(T, B)", (T, B)).copy()
            fed[1:][cut[1:]] = targets[:-1][cut[1:]]
        cut[:1] = True
        fed[:1] = o0
        return cut, fed


class OutputTape(_Tape):
    """The tape of OutputRNN.forward. It can be used once."""

    _tape: Any
    _both: Array  # x and what is fed back, side by side
    _cut: NDArray[np.bool_]
    _alone: bool
    _h: Array

    def backward(self, dy: Array | None = None, dstate: Array | None = None) -> Gradients:
        """Gradients of sum(o * dy) + sum(state * dstate), also through the outputs that were fed back.

        Parameters
        ----------
        dy : array (T, B, O), optional
        dstate : array (1, B, O), optional
            As o and the state; None for zeros. One of them is needed.

        Returns
        -------
        grads : Gradients
            grads.x (T, B, I); grads.targets (T, B, O); grads.state (1, B, O); grads.params, by the names of the model's params;
            grads.flat, one vector of these.

        Raises
        ------
        RuntimeError
            At the second call, or while another thread uses this tape.
        TypeError, ValueError
            A wrong argument; the message names it.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import OutputRNN
        >>> o, o_n, tape = OutputRNN(3, 4, 2, rng=0).forward(np.ones((7, 5, 3), np.float32))
        >>> grads = tape.backward(o - 1)  # of half the sum of (o - 1)**2
        >>> grads.x.shape, grads.state.shape
        ((7, 5, 3), (1, 5, 2))
        """
        with self._in_use:
            return self._backward(dy, dstate)

    def _backward(self, dy: Array | None, dstate: Array | None) -> Gradients:
        self._use(dy, dstate)
        model, T, B = self._model, self._T, self._B
        I, H, O = model.input_size, model.hidden_size, model.output_size
        do = self.within(self._gradient("dy", dy, "(T, B, O)", (T, B, O)))
        dlast = self._gradient("dstate", dstate, "(1, B, O)", (1, B, O))[0]
        self._used = True
        rows, at, idle = self.ends()
        do[at, rows] += dlast[rows]
        _, W, _, V, _ = model.params.values()
        grads = self._tape.backward((do @ V).reshape((1, T * B, H) if self._alone else (T, B, H)))
        dboth = grads.x.reshape(T, B, I + O)
        dfed = dboth[:, :, I:].copy()
        own = np.where(self._cut[:, :, None], 0, dfed)  # c, on its way back
        into = model._zeros()
        into["U"][...] = grads.w_ih[:, :I]
        into["W"][...] = grads.w_ih[:, I:] + grads.w_hh @ V.T
        into["b"][...] = grads.b_ih
        into["V"][...] = _outer(do, self._h) + W.T @ grads.w_hh
        into["c"][...] = do.sum(axis=(0, 1)) + own.sum(axis=(0, 1))
        dtargets = np.zeros((T, B, O), model.dtype)
        dtargets[:-1] = (dfed - own)[1:]
        do0 = dfed[0].copy() if T else np.zeros((B, O), model.dtype)
        do0[idle] += dlast[idle]
        return Gradients(x=dboth[:, :, :I].copy(), targets=dtargets, state=do0[None], params=into, flat=into.flat)


def scheduled_sampling(T: int, B: int, probability: float, rng: Any = None) -> NDArray[np.bool_]:
    """Where OutputRNN.forward feeds a target: True, with this probability; where False, it feeds its own output.

    Source: Bengio et al. 2015, arXiv 1506.03099, where the probability falls during the training: see fastrnn.train.schedules. In
    the paper no gradient goes through the network's own outputs; in OutputRNN it does. For the paper's, feed them as targets: see
    the example.

    Parameters
    ----------
    T, B : int
        At least 0.
    probability : float
        From 0 to 1.
    rng : int or numpy.random.Generator, optional
        The source of random numbers, or its seed.

    Returns
    -------
    forced : booleans (T, B)

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train import OutputRNN, scheduled_sampling
    >>> model, x, targets = OutputRNN(3, 4, 2, rng=0), np.ones((7, 5, 3), np.float32), np.ones((7, 5, 2), np.float32)  # T=7 B=5
    >>> forced = scheduled_sampling(7, 5, probability=0.75, rng=0)
    >>> own, _ = model(x, targets, forced)
    >>> fed = targets.copy()
    >>> fed[:-1][~forced[1:]] = own[:-1][~forced[1:]]
    >>> o, _, tape = model.forward(x, fed)
    >>> np.allclose(o, own)
    True
    """
    T, B = checks.integer("T", T, 0), checks.integer("B", B, 0)
    probability = checks.real("probability", probability, 0)
    if probability > 1:
        raise ValueError(f"probability: expected a number from 0 to 1, got {probability}")
    return checks.generator("rng", rng).random((T, B)) < probability


def _outer(d: Array, a: Array) -> Array:
    """(n, m): the sum over all steps and rows of d a^T, of d (T, B, n) and a (T, B, m)."""
    product: Array = d.reshape(-1, d.shape[-1]).T @ a.reshape(-1, a.shape[-1])
    return product
