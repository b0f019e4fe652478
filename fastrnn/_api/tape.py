"""What a forward call keeps for its backward, and the gradients that come out."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import InUse, Recorded
from .._engine.run import Run
from .._engine.weights import Weights
from . import checks
from .parameters import Module, Parameters
from .pickling import portable, rebuilt

Array = NDArray[Any]
State = Any  # an array for RNN and GRU, a pair (h, c) for an LSTM; None for zeros


class Gradients(SimpleNamespace):
    """Gradients by name; made by tape.backward, which says which names there are.

    Of x, of the state (in the form of the state), and of each parameter or argument; None where the argument was None.
    """

    def __reduce__(self) -> Any:
        return rebuilt, (type(self), (), {name: portable(value) for name, value in vars(self).items()})


def gradients(owner: Module, dx: Array, state: State, flat: Array) -> Gradients:
    """Of a layer or a cell; flat: those of its parameters."""
    return Gradients(x=dx, state=state, params=Parameters(owner._shapes, flat), flat=flat)


class OneUse:
    """A tape: of one call, for one use of one thread at a time."""

    def __init__(self) -> None:
        self._in_use = InUse("tape", "a tape can be used once, call forward again for another one")

    def __reduce__(self) -> Any:
        raise TypeError("a tape is of its call and its process: it cannot be copied or pickled")


def is_nothing(dstate: State) -> bool:
    """None, or an LSTM's pair of it."""
    return dstate is None or (isinstance(dstate, (tuple, list)) and bool(dstate) and all(d is None for d in dstate))


class TapeBase(OneUse):
    """A tape can be used once: a second backward raises RuntimeError, and so does one while another thread uses the tape."""

    _run: Run | None
    _unbatched: bool
    _batch_first: bool

    def __init__(self, run: Run | None, batch_first: bool, unbatched: bool) -> None:
        super().__init__()
        self._run, self._batch_first, self._unbatched = run, batch_first, unbatched

    def _backward(
        self, dy: Any, dstate: Any, into: Weights, dc: Any = None, truncate: int | None = None
    ) -> tuple[Array | None, State]:
        """The gradients of x (None of tokens) and of the initial state, in the shapes that the caller knows; the weights' are added
        to `into`."""
        run = self._run
        if run is None:
            raise RuntimeError("tape.backward: this tape has been used; a tape can be used once, call forward again for a new one")
        if dy is None and is_nothing(dstate) and dc is None:
            raise ValueError("tape.backward: expected one or more of dy, dstate and an LSTM's dc, got none")
        dy = self._check_sequence("dy", dy, run, run.P)
        dcs = self._check_sequence("dc", dc, run, run.H)
        if truncate is not None:
            truncate = checks.integer("truncate", truncate, 1)
        dh, dc = self._check_dstate(run, dstate)
        self._run = None
        dx = run.backward(dy, dh, dc, into, dcs=dcs, truncate=truncate)
        if self._unbatched:
            dh, dc = dh[0], None if dc is None else dc[0]
        if dx is not None:
            dx = dx[:, 0] if self._unbatched else dx.swapaxes(0, 1) if self._batch_first else dx
        return dx, dh if dc is None else (dh, dc)

    def _check_sequence(self, name: str, d: Any, run: Run, H: int) -> Array | None:
        """The gradient of a sequence as (T, B, H); H is the P of a projection for y."""
        if d is None:
            return None
        if name == "dc" and not run.cell.is_lstm:
            raise TypeError(f"dc: expected None, because only an LSTM has c, got {type(d).__name__}")
        d = checks.floats(name, d, run.x.dtype)
        T, B, _ = run.x.shape
        shape: tuple[int, ...] = (T, H) if self._unbatched else (B, T, H) if self._batch_first else (T, B, H)
        symbols = "(T, H)" if self._unbatched else "(B, T, H)" if self._batch_first else "(T, B, H)"
        if d.shape != shape:
            raise ValueError(f"{name}: expected {symbols} = {shape}, got {d.shape}")
        d = checks.rows_contiguous(name, d)
        return d[:, None] if self._unbatched else d.swapaxes(0, 1) if self._batch_first else d

    def _check_dstate(self, run: Run, dstate: Any) -> tuple[Array, Array | None]:
        """New arrays (B, P), (B, H): the gradients of the final state, zeros where none is given."""
        names, pair = ["dstate"], [dstate]
        if run.cell.is_lstm:
            if dstate is not None and (not isinstance(dstate, (tuple, list)) or len(dstate) != 2):
                raise TypeError(f"dstate: expected a pair (dh, dc), got {type(dstate).__name__}")
            names, pair = ["dstate[0]", "dstate[1]"], [None, None] if dstate is None else list(dstate)
        new = [self._check_member(run, name, member, n) for name, member, n in zip(names, pair, (run.P, run.H))]
        return new[0], new[1] if len(new) > 1 else None

    def _check_member(self, run: Run, name: str, member: Any, H: int) -> Array:
        B = run.x.shape[1]
        if member is None:
            return np.zeros((B, H), run.x.dtype)
        if self._unbatched:
            member = checks.shaped(name, member, run.x.dtype, "(H,)", (H,))
            return member[None].copy()
        return checks.shaped(name, member, run.x.dtype, "(B, H)", (B, H)).copy()


