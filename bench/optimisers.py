"""Microseconds of a step of an optimiser, of a clipped one, and of an average's update, beside PyTorch's optimisers.

    python bench/optimisers.py                          fastrnn and, if it is installed, PyTorch (foreach and fused)
    python bench/optimisers.py --before ../old          and the fastrnn of another checkout, compiled in place

200,000 float32 parameters in one array, and 2,000 in eight; live, with random gradients, and half dead: the gradient of every other
number has been 0 for so long that its moments are denormal, or would be. Each contestant runs in a process of its own, and the
processes take turns. The table has the median of their medians and, in brackets, the shortest of all times.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from worker import pin, settle

SIZES = {"200,000 in 1": [200_000], "2,000 in 8": [250] * 8}
OPTIMISERS = {  # of fastrnn.train and torch.optim: class and arguments
    "SGD": ("SGD", {"lr": 1e-3}),
    "SGD, momentum": ("SGD", {"lr": 1e-3, "momentum": 0.9}),
    "RMSprop": ("RMSprop", {"lr": 1e-3, "alpha": 0.9}),
    "Adagrad": ("Adagrad", {"lr": 1e-3}),
    "Adam": ("Adam", {"lr": 1e-3, "betas": (0.9, 0.9)}),
    "AdamW": ("AdamW", {"lr": 1e-3, "betas": (0.9, 0.9)}),
}
CLIPPED, AVERAGE = "Adam, clipped", "average"
DYING, DEAD_FOR, CALLS = 1e-15, 700, 40  # the last gradient of what dies; the steps since; calls of a turn


def arrays(size: str, dead: bool) -> tuple[list[Any], list[Any], list[Any]]:
    """Parameters, the gradients of the first step, and those of all others."""
    import numpy as np

    rng = np.random.default_rng(0)
    params, first, rest = ([rng.standard_normal(n).astype(np.float32) for n in SIZES[size]] for _ in range(3))
    for f, r in zip(first, rest):
        if dead:
            f[::2], r[::2] = DYING, 0
    return params, first, rest


def in_fastrnn(size: str, dead: bool) -> Iterator[tuple[str, Callable[[], Any]]]:
    from fastrnn import train

    for name, (kind, options) in OPTIMISERS.items():
        params, first, grads = arrays(size, dead)
        optimiser = getattr(train, kind)(params, **options)
        optimiser.step(first)
        yield name, partial(optimiser.step, grads)
        if name == "Adam":
            yield CLIPPED, partial(optimiser.clipped_step, grads, 1.0)
    average = train.Average(params, 0.999)
    average.update()
    yield AVERAGE, average.update


def in_torch(size: str, dead: bool, way: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    import torch

    for name, (kind, options) in OPTIMISERS.items():
        if way == "fused" and kind == "RMSprop":  # which has no such form
            continue
        params, first, grads = ([torch.tensor(a) for a in each] for each in arrays(size, dead))
        optimiser = getattr(torch.optim, kind)(params, **options, **{way: True})
        for p, f in zip(params, first):
            p.requires_grad_()
            p.grad = f
        optimiser.step()
        for p, g in zip(params, grads):
            p.grad = g
        yield name, optimiser.step
        if name == "Adam":
            yield CLIPPED, partial(clipped, params, optimiser)
    model, utils = torch.nn.ParameterList(params), torch.optim.swa_utils
    yield AVERAGE, partial(utils.AveragedModel(model, multi_avg_fn=utils.get_ema_multi_avg_fn(0.999)).update_parameters, model)


def clipped(params: list[Any], optimiser: Any) -> None:
    import torch

    torch.nn.utils.clip_grad_norm_(params, 1.0)
    optimiser.step()


def turns(contestant: str) -> Iterator[tuple[str, str, str, float, float]]:
    """What, size, state, the median of a turn and its shortest time."""
    for size in SIZES:
        for state in ("live", "half dead"):
            dead = state != "live"
            calls = in_fastrnn(size, dead) if "torch" not in contestant else in_torch(size, dead, contestant.split()[1])
            for what, call in calls:
                for _ in range(DEAD_FOR if dead else 10):
                    call()
                settle()
                times = []
                for _ in range(CALLS):
                    start = time.perf_counter()
                    call()
                    times.append(time.perf_counter() - start)
                yield what, size, state, statistics.median(times), min(times)


def run(contestant: str, checkout: Path, threads: int) -> list[list[Any]]:
    """A turn in a process of its own."""
    command = [sys.executable, __file__, "--threads", str(threads), "--contestant", contestant]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, help="another checkout of fastrnn")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    args = parser.parse_args()
    pin(args.threads)
    if args.contestant:
        print(json.dumps(list(turns(args.contestant))))
        return
    here = Path(__file__).parents[1]
    contestants = {"fastrnn": here} | ({"before": args.before.resolve()} if args.before else {})
    if find_spec("torch"):
        contestants |= {"torch foreach": here, "torch fused": here}
    times: dict[tuple[str, ...], dict[str, list[tuple[float, float]]]] = {}
    for _ in range(args.rounds):
        for contestant, checkout in contestants.items():
            for *case, median, shortest in run(contestant, checkout, args.threads):
                times.setdefault(tuple(case), {}).setdefault(contestant, []).append((median, shortest))
    print(f"Microseconds, {args.threads} thread{'s' * (args.threads > 1)}, float32: median (shortest)\n")
    print("| | parameters | gradients | " + " | ".join(contestants) + " |\n|---|---|---|" + "---:|" * len(contestants))
    for case, each in times.items():
        print("| " + " | ".join([*case, *(shown(each.get(contestant)) for contestant in contestants)]) + " |")


def shown(times: list[tuple[float, float]] | None) -> str:
    if not times:
        return ""
    medians, shortest = zip(*times)
    return f"{statistics.median(medians) * 1e6:.1f} ({min(shortest) * 1e6:.1f})"


if __name__ == "__main__":
    main()
