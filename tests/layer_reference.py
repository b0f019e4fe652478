"""A whole layer's call by fastrnn.reference, in float64: its cells put together, forward and backward. Everything is time-major."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn import reference

WEIGHTS = {
    "w_ih": "weight_ih",
    "w_hh": "weight_hh",
    "b_ih": "bias_ih",
    "b_hh": "bias_hh",
    "w_hr": "weight_hr",
    "peephole": "weight_ch",
}


class LayerReference:
    """One call. x (T, B, I); state: members (L*D, B, .), or None; rows: lengths, reset, mask, masked; dropouts: what the input of
    each layer above the first is multiplied by, or none.

    Has y (T, B, D*P), state (members), outputs (by a tape's names).
    """

    def __init__(self, layer: Any, x: Any, state: Any, rows: dict[str, Any], dropouts: Any = ()) -> None:
        self._params = {name: a.astype(np.float64) for name, a in layer.params.items()}
        self._function = getattr(reference, layer._family)
        names = ("nonlinearity",) if layer._family == "rnn" else ("activation", "recurrent_activation")
        options = {name: getattr(layer, name) for name in (*names, "reset_after") if hasattr(layer, name)}
        self._options, self._given = options | rows, state
        self._suffixes = [[f"_l{k}{way}" for way in ("", "_reverse")[: 1 + layer.bidirectional]] for k in range(layer.num_layers)]
        self._tapes: dict[str, Any] = {}
        self._dropouts, self.outputs = [None, *dropouts] if len(dropouts) else [None] * layer.num_layers, {}
        x, states = np.asarray(x, np.float64), []
        for suffixes, dropout in zip(self._suffixes, self._dropouts):
            x = x if dropout is None else x * dropout
            done = [self._cell(suffix, x, len(states) + d) for d, suffix in enumerate(suffixes)]
            states += [state for _, state in done]
            x = np.concatenate([y for y, _ in done], axis=2)
        self.y, self.state = x, tuple(np.stack(member) for member in zip(*states))

    def _cell(self, suffix: str, x: Any, k: int) -> tuple[Any, Any]:
        arrays = {n: self._params[long + suffix] for n, long in WEIGHTS.items() if long + suffix in self._params}
        if self._given is not None:
            arrays |= {n: np.asarray(m[k], np.float64) for n, m in zip(("h0", "c0"), self._given)}
        y, state, tape = self._function(x, **arrays, **self._options, reverse="_reverse" in suffix, record=True)
        self._tapes[suffix], self.outputs["h" + suffix] = tape, y
        if tape.c is not None:
            self.outputs["c" + suffix] = tape.c
        return y, state if isinstance(state, tuple) else (state,)

    def backward(self, dy: Any, dstate: Any, doutputs: dict[str, Any], truncate: int | None) -> dict[str, Any]:
        """dx, the members of dstate as dh and dc, and the weights' gradients by the parameters' names. Once."""
        found: dict[str, Any] = {}
        d = np.zeros_like(self.y) if dy is None else np.asarray(dy, np.float64)
        ends: dict[int, tuple[Any, ...]] = {}
        for layer in reversed(range(len(self._suffixes))):
            suffixes, dx = self._suffixes[layer], 0
            for d_y, (i, suffix) in zip(np.split(d, len(suffixes), axis=2), enumerate(suffixes)):
                k = layer * len(suffixes) + i
                grads = self._tapes[suffix].backward(*self._into(suffix, k, d_y, dstate, doutputs), truncate=truncate)
                ends[k] = grads.state if isinstance(grads.state, tuple) else (grads.state,)
                dx = dx + grads.x
                given = {long + suffix: getattr(grads, n, None) for n, long in WEIGHTS.items()}
                found |= {name: g for name, g in given.items() if g is not None}
            d = dx if self._dropouts[layer] is None else dx * self._dropouts[layer]
        members = [np.stack(member) for member in zip(*(ends[k] for k in sorted(ends)))]
        return {"dx": d, **dict(zip(("dh", "dc"), members)), **found}

    def _into(self, suffix: str, k: int, dy: Any, dstate: Any, doutputs: dict[str, Any]) -> tuple[Any, ...]:
        """(dy, dstate, dc) of one cell's tape."""
        dy = dy + doutputs.get("h" + suffix, 0)
        ends = [None if d is None else d[k] for d in dstate] if dstate is not None else [None] * len(self.state)
        return dy, tuple(ends) if len(ends) > 1 else ends[0], doutputs.get("c" + suffix)