class Tape(TapeBase):
    """The tape of a function, made with record=True: gradients are named as its arguments are."""

    _kept: Recorded | None = None  # of a plain call, unless it goes the general way after all
    _general: Callable[[Recorded], Run]

    @classmethod
    def _of_plain(cls, kept: Recorded, general: Callable[[Recorded], Run], batch_first: bool, unbatched: bool) -> Tape:
        """Of a plain call, and who makes a run of it."""
        tape = cls(None, batch_first, unbatched)
        tape._kept, tape._general = kept, general
        return tape

    def _whole_run(self) -> Run | None:
        """The run, in place of what a plain call has kept; None where the tape has been used."""
        if self._kept is not None:
            self._run, self._kept = self._general(self._kept), None
        return self._run

    @property
    def c(self) -> Array:
        """The cell states after all steps of an LSTM.

        array (T, B, H), read-only, laid out as y. A view of what is stored for backward: copy what you need later.

        Raises
        ------
        RuntimeError
            The tape has been used, has checkpoints, or is used by another thread.
        TypeError
            The cell is no LSTM.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> rng = np.random.default_rng(0)
        >>> x, w_ih, w_hh = (rng.standard_normal(shape) for shape in ((7, 2, 3), (16, 3), (16, 4)))  # T=7 B=2 I=3 H=4
        >>> y, (h_n, c_n), tape = fastrnn.lstm(x, w_ih, w_hh, record=True)
        >>> np.array_equal(tape.c[-1], c_n)
        True
        """
        with self._in_use:
            return self._c()

    def _c(self) -> Array:
        cs = [] if self._kept is None else self._kept.parts()[3]
        if cs:
            return self._as_y(cs[0])
        run = self._whole_run()
        if run is None:
            raise RuntimeError("tape.c: this tape has been used; a tape can be used once, call forward again for a new one")
        if not run.cell.is_lstm:
            raise TypeError("tape.c: expected the tape of an LSTM, because only an LSTM has c")
        if run.c is None:
            raise RuntimeError("tape.c: expected a tape without checkpoints, which keeps c of every step")
        return self._as_y(run.cells())

    def _as_y(self, c: Array) -> Array:
        """A view of c (T, B, H), laid out as y and read-only."""
        c = c[:, 0] if self._unbatched else c.swapaxes(0, 1) if self._batch_first else c[:]
        c.flags.writeable = False
        return c

    def backward(
        self, dy: Array | None = None, dstate: State = None, dc: Array | None = None, truncate: int | None = None
    ) -> Gradients:
        """Gradients of sum(y * dy) + sum(state * dstate) + sum(tape.c * dc).

        Parameters
        ----------
        dy : array (T, B, P), optional
            Laid out as y, of its dtype; None for zeros, as for the others. One of the three is needed.
        dstate : array (B, P), optional
            As the returned state; of an LSTM a pair (dh, dc), either of which may be None.
        dc : array (T, B, H), optional
            As tape.c, of an LSTM alone.
        truncate : int, optional
            k, for backpropagation through time truncated to k steps (Williams and Peng 1990): the gradient is cut before each row's
            steps k, 2k, ... in its direction; steps that a mask skips do not count. This is the sum of the gradients of training on
            chunks of k steps, with the state carried from one to the next. None: no cut.

        Returns
        -------
        grads : Gradients
            grads.x, .w_ih, .w_hh, .b_ih, .b_hh, .h0, of an LSTM also .c0, .peephole and .w_hr, each of its argument's shape;
            grads.state is that of h0, of an LSTM the pair of h0's and c0's. Where b_ih, b_hh, peephole or w_hr was None, so is its
            gradient; so is that of x where x was of integers.

        Raises
        ------
        RuntimeError
            At the second call, or while another thread uses this tape.
        TypeError, ValueError
            A wrong argument; the message names it. The tape can still be used.
        MemoryError
            The gradients do not fit into memory.

        Notes ----- To backpropagate k2 steps every k1 steps, go over the chunks yourself, with the state from which each sequence
        of k2 steps starts; the last example does so.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> rng = np.random.default_rng(0)
        >>> x, *w = (rng.standard_normal(shape) for shape in ((6, 2, 3), (12, 3), (12, 4)))  # T=6 B=2 I=3 H=4
        >>> y, h_n, tape = fastrnn.gru(x, *w, record=True)
        >>> grads = tape.backward(y - 1, truncate=2)  # of half the sum of (y - 1)**2
        >>> grads.x.shape, grads.w_ih.shape, grads.b_ih
        ((6, 2, 3), (12, 3), None)

        >>> T, k1, k2 = 6, 2, 4
        >>> for t in range(0, T, k1):
        ...     start = max(0, t + k1 - k2)
        ...     y_k, _, tape = fastrnn.gru(x[start : t + k1], *w, h0=y[start - 1] if start else None, record=True)
        ...     dy = y_k - 1
        ...     dy[: t - start] = 0  # earlier chunks have used these
        ...     grads = tape.backward(dy)
        """
        try:
            with self._in_use:
                if self._kept is not None and dc is None and truncate is None:
                    plain = self._kept.backward(dy, dstate)
                    if plain is not None:
                        self._kept = None
                        return _named(*plain)
                run = self._whole_run()
                into = run.weights.zeros_like() if run is not None else None
                dx, state = self._backward(dy, dstate, into, dc, truncate)  # type: ignore[arg-type]
        except MemoryError as error:
            raise checks.out_of_memory("x", error) from None
        assert run is not None and into is not None
        return _named(dx, state, tuple(getattr(into, name) for name in Weights.NAMES))


def _named(dx: Array | None, state: State, weights: tuple[Array | None, ...]) -> Gradients:
    """Of a function, by the names of its arguments."""
    w_ih, w_hh, b_ih, b_hh, peephole, w_hr = weights
    if not isinstance(state, tuple):
        return Gradients(x=dx, state=state, w_ih=w_ih, w_hh=w_hh, b_ih=b_ih, b_hh=b_hh, h0=state)
    h0, c0 = state
    grads = Gradients(x=dx, state=state, w_ih=w_ih, w_hh=w_hh, b_ih=b_ih, b_hh=b_hh, h0=h0, c0=c0)
    grads.peephole, grads.w_hr = peephole, w_hr
    return grads
