"""Every cell, dtype and engine, forward and backward, against the reference, over the table of cases.

The best instruction set computes the whole table: every width of the last vector, every height of a tile. Plain C, which has no
vectors, and the BLAS, which takes products of any size, compute what has options.
"""

from functools import lru_cache

import numpy as np
import pytest

import fastrnn
from cases import FLOATS, Case, problem, results, table, table_of_options
from fastrnn import reference
from fastrnn._engine import blas

MANY = 64  # threads that a call may use: as many as OpenBLAS at most has, else the call would not use it
SETTINGS = [("best", "own"), ("scalar", "own"), *([("best", "blas")] if blas.known() else [])]


@lru_cache(maxsize=8)  # the settings of a case follow each other
def expected(case, dtype, computed):
    """The reference's results, computed in one dtype from the numbers of another."""
    return results(reference, problem(case, dtype).astype(computed))


def check(got, case, dtype):
    truth = expected(case, dtype, np.float64)
    assert got.keys() == truth.keys()
    for name, a in truth.items():
        assert (got[name].shape, got[name].dtype) == (a.shape, dtype), name
    if dtype == np.float64:
        for name, a in truth.items():
            assert np.abs(got[name] - a).max(initial=0) <= 1e-12 * np.abs(a).max(initial=0), name
    else:
        numpy = expected(case, dtype, np.float32)
        forward = ("y", "h_n", "c_n", "c")
        for names in ([n for n in truth if n in forward], [n for n in truth if n not in forward]):
            ours, theirs = (rounding_error(a, truth, names) for a in (got, numpy))
            few = 8 / np.sqrt(max(1, np.count_nonzero(truth["y"])))
            assert ours <= 2 * theirs + 1 + few, f"{ours:.2f} ulp of {names}; plain NumPy: {theirs:.2f}"


def rounding_error(got, truth, names):
    """The root mean square of the error, each array relative to its largest number, in units of float32's epsilon.

    One error over all outputs and one over all gradients, and one ulp beside it, or more where a case is small: of a few numbers
    alone NumPy's may be exact by accident. A number that is wrong, not just rounded, is off by thousands of ulp.
    """
    pairs = [(got[n] - truth[n], np.abs(truth[n]).max()) for n in names if truth[n].any()]
    if any(not np.isfinite(e).all() for e, _ in pairs):
        return np.inf
    squares = [np.mean(np.square(e / largest)) for e, largest in pairs]
    return float(np.sqrt(np.mean(squares or [0]))) / np.finfo(np.float32).eps


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", table(), ids=str)
def test_forward_and_backward(case, dtype, use):
    use("best", "own")
    check(results(fastrnn, problem(case, dtype), threads=MANY), case, dtype)


@pytest.mark.parametrize("isa, engine", SETTINGS[1:])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", table_of_options(), ids=str)
def test_forward_and_backward_otherwise(case, dtype, isa, engine, use):
    use(isa, engine)
    check(results(fastrnn, problem(case, dtype), threads=MANY), case, dtype)


@pytest.mark.parametrize("isa, engine", SETTINGS)
@pytest.mark.parametrize("threads", [1, 3, MANY])
@pytest.mark.parametrize("cell", ["lstm", "gru-before"])
@pytest.mark.usefixtures("small_work_is_shared_out")
def test_several_chunks_on_several_threads(cell, threads, isa, engine, use):
    """Work that the schedule gives to more than one thread, again and again: the team is not the same each time."""
    use(isa, engine)
    case = Case(cell, T=64, B=13, I=17, H=26, lengths=cell != "lstm")
    for _ in range(10):
        check(results(fastrnn, problem(case), threads=threads), case, np.float64)
