"""Where numbers first stop being numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..reference import Function
from .chain import Chain, Steps

Array = NDArray[Any]


@dataclass(frozen=True)
class Finding:
    """Where a NaN or an overflow first appears; made by `watch`, and prints as a sentence.

    Attributes
    ----------
    step : int
        t, from 0.
    cell : str
        "l0", "l1_reverse", ...
    where : str
        "x"; a gate before its activation ("i", "f", "g", "o"; "r", "z", "n"; "h" of an RNN); the state "c" or "h"; or its gradient
        "dc" or "dh".
    kind : "NaN" or "overflow"
    rows : tuple of int
        Of the batch.
    """

    step: int
    cell: str
    where: str
    kind: str
    rows: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.kind} at step {self.step} in {self.cell}, {self.where}, rows {list(self.rows)}"


def watch(
    layer: Any,
    x: Array,
    dy: Array | None = None,
    dstate: Any = None,
    *,
    state: Any = None,
    lengths: Any = None,
    reset: Any = None,
    mask: Any = None,
    limit: float | None = None,
) -> Finding | None:
    """The first step, layer and gate where a NaN or an overflow appears.

    It looks at the gates before their activations, where tanh and the sigmoid would hide an overflow. In a stack of one direction
    the first step counts and then the lowest layer; with two, the lowest layer and then the first step in its direction. Where the
    forward pass is finite and dy or dstate is given, it looks at the gradients of the states, from the end.

    Parameters
    ----------
    layer, x, dy, dstate, state, lengths, reset, mask
        As in `gradient_norms`.
    limit : float, optional
        A magnitude above it counts as an overflow; None: infinity.

    Returns
    -------
    finding : Finding or None

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> from fastrnn.diagnostics import watch
    >>> layer, x = fastrnn.LSTM(3, 8, rng=0), np.ones((20, 4, 3), np.float32)  # T=20 B=4
    >>> x[17, 3, 0] = np.inf
    >>> print(watch(layer, x))
    overflow at step 17 in l0, x, rows [3]
    """
    with np.errstate(all="ignore"):
        chain = Chain(layer, x, state, lengths, reset, mask)
        bound = np.inf if limit is None else limit
        found = [(k, s, f) for k, steps in enumerate(chain.cells) for s, f in [_first(steps, bound, k == 0)] if f is not None]
        if found:
            both = layer.bidirectional
            return min(found, key=lambda kf: (kf[0], kf[1]) if both else (kf[1], kf[0]))[2]
        if dy is None and dstate is None:
            return None
        return _in_gradients(chain, chain.backward(dy, dstate))


def _first(steps: Steps, limit: float, bottom: bool) -> tuple[int, Finding | None]:
    """Of one cell, in its direction of travel: after how many steps, and what."""
    parts = _parts(steps)
    if not bottom:
        del parts["x"]  # it is the layer below that is to blame
    wrong = {
        name: ~(np.abs(a) <= min(limit, np.finfo(a.dtype).max)).all(axis=2) & steps.there[steps.order] for name, a in parts.items()
    }
    any_wrong = np.any(list(wrong.values()), axis=0).any(axis=1)
    if not any_wrong.any():
        return 0, None
    s = int(any_wrong.argmax())
    name = next(name for name, w in wrong.items() if w[s].any())
    rows = np.flatnonzero(wrong[name][s])
    kind = "NaN" if np.isnan(parts[name][s, rows]).any() else "overflow"
    return s, Finding(steps.order[s], steps.cell.suffix[1:], name, kind, tuple(rows.tolist()))


def _parts(steps: Steps) -> dict[str, Array]:
    """(T, B, .) in the direction of travel, in the order of their making."""
    cell, w = steps.cell, steps.cell.weights
    x, states = steps.x[steps.order], [np.stack(members) for members in zip(*steps.states)]
    before, after = [s[:-1] for s in states], [s[1:] for s in states]
    H, zeros = cell.H, np.zeros(1, x.dtype)
    of_x = x @ w["weight_ih"].T + w.get("bias_ih", zeros)
    of_h = before[0] @ w["weight_hh"].T + w.get("bias_hh", zeros)
    parts = {"x": x}
    for k, gate in enumerate(cell.gates):
        rows = slice(k * H, (k + 1) * H)
        parts[gate] = of_x[..., rows] + (of_h[..., rows] if gate != "n" else _of_n(steps, before[0], of_h[..., rows], parts["r"]))
    if "weight_ch" in w:
        for gate, p, c in zip("ifo", w["weight_ch"], (before[1], before[1], after[1])):
            parts[gate] = parts[gate] + p * c
    if cell.is_lstm:
        parts["c"] = after[1]
    if cell.gates != "h":
        parts["h"] = after[0]
    else:
        parts["h"] = np.concatenate([parts["h"], after[0]], axis=2)
    return parts


def _of_n(steps: Steps, h: Array, of_h: Array, pre_r: Array) -> Array:
    """What comes from h to the n of a GRU, by way of r."""
    w, options, H = steps.cell.weights, steps.cell.options, steps.cell.H
    r = Function("recurrent_activation", options["recurrent_activation"]).value(pre_r)
    if options["reset_after"]:
        return r * of_h
    return (r * h) @ w["weight_hh"][2 * H :].T + w.get("bias_hh", np.zeros(3 * H, h.dtype))[2 * H :]


def _in_gradients(chain: Chain, norms: dict[str, Array]) -> Finding | None:
    """Against the direction of travel; the highest layer first at the same step."""
    found = []
    for k, steps in enumerate(chain.cells):
        for kind in "hc"[: len(steps.states[0])]:
            norm = norms[kind + steps.cell.suffix][steps.order]
            bad = np.flatnonzero(~np.isfinite(norm).all(axis=1))
            if len(bad):
                s = int(bad[-1])
                rows = np.flatnonzero(~np.isfinite(norm[s]))
                what = "NaN" if np.isnan(norm[s, rows]).any() else "overflow"
                found.append((s, k, Finding(steps.order[s], steps.cell.suffix[1:], "d" + kind, what, tuple(rows.tolist()))))
    both = chain.layer.bidirectional
    return max(found, key=lambda skf: (skf[1], skf[0]) if both else (skf[0], skf[1]))[2] if found else None
