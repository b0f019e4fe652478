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

Every sum of products is made by one function, `product(start, pairs)`, of which there are two: in the arrays' own dtype, and of
bfloat16 operands to the bit (`precision="bf16"`). A cell names the operands and the order; it does not know which of the two it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Grads", "Tape", "gru", "lstm", "rnn", "round_bf16"]

Array = NDArray[Any]
State = tuple[Array, ...]  # (h,) or (h, c)
Pairs = list[tuple[Array, Array]]
Product = Callable[[Any, Pairs], Array]
# argument name -> array; "peephole" and "w_hr" may be None; "product": what sums products; "f", "g", "h": the activations
Params = dict[str, Any]

ALL = slice(None)


# --- activations --------------------------------------------------------------------------------------------


class Activation(NamedTuple):
    """A function of the preactivations a, and its slope, which is given the values y, too. Both are analytic where they are smooth.

    parameters: the defaults of alpha and beta, as far as it has any. Equations and defaults are those of ONNX's operators
    RNN, GRU and LSTM.
    """

    value: Callable[..., Array]  # of a, alpha, beta
    slope: Callable[..., Array]  # of a, y, alpha, beta
    parameters: tuple[float, ...] = ()


def _sigmoid(a: Array) -> Array:
    """1 / (1 + exp(-a)). The exponent's real part is never positive: no overflow, both tails are exact."""
    negative = a.real < 0
    e = np.exp(np.where(negative, a, -a))
    s: Array = np.where(negative, e, 1) / (1 + e)
    return s


def _relu(a: Array) -> Array:
    """a where its real part is positive, else 0. NaN comes through."""
    return np.where(a.real <= 0, 0, a)


def _hard_sigmoid(a: Array, alpha: float, beta: float) -> Array:
    b = alpha * a + beta
    return np.where(b.real <= 0, 0, np.where(b.real >= 1, 1, b))


def _negative(a: Array) -> Array:
    """a where its real part is negative, else 0: what an exponential can take on both sides of np.where."""
    return np.where(a.real < 0, a, 0)


def _magnitude(a: Array) -> Array:
    """|a|, analytic on both sides of 0."""
    return np.where(a.real < 0, -a, a)


def _softsign(a: Array) -> Array:
    """a / (1 + |a|), with infinities cut to what gives +-1."""
    most = np.finfo(a.dtype).max / 2
    finite = np.clip(a.real, -most, most) + (1j * a.imag if np.iscomplexobj(a) else 0)
    return finite / (1 + _magnitude(finite))


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(np.tanh, lambda a, y: 1 - y * y),
    "sigmoid": Activation(_sigmoid, lambda a, y: y * (1 - y)),
    "relu": Activation(_relu, lambda a, y: np.where(y.real <= 0, 0, 1)),
    "leaky_relu": Activation(
        lambda a, alpha: np.where(a.real < 0, alpha * a, a), lambda a, y, alpha: np.where(a.real > 0, 1, alpha), (0.01,)
    ),
    "thresholded_relu": Activation(
        lambda a, alpha: np.where(a.real < alpha, 0, a), lambda a, y, alpha: np.where(y == 0, 0, 1), (1.0,)
    ),
    "affine": Activation(lambda a, alpha, beta: alpha * a + beta, lambda a, y, alpha, beta: np.full_like(a, alpha), (1.0, 0.0)),
    "linear": Activation(lambda a: a, lambda a, y: np.ones_like(a)),
    "scaled_tanh": Activation(
        lambda a, alpha, beta: alpha * np.tanh(beta * a),
        lambda a, y, alpha, beta: alpha * beta * (1 - np.tanh(beta * a) ** 2),
        (1.0, 1.0),
    ),
    "hard_sigmoid": Activation(
        _hard_sigmoid, lambda a, y, alpha, beta: np.where((y.real > 0) & (y.real < 1), alpha, 0), (0.2, 0.5)
    ),
    "elu": Activation(
        lambda a, alpha: np.where(a.real < 0, alpha * np.expm1(_negative(a)), a),
        lambda a, y, alpha: np.where(a.real > 0, 1, alpha * np.exp(_negative(a))),
        (1.0,),
    ),
    "softsign": Activation(_softsign, lambda a, y: 1 / (1 + _magnitude(a)) ** 2),
    "softplus": Activation(lambda a: _relu(a) + np.log1p(np.exp(-_magnitude(a))), lambda a, y: _sigmoid(a)),
}


