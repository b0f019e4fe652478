"""The oracle itself: its gradients by complex steps, its semantics by cutting, its cells by scalar loops."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest

from fastrnn import reference

T, B, I, H = 4, 3, 2, 2
P = 1  # numbers in h with a projection


def width(cell):
    """Numbers in h and y."""
    return P if cell == "lstm-projected" else H


GATES = {"rnn": 1, "gru": 3, "lstm": 4}
CELLS = {
    "tanh": ("rnn", {"nonlinearity": "tanh"}),
    "relu": ("rnn", {"nonlinearity": "relu"}),
    "gru-after": ("gru", {"reset_after": True}),
    "gru-before": ("gru", {"reset_after": False}),
    "lstm": ("lstm", {}),
    "lstm-peephole": ("lstm", {}),
    "lstm-projected": ("lstm", {}),
    "elu": ("rnn", {"nonlinearity": ("elu", 0.5)}),
    "gru-activated": ("gru", {"reset_after": True, "activation": "softplus", "recurrent_activation": "hard_sigmoid"}),
    "gru-before-activated": (
        "gru",
        {"reset_after": False, "activation": ("leaky_relu", 0.1), "recurrent_activation": ("scaled_tanh", 0.5, 2.0)},
    ),
    "lstm-activated": ("lstm", {"activation": "softsign", "recurrent_activation": ("hard_sigmoid", 1 / 6)}),
}
LENGTHS = np.array([2, 0, 4])
RESET = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 1], [0, 0, 1]], bool)  # row 0's at t = 2 lies in its padding
MASK = np.array([[0, 1, 1], [1, 1, 0], [1, 1, 0], [0, 1, 1]], bool)
VARIANTS = {
    "plain": {},
    "reverse": {"reverse": True},
    "lengths": {"lengths": LENGTHS},
    "lengths-reverse": {"lengths": LENGTHS, "reverse": True},
    "reset": {"reset": RESET},
    "reset-reverse": {"reset": RESET, "reverse": True},
    "all": {"lengths": LENGTHS, "reset": RESET.T, "batch_first": True},
    "all-reverse": {"lengths": LENGTHS, "reset": RESET.T, "batch_first": True, "reverse": True},
    "mask": {"mask": MASK},
    "hold": {"mask": MASK, "masked": "hold"},
    "hold-reverse": {"mask": MASK, "masked": "hold", "reverse": True, "lengths": LENGTHS},
    "hold-reset": {"mask": MASK, "masked": "hold", "reset": RESET},
    "hold-reset-reverse": {"mask": MASK, "masked": "hold", "reset": RESET, "reverse": True},
    "unbatched": {"unbatched": True},
    "unbatched-all": {"unbatched": True, "lengths": 3, "reset": RESET[:, 2], "reverse": True},
    "no-bias": {"without": ("b_ih", "b_hh")},
    "no-b_hh": {"without": ("b_hh",)},
    "no-state": {"without": ("h0", "c0")},
}

each_cell = pytest.mark.parametrize("cell", CELLS)
each_way = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


def arguments(cell, dtype=np.float64, seed=0, **options):
    """(function, arrays by name, keywords) of a small problem. options: as in VARIANTS."""
    name, keywords = CELLS[cell]
    G, rng = GATES[name], np.random.default_rng(seed)
    unbatched = options.pop("unbatched", False)
    without = options.pop("without", ())
    rows = () if unbatched else (B,)
    shapes = {
        "x": (T, I) if unbatched else (B, T, I) if options.get("batch_first") else (T, B, I),
        "w_ih": (G * H, I),
        "w_hh": (G * H, H),
        "b_ih": (G * H,),
        "b_hh": (G * H,),
        "h0": (*rows, H),
    }
    if cell == "lstm-projected":
        shapes |= {"w_hh": (G * H, P), "w_hr": (P, H), "h0": (*rows, P)}
    if name == "lstm":
        shapes["c0"] = (*rows, H)
    if cell == "lstm-peephole":
        shapes["peephole"] = (3, H)
    arrays = {}
    for key, shape in shapes.items():
        a = rng.standard_normal(shape)
        if np.issubdtype(dtype, np.complexfloating):
            a = a + 0.3j * rng.standard_normal(shape)
        if key not in without:
            arrays[key] = a.astype(dtype)
    return getattr(reference, name), arrays, {**keywords, **options}


def members(state):
    return state if isinstance(state, tuple) else (state,)


def call(function, arrays, keywords):
    """y and the members of the final state."""
    y, state, tape = function(**arrays, **keywords)
    assert tape is None
    return y, members(state)


def cotangents(y, state, seed=1):
    """A random dy and dstate of y's and the final state's shapes and structure."""
    rng = np.random.default_rng(seed)
    ds = tuple(rng.standard_normal(s.shape) for s in members(state))
    return rng.standard_normal(y.shape), ds if isinstance(state, tuple) else ds[0]


def gradients(cell, through=("y", "state"), dtype=np.float64, **options):
    """(arrays, y, state, grads) of one recorded call and its backward."""
    function, arrays, keywords = arguments(cell, dtype, **options)
    y, state, tape = function(**arrays, **keywords, record=True)
    dy, dstate = cotangents(y, state)
    grads = tape.backward(dy if "y" in through else None, dstate if "state" in through else None)
    return arrays, y, state, grads


def by_complex_steps(cell, name, through, **options):
    """The gradient of L = sum(y dy) + sum(state dstate) in the argument `name`, a complex step per entry."""
    function, arrays, keywords = arguments(cell, **options)
    arrays = {key: a.astype(np.complex128) for key, a in arrays.items()}
    numeric = np.empty(arrays[name].shape)
    for index in np.ndindex(numeric.shape):
        saved = arrays[name][index]
        arrays[name][index] = saved + 1e-30j
        y, state, _ = function(**arrays, **keywords)
        arrays[name][index] = saved
        dy, dstate = cotangents(y, state)
        L = (y * dy).sum() if "y" in through else 0
        if "state" in through:
            L = L + sum((s * d).sum() for s, d in zip(members(state), members(dstate), strict=True))
        numeric[index] = L.imag / 1e-30
    return numeric


def assert_gradients(cell, through, **options):
    arrays, _, _, grads = gradients(cell, through, **options)
    for name in arrays:
        numeric = by_complex_steps(cell, name, through, **options)
        atol = 1e-13 * np.abs(numeric).max(initial=0)
        np.testing.assert_allclose(getattr(grads, name), numeric, rtol=1e-12, atol=atol, err_msg=name)


# --- gradients by complex steps -----------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@each_cell
def test_gradients(cell, variant):
    assert_gradients(cell, ("y", "state"), **VARIANTS[variant])


@pytest.mark.parametrize("through", ["y", "state"])
@each_cell
def test_gradients_through_one_of_y_and_state(cell, through):
    assert_gradients(cell, (through,), **VARIANTS["all-reverse"])


@pytest.mark.parametrize("member", [0, 1])
def test_gradients_through_one_member_of_the_state(member):
    function, arrays, keywords = arguments("lstm-peephole")
    y, state, tape = function(**arrays, **keywords, record=True)
    d = cotangents(y, state)[1][member]
    one = tape.backward(dstate=(d, None) if member == 0 else (None, d))
    tape = function(**arrays, **keywords, record=True)[2]
    both = tape.backward(np.zeros_like(y), (d, 0 * d) if member == 0 else (0 * d, d))
    for name in arrays:
        np.testing.assert_array_equal(getattr(one, name), getattr(both, name))
        assert np.any(getattr(one, name))


@each_cell
def test_complex_gradients_are_complex_derivatives(cell):
    """At a complex point, a real and an imaginary difference both give the same derivative: L is analytic."""
    function, arrays, keywords = arguments(cell, np.complex128, reset=RESET, lengths=LENGTHS)
    y, state, tape = function(**arrays, **keywords, record=True)
    dy, dstate = cotangents(y, state)
    grads = tape.backward(dy, dstate)

    def loss():
        y, state = call(function, arrays, keywords)
        return (y * dy).sum() + sum((s * d).sum() for s, d in zip(state, members(dstate), strict=True))

    for name, a in arrays.items():
        index = tuple(n - 1 for n in a.shape)
        saved = a[index]
        for h in (1e-5, 1e-5j):
            a[index] = saved + h
            plus = loss()
            a[index] = saved - h
            minus = loss()
            a[index] = saved
            assert getattr(grads, name)[index] == pytest.approx((plus - minus) / (2 * h), rel=1e-6, abs=1e-8)


@each_cell
def test_names_of_gradients(cell):
    arrays, _, state, grads = gradients(cell, without=("b_ih", "h0", "c0"))
    assert grads.b_ih is None and grads.b_hh.shape == arrays["b_hh"].shape
    assert grads.h0.shape == (B, width(cell))
    if cell.startswith("lstm"):
        assert grads.state[0] is grads.h0 and grads.state[1] is grads.c0 and grads.c0.shape == state[1].shape
        assert (grads.peephole is None) == (cell != "lstm-peephole") and (grads.w_hr is None) == (cell != "lstm-projected")
    else:
        assert grads.state is grads.h0 and not hasattr(grads, "c0")


# --- the cells, written again as scalar loops ---------------------------------------------------------------


def sigma(a):
    return 1 / (1 + math.exp(-a))


def dot(w, v):
    return sum(a * b for a, b in zip(w, v, strict=True))


SCALAR = {  # the activations f and g of those cells that have others than their usual ones
    "relu": (lambda a: max(a, 0.0), None),
    "elu": (lambda a: a if a >= 0 else 0.5 * math.expm1(a), None),
    "gru-activated": (lambda a: min(1.0, max(0.0, 0.2 * a + 0.5)), lambda a: math.log(1 + math.exp(a))),
    "gru-before-activated": (lambda a: 0.5 * math.tanh(2 * a), lambda a: a if a >= 0 else 0.1 * a),
    "lstm-activated": (lambda a: min(1.0, max(0.0, a / 6 + 0.5)), lambda a: a / (1 + abs(a))),
}


def scalar_step(cell, p, x, h, c):
    """One step of one row, unit by unit, on lists of Python floats: new h and c."""
    function = CELLS[cell][0]
    sigmoid, tanh = SCALAR.get(cell, (math.tanh if function == "rnn" else sigma, math.tanh))

    def pre(gate, unit):
        k = gate * H + unit
        return dot(p["w_ih"][k], x) + p["b_ih"][k], dot(p["w_hh"][k], h) + p["b_hh"][k]

    new_h, new_c = [], []
    for j in range(H):
        if function == "rnn":
            new_h.append(sigmoid(sum(pre(0, j))))
        elif function == "gru":
            r, z = [sigmoid(sum(pre(0, k))) for k in range(H)], sigmoid(sum(pre(1, j)))
            xn, hn = pre(2, j)
            if cell.startswith("gru-before"):
                gated = [r[k] * h[k] for k in range(H)]
                n = tanh(xn + dot(p["w_hh"][2 * H + j], gated) + p["b_hh"][2 * H + j])
            else:
                n = tanh(xn + r[j] * hn)
            new_h.append((1 - z) * n + z * h[j])
        else:
            pi, pf, po = (row[j] for row in p["peephole"]) if "peephole" in p else (0, 0, 0)
            i, f = sigmoid(sum(pre(0, j)) + pi * c[j]), sigmoid(sum(pre(1, j)) + pf * c[j])
            new_c.append(f * c[j] + i * tanh(sum(pre(2, j))))
            new_h.append(sigmoid(sum(pre(3, j)) + po * new_c[j]) * tanh(new_c[j]))
    return [dot(row, new_h) for row in p["w_hr"]] if "w_hr" in p else new_h, new_c


@each_way
@each_cell
def test_forward_is_the_scalar_loop(cell, reverse):
    function, arrays, keywords = arguments(cell, reverse=reverse)
    y, state = call(function, arrays, keywords)
    p = {name: a.tolist() for name, a in arrays.items()}
    for b in range(B):
        h, c = p["h0"][b], p["c0"][b] if "c0" in p else []
        for t in reversed(range(T)) if reverse else range(T):
            h, c = scalar_step(cell, p, p["x"][t][b], h, c)
            np.testing.assert_allclose(y[t, b], h, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(state[0][b], h, rtol=1e-13, atol=1e-15)
        if c:
            np.testing.assert_allclose(state[1][b], c, rtol=1e-13, atol=1e-15)


def one_unit(function, weights, state, **keywords):
    """One step at x = 1 with H = I = 1; weights is (w_ih, w_hh), one number per gate."""
    w_ih, w_hh = (np.array(w, float)[:, None] for w in weights)
    return function(np.ones((1, 1)), w_ih, w_hh, None, None, *(np.array([s]) for s in state), **keywords)


def test_literal_numbers():
    """Gates that are simple fractions: sigmoid(log 3) = 3/4, tanh(log 2) = 3/5, tanh(log 16) = 255/257."""
    log2, log3 = math.log(2), math.log(3)
    y, _, _ = one_unit(reference.rnn, ([log2], [0]), [5.0])
    assert y[0, 0] == pytest.approx(0.6, rel=1e-15)
    y, _, _ = one_unit(reference.rnn, ([1], [-0.25]), [2.0], nonlinearity="relu")
    assert y[0, 0] == 0.5
    # r = 1/4, z = 3/4, R_n h = 4 log 2 (both forms scale it by r): n = 3/5, h' = n/4 + 3/4 * 2
    for reset_after in (True, False):
        weights = [-log3, log3, 0], [0, 0, 2 * log2]
        y, _, _ = one_unit(reference.gru, weights, [2.0], reset_after=reset_after)
        assert y[0, 0] == pytest.approx(0.25 * 0.6 + 0.75 * 2, rel=1e-15)
    # and b_hn = 4 log 2, which only the form with the reset after scales by r
    for reset_after, n in ((True, 3 / 5), (False, 255 / 257)):
        w_ih, b_hh = np.array([[-log3], [log3], [0]]), np.array([0, 0, 4 * log2])
        y, _, _ = reference.gru(np.ones((1, 1)), w_ih, 0 * w_ih, None, b_hh, reset_after=reset_after)
        assert y[0, 0] == pytest.approx(n / 4, rel=1e-15)
    # i = 3/4, f = 1/4, g = 3/5: c' = 0.25 * 2 + 0.75 * 0.6 = 0.95; o = 1/2
    y, (_, c), _ = one_unit(reference.lstm, ([log3, -log3, log2, 0], [0] * 4), [0.0, 2.0])
    assert c[0] == pytest.approx(0.95, rel=1e-15)
    assert y[0, 0] == pytest.approx(0.5 * math.tanh(0.95), rel=1e-15)
    # the same gates by peepholes: p_i c and p_f c with c = 2, and p_o c' with c' = 0.95
    p = np.array([[log3 / 2], [-log3 / 2], [log3 / 0.95]])
    y, (_, c), _ = one_unit(reference.lstm, ([0, 0, log2, 0], [0] * 4), [0.0, 2.0], peephole=p)
    assert c[0] == pytest.approx(0.95, rel=1e-15)
    assert y[0, 0] == pytest.approx(0.75 * math.tanh(0.95), rel=1e-15)


def test_sigmoid_in_both_tails():
    a = np.array([-np.inf, -745.0, -40.0, 0.0, 40.0, 1000.0, np.inf, np.nan])
    expected = [0.0, math.exp(-745.0), math.exp(-40), 0.5, 1.0, 1.0, 1.0, math.nan]
    np.testing.assert_allclose(reference._sigmoid(a), expected, rtol=1e-15, atol=0)
    s = reference._sigmoid(np.array([-40.0, 3.0]) + 1e-30j)
    np.testing.assert_allclose(s.imag / 1e-30, [math.exp(-40), sigma(3) * sigma(-3)], rtol=1e-14)


def test_relu_goes_by_the_real_part():
    w = np.ones((1, 1), complex)
    x = np.array([[2 - 3j], [-2 + 3j], [0 + 1j]])
    y, _, tape = reference.rnn(x, w, 0 * w, nonlinearity="relu", record=True)
    np.testing.assert_array_equal(y, [[2 - 3j], [0], [0]])
    np.testing.assert_array_equal(tape.backward(np.ones((3, 1))).x, [[1], [0], [0]])


def assert_same_state(a, b):
    for member, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(member, other)


# --- semantics: what the keywords mean, by calls without them -----------------------------------------------


def row_alone(arrays, b, steps):
    """The arguments with row b alone, and of that only the steps of a slice."""
    own = dict(arrays)
    own["x"] = arrays["x"][steps, b : b + 1]
    for s in ("h0", "c0"):
        if s in arrays:
            own[s] = arrays[s][b : b + 1]
    return own


@each_way
@each_cell
def test_lengths_cut_each_row(cell, reverse):
    function, arrays, keywords = arguments(cell, reverse=reverse)
    y, state, tape = function(**arrays, **keywords, lengths=LENGTHS, record=True)
    dy, dstate = cotangents(y, state)
    grads = tape.backward(dy, dstate)
    weights = {name: 0 for name in arrays if name not in ("x", "h0", "c0")}
    for b, n in enumerate(LENGTHS):
        own_y, own_state, tape = function(**row_alone(arrays, b, slice(n)), **keywords, record=True)
        np.testing.assert_allclose(y[:n, b], own_y[:, 0], rtol=1e-14, atol=1e-15)
        assert not y[n:, b].any()
        own_d = tuple(d[b : b + 1] for d in members(dstate))
        own = tape.backward(dy[:n, b : b + 1], own_d if isinstance(state, tuple) else own_d[0])
        np.testing.assert_allclose(grads.x[:n, b], own.x[:, 0], rtol=1e-12, atol=1e-15)
        assert not grads.x[n:, b].any()
        pairs = zip(members(state), members(own_state), members(grads.state), members(own.state), strict=True)
        for s, own_s, ds, own_ds in pairs:
            np.testing.assert_allclose(s[b], own_s[0], rtol=1e-14, atol=1e-15)
            np.testing.assert_allclose(ds[b], own_ds[0], rtol=1e-12, atol=1e-15)
        for name in weights:
            weights[name] = weights[name] + getattr(own, name)
    for name, dw in weights.items():
        np.testing.assert_allclose(getattr(grads, name), dw, rtol=1e-12, atol=1e-14)
    for s, s0 in zip(members(state), [arrays["h0"], arrays.get("c0")], strict=False):
        np.testing.assert_array_equal(s[1], s0[1])  # length 0: the initial state, untouched


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@each_way
@each_cell
def test_reset_makes_pieces(cell, reverse, lengths):
    """Each row is the chain of its pieces; the initial state reaches only the first that is processed."""
    function, arrays, keywords = arguments(cell, reverse=reverse)
    y, state, tape = function(**arrays, **keywords, lengths=lengths, reset=RESET, record=True)
    dy, dstate = cotangents(y, state)
    grads = tape.backward(dy, dstate)
    for b in range(B):
        n = T if lengths is None else lengths[b]
        edges = [0, *(t for t in range(1, n) if RESET[t, b]), n]
        pieces = [slice(*e) for e in itertools.pairwise(edges)]
        first, last = (pieces[-1], pieces[0]) if reverse else (pieces[0], pieces[-1])
        for piece in pieces:
            own = row_alone(arrays, b, piece)
            keeps_initial = piece == first and not (RESET[0, b] and n and not reverse)
            if not keeps_initial:
                own.update({s: 0 * own[s] for s in ("h0", "c0") if s in own})
            own_y, own_state, tape = function(**own, **keywords, record=True)
            np.testing.assert_allclose(y[piece, b], own_y[:, 0], rtol=1e-14, atol=1e-15)
            own_d = tuple(d[b : b + 1] * (piece == last) for d in members(dstate))
            own_grads = tape.backward(dy[piece, b : b + 1], own_d if isinstance(state, tuple) else own_d[0])
            np.testing.assert_allclose(grads.x[piece, b], own_grads.x[:, 0], rtol=1e-12, atol=1e-15)
            if piece == last:
                for s, own_s in zip(members(state), members(own_state), strict=True):
                    np.testing.assert_allclose(s[b], own_s[0], rtol=1e-14, atol=1e-15)
            if piece == first:
                for ds, own_ds in zip(members(grads.state), members(own_grads.state), strict=True):
                    np.testing.assert_allclose(ds[b], own_ds[0] * keeps_initial, rtol=1e-12, atol=1e-15)


@each_cell
def test_reverse_is_the_flipped_sequence(cell):
    function, arrays, keywords = arguments(cell)
    y, state = call(function, arrays, {**keywords, "reverse": True})
    flipped, flipped_state = call(function, {**arrays, "x": arrays["x"][::-1]}, keywords)
    np.testing.assert_array_equal(y, flipped[::-1])
    assert_same_state(state, flipped_state)


@each_cell
def test_batch_first_and_unbatched_are_layouts(cell):
    function, arrays, keywords = arguments(cell)
    y, state, tape = function(**arrays, **keywords, reset=RESET, record=True)
    dy, dstate = cotangents(y, state)
    grads = tape.backward(dy, dstate)

    swapped = {**arrays, "x": arrays["x"].swapaxes(0, 1)}
    y_bf, state_bf, tape = function(**swapped, **keywords, reset=RESET.T, batch_first=True, record=True)
    grads_bf = tape.backward(dy.swapaxes(0, 1), dstate)
    np.testing.assert_array_equal(y_bf, y.swapaxes(0, 1))
    assert_same_state(members(state_bf), members(state))
    np.testing.assert_array_equal(grads_bf.x, grads.x.swapaxes(0, 1))
    np.testing.assert_array_equal(grads_bf.h0, grads.h0)
    np.testing.assert_array_equal(grads_bf.w_hh, grads.w_hh)

    for batch_first in (False, True):
        own = {**arrays, "x": arrays["x"][:, 2], **{s: arrays[s][2] for s in ("h0", "c0") if s in arrays}}
        y_1, state_1, tape = function(
            **own, **keywords, reset=RESET[:, 2], lengths=[T], batch_first=batch_first, record=True
        )
        d = tuple(s[2] for s in members(dstate))
        grads_1 = tape.backward(dy[:, 2], d if isinstance(state, tuple) else d[0])
        np.testing.assert_allclose(y_1, y[:, 2], rtol=1e-14, atol=1e-15)
        for s_1, s in zip(members(state_1), members(state), strict=True):
            np.testing.assert_allclose(s_1, s[2], rtol=1e-14, atol=1e-15)
        np.testing.assert_allclose(grads_1.x, grads.x[:, 2], rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(grads_1.h0, grads.h0[2], rtol=1e-12, atol=1e-15)


@each_way
@each_cell
def test_masked_steps_are_left_out(cell, reverse):
    """Each row is that of its other steps alone; at a masked step the output is 0, or the state there."""
    function, arrays, keywords = arguments(cell, reverse=reverse)
    y, state, tape = function(**arrays, **keywords, mask=MASK, record=True)
    held, held_state = call(function, arrays, {**keywords, "mask": MASK, "masked": "hold"})
    dy, dstate = cotangents(y, state)
    grads = tape.backward(dy, dstate)
    for b in range(B):
        steps = np.flatnonzero(MASK[:, b])
        own_y, own_state, tape = function(**row_alone(arrays, b, steps), **keywords, record=True)
        np.testing.assert_allclose(y[steps, b], own_y[:, 0], rtol=1e-14, atol=1e-15)
        assert not y[~MASK[:, b], b].any() and not grads.x[~MASK[:, b], b].any()
        own_d = tuple(d[b : b + 1] for d in members(dstate))
        own = tape.backward(dy[steps, b : b + 1], own_d if isinstance(state, tuple) else own_d[0])
        np.testing.assert_allclose(grads.x[steps, b], own.x[:, 0], rtol=1e-12, atol=1e-15)
        for s, own_s in zip(members(state), members(own_state), strict=True):
            np.testing.assert_allclose(s[b], own_s[0], rtol=1e-14, atol=1e-15)
        before = arrays["h0"][b]
        for t in reversed(range(T)) if reverse else range(T):
            before = y[t, b] if MASK[t, b] else before
            np.testing.assert_array_equal(held[t, b], before)
    assert_same_state(members(state), held_state)


@each_way
@each_cell
def test_a_reset_at_a_masked_step_cuts(cell, reverse):
    """Behind row 0's last step, or in front of its first; the last has no step at all."""
    function, arrays, keywords = arguments(cell, reverse=reverse, masked="hold")
    mask, reset = np.zeros((T, B), bool), np.zeros((T, B), bool)
    mask[1:3, :2] = True
    reset[1 if reverse else 3, 0] = reset[3 if reverse else 0, 1] = reset[2, 2] = True
    y, state, tape = function(**arrays, **keywords, mask=mask, reset=reset, record=True)
    grads = tape.backward(dstate=cotangents(y, state)[1])
    zero_y, zero_state = call(function, {**arrays, "h0": 0 * arrays["h0"]}, {**keywords, "mask": mask})
    skipped = (3, 0)[:: -1 if reverse else 1]  # the last and the first in the direction of travel
    assert not any(s[0].any() or s[2].any() for s in members(state))
    assert not y[skipped[0], 0].any() and y[skipped[1], 0].any()
    assert not y[skipped[0], 2].any() and y[skipped[1], 2].any()
    assert all(s[1].any() for s in members(state)) and not grads.h0.any()
    if not cell.startswith("lstm"):
        np.testing.assert_array_equal(y[1:3, 1], zero_y[1:3, 1])
        np.testing.assert_array_equal(members(state)[0][1], members(zero_state)[0][1])


