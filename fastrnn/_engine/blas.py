"""The BLAS behind NumPy: may a call bounded to so many threads use it?

OpenBLAS has one number of threads for the whole process, and changing it while another thread multiplies can hang both. So it is
asked, never changed: where it would take more threads than a call may use, the call makes its products itself.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any

from .. import _core

_ENGINES = (None, "own", "blas")  # of the large products, by the numbers of _core; None: none was chosen
_NAMES = [f"{prefix}openblas_get_num_threads{suffix}" for prefix in ("scipy_", "") for suffix in ("64_", "")]


@functools.cache
def _get_num_threads() -> Any:
    """OpenBLAS's function, from the library that NumPy has loaded; None for another BLAS."""
    try:
        with open("/proc/self/maps") as maps:
            paths = {line.split()[-1] for line in maps if "openblas" in os.path.basename(line.split()[-1])}
    except OSError:
        return None
    for path in sorted(paths):
        library = ctypes.CDLL(path)
        for name in _NAMES:
            if hasattr(library, name):
                return getattr(library, name)
    return None


def known() -> bool:
    """Can NumPy's BLAS be asked for its number of threads?"""
    return _get_num_threads() is not None


def within(threads: int) -> bool:
    """Does a product by NumPy's BLAS use at most this many threads?"""
    get = _get_num_threads()
    return get is not None and get() <= threads


def choose(engine: str) -> None:
    """"own" or "blas", for the large products of all calls from now on."""
    _core.use_gemm(_ENGINES.index(engine))


def chosen() -> str:
    """The engine of the large products, "own" or "blas": the scalar instruction set takes NumPy's BLAS unless told otherwise."""
    engine = _ENGINES[_core.gemm_in_use()]
    if engine is None:
        return "blas" if _core.isa_in_use() == "scalar" and known() else "own"
    return engine
