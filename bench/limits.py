"""The limits of this machine, measured: the rate of fused multiply-adds, and how fast a buffer of some size can be read.

Both come from a few lines of C (limits.c), compiled for this processor when needed. Without a compiler they are what NumPy
reaches, its BLAS for the multiply-adds and its sum for reading: lower, so percentages of them are higher. `measured_by` says which.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Work = Callable[[int], Any]  # does so many turns

BURST = 0.01  # seconds; the best of many short bursts finds the moments when nobody else wants the core
BURSTS = 20


@functools.cache
def _library(dtype: str) -> ctypes.CDLL | None:
    """limits.c for a dtype, or None without a compiler."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if compiler is None:
        return None
    real, source = {"float32": "float", "float64": "double"}[dtype], Path(__file__).with_name("limits.c")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, f"{real}.so")
        flags = ["-O3", "-march=native", "-std=gnu11", "-ffp-contract=fast", "-shared", "-fPIC", f"-DREAL={real}"]
        done = subprocess.run([compiler, *flags, "-o", str(out), str(source)], capture_output=True, text=True)
        if done.returncode:
            print(f"limits.c: {compiler} failed, so NumPy's rates are taken:\n{done.stderr}")
            return None
        library = ctypes.CDLL(str(out))
    library.multiply_add.argtypes = [ctypes.c_long, ctypes.c_double, ctypes.c_double]
    library.read_all.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_long]
    library.multiply_add.restype = library.read_all.restype = ctypes.c_double
    library.operations.restype = library.block.restype = ctypes.c_long
    return library


def _turns_per_second(works: list[Work]) -> float:
    """Turns a second of all together, each in a thread of its own: the sum of what each reaches in its best burst."""
    turns = 1
    while (seconds := min(_together(works, turns))) < BURST:
        turns = max(2 * turns, int(turns * BURST / seconds))
    bursts = [_together(works, turns) for _ in range(BURSTS)]
    return sum(turns / min(seconds) for seconds in zip(*bursts))


def _together(works: list[Work], turns: int) -> list[float]:
    """Seconds of each, when all do so many turns at the same time."""
    barrier, seconds = threading.Barrier(len(works)), [0.0] * len(works)

    def run(k: int) -> None:
        barrier.wait()
        start = time.perf_counter()
        works[k](turns)
        seconds[k] = time.perf_counter() - start

    team = [threading.Thread(target=run, args=(k,)) for k in range(len(works))]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    return seconds


class Limits:
    """The limits of so many threads, for one dtype."""

    def __init__(self, threads: int, dtype: str) -> None:
        self.threads, self.dtype, self.library = threads, dtype, _library(dtype)
        self.measured_by = "C" if self.library else "NumPy"
        self.peak = self._peak()  # floating-point operations a second
        self.bandwidths: dict[int, float] = {}  # bytes of all threads together -> bytes a second

    def _peak(self) -> float:
        if library := self.library:
            works: list[Work] = [lambda turns: library.multiply_add(turns, 0.5, 1.0)] * self.threads
            return library.operations() * _turns_per_second(works)
        a = np.ones((1000, 1000), self.dtype)  # the BLAS has its own threads
        return 2 * 1000**3 * _turns_per_second([lambda turns: [np.matmul(a, a) for _ in range(turns)]])

    def bandwidth(self, size: int) -> float:
        """Bytes a second when each thread reads its part of so many bytes again and again: from the cache that holds it."""
        if size not in self.bandwidths:
            self.bandwidths[size] = self._bandwidth(size // self.threads)
        return self.bandwidths[size]

    def _bandwidth(self, part: int) -> float:
        library = self.library
        block = library.block() if library else 64
        part = max(part // block, 1) * block
        works = [self._reader(part) for _ in range(self.threads)]
        return part * _turns_per_second(works)

    def _reader(self, part: int) -> Work:
        room = np.ones(part + 64, np.uint8)
        skip = -room.ctypes.data % 64  # a vector does not straddle two cache lines
        buffer, library = room[skip : skip + part], self.library
        if library:
            buffer[:] = 0
            return lambda turns: library.read_all(buffer.ctypes.data, part, turns)
        numbers = buffer.view(self.dtype)
        return lambda turns: [np.add.reduce(numbers) for _ in range(turns)]

    def seconds(self, what: str, gates: int, T: int, B: int, I: int, H: int) -> float:
        """The least time of a layer, "forward" or "training" (forward and all gradients).

        From two rows on: all its multiply-adds at the peak. At one row the products outside the recurrence at the peak, and in
        each step the recurrent weights, read once from the cache that holds them.
        """
        of_inputs, of_state = (2 * T * B * gates * H * n for n in (I, H))
        training = what == "training"
        if B > 1:
            return (of_inputs + of_state) * (3 if training else 1) / self.peak
        size = gates * H * H * np.dtype(self.dtype).itemsize
        outside = 3 * of_inputs + of_state if training else of_inputs  # x W; dx and dW; the recurrent weights' gradient
        return outside / self.peak + (2 if training else 1) * T * size / self.bandwidth(size)