@each_way
@each_cell
def test_padding_is_never_read(cell, reverse):
    """NaN in the padding of x, dy and reset's True there change no bit, and the padding's gradient is 0."""
    function, arrays, keywords = arguments(cell, reverse=reverse, lengths=LENGTHS)
    padding = np.arange(T)[:, None] >= LENGTHS
    results = []
    for fill, reset in ((0.0, RESET), (np.nan, RESET | padding)):
        x = np.where(padding[:, :, None], fill, arrays["x"])
        y, state, tape = function(**{**arrays, "x": x}, **keywords, reset=reset, record=True)
        dy, dstate = cotangents(y, state)
        grads = tape.backward(np.where(padding[:, :, None], fill, dy), dstate)
        assert not grads.x[padding].any()
        results.append([y, *members(state), grads.x, *(getattr(grads, name) for name in arrays)])
    for clean, dirty in zip(*results, strict=True):
        np.testing.assert_array_equal(clean, dirty)


@each_cell
def test_nan_stays_in_its_row(cell):
    function, arrays, keywords = arguments(cell)
    clean, clean_state = call(function, arrays, keywords)
    arrays["x"][1, 0, 0] = np.nan
    y, state = call(function, arrays, keywords)
    assert np.isnan(y[1:, 0]).all()
    assert all(np.isnan(s[0]).all() for s in state)
    np.testing.assert_array_equal(y[:1], clean[:1])
    np.testing.assert_array_equal(y[:, 1:], clean[:, 1:])
    assert_same_state([s[1:] for s in state], [s[1:] for s in clean_state])


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 3, 0), (0, 3)])
@each_cell
def test_empty_shapes(cell, shape):
    function, arrays, keywords = arguments(cell, without=("h0", "c0"))
    arrays["x"] = np.ones(shape)
    arrays["w_ih"] = np.ones((len(arrays["w_ih"]), shape[-1]))
    keywords |= {"reset": np.ones(shape[:-1], bool), "reverse": True}
    y, state, tape = function(**arrays, **keywords, record=True)
    grads = tape.backward(np.ones_like(y))
    assert y.shape == (*shape[:-1], width(cell)) and grads.x.shape == shape
    assert [s.shape for s in members(state)] == [(*shape[1:-1], n) for n in (width(cell), H)[: len(members(state))]]
    if 0 in shape[:-1]:
        assert not grads.w_hh.any()