class Function:
    """An activation with its parameters."""

    def __init__(self, name: str, given: Any) -> None:
        """name: of the argument; given: the activation's name, or a tuple of it and its parameters, alpha first."""
        kind, *parameters = given if isinstance(given, tuple) and given else (given,)
        if not isinstance(kind, str) or kind not in ACTIVATIONS:
            raise ValueError(f"{name}: expected one of {', '.join(ACTIVATIONS)}, got {given!r}")
        self._of, most = ACTIVATIONS[kind], len(ACTIVATIONS[kind].parameters)
        if len(parameters) > most:
            raise ValueError(f"{name}: expected at most {most} parameters of {kind!r}, got {given!r}")
        self._parameters = (*map(float, parameters), *self._of.parameters[len(parameters) :])

    def value(self, a: Array) -> Array:
        return self._of.value(a, *self._parameters).astype(a.dtype, copy=False)

    def slope(self, a: Array, y: Array) -> Array:
        return self._of.slope(a, y, *self._parameters).astype(a.dtype, copy=False)


# --- products: start + a @ b for each of some pairs (a, b), of shapes (M, K) and (K, N) with a K of their own -----


def _product(start: Any, pairs: Pairs) -> Array:
    """In the arrays' own dtype."""
    for a, b in pairs:
        start = start + a @ b
    return start


# --- bfloat16 products --------------------------------------------------------------------------------------
# Operands are rounded to bfloat16, sums are float32 and have one order: the terms of a pair come in blocks of 32; in a block the
# even and the odd terms make two chains of fused multiply-adds, and the sum of the two is added to the element. This is what
# Intel's TDPBF16PS does. Denormals are zeros, on the way in and out.

BLOCK = 32
NORMAL = float(np.finfo(np.float32).tiny)  # the least float32 that is not denormal


def round_bf16(x: ArrayLike) -> Array:
    """The nearest bfloat16 of each number, as float32: the operands of products with `precision="bf16"`.

    Parameters
    ----------
    x : array of float32
        Any shape.

    Returns
    -------
    rounded : array of float32
        Ties go to the even neighbour; from halfway between the largest bfloat16 and 2**128 on, numbers become infinite; NaN stays
        NaN. A denormal number counts as a zero of its sign.

    Raises
    ------
    TypeError
        x is not float32: another dtype would be rounded twice.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import reference
    >>> reference.round_bf16(np.array([1 + 2**-8, 1 + 3 * 2**-8, 1e-40], np.float32)) - 1
    array([ 0.      ,  0.015625, -1.      ], dtype=float32)
    """
    x = np.asarray(x)
    if x.dtype != np.float32:
        raise TypeError(f"x: expected float32, got {x.dtype}")
    bits = _flush(x.ravel()).view(np.uint32)
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    nearest = np.where(nan, 0, bits) + 0x7FFF + (bits >> 16 & 1)  # the carry goes into the upper half, and on into the exponent
    return (np.where(nan, bits | 0x400000, nearest) & 0xFFFF0000).astype(np.uint32).view(np.float32).reshape(x.shape)


def _flush(a: Array) -> Array:
    """Denormal float32 become zeros of their sign."""
    bits = a.view(np.uint32)
    return np.where(bits & 0x7F800000, bits, bits & 0x80000000).view(np.float32)


def _fma(a: Array, b: Array, c: Array) -> Array:
    """a b + c, rounded once to float32. All are float64 that hold a bfloat16 (a, b) or a float32 (c); so is the result.

    In float64 the product is exact, having 16 bits. Where the sum is not, one of product and c is less than 2^-27 of the other: it
    lies so near to a number of 24 bits that no tie is between them, and to round it twice gives the same as to round it once.
    """
    s = a * b + c
    # The processors' zero of an underflow: of what is less than NORMAL when it has 24 bits, however small it is.
    s = np.where(np.abs(s) < NORMAL * (1 - 2.0**-25), np.copysign(0, s), s)
    return s.astype(np.float32).astype(np.float64)


