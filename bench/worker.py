"""One process of the comparison: every contestant with so many threads, on as many cores. Started by compare.py.

    python bench/worker.py '{"threads": 1, "cells": ["lstm"], "shapes": [[100, 1, 64, 64]], "dtypes": ["float32"],
                             "whats": ["forward"], "rounds": 3, "turn": 0.05}'

Standard output gets one line of JSON per result. The cores and the pools' sizes are set before any package is imported.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Relative error that is allowed, as norms: |a - b| / |b|. Where a ReLU's sum is zero but for rounding, its slope may be 0 or 1:
# a gradient then differs in a place or two of a million.
# bf16 rounds operands to 8 bits.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10, "bf16": 5e-2}
TOLERANCE_OF_RELU_GRADIENTS = {"float32": 3e-3, "bf16": 0.2}
IN_A_ROW = 30e-6  # seconds: calls that are longer are timed one by one


def pin(threads: int) -> None:
    """This process to one logical processor on each of so many cores, and pools to as many threads."""
    for name in ("OPENBLAS", "OMP", "MKL", "FASTRNN"):
        os.environ[f"{name}_NUM_THREADS"] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        cores: dict[str, int] = {}
        for cpu in sorted(os.sched_getaffinity(0)):
            siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
            cores.setdefault(siblings.read_text() if siblings.exists() else str(cpu), cpu)
        if len(cores) < threads:
            raise SystemExit(f"{threads} threads want as many cores; this process may use {len(cores)}")
        os.sched_setaffinity(0, list(cores.values())[:threads])


# --- timing ---------------------------------------------------------------------------------------------------------


def settle() -> None:
    """Waits until this process is idle: pools of threads spin for some milliseconds after a call."""
    nap, patience = 0.004, 50
    for _ in range(patience):
        start = time.process_time()
        time.sleep(nap)
        if time.process_time() - start < 0.1 * nap:
            return


def timed(call: Callable[[], Any], repeats: int) -> float:
    """Seconds of a call, the mean of so many in a row."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def turn(call: Callable[[], Any], seconds: float) -> float:
    """Median seconds of a call, of those that fit into the turn; at least one. The one before brings back caches and pools.

    Calls of a few microseconds are timed several in a row: reading the clock takes a tenth of one.
    """
    call()
    end, first = time.perf_counter() + seconds, timed(call, 1)
    repeats = max(1, int(IN_A_ROW / first))
    times = [first] if repeats == 1 else []
    while not times or time.perf_counter() < end:
        times.append(timed(call, repeats))
    return statistics.median(times)


def interleaved(calls: dict[str, Callable[[], Any]], rounds: int, seconds: float) -> dict[str, float]:
    """Median of its turns for each; they take turns, and each round another one begins."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for k in range(rounds):
        first = k % len(names) if names else 0
        for name in names[first:] + names[:first]:
            settle()
            times[name].append(turn(calls[name], seconds))
    return {name: statistics.median(ts) for name, ts in times.items()}


# --- checking -------------------------------------------------------------------------------------------------------


def members_of(result: Any) -> Iterator[Any]:
    """What is in nested tuples, in order."""
    if isinstance(result, tuple):
        for member in result:
            yield from members_of(member)
    else:
        yield result


def of_arrays(dtype: str) -> str:
    """The dtype of the arrays: those of "bf16", whose products take bfloat16, are float32."""
    return "float32" if dtype == "bf16" else dtype


def wrong(result: Any, truth: dict[str, Any], dtype: str, cell: str) -> str:
    """What in a result, y or (y, gradients), is not equal to the truth; empty if all is."""
    import numpy as np
    from peers import to_numpy

    for member, (name, expected) in zip(members_of(result), truth.items()):
        got = to_numpy(member, expected.shape)
        # The gradient of w_hh is 0 where the only step begins with a state of zeros.
        error = np.linalg.norm(got - expected) / (np.linalg.norm(expected) or 1)
        allowed = TOLERANCE_OF_RELU_GRADIENTS.get(dtype) if cell == "relu" and name != "y" else None
        if got.dtype != of_arrays(dtype) or not error <= (allowed or TOLERANCE[dtype]):
            return f"{name} ({got.dtype}) is off by {error:.1e}"
    return ""


# --- the cells of the grid ------------------------------------------------------------------------------------------


def exact(case: Any) -> tuple[Any, dict[str, Any]]:
    """The problem of a case in float64, its numbers such as float32 can hold, and all results by fastrnn.reference."""
    import numpy as np

    import fastrnn
    from cases import problem, results

    p = problem(case, np.float32).astype(np.float64)
    return p, results(fastrnn.reference, p)


def records(options: dict[str, Any], dtype: str, cell: str, shape: list[int], limits: Any) -> Iterator[dict[str, Any]]:
    """For forward and training, one record with the seconds of all contestants."""
    from peers import ALL, NAMES

    from cases import Case

    case = Case(cell, *shape, without=("h0", "c0"), through="y")
    p, of_reference = exact(case)
    truth = {name: of_reference[name] for name in ("y", *(f"d{name}" for name in NAMES))}
    p = p.astype(of_arrays(dtype))
    installed = [kind for kind in ALL if dtype in kind.dtypes and not kind.missing()]
    contestants = {kind.name: kind(cell, p.arrays, p.dy, options["threads"]) for kind in installed}
    for what in options["whats"]:
        if what == "training":
            calls = {name: c.train for name, c in contestants.items() if c.trains}
        else:
            calls = {name: c.forward for name, c in contestants.items()}
        errors = {name: wrong(call(), truth, dtype, cell) for name, call in calls.items()}
        calls = {name: call for name, call in calls.items() if not errors[name]}
        operations = 2 * (3 if what == "training" else 1) * case.T * case.B * case.gates * case.H * (case.I + case.H)
        yield {
            "what": what,
            "threads": options["threads"],
            "dtype": dtype,
            "cell": cell,
            "shape": shape,
            "operations": operations,
            "limit": None if dtype == "bf16" else limits.seconds(what, case.gates, *shape),
            "seconds": interleaved(calls, options["rounds"], options["turn"]),
            "wrong": {name: error for name, error in errors.items() if error},
        }


def configuration() -> str:
    """What fastrnn.show_config() prints."""
    import fastrnn

    with contextlib.redirect_stdout(io.StringIO()) as text:
        fastrnn.show_config()
    return text.getvalue()


def main() -> None:
    options = json.loads(sys.argv[1])
    pin(options["threads"])
    sys.path.append(str(Path(__file__).parent.parent / "tests"))  # cases.py
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the packages print is not a result

    from limits import Limits

    print(json.dumps({"fastrnn": configuration()}), file=lines)
    gc.disable()
    for dtype in options["dtypes"]:
        limits = Limits(options["threads"], of_arrays(dtype))
        for cell in options["cells"]:
            for shape in options["shapes"]:
                for record in records(options, dtype, cell, shape, limits):
                    print(json.dumps(record), file=lines)
                gc.collect()
        if dtype == "bf16":
            continue
        rates = {str(size): rate for size, rate in limits.bandwidths.items()}
        limit = {"threads": limits.threads, "dtype": dtype, "by": limits.measured_by, "peak": limits.peak, "bandwidth": rates}
        print(json.dumps({"limits": limit}), file=lines)


if __name__ == "__main__":
    main()
