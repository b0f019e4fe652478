"""The large products by NumPy's BLAS, held to the threads of the call."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NAMES = [f"{prefix}openblas_{{}}_num_threads{suffix}" for prefix in ("scipy_", "") for suffix in ("64_", "")]
_lock = threading.Lock()  # the number of OpenBLAS's threads is the process's


@functools.cache
def _controls() -> tuple[Any, Any] | None:
    """OpenBLAS's functions to get and set its threads, from the library that NumPy has loaded."""
    try:
        with open("/proc/self/maps") as maps:
            paths = {line.split()[-1] for line in maps if "openblas" in os.path.basename(line.split()[-1])}
    except OSError:
        return None
    for path in sorted(paths):
        library = ctypes.CDLL(path)
        for name in _NAMES:
            if hasattr(library, name.format("set")):
                return getattr(library, name.format("get")), getattr(library, name.format("set"))
    return None


def boundable() -> bool:
    """Can the threads of NumPy's BLAS be bounded?"""
    return _controls() is not None


@contextmanager
def bounded(threads: int) -> Iterator[None]:
    """Products inside use at most this many threads."""
    controls = _controls()
    if controls is None:
        raise RuntimeError("the threads of NumPy's BLAS cannot be bounded here")
    get, set_ = controls
    with _lock:
        before = get()
        set_(min(threads, before))
        try:
            yield
        finally:
            set_(before)