def _blocks(a: Array) -> Array:
    """(M, K) -> (K/32, 32, M) float64: rounded to bfloat16, the last block filled up with zeros."""
    M, K = a.shape
    blocks = -(-K // BLOCK)
    filled = np.zeros((blocks * BLOCK, M))
    filled[:K] = round_bf16(a).T
    return filled.reshape(blocks, BLOCK, M)


def _bf16_product(start: Any, pairs: Pairs) -> Array:
    """Of float32 rounded to bfloat16: start (float32), plus for each pair and each block of its terms even + odd."""
    s = _flush(np.zeros((len(pairs[0][0]), pairs[0][1].shape[1]), np.float32) + start)
    with np.errstate(over="ignore", invalid="ignore"):
        for pair in pairs:
            a, b = _blocks(pair[0])[:, :, :, None], _blocks(pair[1].T)[:, :, None, :]
            even, odd = np.zeros((2, len(a), *s.shape))
            for k in range(0, BLOCK, 2):
                even, odd = _fma(a[:, k], b[:, k], even), _fma(a[:, k + 1], b[:, k + 1], odd)
            for block in _flush(even.astype(np.float32) + odd.astype(np.float32)):
                s = _flush(s + block)
    return s


PRODUCTS: dict[str, Product] = {"float32": _product, "bf16": _bf16_product}


# --- the sums of a step, and those of the weights' gradients -------------------------------------------------


def _gates(x: Array, h: Array, p: Params, rows: slice = ALL) -> Array:
    """b_ih + b_hh + x W_ih^T + h W_hh^T, for some or all rows of the weights: (n, I), (n, H) -> (n, rows)."""
    terms = [(x, p["w_ih"][rows].T), (h, p["w_hh"][rows].T)]
    return p["product"](p["b_ih"][rows] + p["b_hh"][rows], terms)


def _half(v: Array, p: Params, side: str, rows: slice) -> Array:
    """One half of `_gates`, with its own bias; side is "ih" (v is x) or "hh" (v is h)."""
    return p["product"](p["b_" + side][rows], [(v, p["w_" + side][rows].T)])


class _Gradients:
    """The gradients of the parameters: dp, by name. Those of weights are made at the end, as products over items.

    An item is a row at a step, which is the number of steps the row has gone before. Items are in order of steps, descending, and
    in a step rows that have more steps come first. Each pair of the product is a group of steps s*n to s*n + n-1, such that n steps
    of all rows would have 128 items or a few more.
    """

    SUM_ITEMS = 128

    def __init__(self, p: Params, given: dict[str, bool], steps: Array) -> None:
        """steps (B,): how many each row has."""
        self.dp: Params = {name: None if p[name] is None else np.zeros_like(p[name]) for name in given}
        self._product = p["product"]
        self._group = -(-self.SUM_ITEMS // max(1, len(steps)))
        self._rank = np.empty(len(steps), int)
        self._rank[np.argsort(-steps, kind="stable")] = np.arange(len(steps))
        self._items: list[tuple[Array, Array]] = []  # (step, rank) of the items of each time
        self._terms: dict[tuple[str, int], Pairs] = {}  # by weight and first row: da and its operand at each time

    def of_items(self, rows: Array, step: Array) -> None:
        """What is added from here on is of these rows, each at its step."""
        self._items.append((step, self._rank[rows]))

    def add(self, name: str, da: Array, v: Array, first: int = 0) -> None:
        """da^T v to the rows of a weight from `first` on; da (n, rows), v (n, columns)."""
        self._terms.setdefault((name, first), []).append((da, v))

    def add_gates(self, side: str, da: Array, v: Array, first: int = 0) -> None:
        """The same to w_ih or w_hh, and the sum of da to its bias."""
        self.add("w_" + side, da, v, first)
        self.dp["b_" + side][first : first + da.shape[1]] += da.sum(axis=0)

    def finish(self) -> Params:
        """All of them."""
        if self._items:
            step, rank = (np.concatenate(a) for a in zip(*self._items, strict=True))
            order = np.lexsort((rank, -step))
            cuts = np.flatnonzero(np.diff(step[order] // self._group)) + 1
        for (name, first), terms in self._terms.items():
            da, v = (np.split(np.concatenate(a)[order], cuts) for a in zip(*terms, strict=True))
            rows = slice(first, first + da[0].shape[1])
            self.dp[name][rows] = self._product(self.dp[name][rows], [(d.T, u) for d, u in zip(da, v, strict=True)])
        return self.dp


# What a step backward returns: the gradient of x; what goes to the state before, but for a product with W_hh; and the da of that
# product, the gates in the order of the cell's `back`. It is left to the loop, for its sum starts at all else that goes there.
Before = tuple[Array, State, Array]


# --- RNN: h' = f(W_ih x + b_ih + W_hh h + b_hh) -------------------------------------------------------------
# p["f"], p["g"], p["h"] are the activations: of the gates (of an RNN its only one), of the candidate, and of an LSTM's output. With
# what a step saves are the slopes at its preactivations, named with a d: dr of r.


def _rnn_step(x: Array, state: State, p: Params) -> tuple[State, State]:
    (h,) = state
    a = _gates(x, h, p)  # (n, H)
    new = p["f"].value(a)
    return (new,), (x, h, p["f"].slope(a, new))


def _rnn_step_backward(dstate: State, saved: State, p: Params, d: _Gradients) -> Before:
    (dnew,), (x, h, slope) = dstate, saved
    da = np.where(slope == 0, 0, dnew) * slope
    d.add_gates("ih", da, x)
    d.add_gates("hh", da, h)
    return p["product"](0, [(da, p["w_ih"])]), (np.zeros_like(h),), da


# --- GRU: h' = (1 - z) n + z h ------------------------------------------------------------------------------
# r, z = f(...), and
# reset after:   n = g(W_n x + b_in + r (R_n h + b_hn))
# reset before:  n = g(W_n x + b_in + R_n (r h) + b_hn)


def _gru_blocks(h: Array) -> tuple[slice, slice]:
    """The rows of r and z, and those of n."""
    H = h.shape[1]
    return slice(2 * H), slice(2 * H, 3 * H)


def _gru_rz(x: Array, h: Array, p: Params) -> tuple[Array, ...]:
    """r, z and their slopes, (n, H) each."""
    a = _gates(x, h, p, _gru_blocks(h)[0])
    rz = p["f"].value(a)
    return *np.split(rz, 2, axis=1), *np.split(p["f"].slope(a, rz), 2, axis=1)


def _gru_after_step(x: Array, state: State, p: Params) -> tuple[State, State]:
    (h,) = state
    r, z, dr, dz = _gru_rz(x, h, p)
    of_n = _gru_blocks(h)[1]
    xn, hn = _half(x, p, "ih", of_n), _half(h, p, "hh", of_n)
    a = xn + r * hn
    n = p["g"].value(a)
    return ((1 - z) * n + z * h,), (x, h, r, z, n, hn, dr, dz, p["g"].slope(a, n))


def _gru_after_step_backward(dstate: State, saved: State, p: Params, d: _Gradients) -> Before:
    (dnew,), (x, h, r, z, n, hn, dr, dz, dn) = dstate, saved
    dan = dnew * (1 - z) * dn
    daz = dnew * (h - n) * dz
    dar = dan * hn * dr
    da = np.concatenate([dar, daz, dan], axis=1)
    d.add_gates("ih", da, x)
    d.add_gates("hh", np.concatenate([dar, daz, dan * r], axis=1), h)
    return p["product"](0, [(da, p["w_ih"])]), (dnew * z,), np.concatenate([dan * r, dar, daz], axis=1)


def _gru_before_step(x: Array, state: State, p: Params) -> tuple[State, State]:
    (h,) = state
    r, z, dr, dz = _gru_rz(x, h, p)
    a = _gates(x, r * h, p, _gru_blocks(h)[1])
    n = p["g"].value(a)
    return ((1 - z) * n + z * h,), (x, h, r, z, n, dr, dz, p["g"].slope(a, n))


def _gru_before_step_backward(dstate: State, saved: State, p: Params, d: _Gradients) -> Before:
    (dnew,), (x, h, r, z, n, dr, dz, dn) = dstate, saved
    _, of_n = _gru_blocks(h)
    dan = dnew * (1 - z) * dn
    daz = dnew * (h - n) * dz
    drh = p["product"](0, [(dan, p["w_hh"][of_n])])  # of the product r h
    dar = drh * h * dr
    da, da_rz = np.concatenate([dar, daz, dan], axis=1), np.concatenate([dar, daz], axis=1)
    d.add_gates("ih", da, x)
    d.add_gates("hh", da_rz, h)
    d.add_gates("hh", dan, r * h, of_n.start)
    return p["product"](0, [(da, p["w_ih"])]), (dnew * z + drh * r,), da_rz


# --- LSTM: c' = f c + i g,  h' = m = o h(c'), or W_hr m;  peephole rows p_i, p_f look at c and p_o at c' -----


def _lstm_step(x: Array, state: State, p: Params) -> tuple[State, State]:
    h, c = state
    ai, af, ag, ao = np.split(_gates(x, h, p), 4, axis=1)  # (n, H) each
    peephole, gate, candidate, output = p["peephole"], p["f"], p["g"], p["h"]
    if peephole is not None:
        ai, af = ai + peephole[0] * c, af + peephole[1] * c
    i, f, g = gate.value(ai), gate.value(af), candidate.value(ag)
    new = f * c + i * g
    if peephole is not None:
        ao = ao + peephole[2] * new
    o, th = gate.value(ao), output.value(new)
    m = o * th
    slopes = gate.slope(ai, i), gate.slope(af, f), candidate.slope(ag, g), gate.slope(ao, o), output.slope(new, th)
    return (m if p["w_hr"] is None else p["product"](0, [(m, p["w_hr"].T)]), new), (x, h, c, i, f, g, o, new, th, *slopes)


def _lstm_step_backward(dstate: State, saved: State, p: Params, d: _Gradients) -> Before:
    (dh, dc), (x, h, c, i, f, g, o, new, th, di, df, dg, do, dth) = dstate, saved
    peephole = p["peephole"]
    if p["w_hr"] is not None:
        d.add("w_hr", dh, o * th)
        dh = p["product"](0, [(dh, p["w_hr"])])  # dm from here on
    dao = dh * th * do
    dnew = dc + dh * o * dth
    if peephole is not None:
        dnew = dnew + dao * peephole[2]
    dai = dnew * g * di
    daf = dnew * c * df
    dag = dnew * i * dg
    dc = dnew * f
    if peephole is not None:
        dc = dc + dai * peephole[0] + daf * peephole[1]
        d.dp["peephole"] += np.stack([(dai * c).sum(axis=0), (daf * c).sum(axis=0), (dao * new).sum(axis=0)])
    da = np.concatenate([dai, daf, dag, dao], axis=1)  # (n, 4H)
    d.add_gates("ih", da, x)
    d.add_gates("hh", da, h)
    return p["product"](0, [(da, p["w_ih"])]), (np.zeros_like(h), dc), da


class _Cell(NamedTuple):
    """step(x, state, p) -> (new state, saved); step_backward(dstate, saved, p, d) -> (dx, dstate before, da), see Before."""

    gates: int
    back: tuple[int, ...]  # the gates whose da go to h before, in this order
    step: Callable[[Array, State, Params], tuple[State, State]]
    step_backward: Callable[[State, State, Params, _Gradients], Before]


CELLS = {
    "rnn": _Cell(1, (0,), _rnn_step, _rnn_step_backward),
    "gru_after": _Cell(3, (2, 0, 1), _gru_after_step, _gru_after_step_backward),
    "gru_before": _Cell(3, (0, 1), _gru_before_step, _gru_before_step_backward),
    "lstm": _Cell(4, (0, 1, 2, 3), _lstm_step, _lstm_step_backward),
}


# --- the loop over time, and the loop back ------------------------------------------------------------------


class _Sequence(NamedTuple):
    """The checked arguments of a call, copied, in one dtype and time-major."""

    cell: _Cell
    x: Array  # (T, B, I)
    p: Params
    given: dict[str, bool]  # which of the arrays came from the caller; a bias that did not is zeros here
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
        d = _Gradients(seq.p, seq.given, step)
        dx = np.zeros_like(seq.x)
        w_back = np.concatenate([np.split(seq.p["w_hh"], seq.cell.gates)[gate] for gate in seq.cell.back])
        da = np.zeros((len(step), len(w_back)), dx.dtype)  # of each row's next step
        flows = np.zeros(len(step), bool)  # does it flow on? Not past a cut: 0 times a weight is not 0 where that is infinite

        def dh(rows: Array) -> Array:
            total, on = dstate[0][rows], flows[rows]
            total[on] = seq.p["product"](total[on], [(da[rows[on]], w_back)])
            return total

        for t, rows, saved in reversed(self._steps):
            shown = seq.live[t] | seq.held[t]
            dstate[0][shown] += dy[t, shown]
            if len(dstate) > 1:
                dstate[1][shown] += dc[t, shown]
            step[rows] -= 1
            d.of_items(rows, step[rows])
            after = (dh(rows), *(member[rows] for member in dstate[1:]))
            dx[t, rows], before, da[rows] = seq.cell.step_backward(after, saved, seq.p, d)
            flows[rows] = True
            for member, new in zip(dstate, before, strict=True):
                member[rows] = new
            cut = seq.cut[t].copy()
            cut[rows] |= (step[rows] > 0) & (step[rows] % k == 0)
            for a in (*dstate, flows):
                a[cut] = 0
        dstate[0][:] = dh(np.arange(len(step)))
        self._steps = None
        weights = {name: dw if seq.given[name] else None for name, dw in d.finish().items()}
        initial = tuple(seq.outward_state(member) for member in dstate)
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
    precision: str,
    activations: dict[str, Function],
) -> _Sequence:
    """Checks and copies the arguments of a call; weights and state are named as the arguments are."""
    dtype = _dtype({"x": x, **weights, **state})
    if precision not in PRODUCTS:
        raise ValueError(f"precision: expected 'float32' or 'bf16', got {precision!r}")
    if precision == "bf16" and dtype != np.float32:
        raise TypeError(f"precision: 'bf16' rounds the operands of products to 16 bits, so it is for float32; got {dtype}")
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
    p: Params = {name: None if w is None else _array(name, w, dtype, *shapes[name]) for name, w in weights.items()}
    for name in ("b_ih", "b_hh"):
        p[name] = np.zeros(G * H, dtype) if p[name] is None else p[name]
    p |= {"product": PRODUCTS[precision], **activations}
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
    nonlinearity: str | tuple[Any, ...] = "tanh",
    lengths: ArrayLike | Sequence[int] | int | None = None,
    reset: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    masked: str = "zero",
    reverse: bool = False,
    batch_first: bool = False,
    record: bool = False,
    checkpoint: int | None = None,
    threads: int | None = None,
    precision: str = "float32",
) -> tuple[Array, Array, Tape | None]:
    """The simple recurrent network: h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), with f the `nonlinearity`.

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
    nonlinearity : str or tuple, default "tanh"
        A name in `ACTIVATIONS`, or a tuple of one and its parameters, alpha first, such as ("leaky_relu", 0.1). At corners a
        complex number goes by its real part.
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
    precision : "float32" or "bf16", default "float32"
        "bf16": the operands of all products are rounded to bfloat16, and their sums have one order, to the bit; all else is
        float32, and so must the arrays be. "float32": products in the arrays' own dtype, whichever that is.

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
    functions = {"f": Function("nonlinearity", nonlinearity)}
    weights = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
    cell = CELLS["rnn"]
    seq = _prepare(cell, x, weights, {"h0": h0}, lengths, reset, mask, masked, reverse, batch_first, precision, functions)
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
    activation: str | tuple[Any, ...] = "tanh",
    recurrent_activation: str | tuple[Any, ...] = "sigmoid",
    lengths: ArrayLike | Sequence[int] | int | None = None,
    reset: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    masked: str = "zero",
    reverse: bool = False,
    batch_first: bool = False,
    record: bool = False,
    checkpoint: int | None = None,
    threads: int | None = None,
    precision: str = "float32",
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
    activation, recurrent_activation : str or tuple, default "tanh" and "sigmoid"
        In place of tanh and of sigmoid: a name in `ACTIVATIONS`, or a tuple of one and its parameters, alpha first, such as
        ("hard_sigmoid", 0.2, 0.5).
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
    precision : "float32" or "bf16", default "float32"
        "bf16": the operands of all products are rounded to bfloat16, and their sums have one order, to the bit; all else is
        float32, and so must the arrays be. "float32": products in the arrays' own dtype, whichever that is.

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
    functions = {"f": Function("recurrent_activation", recurrent_activation), "g": Function("activation", activation)}
    seq = _prepare(cell, x, weights, {"h0": h0}, lengths, reset, mask, masked, reverse, batch_first, precision, functions)
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
    activation: str | tuple[Any, ...] = "tanh",
    recurrent_activation: str | tuple[Any, ...] = "sigmoid",
    lengths: ArrayLike | Sequence[int] | int | None = None,
    reset: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    masked: str = "zero",
    reverse: bool = False,
    batch_first: bool = False,
    record: bool = False,
    checkpoint: int | None = None,
    threads: int | None = None,
    precision: str = "float32",
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
    activation, recurrent_activation : str or tuple, default "tanh" and "sigmoid"
        In place of both tanh and of sigmoid: a name in `ACTIVATIONS`, or a tuple of one and its parameters, alpha first, such as
        ("hard_sigmoid", 0.2, 0.5).
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
    precision : "float32" or "bf16", default "float32"
        "bf16": the operands of all products are rounded to bfloat16, and their sums have one order, to the bit; all else is
        float32, and so must the arrays be. "float32": products in the arrays' own dtype, whichever that is.

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
    functions = {"f": Function("recurrent_activation", recurrent_activation), "g": Function("activation", activation)}
    functions["h"] = functions["g"]
    seq = _prepare(CELLS["lstm"], x, weights, state, lengths, reset, mask, masked, reverse, batch_first, precision, functions)
    y, (h_n, c_n), tape = _run(seq, record)
    return y, (h_n, c_n), tape