# --- dtypes, tapes, errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble", "complex64", "complex128"])
@each_cell
def test_dtype_is_kept(cell, dtype):
    arrays, y, state, grads = gradients(cell, dtype=dtype, lengths=LENGTHS, reset=RESET)
    for a in (y, *members(state), *(getattr(grads, name) for name in arrays)):
        assert a.dtype == np.dtype(dtype)
    wide = np.clongdouble if np.dtype(dtype).kind == "c" else np.longdouble
    function, _, keywords = arguments(cell, dtype)
    exact_y, exact_state, tape = function(
        **{name: a.astype(wide) for name, a in arrays.items()},
        **keywords,
        lengths=LENGTHS,
        reset=RESET,
        record=True,
    )
    exact = tape.backward(*cotangents(exact_y, exact_state))
    tolerance = 40 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(y, exact_y, rtol=tolerance, atol=tolerance)
    for name in arrays:
        scale = float(np.abs(getattr(exact, name)).max())
        np.testing.assert_allclose(getattr(grads, name), getattr(exact, name), rtol=0, atol=tolerance * scale)


def test_dtype_is_the_result_dtype():
    _, arrays, _ = arguments("lstm", np.float32)
    y, (h_n, c_n), _ = reference.lstm(**{**arrays, "b_ih": arrays["b_ih"].astype(np.float64)})
    assert y.dtype == h_n.dtype == c_n.dtype == np.float64


