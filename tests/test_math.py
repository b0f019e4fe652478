"""exp, tanh and sigmoid of the kernels: at most 2 ulp, odd, monotone, bounded, for every instruction set.

The C self-test, run by the last test here, tries far more inputs (all of float32 with "full").
"""

import os
import platform
import shlex
import shutil
import subprocess

import mpmath
import numpy as np
import pytest

import fastrnn
from building import ISA_FLAGS, ROOT
from fastrnn import _core

FUNCTIONS = ["exp", "tanh", "sigmoid"]
BOUNDS = {"exp": (0, np.inf), "tanh": (-1, 1), "sigmoid": (0, 1)}
LIMIT = 2  # ulp
BITS = {np.float32: np.uint32, np.float64: np.uint64}

every_isa = pytest.mark.parametrize("isa", fastrnn.available_isas())
every_function = pytest.mark.parametrize("name", FUNCTIONS)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


# --- inputs -------------------------------------------------------------------------------------------------


def stratified(dtype, mantissas):
    """Sorted values of both signs: random mantissas in every binade, the powers of two, and zeros."""
    rng = np.random.default_rng(7)
    info = np.finfo(dtype)
    exponents = np.arange(2 ** (info.bits - info.nmant - 1) - 1, dtype=BITS[dtype])[:, None]
    drawn = rng.integers(0, 2**info.nmant, (len(exponents), mantissas), dtype=BITS[dtype])
    drawn[:, 0] = 0
    positive = np.sort((exponents << BITS[dtype](info.nmant) | drawn).view(dtype).ravel())
    return np.concatenate([-positive[::-1], positive])


