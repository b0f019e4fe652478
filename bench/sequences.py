"""Ragged batches beside PyTorch's packed sequences, what padding costs, and what checkpoints save.

    python bench/sequences.py [threads]

Training steps, forward and all gradients, float32, T=100, B=32, I=H=128, lengths uniform in 1..T. Both take turns; the figures
are medians. Without PyTorch its column is missing. It fails where a ragged batch is less than 5 times as fast as PyTorch's, or
where half a batch of padding costs more than 0.6 of a full one.
"""

from __future__ import annotations

import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

import fastrnn

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

T, B, H, ROUNDS = 100, 32, 128, 15
TIMES_PYTORCH, OF_FULL = 5.0, 0.6  # at least, at most
CELLS = ("LSTM", "GRU", "RNN")
Work = Callable[[], Any]


def ours(cell: str, x: np.ndarray, lengths: np.ndarray | None) -> Work:
    layer = getattr(fastrnn, cell)(H, H, rng=0)

    def step() -> None:
        y, _, tape = layer.forward(x, lengths=lengths)
        tape.backward(y)

    return step


def theirs(cell: str, x: np.ndarray, lengths: np.ndarray) -> Work:
    layer, rows = getattr(torch.nn, cell)(H, H), torch.from_numpy(lengths)

    def step() -> None:
        given = torch.from_numpy(x).requires_grad_()
        packed = torch.nn.utils.rnn.pack_padded_sequence(given, rows, enforce_sorted=False)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(layer(packed)[0], total_length=T)
        layer.zero_grad()
        y.backward(y.detach())

    return step


def in_turns(works: dict[str, Work]) -> dict[str, float]:
    """Median milliseconds of each."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(ROUNDS + 2):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(t) for name, t in times.items()}


def peak_megabytes(work: Work) -> float:
    fastrnn._core.empty_free_list()
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def checkpoints(steps: int = 100_000, units: int = 64, k: int = 500) -> None:
    layer, x = fastrnn.LSTM(units, units, rng=0), np.zeros((steps, 1, units), np.float32)

    def train(**how: int) -> None:
        y, _, tape = layer.forward(x, **how)
        tape.backward(y)

    memory = [peak_megabytes(train), peak_megabytes(lambda: train(checkpoint=k))]
    times = in_turns({"plain": train, "checkpoint": lambda: train(checkpoint=k)})
    print(f"\nLSTM T={steps} B=1 I=H={units}, y and dx included: plain {memory[0]:.0f} MB, {times['plain']:.0f} ms; ", end="")
    print(f"checkpoint={k} {memory[1]:.0f} MB, {times['checkpoint']:.0f} ms")


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else fastrnn.get_num_threads()
    fastrnn.set_num_threads(threads)
    rng = np.random.default_rng(0)
    x, lengths = rng.standard_normal((T, B, H), dtype=np.float32), rng.integers(1, T + 1, B)
    half = np.where(np.arange(B) % 2, T, 0)
    print(f"ms of a training step, {threads} threads   full   half of it padding   ragged   PyTorch packed")
    missed = []
    for cell in CELLS:
        works = {"full": ours(cell, x, None), "half": ours(cell, x, half), "ragged": ours(cell, x, lengths)}
        if torch:
            torch.set_num_threads(threads)
            works["torch"] = theirs(cell, x, lengths)
        t = in_turns(works)
        line = f"{cell:<30} {t['full']:11.1f} {t['half']:9.1f} (x {t['half'] / t['full']:.2f}) {t['ragged']:12.1f}"
        print(line + (f" {t['torch']:9.1f} (x {t['torch'] / t['ragged']:.1f})" if torch else ""))
        if t["half"] > OF_FULL * t["full"]:
            missed.append(f"{cell}: padding")
        if t.get("torch", np.inf) < TIMES_PYTORCH * t["ragged"]:
            missed.append(f"{cell}: ragged batch")
    checkpoints()
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
