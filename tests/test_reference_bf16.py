"""precision="bf16" of the oracle: its rounding and its sums against exact fractions, its results against float64."""

import math
from fractions import Fraction

import numpy as np
import pytest

from cases import CELLS, COMBINED, Case, call, problem, results
from fastrnn import reference

F = np.float32


def bits(a):
    return np.asarray(a, F).view(np.uint32)


def assert_same_bits(a, b):
    """Signs of zeros included; any NaN is as good as any other."""
    a, b = np.broadcast_arrays(np.asarray(a, F), np.asarray(b, F))
    np.testing.assert_array_equal(np.where(np.isnan(a), 0x7FC00000, bits(a)), np.where(np.isnan(b), 0x7FC00000, bits(b)))


# --- rounding -----------------------------------------------------------------------------------------------

LARGEST = 0x7F7F0000  # of bfloat16
ROUNDED = {  # bits of a float32: those of its bfloat16
    "one": (0x3F800000, 0x3F800000),
    "below half": (0x3F807FFF, 0x3F800000),
    "tie to even below": (0x3F808000, 0x3F800000),
    "above half": (0x3F808001, 0x3F810000),
    "tie to even above": (0x3F818000, 0x3F820000),
    "into the next power of two": (0x3FFF8000, 0x40000000),
    "negative tie": (0xBF808000, 0xBF800000),
    "negative": (0xBF818000, 0xBF820000),
    "largest": (0x7F7F7FFF, LARGEST),
    "overflow": (0x7F7F8000, 0x7F800000),
    "largest float32": (0xFF7FFFFF, 0xFF800000),
    "inf": (0x7F800000, 0x7F800000),
    "-inf": (0xFF800000, 0xFF800000),
    "NaN": (0x7FC00000, 0x7FC00000),
    "signalling NaN": (0x7F800001, 0x7FC00000),
    "negative NaN, all bits": (0xFFFFFFFF, 0xFFFF0000),
    "zero": (0x00000000, 0x00000000),
    "-0": (0x80000000, 0x80000000),
    "least": (0x00000001, 0x00000000),
    "largest denormal": (0x007FFFFF, 0x00000000),
    "negative denormal": (0x807FFFFF, 0x80000000),
    "least normal": (0x00800000, 0x00800000),
    "normal tie": (0x00808000, 0x00800000),
}


@pytest.mark.parametrize("name", ROUNDED)
def test_rounding(name):
    before, after = ROUNDED[name]
    x = np.array([before], np.uint32).view(F)
    assert hex(reference.round_bf16(x).view(np.uint32)[0]) == hex(after)
    assert bits(reference.round_bf16(x[0])) == bits(reference.round_bf16(x))[0]


def test_rounding_is_to_the_nearest():
    """Of random bits, and all of them stay as they are when rounded again."""
    x = np.random.default_rng(0).integers(0, 2**32, 20000, np.uint32).view(F)
    x = x[np.isfinite(x) & (np.abs(x) >= np.finfo(F).tiny)]
    r = reference.round_bf16(x)
    np.testing.assert_array_equal(bits(r) & 0xFFFF, 0)
    assert_same_bits(reference.round_bf16(r), r)
    inside = np.isfinite(r)
    ulp = 2.0 ** (np.frexp(x[inside].astype(float))[1] - 8)
    assert np.all(np.abs(r[inside].astype(float) - x[inside]) <= ulp / 2)
    np.testing.assert_array_equal(np.signbit(r), np.signbit(x))


def test_rounding_keeps_shapes_and_takes_float32_alone():
    x = np.ones((4, 3, 2), F)
    assert reference.round_bf16(x[::2, :, 1].T).shape == (3, 2)
    assert reference.round_bf16(x[:0]).shape == (0, 3, 2) and reference.round_bf16(F(1)).shape == ()
    for bad in (1.0, [1, 2], np.ones(2, np.float16)):
        with pytest.raises(TypeError, match="x: expected float32, got "):
            reference.round_bf16(bad)


# --- sums, once more, number by number in exact fractions ---------------------------------------------------


