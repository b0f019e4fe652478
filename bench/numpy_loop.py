"""The recurrent layers as one writes them by hand in NumPy: the product with x for all steps at once, then a loop over time.

`forward(cell, x, w_ih, w_hh, b_ih, b_hh)` gives y and what `backward(cell, dy, saved)` needs for the gradients of the five arrays,
in their order. x is (T, B, I); the initial state is zero. `stepper(cell, w_ih, w_hh, b_ih, b_hh)` gives a function of x (B, I) and
a state that returns the next state: h, or (h, c).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any
Saved = tuple[Array, ...]


def forward(cell: str, *arrays: Array) -> tuple[Array, Saved]:
    """(y, saved); cell is "lstm", "gru-after", "relu" or "tanh"."""
    if cell == "lstm":
        return _lstm(*arrays)
    return _gru(*arrays) if cell == "gru-after" else _rnn(cell, *arrays)


def backward(cell: str, dy: Array, saved: Saved) -> tuple[Array, ...]:
    """dx, dw_ih, dw_hh, db_ih, db_hh."""
    if cell == "lstm":
        return _lstm_backward(dy, *saved)
    return _gru_backward(dy, *saved) if cell == "gru-after" else _rnn_backward(cell, dy, *saved)


def _sigmoid(a: Array) -> Array:
    return 0.5 + 0.5 * np.tanh(0.5 * a)


def _gates(a: Array, n: int) -> list[Array]:
    """The n blocks of columns, as views. np.split does the same in four times as long."""
    H = a.shape[1] // n
    return [a[:, k * H : (k + 1) * H] for k in range(n)]


def _states(x: Array, w_hh: Array) -> Array:
    """(T+1, B, H): the initial state, then the state after each step."""
    return np.zeros((len(x) + 1, x.shape[1], w_hh.shape[1]), x.dtype)


def _products(x: Array, h: Array, w_ih: Array, da_x: Array, da_h: Array) -> tuple[Array, ...]:
    """The gradients outside the loop, of a_x = x W_ih^T + b_ih and a_h = h W_hh^T + b_hh."""
    flat_x, flat_h = (da.reshape(-1, da.shape[-1]) for da in (da_x, da_h))
    dw_ih = flat_x.T @ x.reshape(-1, x.shape[-1])
    dw_hh = flat_h.T @ h[:-1].reshape(-1, h.shape[-1])
    return da_x @ w_ih, dw_ih, dw_hh, flat_x.sum(axis=0), flat_h.sum(axis=0)


def _lstm(x: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> tuple[Array, Saved]:
    gates = x @ w_ih.T + (b_ih + b_hh)
    h, c = _states(x, w_hh), _states(x, w_hh)
    for t in range(len(x)):
        i, f, g, o = _gates(gates[t], 4)  # views
        gates[t] += h[t] @ w_hh.T
        g[:] = np.tanh(g)
        for gate in (i, f, o):
            gate[:] = _sigmoid(gate)
        c[t + 1] = f * c[t] + i * g
        h[t + 1] = o * np.tanh(c[t + 1])
    return h[1:], (x, w_ih, w_hh, gates, h, c)


def _lstm_backward(dy: Array, x: Array, w_ih: Array, w_hh: Array, gates: Array, h: Array, c: Array) -> tuple[Array, ...]:
    da, dh, dc = np.empty_like(gates), 0, 0
    for t in reversed(range(len(dy))):
        i, f, g, o = _gates(gates[t], 4)
        tanh_c, dh = np.tanh(c[t + 1]), dh + dy[t]
        dc = dc + dh * o * (1 - tanh_c * tanh_c)
        parts = [dc * g * i * (1 - i), dc * c[t] * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)]
        np.concatenate(parts, axis=1, out=da[t])
        dh, dc = da[t] @ w_hh, dc * f
    return _products(x, h, w_ih, da, da)


def _gru(x: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> tuple[Array, Saved]:
    gates = x @ w_ih.T + b_ih
    h, inner = _states(x, w_hh), np.empty_like(x, shape=(len(x), x.shape[1], w_hh.shape[1]))
    for t in range(len(x)):
        r, z, n = _gates(gates[t], 3)  # views
        hr, hz, hn = _gates(h[t] @ w_hh.T + b_hh, 3)
        r[:], z[:], inner[t] = _sigmoid(r + hr), _sigmoid(z + hz), hn
        n[:] = np.tanh(n + r * hn)
        h[t + 1] = n + z * (h[t] - n)
    return h[1:], (x, w_ih, w_hh, gates, inner, h)


def _gru_backward(dy: Array, x: Array, w_ih: Array, w_hh: Array, gates: Array, inner: Array, h: Array) -> tuple[Array, ...]:
    da_x, da_h, dh = np.empty_like(gates), np.empty_like(gates), 0
    for t in reversed(range(len(dy))):
        r, z, n = _gates(gates[t], 3)
        dh = dh + dy[t]
        dn = dh * (1 - z) * (1 - n * n)
        dr, dz = dn * inner[t] * r * (1 - r), dh * (h[t] - n) * z * (1 - z)
        np.concatenate([dr, dz, dn], axis=1, out=da_x[t])
        np.concatenate([dr, dz, dn * r], axis=1, out=da_h[t])
        dh = da_h[t] @ w_hh + dh * z
    return _products(x, h, w_ih, da_x, da_h)


def _rnn(cell: str, x: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> tuple[Array, Saved]:
    a, h = x @ w_ih.T + (b_ih + b_hh), _states(x, w_hh)
    for t in range(len(x)):
        a[t] += h[t] @ w_hh.T
        h[t + 1] = np.tanh(a[t]) if cell == "tanh" else np.maximum(a[t], 0)
    return h[1:], (x, w_ih, w_hh, h)


def _rnn_backward(cell: str, dy: Array, x: Array, w_ih: Array, w_hh: Array, h: Array) -> tuple[Array, ...]:
    da, dh = np.empty_like(dy), 0
    for t in reversed(range(len(dy))):
        slope = 1 - h[t + 1] * h[t + 1] if cell == "tanh" else h[t + 1] > 0
        da[t] = (dh + dy[t]) * slope
        dh = da[t] @ w_hh
    return _products(x, h, w_ih, da, da)


# --- single steps -------------------------------------------------------------------------------------------------------


def stepper(cell: str, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> Callable[[Array, Any], Any]:
    """What a loop written by hand calls. The sigmoid of all gates at once is faster than one for each."""
    bias, H = b_ih + b_hh, w_hh.shape[1]

    def lstm(x: Array, state: Any) -> Any:
        h, c = state
        a = x @ w_ih.T + h @ w_hh.T + bias
        i, f, _, o = _gates(_sigmoid(a), 4)
        c = f * c + i * np.tanh(a[:, 2 * H : 3 * H])
        return o * np.tanh(c), c

    def gru(x: Array, h: Array) -> Array:
        a, b = x @ w_ih.T + b_ih, h @ w_hh.T + b_hh
        r, z = _gates(_sigmoid(a[:, : 2 * H] + b[:, : 2 * H]), 2)
        n = np.tanh(a[:, 2 * H :] + r * b[:, 2 * H :])
        return n + z * (h - n)

    def rnn(x: Array, h: Array) -> Array:
        a = x @ w_ih.T + h @ w_hh.T + bias
        return np.tanh(a) if cell == "tanh" else np.maximum(a, 0)

    return {"lstm": lstm, "gru-after": gru}.get(cell, rnn)