@each_cell
def test_inputs_are_not_modified_nor_kept(cell):
    """Read-only arguments are fine, and a change after the forward call does not reach the tape."""
    _, _, _, expected = gradients(cell)
    function, arrays, keywords = arguments(cell)
    for a in arrays.values():
        a.flags.writeable = False
    y, state, tape = function(**arrays, **keywords, record=True)
    dy, dstate = cotangents(y, state)
    for a in (*arrays.values(), y, *members(state)):
        a.flags.writeable = True
        a[...] = np.nan
    grads = tape.backward(dy, dstate)
    for name in arrays:
        np.testing.assert_array_equal(getattr(grads, name), getattr(expected, name))


def test_a_tape_is_used_once():
    function, arrays, keywords = arguments("gru-after")
    y, h_n, tape = function(**arrays, **keywords, record=True)
    with pytest.raises(ValueError, match="one or more of dy, dstate"):
        tape.backward()
    with pytest.raises(ValueError, match=r"dy: expected \(T, B, H\) = \(4, 3, 2\), got \(4, 3, 1\)"):
        tape.backward(y[:, :, :1])
    tape.backward(y, h_n)  # what was refused did not use it up
    with pytest.raises(RuntimeError, match="used"):
        tape.backward(y, h_n)


BAD = {
    "x ndim": ("x", np.ones(3), ValueError, r"x: expected \(T, B, I\) or unbatched \(T, I\), got \(3,\)"),
    "x dtype": ("x", np.ones((T, B, I), int), TypeError, "x: expected a float or complex dtype, got int64"),
    "w_ih gates": ("w_ih", np.ones((7, I)), ValueError, r"w_ih: expected \(4\*H, I\) .* got \(7, 2\)"),
    "w_ih inputs": (
        "w_ih",
        np.ones((8, 3)),
        ValueError,
        r"w_ih: expected \(4\*H, I\) .* I = 2, got \(8, 3\)",
    ),
    "w_ih empty": ("w_ih", np.ones((0, I)), ValueError, "w_ih: expected .* H >= 1"),
    "w_hh": ("w_hh", np.ones((8, 3)), ValueError, r"w_hh: expected \(4\*H, H\) = \(8, 2\), got \(8, 3\)"),
    "b_ih": ("b_ih", np.ones((2, 8)), ValueError, r"b_ih: expected \(4\*H,\) = \(8,\), got \(2, 8\)"),
    "b_hh": ("b_hh", np.ones(6), ValueError, r"b_hh: expected \(4\*H,\) = \(8,\), got \(6,\)"),
    "h0": ("h0", np.ones((1, B, H)), ValueError, r"h0: expected \(B, H\) = \(3, 2\), got \(1, 3, 2\)"),
    "c0": ("c0", np.ones(H), ValueError, r"c0: expected \(B, H\) = \(3, 2\), got \(2,\)"),
    "peephole": ("peephole", np.ones((4, H)), ValueError, r"peephole: expected \(3, H\) = \(3, 2\)"),
    "lengths shape": ("lengths", [1, 2], ValueError, r"lengths: expected \(B,\) = \(3,\), got \(2,\)"),
    "lengths range": ("lengths", [1, 5, 2], ValueError, "lengths: expected 0 <= n <= T = 4, got 1 to 5"),
    "lengths negative": ("lengths", [1, -1, 2], ValueError, "lengths: expected 0 <= n"),
    "lengths dtype": ("lengths", [1.0, 2.0, 3.0], TypeError, "lengths: expected integers, got float64"),
    "reset shape": ("reset", RESET.T, ValueError, r"reset: expected \(T, B\) = \(4, 3\), got \(3, 4\)"),
    "w_hr": ("w_hr", np.ones((2, H)), ValueError, r"w_hr: expected \(P, H\) with 1 <= P < H = 2, got \(2, 2\)"),
    "w_hr without w_hh": ("w_hr", np.ones((1, H)), ValueError, r"w_hh: expected \(4\*H, P\) = \(8, 1\), got \(8, 2\)"),
    "mask shape": ("mask", RESET.T, ValueError, r"mask: expected \(T, B\) = \(4, 3\), got \(3, 4\)"),
    "mask dtype": ("mask", RESET.astype(int), TypeError, "mask: expected bool, got int64"),
    "masked": ("masked", "keep", ValueError, "masked: expected 'zero' or 'hold', got 'keep'"),
    "reset dtype": ("reset", RESET.astype(int), TypeError, "reset: expected bool, got int64"),
}