def to_float32(q):
    """A fraction to 24 bits, ties to even: an infinity past the largest float32, a zero below the least normal one."""
    if q == 0:
        return 0.0
    size = abs(q)
    e = size.numerator.bit_length() - size.denominator.bit_length()
    e -= size < Fraction(2) ** e
    unit = Fraction(2) ** (e - 23)
    size = round(size / unit) * unit  # ties to even
    size = 0.0 if size < Fraction(2) ** -126 else math.inf if size >= Fraction(2) ** 128 else float(size)
    return math.copysign(size, q)


def fma(a, b, c):
    if a == 0 or b == 0 or not all(map(math.isfinite, (a, b, c))):
        return a * b + c
    return to_float32(Fraction(a) * Fraction(b) + Fraction(c))


def add(a, b):
    return fma(a, 1.0, b)


def flushed(a):
    return math.copysign(0.0, a) if abs(a) < 2.0**-126 else a


def rounded(v):
    return reference.round_bf16(np.asarray(v, F)).tolist()


def element(start, *pairs):
    """One element: start, and for each pair of vectors of K numbers its blocks."""
    s = flushed(float(start))
    for a, b in pairs:
        a, b = rounded(a), rounded(b)
        a, b = (v + [0.0] * (-len(v) % 32) for v in (a, b))
        for k in range(0, len(a), 32):
            even = odd = 0.0
            for j in range(k, k + 32, 2):
                even, odd = fma(a[j], b[j], even), fma(a[j + 1], b[j + 1], odd)
            s = add(s, add(even, odd))
    return F(s)


def matrix(start, *pairs):
    """start + a @ b for pairs (a, b), element by element."""
    M, N = len(pairs[0][0]), pairs[0][1].shape[1]
    start = np.broadcast_to(np.asarray(start, F), (M, N))
    return np.array([[element(start[i, j], *((a[i], b[:, j]) for a, b in pairs)) for j in range(N)] for i in range(M)], F)


def numbers(kind, rng, shape):
    """float32 of a kind: ordinary, of any exponent, with products about to underflow or overflow, with what is not finite."""
    low, high = {"ordinary": (-2, 1), "any": (-140, 127), "tiny": (-66, -61), "huge": (60, 64), "not finite": (-2, 1)}[kind]
    a = np.ldexp(rng.uniform(1, 2, shape), rng.integers(low, high, shape)) * rng.choice([-1, 1], shape)
    if kind == "not finite":
        a = np.where(rng.random(shape) < 0.02, rng.choice([np.inf, -np.inf, np.nan], shape), a)
    return np.where(rng.random(shape) < 0.05, rng.choice([0.0, -0.0, 1e-40, -1e-40], shape), a).astype(F)


@pytest.mark.parametrize("kind", ["ordinary", "any", "tiny", "huge", "not finite"])
@pytest.mark.parametrize("Ks", [(1,), (33,), (64, 7), (0, 2)], ids=str)
def test_sums_are_those_of_the_definition(kind, Ks):
    rng = np.random.default_rng(len(kind) + sum(Ks))
    pairs = [(numbers(kind, rng, (6, K)), numbers(kind, rng, (K, 5))) for K in Ks]
    start = numbers(kind if kind in ("ordinary", "any") else "tiny", rng, (6, 5))
    start[0] = 0
    assert_same_bits(reference._bf16_product(start, pairs), matrix(start, *pairs))


FMA = {  # a b + c, in units that show how it is rounded
    "tie to even": (1, 2.0**-24, 1, 1),
    "above the tie": (1 + 2.0**-7, 2.0**-24, 1, 1 + 2.0**-23),
    "far below a tie's other side": (1, -(2.0**-60), 1 + 2.0**-23, 1 + 2.0**-23),
    "below a power of two": (1, -(2.0**-26), 1, 1),
    "cancelled": (3, 3, -9, 0.0),
    "not rounded before the sum": (1 + 2.0**-7, 1 + 2.0**-7, -(1 + 2.0**-6), 2.0**-14),
    "overflow": (2.0**64, 2.0**64, 0, math.inf),
    "overflow that comes back": (2.0**64, 2.0**63, -(2.0**127), 0.0),
    "underflow": (2.0**-64, -(2.0**-63), 0, -0.0),
    "just not": (2.0**-63, 2.0**-63, 0, 2.0**-126),
    "rounded up to normal": (2.0**-75, -(2.0**-76), 2.0**-126, 2.0**-126),
    "less than normal as 24 bits": (2.0**-75, -(2.0**-76) * 1.5, 2.0**-126, 0.0),
}


