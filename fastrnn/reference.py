"""The recurrent layers in plain NumPy, forward and backward: the oracle the compiled kernels are held to.

`rnn`, `gru` and `lstm` take the arguments of `fastrnn.rnn`, `fastrnn.gru` and `fastrnn.lstm` and return the
same things. They are written to be read, not to be fast. Each cell is one step and its backward step; one
time loop, `_run`, and one loop back, `Tape.backward`, serve them all.

Every float and complex dtype works, so gradients can be checked by complex-step differentiation (Squire and
Trapp, "Using complex variables to estimate derivatives of real functions", SIAM Review 40(1), 1998). For that
the formulas are kept analytic: gradients are plain transposes and never conjugates, and what has to look at a
sign looks at the real part.

T steps, B batch rows, I inputs, H hidden units, G gates: RNN 1, GRU 3 (r, z, n), LSTM 4 (i, f, g, o). Within
the loops only the n rows that have a step t are touched, so padding is never read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Grads", "Tape", "gru", "lstm", "rnn"]

Array = NDArray[Any]
State = tuple[Array, ...]  # (h,) or (h, c)
Params = dict[str, Any]  # argument name -> array; "peephole" and "w_hr" may be None

ALL = slice(None)


# --- activations --------------------------------------------------------------------------------------------


def _sigmoid(a: Array) -> Array:
    """1 / (1 + exp(-a)). The exponent's real part is never positive: no overflow, both tails are exact."""
    negative = a.real < 0
    e = np.exp(np.where(negative, a, -a))
    s: Array = np.where(negative, e, 1) / (1 + e)
    return s


def _relu(a: Array) -> Array:
    """a where its real part is positive, else 0. NaN comes through."""
    return np.where(a.real <= 0, 0, a)


# --- one affine map: a = v W^T + b, for some or all rows of W -----------------------------------------------


def _affine(v: Array, p: Params, side: str, rows: slice = ALL) -> Array:
    """v (n, I or H) -> (n, rows); side is "ih" (input) or "hh" (recurrent)."""
    a: Array = v @ p["w_" + side][rows].T + p["b_" + side][rows]
    return a


def _affine_backward(da: Array, v: Array, p: Params, dp: Params, side: str, rows: slice = ALL) -> Array:
    """da (n, rows) -> dv (n, I or H); adds the gradients of W and b to dp."""
    dp["w_" + side][rows] += da.T @ v
    dp["b_" + side][rows] += da.sum(axis=0)
    dv: Array = da @ p["w_" + side][rows]
    return dv


# --- RNN: h' = f(W_ih x + b_ih + W_hh h + b_hh) -------------------------------------------------------------


def _rnn_tanh_step(x: Array, state: State, p: Params) -> tuple[State, State]:
    (h,) = state
    new = np.tanh(_affine(x, p, "ih") + _affine(h, p, "hh"))  # (n, H)
    return (new,), (x, h, new)


def _rnn_relu_step(x: Array, state: State, p: Params) -> tuple[State, State]:
    (h,) = state
    new = _relu(_affine(x, p, "ih") + _affine(h, p, "hh"))  # (n, H)
    return (new,), (x, h, new)


def _rnn_tanh_step_backward(dstate: State, saved: State, p: Params, dp: Params) -> tuple[Array, State]:
    (dnew,), (x, h, new) = dstate, saved
    da = dnew * (1 - new * new)
    return _affine_backward(da, x, p, dp, "ih"), (_affine_backward(da, h, p, dp, "hh"),)


def _rnn_relu_step_backward(dstate: State, saved: State, p: Params, dp: Params) -> tuple[Array, State]:
    (dnew,), (x, h, new) = dstate, saved
    da = np.where(new.real <= 0, 0, dnew)
    return _affine_backward(da, x, p, dp, "ih"), (_affine_backward(da, h, p, dp, "hh"),)


# --- GRU: h' = (1 - z) n + z h ------------------------------------------------------------------------------
# reset after:   n = tanh(W_n x + b_in + r (R_n h + b_hn))
# reset before:  n = tanh(W_n x + b_in + R_n (r h) + b_hn)


