"""The tape of a layer: what its forward kept, to look at, and its backward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._core import Recorded
from .._engine.run import Run
from .._engine.stack import Pass
from . import checks
from .layout import Layout
from .tape import Gradients, OneUse, State, gradients, is_nothing

if TYPE_CHECKING:
    from ..layers import Recurrent

Array = NDArray[Any]


class Outputs(dict[str, Array]):
    """Arrays by name, with an error that says which names there are."""

    without = ""  # what this tape has not kept, and why

    def __missing__(self, name: str) -> Array:
        raise KeyError(f"{name!r}: expected one of {list(self)}{self.without}")


class LayerTape(OneUse):
    """What a layer's forward kept: for one backward(), and to look at before that in `outputs`. Made by layer.forward."""

    def __init__(self, layer: Recurrent, kept: Recorded | tuple[Layout, Pass]) -> None:
        """Of a plain call, or of any other."""
        super().__init__()
        self._layer = layer
        self._kept: Recorded | tuple[Layout, Pass] | None = kept

    @property
    def outputs(self) -> Outputs:
        """What the tape keeps, by names as the parameters' are: of layer k and, in reverse, with the suffix _reverse,

        h_l{k} : (T, B, P)
            The sequence of its outputs, before any dropout.
        c_l{k} : (T, B, H)
            The cell states of an LSTM.
        gates_l{k} : (T, B, G*H)
            The gates after their activations, in the blocks of the weights' rows; not of an RNN.

        With checkpoints there is h alone: backward recomputes c and gates, and never all at once. The arrays are read-only views of
        what is stored for backward, in the layout of x (padded, where x is packed: (B, T, .) with batch_first), 0 where a row has
        no step. Backward overwrites them: copy what you need later.

        Raises
        ------
        RuntimeError
            After backward, or while another thread uses this tape.
        KeyError
            Another name is asked for.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> layer = fastrnn.LSTM(3, 4, rng=0)
        >>> y, (h_n, c_n), tape = layer.forward(np.ones((7, 2, 3), np.float32))  # T=7 B=2
        >>> {name: array.shape for name, array in tape.outputs.items()}
        {'h_l0': (7, 2, 4), 'c_l0': (7, 2, 4), 'gates_l0': (7, 2, 16)}
        >>> np.array_equal(tape.outputs["c_l0"][-1], c_n[0])
        True
        """
        with self._in_use:
            return self._found()

    def _found(self) -> Outputs:
        layout, done = self._open()
        found = Outputs()
        if done.options.checkpoint is not None:
            found.without = ", because with checkpoints a tape does not keep c and gates"
        for run, suffix in zip(done.runs, self._layer._suffixes):
            rows = run.cell.gates * run.H
            cells = None if run.c is None else run.cells()
            parts = {"h": run.y, "c": cells, "gates": None if run.gates is None else run.gates[..., :rows]}
            there = {name: part for name, part in parts.items() if part is not None}
            found |= {name + suffix: _shown(layout, run, part, name == "gates") for name, part in there.items()}
        return found

    def backward(
        self, dy: Any = None, dstate: State = None, doutputs: Mapping[str, Array] | None = None, truncate: int | None = None
    ) -> Gradients:
        """Gradients of sum(y * dy) + sum(state * dstate) + the sum over all names of sum(outputs[name] * doutputs[name]).

        Parameters
        ----------
        dy : array (T, B, D*P), optional
            As y: laid out as x is, a packed sequence if x is one. None for zeros, as for the others. One of the three is needed.
        dstate : array (L*D, B, P), optional
            As the returned state; of an LSTM a pair (dh, dc), either of which may be None.
        doutputs : mapping, optional
            From names of `outputs` to gradients of the same shape; those of gates are not taken.
        truncate : int, optional
            k, for backpropagation through time truncated to k steps (Williams and Peng 1990): the gradient is cut before each row's
            steps k, 2k, ... in its direction, as in training on chunks of k steps that carry the state. None: no cut.

        Returns
        -------
        grads : Gradients
            grads.x, as x, or None where x was of integers; grads.state, as the state; grads.params, by the names of layer.params;
            grads.flat, one vector of all of these, in the order of layer.flat.

        Raises
        ------
        RuntimeError
            At the second call, or while another thread uses this tape.
        TypeError, ValueError
            A wrong argument; the message names it.
        MemoryError
            The gradients do not fit into memory.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> layer = fastrnn.LSTM(3, 4, num_layers=2, rng=0)
        >>> y, state, tape = layer.forward(np.ones((7, 2, 3), np.float32))  # T=7 B=2
        >>> c = tape.outputs["c_l1"]
        >>> grads = tape.backward(y - 1, doutputs={"c_l1": 0.01 * c})  # of (sum((y - 1)**2) + 0.01 sum(c**2)) / 2
        >>> grads.x.shape, [d.shape for d in grads.state], grads.flat.shape == layer.flat.shape
        ((7, 2, 3), [(2, 2, 4), (2, 2, 4)], True)
        """
        with self._in_use:
            return self._backward(dy, dstate, doutputs, truncate)

    def _backward(self, dy: Any, dstate: State, doutputs: Mapping[str, Array] | None, truncate: int | None) -> Gradients:
        kept, layer = self._kept, self._layer
        if isinstance(kept, Recorded) and doutputs is None and truncate is None:
            plain = kept.backward(dy, dstate)
            if plain is not None:
                self._kept = None
                return gradients(layer, *plain)
        layout, done = self._open()
        if dy is None and is_nothing(dstate) and not doutputs:
            raise ValueError("tape.backward: expected one or more of dy, dstate and doutputs, got none")
        if truncate is not None:
            truncate = checks.integer("truncate", truncate, 1)
        try:
            P = layer._output_size
            dy = None if dy is None else layout.sequence("dy", dy, done.y.shape[2], layer._output_symbol)
            dh, dc = self._zeros_or_copies(done, *layer._split_state(layout, "dstate", dstate))
            named = self._named(done, doutputs)
            dhs = self._of_cells(layout, "h", named, P, "P" if layer.proj_size else "H")
            dcs = self._of_cells(layout, "c", named, layer.hidden_size, "H")
            into = layer._zeros()
            self._kept = None
            dx = done.backward(dy, dhs, dcs, dh, dc, layer._by_cell(into.named), truncate)
        except MemoryError as error:
            raise checks.out_of_memory("x", error) from None
        dh = layout.returned_state(dh)
        state = dh if dc is None else (dh, layout.returned_state(dc))
        return Gradients(x=None if dx is None else layout.returned(dx), state=state, params=into, flat=into.flat)

    def _open(self) -> tuple[Layout, Pass]:
        if self._kept is None:
            raise RuntimeError("tape.backward: this tape has been used; a tape can be used once, call forward again for a new one")
        if isinstance(self._kept, Recorded):
            self._kept = self._layer._general(self._kept)
        return self._kept

    def _zeros_or_copies(self, done: Pass, dh: Array | None, dc: Array | None) -> tuple[Array, Array | None]:
        """New arrays for the gradients of the state: backward writes into them."""
        ends = ((done.h_n, dh), (done.c_n, dc))
        new = [None if n is None else np.zeros(n.shape, n.dtype) if d is None else d.copy() for n, d in ends]
        return new[0], new[1]  # type: ignore[return-value]

    def _named(self, done: Pass, doutputs: Any) -> Mapping[str, Array]:
        """A mapping that has no other names than those of h and c."""
        if doutputs is None:
            return {}
        if not isinstance(doutputs, Mapping):
            raise TypeError(f"doutputs: expected a mapping of names to arrays, got {type(doutputs).__name__}")
        kinds = "h" if done.c_n is None else "hc"
        names = [kind + suffix for suffix in self._layer._suffixes for kind in kinds]
        unknown = [name for name in doutputs if name not in names]
        if unknown:
            raise ValueError(f"doutputs: expected names among {names}, got {unknown}")
        return doutputs

    def _of_cells(self, layout: Layout, kind: str, named: Mapping[str, Array], n: int, symbol: str) -> list[Array | None]:
        """(T, B, n) of each cell: the gradients of its sequence h or c."""
        if not named:
            return [None] * len(self._layer._suffixes)
        given = [named.get(kind + suffix) for suffix in self._layer._suffixes]
        names = [f"doutputs['{kind}{suffix}']" for suffix in self._layer._suffixes]
        return [None if d is None else layout.sequence(name, d, n, symbol) for name, d in zip(names, given)]


def _shown(layout: Layout, run: Run, part: Array, gates: bool) -> Array:
    """For the caller to read. Gates that the kernels left unwritten become 0."""
    if gates and run.plan.first is not None:
        there = np.zeros(part.shape[:2], np.bool_)
        there[run.plan.time, run.plan.row] = True
        part[~there] = 0
    view = layout.outward(part).view()
    view.flags.writeable = False
    return view
