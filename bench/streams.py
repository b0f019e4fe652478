"""Streams, step by step, in float32 and with products of bfloat16: microseconds of a step at B=1, one thread.

    python bench/streams.py
    python bench/streams.py --hidden 64 512 --batch 4 --rounds 9

Both take turns in one process; the figures are medians.
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Callable
from statistics import geometric_mean
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from worker import interleaved

import fastrnn

CELLS = {"LSTM": fastrnn.LSTM, "GRU": fastrnn.GRU, "tanh RNN": fastrnn.RNN}
STEPS = 50


def steps_of(layer: Any, precision: str, x: Any) -> Callable[[], None]:
    stream, out = layer.stream(x.shape[1], precision=precision), np.empty((x.shape[1], layer.hidden_size), np.float32)

    def steps() -> None:
        for x_t in x:
            stream(x_t, out=out)

    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", nargs="+", type=int, default=[64, 128, 256, 512], help="units, and inputs")
    parser.add_argument("--batch", type=int, default=1, help="rows")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each")
    args = parser.parse_args()
    table, ratios = Table(title=f"Streams, B={args.batch}"), []
    for heading in ("", "H", "float32, us", "bf16, us", "times as fast"):
        table.add_column(heading, justify="right" if heading else "left")
    gc.disable()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    fastrnn.set_num_threads(1)
    for name, kind in CELLS.items():
        for H in args.hidden:
            layer = kind(H, H, rng=0)
            x = np.random.default_rng(0).standard_normal((STEPS, args.batch, H), np.float32)
            seconds = interleaved({p: steps_of(layer, p, x) for p in ("float32", "bf16")}, args.rounds, 0.03)
            plain, lower = (1e6 * seconds[p] / STEPS for p in ("float32", "bf16"))
            ratios.append(plain / lower)
            table.add_row(name, str(H), f"{plain:.2f}", f"{lower:.2f}", f"{plain / lower:.2f}")
    Console(width=None if Console().is_terminal else 100).print(table)
    print(f"in the mean {geometric_mean(ratios):.2f} times as fast, at least {min(ratios):.2f}")


if __name__ == "__main__":
    main()