@pytest.mark.parametrize("name", FMA)
def test_a_multiply_add_is_rounded_once(name):
    a, b, c, expected = map(float, FMA[name])
    assert_same_bits(fma(a, b, c), expected)
    with np.errstate(over="ignore"):
        assert_same_bits(reference._fma(*(np.array([v]) for v in (a, b, c))), [expected])


def test_even_and_odd_that_leave_a_denormal_leave_nothing():
    a, b = np.array([[1.5, -1]], F), np.full((2, 1), 2.0**-63, F)
    start = F(2.0**-126 * (1 + 2.0**-23))
    assert reference._bf16_product(start, [(a * F(2.0**-63), b)]) == start


def test_a_sum_has_its_own_order():
    """Hand-made: the terms are 1, 2^-24 .. in one chain or in two, and in one block or in two."""
    small, ones = F(2.0**-24), np.ones((1, 33), F)
    terms = np.zeros((33, 1), F)
    terms[[0, 2]] = [[1], [small]]  # both even: 1 + 2^-24 is 1
    assert reference._bf16_product(0, [(ones, terms)]) == 1
    terms[4] = small  # and again
    assert reference._bf16_product(0, [(ones, terms)]) == 1
    terms[[2, 4]], terms[[1, 3]] = 0, small  # both odd: together they count
    assert reference._bf16_product(0, [(ones, terms)]) == 1 + 2.0**-23
    terms[3], terms[32] = 0, small  # in blocks of their own
    assert reference._bf16_product(0, [(ones, terms)]) == 1
    assert reference._bf16_product(small, [(ones, terms)]) == 1  # the start comes first
    assert reference._bf16_product(0, [(ones[:, :1], terms[1:2]), (ones[:, :1], terms[3:4] + small)]) == 2.0**-23


# --- which sums ---------------------------------------------------------------------------------------------


RELU = [(3, 50, {"lengths": True}), (2, 3, {"reverse": True}), (5, 30, {"reset": True, "lengths": True})]