@pytest.mark.parametrize("case", BAD)
def test_errors_name_the_argument(case):
    name, value, error, message = BAD[case]
    function, arrays, _ = arguments("lstm-peephole")
    with pytest.raises(error, match=message):
        function(**{**arrays, name: value})


def test_errors_of_backward_and_nonlinearity():
    one = np.ones((1, 1))
    with pytest.raises(ValueError, match=r"nonlinearity: expected one of tanh, sigmoid, relu, .*, got 'sine'"):
        reference.rnn(one, one, one, nonlinearity="sine")
    with pytest.raises(ValueError, match="nonlinearity: expected at most 1 parameters of 'elu', got "):
        reference.rnn(one, one, one, nonlinearity=("elu", 1.0, 2.0))
    function, arrays, _ = arguments("lstm")
    y, (h_n, _), tape = function(**arrays, record=True)
    with pytest.raises(ValueError, match=r"dstate: expected a pair \(dh_n, dc_n\), got ndarray"):
        tape.backward(dstate=h_n)
    with pytest.raises(ValueError, match=r"dstate\[1\]: expected \(B, H\) = \(3, 2\), got \(3,\)"):
        tape.backward(dstate=(None, np.ones(3)))
    with pytest.raises(TypeError, match="dy: expected float64 or what casts to it, got complex128"):
        tape.backward(y + 0j)