def _gru_after_step(x: Array, state: State, p: Params) -> tuple[State, State]:
    (h,) = state
    xr, xz, xn = np.split(_affine(x, p, "ih"), 3, axis=1)  # (n, H) each
    hr, hz, hn = np.split(_affine(h, p, "hh"), 3, axis=1)
    r, z = _sigmoid(xr + hr), _sigmoid(xz + hz)
    n = np.tanh(xn + r * hn)
    return ((1 - z) * n + z * h,), (x, h, r, z, n, hn)


def _gru_after_step_backward(dstate: State, saved: State, p: Params, dp: Params) -> tuple[Array, State]:
    (dnew,), (x, h, r, z, n, hn) = dstate, saved
    dan = dnew * (1 - z) * (1 - n * n)
    daz = dnew * (h - n) * z * (1 - z)
    dar = dan * hn * r * (1 - r)
    dx = _affine_backward(np.concatenate([dar, daz, dan], axis=1), x, p, dp, "ih")
    dh = _affine_backward(np.concatenate([dar, daz, dan * r], axis=1), h, p, dp, "hh")
    return dx, (dnew * z + dh,)


def _gru_before_step(x: Array, state: State, p: Params) -> tuple[State, State]:
    (h,) = state
    H = h.shape[1]
    xr, xz, xn = np.split(_affine(x, p, "ih"), 3, axis=1)  # (n, H) each
    hr, hz = np.split(_affine(h, p, "hh", slice(2 * H)), 2, axis=1)
    r, z = _sigmoid(xr + hr), _sigmoid(xz + hz)
    n = np.tanh(xn + _affine(r * h, p, "hh", slice(2 * H, 3 * H)))
    return ((1 - z) * n + z * h,), (x, h, r, z, n)


def _gru_before_step_backward(dstate: State, saved: State, p: Params, dp: Params) -> tuple[Array, State]:
    (dnew,), (x, h, r, z, n) = dstate, saved
    H = h.shape[1]
    dan = dnew * (1 - z) * (1 - n * n)
    daz = dnew * (h - n) * z * (1 - z)
    drh = _affine_backward(dan, r * h, p, dp, "hh", slice(2 * H, 3 * H))  # of the product r h
    dar = drh * h * r * (1 - r)
    dx = _affine_backward(np.concatenate([dar, daz, dan], axis=1), x, p, dp, "ih")
    dh = _affine_backward(np.concatenate([dar, daz], axis=1), h, p, dp, "hh", slice(2 * H))
    return dx, (dnew * z + drh * r + dh,)


# --- LSTM: c' = f c + i g,  h' = m = o tanh(c'), or W_hr m;  peephole rows p_i, p_f look at c and p_o at c' --


def _lstm_step(x: Array, state: State, p: Params) -> tuple[State, State]:
    h, c = state
    ai, af, ag, ao = np.split(_affine(x, p, "ih") + _affine(h, p, "hh"), 4, axis=1)  # (n, H) each
    peephole = p["peephole"]
    if peephole is not None:
        ai, af = ai + peephole[0] * c, af + peephole[1] * c
    i, f, g = _sigmoid(ai), _sigmoid(af), np.tanh(ag)
    new = f * c + i * g
    if peephole is not None:
        ao = ao + peephole[2] * new
    o = _sigmoid(ao)
    m = o * np.tanh(new)
    return (m if p["w_hr"] is None else m @ p["w_hr"].T, new), (x, h, c, i, f, g, o, new)


def _lstm_step_backward(dstate: State, saved: State, p: Params, dp: Params) -> tuple[Array, State]:
    (dh, dc), (x, h, c, i, f, g, o, new) = dstate, saved
    peephole, th = p["peephole"], np.tanh(new)
    if p["w_hr"] is not None:
        dp["w_hr"] += dh.T @ (o * th)
        dh = dh @ p["w_hr"]  # dm from here on
    dao = dh * th * o * (1 - o)
    dnew = dc + dh * o * (1 - th * th)
    if peephole is not None:
        dnew = dnew + dao * peephole[2]
    dai = dnew * g * i * (1 - i)
    daf = dnew * c * f * (1 - f)
    dag = dnew * i * (1 - g * g)
    dc = dnew * f
    if peephole is not None:
        dc = dc + dai * peephole[0] + daf * peephole[1]
        dp["peephole"] += np.stack([(dai * c).sum(axis=0), (daf * c).sum(axis=0), (dao * new).sum(axis=0)])
    da = np.concatenate([dai, daf, dag, dao], axis=1)  # (n, 4H)
    return _affine_backward(da, x, p, dp, "ih"), (_affine_backward(da, h, p, dp, "hh"), dc)


