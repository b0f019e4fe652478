"""Steps of a cell in a loop that is written by hand, for training: what all steps share is done once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._api import checks
from ._api.parameters import Parameters
from ._api.tape import Gradients, OneUse, State, is_nothing
from ._core import InUse, PackedWeights, Recorded, UnrolledCalls

Array = NDArray[Any]


class UnrolledTape(OneUse):
    """What one step kept for its backward; made by UnrolledCell.forward."""

    def __init__(self, steps: UnrolledCell, kept: Any) -> None:
        """Of a step, or the cell's own tape of one without rows."""
        super().__init__()
        self._steps: UnrolledCell | None = steps
        self._kept = kept

    def backward(self, dstate: State) -> Gradients:
        """Gradients of sum(h * dh), of an LSTM of sum(h * dh) + sum(c * dc); those of the parameters are added to steps.grads.

        Parameters
        ----------
        dstate : array (B, H)
            As the returned h; of an LSTM a pair (dh, dc), either of which may be None.

        Returns
        -------
        grads : Gradients
            grads.x (B, I) or (I,); grads.state, in the form of the state.

        Raises
        ------
        RuntimeError
            At the second call, after the block, or while another thread uses the tape or the steps.
        TypeError, ValueError
            A wrong `dstate`. The tape can still be used.
        MemoryError

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> cell = fastrnn.LSTMCell(3, 4, rng=0)
        >>> with cell.unrolled() as steps:
        ...     (h, c), tape = steps.forward(np.ones((2, 3), np.float32))
        ...     grads = tape.backward((h - 1, None))  # of half the sum of (h - 1)**2
        >>> grads.x.shape, steps.grads.params["weight_ih"].shape
        ((2, 3), (16, 3))
        """
        with self._in_use:
            kept = self._kept
            if kept is None:
                raise RuntimeError(
                    "tape.backward: this tape has been used; a tape can be used once, call forward again for a new one"
                )
            if is_nothing(dstate):
                raise ValueError("dstate: expected the gradient of the new state, got None")
            if isinstance(kept, Recorded):
                assert self._steps is not None
                dx, state = self._steps._backward(kept, dstate)
                grads = Gradients(x=dx, state=state)
            else:
                general = kept.backward(dstate)
                grads = Gradients(x=general.x, state=general.state)
            self._kept = self._steps = None  # and what they hold
            return grads