def test_imports_only_numpy():
    """Run from its file in a fresh interpreter, it brings in nothing but the standard library and NumPy."""
    code = (
        "import sys, runpy, numpy; before = set(sys.modules); runpy.run_path(sys.argv[1]); "  # before: what NumPy itself brings in
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "assert not new - sys.stdlib_module_names - {'numpy'}, new"
    )
    subprocess.run([sys.executable, "-c", code, reference.__file__], check=True)


# --- gradients through c, and truncated ones ----------------------------------------------------------------


@pytest.mark.parametrize("variant", ["plain", "all-reverse", "hold-reset", "unbatched-all"])
@pytest.mark.parametrize("cell", ["lstm", "lstm-peephole", "lstm-projected"])
def test_gradients_through_c(cell, variant):
    """A gradient of the cell states by complex steps, alone and together with the others."""
    function, arrays, keywords = arguments(cell, **VARIANTS[variant])
    y, state, tape = function(**arrays, **keywords, record=True)
    dc = np.random.default_rng(2).standard_normal(tape.c.shape)
    assert tape.c.shape == (*y.shape[:-1], H)
    grads = tape.backward(dc=dc)
    arrays = {key: a.astype(np.complex128) for key, a in arrays.items()}
    for name in ("x", "w_ih", "w_hh", "h0", "c0"):
        a, numeric = arrays[name], np.empty(arrays[name].shape)
        for index in np.ndindex(a.shape):
            saved = a[index]
            a[index] = saved + 1e-30j
            numeric[index] = (function(**arrays, **keywords, record=True)[2].c * dc).sum().imag / 1e-30
            a[index] = saved
        np.testing.assert_allclose(getattr(grads, name), numeric, rtol=1e-12, atol=1e-13, err_msg=name)
    dy, dstate = cotangents(y, state)
    parts = [function(**arrays, **keywords, record=True)[2].backward(*d) for d in ((dy, dstate), (None, None, dc))]
    both = function(**arrays, **keywords, record=True)[2].backward(dy, dstate, dc)
    np.testing.assert_allclose(both.w_hh, parts[0].w_hh + parts[1].w_hh, rtol=1e-12, atol=1e-14)