class _Cell(NamedTuple):
    """step(x, state, p) -> (new state, saved); step_backward(dstate, saved, p, dp) -> (dx, dstate before)."""

    gates: int
    step: Callable[[Array, State, Params], tuple[State, State]]
    step_backward: Callable[[State, State, Params, Params], tuple[Array, State]]


CELLS = {
    "rnn_tanh": _Cell(1, _rnn_tanh_step, _rnn_tanh_step_backward),
    "rnn_relu": _Cell(1, _rnn_relu_step, _rnn_relu_step_backward),
    "gru_after": _Cell(3, _gru_after_step, _gru_after_step_backward),
    "gru_before": _Cell(3, _gru_before_step, _gru_before_step_backward),
    "lstm": _Cell(4, _lstm_step, _lstm_step_backward),
}


# --- the loop over time, and the loop back ------------------------------------------------------------------


class _Sequence(NamedTuple):
    """The checked arguments of a call, copied, in one dtype and time-major."""

    cell: _Cell
    x: Array  # (T, B, I)
    p: Params
    given: dict[str, bool]  # which of p came from the caller; a bias that did not is zeros here
    state: dict[str, Array]  # "h0", and "c0" of an LSTM: (B, H); h0 has P columns with a projection
    live: Array  # (T, B) bool: the row has a step t
    held: Array  # (T, B) bool: it has none, and its state is the output all the same
    cut: Array  # (T, B) bool: the row's state starts from zero when time t comes
    reverse: bool
    batch_first: bool
    batched: bool

    def outward(self, a: Array) -> Array:
        """(T, B, .) -> the layout of the caller's x."""
        if not self.batched:
            return a[:, 0]
        return a.swapaxes(0, 1) if self.batch_first else a

    def outward_state(self, s: Array) -> Array:
        """(B, H) -> (H,) if the caller's x has no batch axis."""
        return s if self.batched else s[0]


def _run(seq: _Sequence, record: bool) -> tuple[Array, State, Tape | None]:
    """All steps of all rows: y in the caller's layout, the final state, and the tape if it was asked for."""
    T = len(seq.x)
    state = tuple(s.copy() for s in seq.state.values())  # (B, H) each
    y = np.zeros((T, *state[0].shape), seq.x.dtype)
    c = np.zeros((T, *state[1].shape), y.dtype) if len(state) > 1 else None
    steps = []
    for t in reversed(range(T)) if seq.reverse else range(T):
        rows = np.flatnonzero(seq.live[t])  # the n rows that have a step t
        for s in state:
            s[seq.cut[t]] = 0
        new, saved = seq.cell.step(seq.x[t, rows], tuple(s[rows] for s in state), seq.p)
        for s, s_new in zip(state, new, strict=True):
            s[rows] = s_new
        shown = seq.live[t] | seq.held[t]
        y[t, shown] = state[0][shown]
        if c is not None:
            c[t, shown] = state[1][shown]
        if record:
            steps.append((t, rows, saved))
    tape = Tape(seq, steps, c) if record else None
    return seq.outward(y), tuple(seq.outward_state(s) for s in state), tape


class Grads(SimpleNamespace):
    """Gradients by the names of the arguments: x, w_ih, w_hh, b_ih, b_hh, h0; of an LSTM also c0, peephole, w_hr.

    None where the argument was None, but h0 and c0 are always there. `state` is h0, or (h0, c0), once more. Made by Tape.backward.
    """


