"""Timings of forward and backward, beside what NumPy's BLAS reaches on a large square product in the same run.

    make bench

Each bench first checks the numbers that it times against fastrnn.reference. `percent of BLAS` is the rate of multiply-adds over
that of the square product, one thread each.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

import fastrnn
from cases import Case, call, problem, results
from fastrnn._engine import blas

# The first is the mark of docs/tuning.md; the others are the regimes: a small batch, one row, one input.
SHAPES = [(100, 32, 256, 256), (100, 8, 128, 128), (100, 1, 64, 64), (784, 16, 1, 100)]
CELLS = ["lstm", "gru-after", "relu"]


@pytest.fixture(scope="session")
def blas_rate():
    """Floating-point operations per second of np.matmul, 2000 x 2000, float32, one thread: best of 7."""
    a = np.random.default_rng(0).random((2000, 2000), np.float32)
    out, best = np.empty_like(a), np.inf
    assert blas.within(1), "set OPENBLAS_NUM_THREADS=1, as make bench does"
    for _ in range(7):
        start = time.perf_counter()
        np.matmul(a, a, out=out)
        best = min(best, time.perf_counter() - start)
    return 2 * 2000**3 / best


def check(case: Case) -> None:
    """A short piece of the case agrees with the reference."""
    p = problem(replace(case, T=min(case.T, 10)), np.float32)
    slow = results(fastrnn.reference, p)
    for name, fast in results(fastrnn, p).items():
        np.testing.assert_allclose(fast, slow[name], rtol=0, atol=2e-5 * max(1, np.abs(slow[name]).max()), err_msg=name)


def report(benchmark, case: Case, products: int, blas_rate: float) -> None:
    operations = 2 * products * case.T * case.B * case.gates * case.H * (case.I + case.H)
    rate = operations / benchmark.stats.stats.min
    benchmark.extra_info["GFLOP/s"] = round(rate * 1e-9, 1)
    benchmark.extra_info["percent of BLAS"] = round(100 * rate / blas_rate, 1)
    print(f"\n{case}: {rate * 1e-9:.1f} GFLOP/s, {100 * rate / blas_rate:.0f} % of BLAS", end="")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "T{}-B{}-I{}-H{}".format(*s))
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("what", ["inference", "forward", "backward"])
def test_one_thread(benchmark, what, cell, shape, blas_rate):
    case = Case(cell, *shape)
    check(case)
    p = problem(case, np.float32)

    def forward(record):
        return call(fastrnn, cell, p.arrays, record=record, threads=1)

    def fresh_tape():
        return (forward(True)[2],), {}

    if what == "backward":
        benchmark.pedantic(lambda tape: tape.backward(p.dy), setup=fresh_tape, rounds=10, warmup_rounds=2)
    else:
        benchmark.pedantic(forward, (what == "forward",), rounds=10, warmup_rounds=2)
    report(benchmark, case, 2 if what == "backward" else 1, blas_rate)


@pytest.mark.parametrize("shape", SHAPES[:3], ids=lambda s: "T{}-B{}-I{}-H{}".format(*s))
@pytest.mark.parametrize("layer", [fastrnn.LSTM, fastrnn.GRU])
def test_other_activations_take_the_time_of_the_usual_ones(layer, shape):
    """Forward and backward in turns on one thread: the least time of each pair (gates, candidate) over that of sigmoid and tanh."""
    T, B, I, H = shape
    pairs = [("sigmoid", "tanh"), ("hard_sigmoid", "tanh"), ("hard_sigmoid", "relu"), ("sigmoid", "softplus"), ("sigmoid", "elu")]
    layers = [layer(I, H, activation=g, recurrent_activation=f, rng=0) for f, g in pairs]
    x = np.random.default_rng(0).standard_normal((T, B, I), np.float32)
    least, threads = [np.inf] * len(pairs), fastrnn.get_num_threads()
    fastrnn.set_num_threads(1)
    try:
        for _ in range(40):
            for k, timed in enumerate(layers):
                start = time.perf_counter()
                y, _, tape = timed.forward(x)
                tape.backward(y)
                least[k] = min(least[k], time.perf_counter() - start)
    finally:
        fastrnn.set_num_threads(threads)
    ratios = {pair: round(seconds / least[0], 2) for pair, seconds in zip(pairs[1:], least[1:], strict=True)}
    print(f"\n{layer.__name__} {shape}: {ratios}", end="")
    assert max(ratios.values()) <= 1.15