class UnrolledCell:
    """Steps of a cell over weights that stay: made by cell.unrolled(), for one ``with`` block and one thread at a time.

    The weights are packed where the block begins; later changes of the cell, its precision included, are not seen. The parameters'
    gradients of all steps are added up in `grads`, many steps in one product. Tapes may be used in any order, or not at all. States
    and their gradients have the bits of cell.forward and tape.backward; the parameters' gradients are summed over up to 128 rows at
    a time, as those of a layer are.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> cell, state, tapes = fastrnn.LSTMCell(3, 4, rng=0), None, []
    >>> with cell.unrolled() as steps:
    ...     for x_t in np.ones((7, 2, 3), np.float32):  # T=7 B=2 I=3
    ...         state, tape = steps.forward(x_t, state)
    ...         tapes.append(tape)
    ...     dstate = state[0] - 1, None  # of half the sum of (h - 1)**2
    ...     for tape in reversed(tapes):
    ...         dstate = tape.backward(dstate).state
    >>> cell.flat -= 0.1 * steps.grads.flat
    >>> steps.grads.params["weight_hh"].shape
    (16, 4)
    """

    def __init__(self, cell: Any) -> None:
        self._cell = cell
        self._calls: UnrolledCalls | None = None
        self._flat: Array | None = None  # after the block
        self._in_use = InUse("unrolled steps", "make unrolled steps for each thread")

    def __enter__(self) -> UnrolledCell:
        with self._in_use:
            if self._calls is not None or self._flat is not None:
                raise RuntimeError("unrolled steps are for one block; call cell.unrolled() again")
            cell = self._cell
            cell._cell.check_slopes()
            flat = cell.flat.copy() if cell._cell.form.peephole else cell.flat  # peepholes are read as they lie
            (weights,) = cell._by_cell(Parameters(cell._shapes, flat).views())
            weights.packed = PackedWeights(cell._cell, weights)
            self._calls = UnrolledCalls(cell._cell, cell._cell.form, weights, flat)
            return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with self._in_use:
            if self._calls is not None:
                self._flat, self._calls = self._calls.gradients(), None

    def forward(self, x: Array, state: State = None) -> tuple[State, UnrolledTape]:
        """One step, and what its backward needs. The tape reads x and the state: do not change them before its backward.

        Parameters
        ----------
        x : array (B, I) or (I,)
            The cell's dtype.
        state : array (B, H) or (H,), optional
            h, of an LSTM a pair (h, c); None for zeros.

        Returns
        -------
        state : array (B, H), or of an LSTM a pair (h, c)
            The new state, (H,) without a batch.
        tape : UnrolledTape
            For one tape.backward(dh), of an LSTM tape.backward((dh, dc)).

        Raises
        ------
        RuntimeError
            Outside of the ``with`` block, or while another thread uses the steps.
        TypeError, ValueError
            A wrong argument; the message names it.
        MemoryError

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> cell = fastrnn.GRUCell(3, 4, rng=0)
        >>> with cell.unrolled() as steps:
        ...     h, tape = steps.forward(np.ones(3, np.float32))
        ...     dx = tape.backward(h - 1).x
        >>> h.shape, dx.shape
        ((4,), (3,))
        """
        with self._in_use:
            calls = self._open()
            done = calls.record(x, state)
            if done is None:
                x, state = self._plain(x, state)
                if x.size == 0:  # no rows
                    new, general = self._cell.forward(x, state)
                    return new, UnrolledTape(self, general)
                done = calls.record(x, state)
            assert done is not None
            return done[0], UnrolledTape(self, done[1])

    @property
    def grads(self) -> Gradients:
        """The parameters' gradients of all steps that went back so far.

        grads.params by the names of cell.params, and grads.flat, one vector of all of these, in the order of cell.flat. Within the
        block they go on changing, in the same memory.

        Raises
        ------
        RuntimeError
            Before the block, or while another thread uses the steps.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> cell = fastrnn.RNNCell(3, 4, rng=0)
        >>> with cell.unrolled() as steps:
        ...     h, tape = steps.forward(np.ones((2, 3), np.float32))
        ...     dx = tape.backward(h).x
        >>> steps.grads.flat.shape, list(steps.grads.params)
        ((36,), ['weight_ih', 'weight_hh', 'bias_ih', 'bias_hh'])
        """
        with self._in_use:
            flat = self._flat if self._flat is not None else self._open().gradients()
            return Gradients(params=Parameters(self._cell._shapes, flat), flat=flat)

    def __reduce__(self) -> Any:
        raise TypeError("unrolled steps are of one block: they cannot be copied or pickled")

    def _open(self) -> UnrolledCalls:
        if self._calls is None:
            raise RuntimeError("unrolled steps: expected a call within `with cell.unrolled() as steps:`")
        return self._calls

    def _backward(self, kept: Recorded, dstate: State) -> tuple[Array, State]:
        with self._in_use:
            calls = self._open()
            try:
                done = calls.backward(kept, dstate)
                if done is None:
                    B, unbatched = kept.rows()
                    done = calls.backward(kept, self._state("dstate", dstate, B, unbatched))
            except MemoryError as error:
                raise checks.out_of_memory("dstate", error) from None
            assert done is not None
            return done

    def _plain(self, x: Any, state: State) -> tuple[Array, State]:
        """The arguments as plain arrays, or an error."""
        checked, _, _, unbatched = self._cell._arguments(x, state)
        x = checked[0, 0] if unbatched else checked[0]
        return np.asarray(x), self._state("state", state, checked.shape[1], unbatched)

    def _state(self, name: str, state: State, B: int, unbatched: bool) -> State:
        """A state or its gradient as plain arrays."""
        members = self._cell._split_state(name, state, B, unbatched)
        plain = tuple(None if m is None else np.asarray(m[0] if unbatched else m) for m in members)
        return plain if self._cell._cell.is_lstm else plain[0]