class Tape:
    """What `backward` needs of one recorded forward call. It can be used once.

    Attributes
    ----------
    c : array (T, B, H) or None
        The cell states of an LSTM after all steps, laid out as y.
    """

    def __init__(self, seq: _Sequence, steps: list[tuple[int, Array, State]], c: Array | None) -> None:
        self._seq = seq
        self.c = None if c is None else seq.outward(c)  # after all steps
        self._steps: list[tuple[int, Array, State]] | None = steps

    def backward(
        self, dy: ArrayLike | None = None, dstate: Any = None, dc: ArrayLike | None = None, truncate: int | None = None
    ) -> Grads:
        """Gradients of sum(y * dy) + sum(state * dstate) + sum(tape.c * dc).

        Parameters
        ----------
        dy : array, optional
            As y. None for zeros, as for the others, but not for all. They are cast to the dtype of the forward call.
        dstate : array (B, H), optional
            As the returned state, h_n or (h_n, c_n), whose members may be None.
        dc : array, optional
            As tape.c.
        truncate : int, optional
            k cuts the gradient before each row's steps k, 2k, ... in its direction.

        Returns
        -------
        grads : Grads
            0 at padding. For complex numbers the gradient is the complex derivative, without conjugation.

        Raises
        ------
        ValueError
            A wrong shape, or all are None.
        TypeError
            A dtype that does not cast.
        RuntimeError
            At the second call.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn import reference
        >>> one = np.ones((1, 1))
        >>> y, h_n, tape = reference.rnn(np.ones((2, 1, 1)), one, one, nonlinearity="relu", record=True)
        >>> tape.backward(dstate=one).w_hh
        array([[1.]])
        """
        if self._steps is None:
            raise RuntimeError("backward: this tape has been used; run the forward call again for a new one")
        seq = self._seq
        dy, dc, dstate = self._check(dy, dc, dstate)  # (T, B, H) each; one (B, H) per member of the state
        k = len(seq.x) + 1 if truncate is None else truncate
        step = seq.live.sum(axis=0)  # (B,) of each row: how many it has gone
        dx = np.zeros_like(seq.x)
        dp = {name: None if w is None else np.zeros_like(w) for name, w in seq.p.items()}
        for t, rows, saved in reversed(self._steps):
            shown = seq.live[t] | seq.held[t]
            dstate[0][shown] += dy[t, shown]
            if len(dstate) > 1:
                dstate[1][shown] += dc[t, shown]
            step[rows] -= 1
            dx[t, rows], before = seq.cell.step_backward(tuple(d[rows] for d in dstate), saved, seq.p, dp)
            for d, d_before in zip(dstate, before, strict=True):
                d[rows] = d_before
                d[rows[(step[rows] > 0) & (step[rows] % k == 0)]] = 0
                d[seq.cut[t]] = 0
        self._steps = None
        weights = {name: dw if seq.given[name] else None for name, dw in dp.items()}
        initial = tuple(seq.outward_state(d) for d in dstate)
        state = initial if len(initial) > 1 else initial[0]
        return Grads(x=seq.outward(dx), **weights, **dict(zip(seq.state, initial, strict=True)), state=state)

    def _check(self, dy: Any, dc: Any, dstate: Any) -> tuple[Array, Array, State]:
        """dy, dc (T, B, H) and dstate, (B, H) per member: new arrays, zeros for what is None."""
        seq = self._seq
        if dy is None and dstate is None and dc is None:
            raise ValueError("backward: expected one or more of dy, dstate and an LSTM's dc, got none")
        (T, B, _), dtype = seq.x.shape, seq.x.dtype
        widths = [s.shape[1] for s in seq.state.values()]
        first, spelled = ((T,), "(T, H)") if not seq.batched else ((T, B), "(T, B, H)")
        if seq.batched and seq.batch_first:
            first, spelled = (B, T), "(B, T, H)"
        sequences = []
        for name, d, n in (("dy", dy, widths[0]), ("dc", dc, widths[-1])):
            d = np.zeros((*first, n), dtype) if d is None else _array(name, d, dtype, spelled, (*first, n))
            sequences.append(_time_major(d, seq.batch_first))
        members = {"dstate": dstate}
        if len(seq.state) == 2:
            pair = (None, None) if dstate is None else dstate
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise ValueError(f"dstate: expected a pair (dh_n, dc_n), got {type(dstate).__name__}")
            members = {"dstate[0]": pair[0], "dstate[1]": pair[1]}
        of_member = zip(members.items(), widths, strict=True)
        state = tuple(_initial(name, d, dtype, B, n, seq.batched) for (name, d), n in of_member)
        return sequences[0], sequences[1], state