def runs_at_joints(dtype, length=64):
    """Rows of consecutive numbers, ascending, across the places where the formulas change: multiples of
    ln2/4, and the change in tanh from the polynomial to the exponential, anywhere from 0.5 to 0.7."""
    joints = np.concatenate([np.arange(1, 600) * (np.log(2) / 4), np.linspace(0.5, 0.7, 41)]).astype(dtype)
    steps = np.arange(-length // 2, length // 2).astype(BITS[dtype])  # wraps around, as the sum does
    positive = (joints.view(BITS[dtype])[:, None] + steps).view(dtype)
    return np.concatenate([positive, -positive[:, ::-1]])


def sample64():
    """A few thousand float64 that cover what the functions do: mpmath is slow."""
    rng = np.random.default_rng(8)
    sizes = np.exp2(rng.uniform(-40, 9.4, 1500))
    close = rng.uniform(-1, 1, 500)
    return np.concatenate([sizes, -sizes, close, runs_at_joints(np.float64, 2).ravel()])


# --- how far off --------------------------------------------------------------------------------------------


def ulps_off32(y, want):
    """Distance of float32 y from float64 `want` in ulps of `want`; infinity counts as 2^128. Below the normal
    range everything in it is right."""
    y, want = np.minimum(y.astype(np.float64), 2.0**128), np.minimum(want, 2.0**128)
    exponent = np.frexp(want)[1]
    ulp = np.where(np.abs(want) < np.finfo(np.float32).tiny, 2.0**-126, np.ldexp(1.0, exponent - 24))
    return np.abs(y - want) / ulp


def ulps_off64(y, want):
    """The same for a float64 and an mpmath number."""
    y, want = min(mpmath.mpf(y), mpmath.mpf(2) ** 1024), min(want, mpmath.mpf(2) ** 1024)
    if abs(want) < mpmath.mpf(2) ** -1022:
        return float(abs(y - want) * mpmath.mpf(2) ** 1022)
    return float(abs(y - want) / mpmath.mpf(2) ** (mpmath.frexp(want)[1] - 53))


def expected32(name, x):
    x = x.astype(np.float64)
    if name == "tanh":
        return np.tanh(x)
    return np.exp(x) if name == "exp" else 1 / (1 + np.exp(-x))


def expected64(name, x):
    x = mpmath.mpf(x)
    if name == "tanh":
        return mpmath.tanh(x)
    return mpmath.exp(x) if name == "exp" else 1 / (1 + mpmath.exp(-x))


# --- tests --------------------------------------------------------------------------------------------------


@every_isa
@every_function
def test_float32_within_2_ulp(name, isa):
    x = np.concatenate([stratified(np.float32, 64), runs_at_joints(np.float32).ravel()])
    with np.errstate(over="ignore", under="ignore"):
        off = ulps_off32(_core.vmath(name, x, isa), expected32(name, x))
    worst = np.argmax(off)
    assert off[worst] <= LIMIT, f"{off[worst]} ulp at {float(x[worst]).hex()}"


@every_function
def test_float64_within_2_ulp(name):
    x = sample64()
    with mpmath.workprec(100):
        want = [expected64(name, number) for number in x.tolist()]
        for isa in fastrnn.available_isas():
            y = _core.vmath(name, x, isa).tolist()
            off = [ulps_off64(*pair) for pair in zip(y, want, strict=True)]
            worst = int(np.argmax(off))
            assert off[worst] <= LIMIT, f"{isa}: {off[worst]} ulp at {float(x[worst]).hex()}"


@every_isa
@every_dtype
@every_function
def test_monotone(name, dtype, isa):
    for x in (stratified(dtype, 64), runs_at_joints(dtype)):
        assert np.all(x[..., 1:] >= x[..., :-1])  # the sample itself
        y = _core.vmath(name, x, isa)
        wrong = np.argwhere(~(y[..., 1:] >= y[..., :-1]))
        assert not len(wrong), f"falls after {float(x[tuple(wrong[0])]).hex()}"


@every_isa
@every_dtype
@every_function
def test_bounded(name, dtype, isa):
    y = _core.vmath(name, stratified(dtype, 16), isa)
    low, high = BOUNDS[name]
    assert np.all((y >= low) & (y <= high))


@every_isa
@every_dtype
def test_tanh_is_odd(dtype, isa):
    x = np.concatenate([stratified(dtype, 16), runs_at_joints(dtype).ravel()])
    y, mirrored = _core.vmath("tanh", x, isa), _core.vmath("tanh", -x, isa)
    np.testing.assert_array_equal(mirrored.view(BITS[dtype]), (-y).view(BITS[dtype]))


@every_isa
@every_dtype
def test_special_values(dtype, isa):
    tiny = float(np.finfo(dtype).tiny)
    table = [  # x, exp, tanh, sigmoid
        (np.nan, np.nan, np.nan, np.nan),
        (-np.nan, np.nan, np.nan, np.nan),
        (np.inf, np.inf, 1, 1),
        (-np.inf, 0, -1, 0),
        (0.0, 1, 0.0, 0.5),
        (-0.0, 1, -0.0, 0.5),
        (tiny, 1, tiny, 0.5),
        (-tiny, 1, -tiny, 0.5),
        (1e-20, 1, 1e-20, 0.5),
        (-1e-20, 1, -1e-20, 0.5),
        (1e30, np.inf, 1, 1),
        (-1e30, 0, -1, 0),
        (np.finfo(dtype).max, np.inf, 1, 1),
        (np.finfo(dtype).min, 0, -1, 0),
    ]
    x, *columns = np.array(table, dtype=dtype).T.copy()
    for name, want in zip(FUNCTIONS, columns, strict=True):
        y = _core.vmath(name, x, isa)
        np.testing.assert_array_equal(y, want, err_msg=name)
        known = ~np.isnan(want)
        signs = np.signbit(y[known]), np.signbit(want[known])
        np.testing.assert_array_equal(*signs, err_msg=f"sign of {name}")


@every_isa
@every_dtype
@every_function
def test_a_value_does_not_depend_on_its_place(name, dtype, isa):
    """Nor do the lanes of a tail: every length, and every shift within a vector."""
    x = np.random.default_rng(9).normal(0, 3, 40).astype(dtype)
    whole = _core.vmath(name, x, isa)
    for start in range(17):
        for stop in range(start + 1, 41):
            part = _core.vmath(name, x[start:stop].copy(), isa)
            np.testing.assert_array_equal(part, whole[start:stop])


@every_dtype
@every_function
def test_the_same_bits_where_multiply_add_is_fused(name, dtype):
    fused = [isa for isa in fastrnn.available_isas() if isa in ("v3", "v4")]
    if len(fused) < 2:
        pytest.skip("needs AVX2 and AVX-512")
    x = np.concatenate([stratified(dtype, 64), runs_at_joints(dtype).ravel()])
    ours, theirs = (_core.vmath(name, x, isa) for isa in fused)
    np.testing.assert_array_equal(ours.view(BITS[dtype]), theirs.view(BITS[dtype]))


@every_isa
def test_c_selftest(isa, tmp_path):
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if not shutil.which(compiler[0]):
        pytest.skip(f"no C compiler: {compiler[0]}")
    program = tmp_path / "selftest_math"
    flags = ["-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
    machine = [*ISA_FLAGS[isa], f"-DFR_{isa.upper()}=1", f"-I{ROOT / 'csrc'}"]
    sources = [str(ROOT / "tests" / "c" / name) for name in ("selftest_math.c", "selftest_math_f32.c")]
    subprocess.run([*compiler, *flags, *machine, *sources, "-o", str(program), "-lm"], check=True)
    # Beyond x86 long double may be software, and slow.
    limit = 120 if platform.machine() in ("x86_64", "AMD64") else 600
    done = subprocess.run([str(program), "quick"], capture_output=True, text=True, timeout=limit)
    assert done.returncode == 0, done.stdout + done.stderr