@each_way
@each_cell
def test_truncated_is_chunks_with_the_state_carried_over(cell, reverse):
    function, arrays, keywords = arguments(cell, reverse=reverse)
    y, state, tape = function(**arrays, **keywords, record=True)
    dy, dstate = cotangents(y, state)
    grads = tape.backward(dy, dstate, truncate=3)
    weights = {name: 0 for name in arrays if name not in ("x", "h0", "c0")}
    chunks = [slice(1, 4), slice(0, 1)] if reverse else [slice(0, 3), slice(3, 4)]
    for i, chunk in enumerate(chunks):
        own_y, own_state, tape = function(**{**arrays, "x": arrays["x"][chunk]}, **keywords, record=True)
        np.testing.assert_allclose(own_y, y[chunk], rtol=1e-14)
        own = tape.backward(dy[chunk], dstate if i == 1 else None)
        np.testing.assert_allclose(grads.x[chunk], own.x, rtol=1e-12, atol=1e-15)
        weights = {name: dw + getattr(own, name) for name, dw in weights.items()}
        if i == 0:
            np.testing.assert_allclose(grads.h0, own.h0, rtol=1e-12, atol=1e-15)
        arrays = {**arrays, **dict(zip(("h0", "c0"), members(own_state)))}
    for name, dw in weights.items():
        np.testing.assert_allclose(getattr(grads, name), dw, rtol=1e-12, atol=1e-14)