# --- arguments ----------------------------------------------------------------------------------------------


def _array(name: str, value: Any, dtype: Any, spelled: str, shape: tuple[int, ...]) -> Array:
    """A copy of value in dtype, if it has that shape."""
    array = np.asarray(value)
    if array.shape != shape:
        raise ValueError(f"{name}: expected {spelled} = {shape}, got {array.shape}")
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise TypeError(f"{name}: expected {dtype} or what casts to it, got {array.dtype}")
    return array.astype(dtype)


def _initial(name: str, value: Any, dtype: Any, B: int, H: int, batched: bool) -> Array:
    """A state or its gradient, (B, H): a new array; zeros for None."""
    if value is None:
        return np.zeros((B, H), dtype)
    spelled, shape = ("(B, H)", (B, H)) if batched else ("(H,)", (H,))
    return _array(name, value, dtype, spelled, shape).reshape(B, H)


def _time_major(a: Array, batch_first: bool) -> Array:
    """(T, B, .), (B, T, .) or unbatched (T, .) -> (T, B, .)."""
    if a.ndim == 2:
        return a[:, None]
    return a.swapaxes(0, 1) if batch_first else a


def _dtype(arrays: dict[str, Any]) -> Any:
    """The result dtype of all arrays."""
    dtypes = {name: np.asarray(a).dtype for name, a in arrays.items() if a is not None}
    for name, dtype in dtypes.items():
        if not np.issubdtype(dtype, np.inexact):
            raise TypeError(f"{name}: expected a float or complex dtype, got {dtype}")
    return np.result_type(*dtypes.values())


def _lengths(lengths: Any, T: int, B: int, batched: bool) -> Array:
    """(B,) integers; T for None."""
    if lengths is None:
        return np.full(B, T)
    n = np.asarray(lengths)
    if n.ndim == 0 and not batched:
        n = n[None]
    if n.shape != (B,):
        raise ValueError(f"lengths: expected (B,) = {(B,)}, got {n.shape}")
    if n.size and not np.issubdtype(n.dtype, np.integer):
        raise TypeError(f"lengths: expected integers, got {n.dtype}")
    if np.any((n < 0) | (n > T)):
        raise ValueError(f"lengths: expected 0 <= n <= T = {T}, got {n.min()} to {n.max()}")
    return n


def _booleans(name: str, value: Any, absent: bool, T: int, B: int, batched: bool, batch_first: bool) -> Array:
    """(T, B) bool from what lies as x does: a new array; `absent` everywhere for None."""
    if value is None:
        return np.full((T, B), absent)
    spelled, shape = ("(T,)", (T,)) if not batched else ("(B, T)", (B, T)) if batch_first else ("(T, B)", (T, B))
    a = np.asarray(value)
    if a.dtype.kind != "b" and a.size:
        raise TypeError(f"{name}: expected bool, got {a.dtype}")
    a = _array(name, a.astype(bool), bool, spelled, shape)
    return a.T if batched and batch_first else a.reshape(T, B)


def _cuts(reset: Array, inside: Array, reverse: bool) -> Array:
    """(T, B) bool: where a row's state starts from zero when time t comes."""
    cut = reset & inside
    if reverse:  # the cut before step t + 1 is met on the way from t + 1 to t
        cut[:-1] = cut[1:]
        cut[-1:] = False
    return cut


