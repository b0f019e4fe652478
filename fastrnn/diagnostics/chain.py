"""A layer taken apart into its cells and its steps: a call and a tape for each, so that every state can be looked at.

The promises hold here too: what a layer computes for a whole sequence, it computes bit for bit when the steps come one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._api import checks
from ..functional import gru, lstm, rnn
from ..layers import GRU, LSTM, RNN, Recurrent

Array = NDArray[Any]


class Cell:
    """Layer k of a stack in one direction, as a function of one step for all rows."""

    def __init__(self, layer: Recurrent, suffix: str) -> None:
        self.suffix, self.reverse = suffix, suffix.endswith("_reverse")
        self.weights = {name.removesuffix(suffix): w for name, w in layer.params.items() if _suffix(name) == suffix}
        self.is_lstm, self.H = isinstance(layer, LSTM), layer.hidden_size
        self.options: dict[str, Any] = {}
        if not isinstance(layer, RNN):
            self.options = {"activation": layer.activation, "recurrent_activation": layer.recurrent_activation}
        if isinstance(layer, LSTM):
            self.call: Any = lstm
            self.options |= {"peephole": self.weights.get("weight_ch"), "w_hr": self.weights.get("weight_hr")}
            self.gates = "ifgo"
        elif isinstance(layer, GRU):
            self.call, self.gates = gru, "rzn"
            self.options["reset_after"] = layer.reset_after
        else:
            assert isinstance(layer, RNN)
            self.call, self.options, self.gates = rnn, {"nonlinearity": layer.nonlinearity}, "h"

    def __call__(self, x: Array, state: tuple[Array, ...], **options: Any) -> tuple[Array, tuple[Array, ...], Any]:
        """x (T, B, I) and the state (h,) or (h, c), each (B, .) -> y (T, B, P), the final state, the tape."""
        w = self.weights
        matrices = (w["weight_ih"], w["weight_hh"], w.get("bias_ih"), w.get("bias_hh"))
        y, final, tape = self.call(x, *matrices, *state, record=True, **self.options, **options)
        return y, final if self.is_lstm else (final,), tape


class Steps:
    """What a cell did with a sequence: `states[s]` is the one after s steps, in its direction."""

    def __init__(self, cell: Cell, x: Array, state: tuple[Array, ...], there: NDArray[np.bool_], cuts: NDArray[np.bool_]) -> None:
        self.cell, self.x, self.there = cell, x, there
        self.states, self.tapes = [state], list[Any]()
        T = len(x)
        self.order = list(range(T - 1, -1, -1) if cell.reverse else range(T))
        self.y = np.zeros((*x.shape[:2], state[0].shape[1]), x.dtype)
        for t in self.order:
            # In reverse, what comes before step t is step t+1, from which a cut before t+1 separates it.
            cut = cuts[t : t + 1] if not cell.reverse else cuts[t + 1 : t + 2] if t + 1 < T else np.zeros_like(cuts[:1])
            y, state, tape = cell(x[t : t + 1], state, mask=there[t : t + 1], reset=cut)
            self.y[t] = y[0]
            self.states.append(state)
            self.tapes.append(tape)

    def backward(self, dy: Array, dstate: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """dx (T, B, I); and for h, and c of an LSTM, the norms (T, B) of the gradients at every step."""
        dx, carried = np.zeros_like(self.x), tuple(d.copy() for d in dstate)
        norms = tuple(np.zeros(self.x.shape[:2]) for _ in dstate)
        for t, tape in zip(reversed(self.order), reversed(self.tapes)):
            there = self.there[t]
            carried[0][there] += dy[t, there]
            for norm, d in zip(norms, carried):
                norm[t, there] = np.linalg.norm(d[there].astype(np.float64), axis=1)
            grads = tape.backward(dstate=carried if self.cell.is_lstm else carried[0])
            dx[t] = grads.x[0]
            carried = grads.state if self.cell.is_lstm else (grads.state,)
        return dx, norms


class Chain:
    """All cells of a layer and all their steps, from the bottom up."""

    def __init__(self, layer: Any, x: Any, state: Any, lengths: Any, reset: Any, mask: Any) -> None:
        if not isinstance(layer, Recurrent):
            raise TypeError(f"layer: expected an RNN, GRU or LSTM, got {type(layer).__name__}")
        self.layer = layer
        x = checks.floats("x", x, layer.dtype, (3,))
        layer(x[:, :0] if not layer.batch_first else x[:0])  # complains of what it does not fit
        x = x.swapaxes(0, 1) if layer.batch_first else x
        T, B, _ = x.shape
        there = np.ones((T, B), bool)
        if lengths is not None:
            there &= np.arange(T)[:, None] < checks.integers("lengths", lengths, "(B,)", B, T)
        if mask is not None:
            there &= checks.flags_of_steps("mask", mask, T, B, False, layer.batch_first)
        cuts = np.zeros((T, B), bool)
        if reset is not None:
            cuts = checks.flags_of_steps("reset", reset, T, B, False, layer.batch_first)
        self.layers: list[list[Steps]] = []
        suffixes, D = layer._suffixes, layer._directions
        states = self._states("state", state, B)
        for first in range(0, len(suffixes), D):
            cells = range(first, first + D)
            self.layers.append([Steps(Cell(layer, suffixes[k]), x, tuple(s[k] for s in states), there, cuts) for k in cells])
            x = np.concatenate([steps.y for steps in self.layers[-1]], axis=2)
        self.y = x

    @property
    def cells(self) -> list[Steps]:
        return [steps for layer in self.layers for steps in layer]

    def backward(self, dy: Any, dstate: Any) -> dict[str, Array]:
        """The norms (T, B) by name: h_l0, c_l0, ..."""
        if dy is None and dstate is None:
            raise ValueError("dy, dstate: expected one of them or both, got neither")
        T, B, n = self.y.shape
        turned = self.layer.batch_first
        if dy is not None:
            shape, symbols = ((B, T, n), "(B, T, D*H)") if turned else ((T, B, n), "(T, B, D*H)")
            dy = checks.shaped("dy", dy, self.layer.dtype, symbols, shape)
        dy = np.zeros((T, B, n), self.layer.dtype) if dy is None else dy.swapaxes(0, 1) if turned else dy
        dstates = self._states("dstate", dstate, B)
        found: dict[str, Array] = {}
        k = len(self.cells)
        for layer in reversed(self.layers):
            k -= len(layer)
            below, P = np.zeros_like(layer[0].x), n // len(layer)
            for d, steps in enumerate(layer):
                dx, norms = steps.backward(dy[..., d * P : (d + 1) * P], tuple(s[k + d] for s in dstates))
                below += dx
                found |= {kind + steps.cell.suffix: norm for kind, norm in zip("hc", norms)}
            dy = below
        return found

    def _states(self, name: str, value: Any, B: int) -> tuple[Array, ...]:
        """(h,) or (h, c), each of all cells, (L*D, B, .)."""
        layer = self.layer
        cells, is_lstm = len(layer._suffixes), isinstance(layer, LSTM)
        sizes = [layer._output_size, layer.hidden_size][: 1 + is_lstm]
        members = [None] * len(sizes) if value is None else list(value) if is_lstm else [value]
        if len(members) != len(sizes):
            raise ValueError(f"{name}: expected a pair (h, c), got {len(members)} members")
        return tuple(
            np.zeros((cells, B, size), layer.dtype)
            if member is None
            else checks.shaped(name, member, layer.dtype, "(L*D, B, H)", (cells, B, size))
            for member, size in zip(members, sizes)
        )


def gradient_norms(
    layer: Any,
    x: Array,
    dy: Array | None = None,
    dstate: Any = None,
    *,
    state: Any = None,
    lengths: Any = None,
    reset: Any = None,
    mask: Any = None,
) -> dict[str, Array]:
    """The norm of dL/dh_t for every step t and row, L = sum(y * dy) + sum(state * dstate).

    Where it shrinks towards the first steps, gradients vanish; where it grows, they explode (Bengio, Simard and Frasconi 1994;
    Pascanu, Mikolov and Bengio 2013). h_t is the state after step t, which is both its output and where the next step begins; of an
    LSTM h_t and c_t are two inputs of what follows. Dropout is left out.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        With any number of layers and directions.
    x : array (T, B, I)
        (B, T, I) with `batch_first`; not packed, and not without a batch.
    dy, dstate : optional
        As in tape.backward; one of them is needed.
    state, lengths, reset, mask : optional
        As in layer.forward.

    Returns
    -------
    norms : dict of arrays (T, B)
        {"h_l0": ...}, with names as tape.outputs has them, and "c_l0", ... of an LSTM; float64, 0 where a row has no step t.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> from fastrnn.diagnostics import gradient_norms
    >>> layer, x = fastrnn.RNN(3, 8, rng=0), np.ones((50, 2, 3), np.float32)  # T=50 B=2
    >>> norms = gradient_norms(layer, x, dstate=np.ones((1, 2, 8), np.float32))["h_l0"]
    >>> norms.shape, bool(norms[0, 0] < 1e-6 * norms[-1, 0])  # it vanishes
    ((50, 2), True)
    """
    return Chain(layer, x, state, lengths, reset, mask).backward(dy, dstate)


def _suffix(name: str) -> str:
    """weight_ih_l0_reverse -> _l0_reverse"""
    return name[name.index("_l") :]