@pytest.mark.parametrize("B, T, options", RELU, ids=["lengths", "reverse", "reset"])
def test_relu_network_to_the_bit(B, T, options):
    """All of an RNN of ReLUs, whose pointwise part rounds nothing, from the definition: the order of items too."""
    p = problem(Case("relu", T, B, I=2, H=2, **options), F)
    a, keywords = p.arrays, p.keywords
    for scaled in (a["x"], p.dy):  # of many magnitudes, or most sums would be exact and have no order
        scaled *= F(2) ** np.random.default_rng(T).integers(-9, 10, scaled.shape)
    a["b_ih"] += 2
    found = results(reference, p, precision="bf16")
    lengths = keywords.get("lengths", np.full(B, T))
    reset = keywords.get("reset", np.zeros((T, B), bool))
    start = a["b_ih"] + a["b_hh"]
    y, dx, dh0 = np.zeros((T, B, 2), F), np.zeros((T, B, 2), F), np.zeros((B, 2), F)
    items = []  # (step, row, da, x, h before)
    for row in range(B):
        times = range(lengths[row])[:: -1 if "reverse" in keywords else 1]
        h, before = a["h0"][row], []
        for t in times:
            h = 0 * h if reset[t, row] else h
            before.append(h)
            sums = matrix(start, (a["x"][t, row][None], a["w_ih"].T), (h[None], a["w_hh"].T))[0]
            h = y[t, row] = np.where(sums <= 0, 0, sums)
        assert_same_bits(found["h_n"][row], h)
        carried, da = p.dstate[row], None
        for step, t in reversed(list(enumerate(times))):
            dh = carried + p.dy[t, row]
            dh = dh if da is None else matrix(dh, (da[None], a["w_hh"]))[0]
            da = np.where(y[t, row] <= 0, 0, dh).astype(F)
            items.append((step, row, da, a["x"][t, row], before[step]))
            dx[t, row] = matrix(0, (da[None], a["w_ih"]))[0]
            carried, da = 0 * carried, None if reset[t, row] else da
        dh0[row] = carried if da is None else matrix(carried, (da[None], a["w_hh"]))[0]
    group = -(-128 // B)
    items.sort(key=lambda item: (-item[0], -lengths[item[1]], item[1]))
    groups = [[item for item in items if item[0] // group == s] for s in range(T // group, -1, -1)]
    expected = {"y": y, "dx": dx, "dh0": dh0}
    for name, at in (("dw_ih", 3), ("dw_hh", 4)):
        pairs = [(np.array([i[2] for i in g]).T, np.array([i[at] for i in g])) for g in groups if g]
        expected[name] = matrix(np.zeros((2, 2), F), *pairs)
    assert len(groups) == (1 if T == 3 else 2)
    for name, value in expected.items():
        assert_same_bits(found[name] + F(0), value + F(0))


def sigmoid(sums):
    return reference._sigmoid(np.asarray(sums, F))


@pytest.mark.parametrize("cell", ["lstm", "lstm-projected", "gru-after", "gru-before"])
def test_one_step_of_gates_to_the_bit(cell):
    """Of one row, whose gradients of biases are the da: gates lie in their order, over one block after the other."""
    p = problem(Case(cell, T=1, B=1, I=35, H=11, without=("c0",) if "lstm" in cell else ()), F)
    a, H, found = p.arrays, 11, results(reference, p, precision="bf16")
    x, h, w_ih, w_hh = a["x"][0], a["h0"], a["w_ih"], a["w_hh"]
    sums = matrix(a["b_ih"] + a["b_hh"], (x, w_ih.T), (h, w_hh.T))
    da_x, da_h, dh = found["db_ih"][None], found["db_hh"][None], p.dy[0] + (p.dstate[0] if "lstm" in cell else p.dstate)
    assert_same_bits(found["dx"][0], matrix(0, (da_x, w_ih)))
    assert_same_bits(found["dw_ih"], matrix(0, (da_x.T, x)))
    if "lstm" in cell:
        i, g, o = sigmoid(sums[:, :H]), np.tanh(sums[:, 2 * H : 3 * H]), sigmoid(sums[:, 3 * H :])
        c = i * g
        m = o * np.tanh(c)
        assert_same_bits(found["c_n"], c)
        assert_same_bits(found["y"][0], m if "w_hr" not in a else matrix(0, (m, a["w_hr"].T)))
        assert_same_bits(found["dh0"], matrix(0, (da_h, w_hh)))
        assert_same_bits(found["dw_hh"], matrix(0, (da_h.T, h)))
        if "w_hr" in a:
            dm = matrix(0, (dh, a["w_hr"]))
            assert_same_bits(found["dw_hr"], matrix(0, (dh.T, m)))
            assert_same_bits(found["db_ih"][3 * H :], (dm * np.tanh(c) * (o * (1 - o)))[0])
        return
    r, z = np.split(sigmoid(sums[:, : 2 * H]), 2, axis=1)
    n = slice(2 * H, 3 * H)
    if cell == "gru-after":
        parts = matrix(a["b_ih"][n], (x, w_ih[n].T)), matrix(a["b_hh"][n], (h, w_hh[n].T))
        new = np.tanh(parts[0] + r * parts[1])
        order = [*range(2 * H, 3 * H), *range(2 * H)]  # n, r, z
        assert_same_bits(found["dh0"], matrix(dh * z, (da_h[:, order], w_hh[order])))
        assert_same_bits(found["dw_hh"], matrix(0, (da_h.T, h)))
    else:
        new = np.tanh(matrix(a["b_ih"][n] + a["b_hh"][n], (x, w_ih[n].T), (r * h, w_hh[n].T)))
        drh = matrix(0, (da_h[:, n], w_hh[n]))
        assert_same_bits(found["dh0"], matrix(dh * z + drh * r, (da_h[:, : 2 * H], w_hh[: 2 * H])))
        operand = [h] * 2 + [r * h]
        assert_same_bits(found["dw_hh"], np.concatenate([matrix(0, (d.T, v)) for d, v in zip(np.split(da_h, 3, axis=1), operand)]))
    assert_same_bits(found["y"][0], (1 - z) * new + z * h)


@pytest.mark.parametrize("cell", CELLS)
def test_a_row_is_a_row(cell):
    """Its outputs are the same bits alone and among others, one of which is not finite."""
    p = problem(Case(cell, T=4, B=5, I=35, H=9, lengths=True, reset=True), F)
    p.arrays["x"][:, 1] = np.nan
    y, state, _ = call(reference, cell, p.arrays, **p.keywords, precision="bf16")
    for b in range(5):
        of_row = {name: a[b : b + 1] if name in ("h0", "c0") else a for name, a in p.arrays.items()}
        of_row["x"] = p.arrays["x"][:, b : b + 1]
        keywords = {"lengths": p.keywords["lengths"][b : b + 1], "reset": p.keywords["reset"][:, b : b + 1]}
        y_alone, state_alone, _ = call(reference, cell, of_row, **keywords, precision="bf16")
        assert_same_bits(y_alone[:, 0], y[:, b])
        pairs = zip(state_alone, state) if isinstance(state, tuple) else [(state_alone, state)]
        assert all(np.array_equal(alone[0], among[b], equal_nan=True) for alone, among in pairs)


# --- beside float64 -----------------------------------------------------------------------------------------

OPTIONS = {
    "plain": {},
    "reverse": {"reverse": True},
    "lengths": {"lengths": True, "reset": True, "B": 9},
    "mask": {"mask": True, "hold": True, "lengths": True, "reset": True, "reverse": True, "batch_first": True, "B": 5},
    "truncated": {"truncate": 3, "reset": True, "B": 5},
    "long": {"T": 40, "B": 4, "lengths": True},
    "without": {"without": ("b_ih", "b_hh", "h0", "c0"), "I": 0, "B": 2},
    "unbatched": {"unbatched": True, "B": 1},
}


KINKED = ("elu", "lstm-activated", "lstm-peephole-projected-activated", "gru-after-activated")


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("cell", CELLS | COMBINED)
def test_errors_are_those_of_bfloat16(cell, options):
    """Within 4 roundings of a bfloat16 (2^-9) of all that comes out, as vectors. Those of ReLUs are not near a kink; of other
    activations with kinks, where a slope jumps, what comes out of forward."""
    p = problem(Case(cell, **{"T": 8, "I": 37, "H": 34, **OPTIONS[options]}), F)
    if cell == "relu":
        p.arrays.update({name: np.abs(a) / (1 if name == "x" else 8) for name, a in p.arrays.items()})
    exact = results(reference, p.astype(np.float64))
    for name, a in results(reference, p, precision="bf16").items():
        assert a.dtype == np.float32 and a.shape == exact[name].shape
        if cell in KINKED and name not in ("y", "h_n", "c_n"):
            continue
        assert np.linalg.norm(a - exact[name]) <= 4 * 2.0**-9 * np.linalg.norm(exact[name]), name


@pytest.mark.parametrize("cell", CELLS)
def test_the_products_alone_are_rounded(cell):
    """With no inputs and weights that are zero nothing is rounded: the same numbers as in float32."""
    p = problem(Case(cell, I=0), F)
    for name in {"w_ih", "w_hh", "w_hr"} & p.arrays.keys():
        p.arrays[name][...] = 0
    exact, found = results(reference, p), results(reference, p, precision="bf16")
    for name in exact.keys() - {"dw_hh", "dw_hr"}:
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-6, atol=1e-7, err_msg=name)


def test_empty_shapes():
    for shape in ((0, 2, 3), (2, 0, 3), (0, 3)):
        y, _, tape = reference.gru(np.ones(shape, F), np.ones((6, 3), F), np.ones((6, 2), F), record=True, precision="bf16")
        grads = tape.backward(np.ones_like(y))
        assert grads.x.shape == shape and grads.x.dtype == F and not grads.w_hh.any()


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_what_is_refused(name):
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[name]
    function, x, w = getattr(reference, name), np.ones((1, 1), F), np.ones((gates, 1), F)
    for dtype in (np.float16, np.float64, np.complex64):
        for args in ((x.astype(dtype), w.astype(dtype), w.astype(dtype)), (x, w, w.astype(dtype))):
            got = np.result_type(dtype, *(a.dtype for a in args))
            if got == np.float32:
                continue
            with pytest.raises(TypeError, match=rf"precision: 'bf16' rounds .* it is for float32; got {np.dtype(got)}$"):
                function(*args, precision="bf16")
            function(*args, precision="float32")
    for bad in ("bfloat16", "float64", None):
        with pytest.raises(ValueError, match=f"precision: expected 'float32' or 'bf16', got {bad!r}"):
            function(x, w, w, precision=bad)