def _prepare(
    cell: _Cell,
    x: Any,
    weights: Params,
    state: Params,
    lengths: Any,
    reset: Any,
    mask: Any,
    masked: str,
    reverse: bool,
    batch_first: bool,
) -> _Sequence:
    """Checks and copies the arguments of a call; weights and state are named as the arguments are."""
    dtype = _dtype({"x": x, **weights, **state})
    x = np.asarray(x)
    if x.ndim not in (2, 3):
        order = "(B, T, I)" if batch_first else "(T, B, I)"
        raise ValueError(f"x: expected {order} or unbatched (T, I), got {x.shape}")
    batched = x.ndim == 3
    x = _time_major(x.astype(dtype), batch_first)
    T, B, I = x.shape
    G, shape = cell.gates, np.shape(weights["w_ih"])
    GH = "H" if G == 1 else f"{G}*H"
    if len(shape) != 2 or shape[0] % G or shape[0] == 0 or shape[1] != I:
        raise ValueError(f"w_ih: expected ({GH}, I) with H >= 1 and I = {I}, got {shape}")
    H = P = shape[0] // G
    if weights.get("w_hr") is not None:
        P = np.shape(weights["w_hr"])[0] if np.ndim(weights["w_hr"]) == 2 else 0
        if not 0 < P < H:
            raise ValueError(f"w_hr: expected (P, H) with 1 <= P < H = {H}, got {np.shape(weights['w_hr'])}")
    P_ = "H" if P == H else "P"
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "w_ih": (f"({GH}, I)", (G * H, I)),
        "w_hh": (f"({GH}, {P_})", (G * H, P)),
        "w_hr": ("(P, H)", (P, H)),
        "b_ih": (f"({GH},)", (G * H,)),
        "b_hh": (f"({GH},)", (G * H,)),
        "peephole": ("(3, H)", (3, H)),
    }
    p = {name: None if w is None else _array(name, w, dtype, *shapes[name]) for name, w in weights.items()}
    for name in ("b_ih", "b_hh"):
        p[name] = np.zeros(G * H, dtype) if p[name] is None else p[name]
    if masked not in ("zero", "hold"):
        raise ValueError(f"masked: expected 'zero' or 'hold', got {masked!r}")
    inside = np.arange(T)[:, None] < _lengths(lengths, T, B, batched)  # (T, B): not padding
    live = inside & _booleans("mask", mask, True, T, B, batched, batch_first)
    return _Sequence(
        cell=cell,
        x=x,
        p=p,
        given={name: w is not None for name, w in weights.items()},
        state={name: _initial(name, s, dtype, B, P if name == "h0" else H, batched) for name, s in state.items()},
        live=live,
        held=inside & ~live & (masked == "hold"),
        cut=_cuts(_booleans("reset", reset, False, T, B, batched, batch_first), inside, reverse),
        reverse=reverse,
        batch_first=batch_first,
        batched=batched,
    )


# --- the functions ------------------------------------------------------------------------------------------