# What ONNX's text says of each activation, number by number; parameters in place of the defaults.
EQUATIONS = {
    "tanh": ((), math.tanh),
    "sigmoid": ((), lambda a: 1 / (1 + math.exp(-a))),
    "relu": ((), lambda a: max(a, 0)),
    "leaky_relu": ((0.3,), lambda a: a if a >= 0 else 0.3 * a),
    "thresholded_relu": ((0.4,), lambda a: a if a >= 0.4 else 0),
    "affine": ((0.5, -0.2), lambda a: 0.5 * a - 0.2),
    "linear": ((), lambda a: a),
    "scaled_tanh": ((1.5, 0.7), lambda a: 1.5 * math.tanh(0.7 * a)),
    "hard_sigmoid": ((0.3, 0.4), lambda a: max(0, min(1, 0.3 * a + 0.4))),
    "elu": ((0.7,), lambda a: a if a >= 0 else 0.7 * (math.exp(a) - 1)),
    "softsign": ((), lambda a: a / (1 + abs(a))),
    "softplus": ((), lambda a: math.log(1 + math.exp(a))),
}


@pytest.mark.parametrize("name", reference.ACTIVATIONS)
def test_activations(name):
    parameters, equation = EQUATIONS[name]
    f = reference.Function("f", (name, *parameters))
    a = np.concatenate([np.linspace(-6, 6, 241) + 0.01234, [-30.0, 30.0]])
    values = f.value(a)
    np.testing.assert_allclose(values, [equation(one) for one in a.tolist()], rtol=1e-12, atol=1e-13)
    step = 1e-30  # complex steps; away from the corners
    np.testing.assert_allclose(f.slope(a, values), f.value(a + 1j * step).imag / step, rtol=1e-12, atol=1e-13)
    for dtype in (np.float16, np.float32, np.longdouble, np.complex64, np.clongdouble):
        few = a[:241:16].astype(dtype)
        assert f.value(few).dtype == f.slope(few, f.value(few)).dtype == dtype
        with np.errstate(invalid="ignore"):
            assert np.isnan(f.value(np.full(1, np.nan, dtype))).all()
    ends = f.value(np.array([-np.inf, np.inf]))
    assert not np.isnan(ends).any()


def test_activations_have_the_defaults_of_onnx():
    a = np.linspace(-3, 3, 61)
    for name, parameters in {"leaky_relu": (0.01,), "thresholded_relu": (1.0,), "hard_sigmoid": (0.2, 0.5), "elu": (1.0,)}.items():
        np.testing.assert_array_equal(reference.Function("f", name).value(a), reference.Function("f", (name, *parameters)).value(a))
        first = (name, *parameters[:1])
        np.testing.assert_array_equal(reference.Function("f", first).value(a), reference.Function("f", name).value(a))
