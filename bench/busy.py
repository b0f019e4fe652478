"""Two threads beside other work: how long a call takes on two threads, as a multiple of what it takes on one.

    python bench/busy.py [--rounds 40] [--only SITUATION ...]

Situations: quiet; one core for all threads; one and two busy processes beside; in turns with PyTorch's calls, whose
threads spin for a while after each, and a loop of accelerated nn.LSTMCell between them. Calls on one and on two threads
take turns; a figure is a ratio of medians. Fails (exit code 1) where two threads take more than 1.3 times as long as one,
or, quiet, more than 0.75 times.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastrnn

# T, B, I = H
CALLS = {
    "LSTM T=100 B=1 H=256": (fastrnn.LSTM, 100, 1, 256),
    "GRU T=100 B=16 H=128": (fastrnn.GRU, 100, 16, 128),
    "GRU T=20 B=16 H=128": (fastrnn.GRU, 20, 16, 128),
    "LSTM T=50 B=32 H=128": (fastrnn.LSTM, 50, 32, 128),
}
SITUATIONS = ("quiet", "one core", "one busy", "two busy", "torch")
WHAT = ("forward", "backward", "inference")
BOUND, QUIET_BOUND, LOOP_BOUND = 1.3, 0.75, 1.05  # the last: as fast, but for the noise
SPIN = "while True: pass"


@contextlib.contextmanager
def busy_processes(n: int) -> Iterator[None]:
    others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(n)]
    try:
        time.sleep(0.2)
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """All threads of this process, those of fastrnn's pool too, on one core."""
    threads = [int(name) for name in os.listdir("/proc/self/task")]
    before = os.sched_getaffinity(0)
    for thread in threads:
        os.sched_setaffinity(thread, {min(before)})
    try:
        yield
    finally:
        for thread in threads:
            os.sched_setaffinity(thread, before)


def torch_calls() -> Callable[[], None]:
    """A product of PyTorch's on two threads."""
    import torch

    torch.set_num_threads(2)
    a = torch.randn(256, 256)
    return lambda: (a @ a).relu_().sum().item()  # type: ignore[return-value]


def timed(between: Callable[[], None], call: Callable[..., Any], argument: Any) -> tuple[float, Any]:
    """Seconds, and the result."""
    between()
    start = time.perf_counter()
    result = call(argument)
    return time.perf_counter() - start, result


def measure(name: str, rounds: int, between: Callable[[], None]) -> np.ndarray:
    """Medians (1 and 2 threads, forward, backward and inference) in seconds."""
    make, T, B, H = CALLS[name]
    layer, x = make(H, H, rng=0), np.random.default_rng(0).standard_normal((T, B, H), dtype=np.float32)
    times = np.empty((2, rounds, 3))
    for i in range(rounds):
        for threads in 1, 2:
            fastrnn.set_num_threads(threads)
            forward, (y, _, tape) = timed(between, layer.forward, x)
            backward, _ = timed(between, tape.backward, y)
            inference, _ = timed(between, layer, x)
            times[threads - 1, i] = forward, backward, inference
    return np.median(times, axis=1)


def cell_loop(rounds: int) -> bool:
    """A training step of an accelerated nn.LSTMCell with a readout per step, T 48, B 128, I 74, H 64, between PyTorch's own
    operators on two threads: no slower with two threads of fastrnn than with one."""
    import torch

    import fastrnn.torch

    torch.set_num_threads(2)
    cell, readout = torch.nn.LSTMCell(74, 64), torch.nn.Linear(64, 74)
    fastrnn.torch.accelerate(cell)
    x = torch.randn(48, 128, 74)

    def step() -> None:
        state, loss = None, torch.zeros(())
        for x_t in x:
            state = cell(x_t, state)
            loss = loss + (readout(state[0]) - x_t).square().mean()
        loss.backward()

    times = np.empty((2, rounds))
    for i in range(rounds):
        for threads in 1, 2:
            fastrnn.set_num_threads(threads)
            times[threads - 1, i], _ = timed(lambda: None, lambda _: step(), None)
    one, two = np.median(times, axis=1)
    print(f"{'torch':10} {'LSTMCell loop':22} step {one * 1e3:6.2f} -> {two * 1e3:6.2f} ms = {two / one:4.2f}")
    return bool(two <= LOOP_BOUND * one)


def run(situation: str, rounds: int) -> bool:
    """Print a line for each call; are all within the bounds?"""
    between = torch_calls() if situation == "torch" else lambda: None
    beside = {"one core": one_core(), "one busy": busy_processes(1), "two busy": busy_processes(2)}
    right, bound = True, QUIET_BOUND if situation == "quiet" else BOUND
    fastrnn.set_num_threads(2)
    fastrnn.GRU(128, 128, rng=0)(np.zeros((100, 16, 128), np.float32))  # the pool's thread is there
    with beside.get(situation, contextlib.nullcontext()):
        for name in CALLS:
            one, two = measure(name, rounds, between)
            ratios = (f"{w} {a * 1e3:6.2f} -> {b * 1e3:6.2f} ms = {b / a:4.2f}  " for w, a, b in zip(WHAT, one, two))
            print(f"{situation:10} {name:22}", *ratios)
            right &= bool(np.all(two <= bound * one))
    return right and (situation != "torch" or cell_loop(rounds))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", nargs="+", choices=SITUATIONS, default=SITUATIONS)
    arguments = parser.parse_args()
    print("one thread -> two threads, medians")
    results = [run(situation, arguments.rounds) for situation in arguments.only]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