def rnn(
    x: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    h0: ArrayLike | None = None,
    *,
    nonlinearity: str = "tanh",
    lengths: ArrayLike | Sequence[int] | int | None = None,
    reset: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    masked: str = "zero",
    reverse: bool = False,
    batch_first: bool = False,
    record: bool = False,
    checkpoint: int | None = None,
    threads: int | None = None,
) -> tuple[Array, Array, Tape | None]:
    """The simple recurrent network: h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), with f tanh or ReLU.

    Source: J. L. Elman, "Finding structure in time", Cognitive Science 14, 1990; layout and two biases as torch.nn.RNN.

    Parameters
    ----------
    x : array (T, B, I)
        (B, T, I) with `batch_first`; (T, I) without a batch. Any float or complex dtype; the results have that of all arrays
        together.
    w_ih, w_hh : array (H, I), (H, H)
        The weights.
    b_ih, b_hh : array (H,), optional
        The biases; None for zeros.
    h0 : array (B, H), optional
        The initial state, (H,) without a batch; None for zeros.
    nonlinearity : "tanh" or "relu", default "tanh"
        The ReLU of a complex number goes by its real part.
    lengths : integers (B,), optional
        From 0 to T: only the first lengths[b] steps of row b exist. Output after them is 0, and the final state is that after the
        row's last processed step (h0 if there is none). What padding holds, NaN included, has no influence.
    reset : booleans (T, B), optional
        (B, T) with `batch_first`, (T,) without a batch: where True, nothing flows between the row's steps t-1 and t, in either
        direction; the state starts there from zero. At t = 0 it drops the initial state, unless `reverse` is set.
    mask : booleans (T, B), optional
        As `reset`: a step where it is False is skipped; the state is carried over it. A reset before a skipped step cuts all the
        same.
    masked : "zero" or "hold", default "zero"
        y at a skipped step: 0, or the state carried over it, as in Keras. Padding is 0 in both.
    reverse : bool, default False
        Steps are processed from each row's own last to its first; y stays in the order of x.
    batch_first : bool, default False
        x, y, dy and the gradient of x are (B, T, .), reset and mask (B, T); nothing else changes.
    record : bool, default False
        Return a tape for the gradients.
    checkpoint, threads
        Accepted so that the signatures agree, and ignored.

    Returns
    -------
    y : array (T, B, H)
    h_n : array (B, H)
    tape : Tape or None
        None unless `record`.

    Raises
    ------
    TypeError, ValueError
        A wrong dtype; a wrong shape or value. The message names the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> y, h_n, tape = reference.rnn(np.ones((3, 1, 1)), np.ones((1, 1)), np.ones((1, 1)), nonlinearity="relu")
    >>> y.ravel()
    array([1., 2., 3.])
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")
    weights = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
    cell = CELLS["rnn_" + nonlinearity]
    seq = _prepare(cell, x, weights, {"h0": h0}, lengths, reset, mask, masked, reverse, batch_first)
    y, (h_n,), tape = _run(seq, record)
    return y, h_n, tape


def gru(
    x: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    h0: ArrayLike | None = None,
    *,
    reset_after: bool = True,
    lengths: ArrayLike | Sequence[int] | int | None = None,
    reset: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    masked: str = "zero",
    reverse: bool = False,
    batch_first: bool = False,
    record: bool = False,
    checkpoint: int | None = None,
    threads: int | None = None,
) -> tuple[Array, Array, Tape | None]:
    """The gated recurrent unit. With the gates' blocks of the weights and biases in the order r, z, n:

        r = sigmoid(W_r x + b_ir + R_r h + b_hr)
        z = sigmoid(W_z x + b_iz + R_z h + b_hz)
        n = tanh(W_n x + b_in + r (R_n h + b_hn))      reset_after=True, as torch.nn.GRU and cuDNN
        n = tanh(W_n x + b_in + R_n (r h) + b_hn)      reset_after=False, as in the paper
        h' = (1 - z) n + z h

    Source: K. Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014; layout, names and the form with
    the reset after the product as torch.nn.GRU.

    Parameters
    ----------
    x : array (T, B, I)
        (B, T, I) with `batch_first`; (T, I) without a batch. Any float or complex dtype; the results have that of all arrays
        together.
    w_ih, w_hh : array (3*H, I), (3*H, H)
        The weights.
    b_ih, b_hh : array (3*H,), optional
        The biases; None for zeros.
    h0 : array (B, H), optional
        The initial state, (H,) without a batch; None for zeros.
    reset_after : bool, default True
        Which of the two equations of n.
    lengths : integers (B,), optional
        From 0 to T: only the first lengths[b] steps of row b exist. Output after them is 0, and the final state is that after the
        row's last processed step (h0 if there is none). What padding holds, NaN included, has no influence.
    reset : booleans (T, B), optional
        (B, T) with `batch_first`, (T,) without a batch: where True, nothing flows between the row's steps t-1 and t, in either
        direction; the state starts there from zero. At t = 0 it drops the initial state, unless `reverse` is set.
    mask : booleans (T, B), optional
        As `reset`: a step where it is False is skipped; the state is carried over it. A reset before a skipped step cuts all the
        same.
    masked : "zero" or "hold", default "zero"
        y at a skipped step: 0, or the state carried over it, as in Keras. Padding is 0 in both.
    reverse : bool, default False
        Steps are processed from each row's own last to its first; y stays in the order of x.
    batch_first : bool, default False
        x, y, dy and the gradient of x are (B, T, .), reset and mask (B, T); nothing else changes.
    record : bool, default False
        Return a tape for the gradients.
    checkpoint, threads
        Accepted so that the signatures agree, and ignored.

    Returns
    -------
    y : array (T, B, H)
    h_n : array (B, H)
    tape : Tape or None
        None unless `record`.

    Raises
    ------
    TypeError, ValueError
        A wrong dtype; a wrong shape or value. The message names the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> y, h_n, tape = reference.gru(np.ones((2, 1, 1)), np.zeros((3, 1)), np.zeros((3, 1)), h0=np.ones((1, 1)))
    >>> y.ravel()
    array([0.5 , 0.25])
    """
    weights = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
    cell = CELLS["gru_after" if reset_after else "gru_before"]
    seq = _prepare(cell, x, weights, {"h0": h0}, lengths, reset, mask, masked, reverse, batch_first)
    y, (h_n,), tape = _run(seq, record)
    return y, h_n, tape


def lstm(
    x: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    h0: ArrayLike | None = None,
    c0: ArrayLike | None = None,
    *,
    peephole: ArrayLike | None = None,
    w_hr: ArrayLike | None = None,
    lengths: ArrayLike | Sequence[int] | int | None = None,
    reset: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    masked: str = "zero",
    reverse: bool = False,
    batch_first: bool = False,
    record: bool = False,
    checkpoint: int | None = None,
    threads: int | None = None,
) -> tuple[Array, tuple[Array, Array], Tape | None]:
    """Long short-term memory. With the gates' blocks of the weights and biases in the order i, f, g, o:

        i = sigmoid(W_i x + b_ii + R_i h + b_hi + p_i c)
        f = sigmoid(W_f x + b_if + R_f h + b_hf + p_f c)
        g = tanh   (W_g x + b_ig + R_g h + b_hg)
        c' = f c + i g
        o = sigmoid(W_o x + b_io + R_o h + b_ho + p_o c')
        h' = o tanh(c'), or W_hr (o tanh(c'))

    Source: S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997; the forget gate and the
    peepholes by F. Gers and others, 2000 and 2002 (JMLR 3); the projection by H. Sak and others, 2014 (arXiv 1402.1128); layout and
    names as torch.nn.LSTM.

    Parameters
    ----------
    x : array (T, B, I)
        (B, T, I) with `batch_first`; (T, I) without a batch. Any float or complex dtype; the results have that of all arrays
        together.
    w_ih, w_hh : array (4*H, I), (4*H, H)
        The weights.
    b_ih, b_hh : array (4*H,), optional
        The biases; None for zeros.
    h0, c0 : array (B, H), optional
        The initial state, (H,) each without a batch; None for zeros. `reset` cuts both.
    peephole : array (3, H), optional
        Rows p_i, p_f, p_o; None leaves the p terms out.
    w_hr : array (P, H), P < H, optional
        A projection; h then has P numbers: w_hh is (4*H, P), h0 (B, P), y (T, B, P).
    lengths : integers (B,), optional
        From 0 to T: only the first lengths[b] steps of row b exist. Output after them is 0, and the final state is that after the
        row's last processed step (h0 if there is none). What padding holds, NaN included, has no influence.
    reset : booleans (T, B), optional
        (B, T) with `batch_first`, (T,) without a batch: where True, nothing flows between the row's steps t-1 and t, in either
        direction; the state starts there from zero. At t = 0 it drops the initial state, unless `reverse` is set.
    mask : booleans (T, B), optional
        As `reset`: a step where it is False is skipped; the state is carried over it. A reset before a skipped step cuts all the
        same.
    masked : "zero" or "hold", default "zero"
        y at a skipped step: 0, or the state carried over it, as in Keras. Padding is 0 in both.
    reverse : bool, default False
        Steps are processed from each row's own last to its first; y stays in the order of x.
    batch_first : bool, default False
        x, y, dy and the gradient of x are (B, T, .), reset and mask (B, T); nothing else changes.
    record : bool, default False
        Return a tape for the gradients.
    checkpoint, threads
        Accepted so that the signatures agree, and ignored.

    Returns
    -------
    y : array (T, B, H)
    (h_n, c_n) : arrays (B, H)
    tape : Tape or None
        None unless `record`.

    Raises
    ------
    TypeError, ValueError
        A wrong dtype; a wrong shape or value. The message names the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> y, (h_n, c_n), tape = reference.lstm(np.ones((2, 1, 1)), np.zeros((4, 1)), np.zeros((4, 1)), c0=np.ones((1, 1)))
    >>> c_n
    array([[0.25]])
    """
    weights = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh, "peephole": peephole, "w_hr": w_hr}
    state = {"h0": h0, "c0": c0}
    seq = _prepare(CELLS["lstm"], x, weights, state, lengths, reset, mask, masked, reverse, batch_first)
    y, (h_n, c_n), tape = _run(seq, record)
    return y, (h_n, c_n), tape
