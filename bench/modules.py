"""A PyTorch model before and after fastrnn.torch.accelerate: a training step of nn.LSTM, nn.GRU and nn.RNN, T=100, B=32, I=H=128.

    python bench/modules.py [threads]

float32, forward and all gradients; both take turns; the figures are medians, in milliseconds.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time

import torch

import fastrnn
import fastrnn.torch

T, B, H, ROUNDS = 100, 32, 128, 15


def step(module: torch.nn.Module, x: torch.Tensor) -> float:
    module.zero_grad()
    start = time.perf_counter()
    y, _ = module(x)
    y.backward(x)
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else fastrnn.get_num_threads()
    fastrnn.set_num_threads(threads)
    torch.set_num_threads(threads)
    x = torch.randn(T, B, H)
    print(f"ms of a training step, {threads} threads: PyTorch {torch.__version__}, accelerated")
    for cell in ("LSTM", "GRU", "RNN"):
        plain = getattr(torch.nn, cell)(H, H)
        ours = copy.deepcopy(plain)
        fastrnn.torch.accelerate(ours)
        times = [(step(plain, x), step(ours, x)) for _ in range(ROUNDS + 2)][2:]
        theirs, mine = (statistics.median(t) for t in zip(*times))
        print(f"{cell:<5} {theirs:8.1f} {mine:8.1f}   x {theirs / mine:.1f}")


if __name__ == "__main__":
    main()
