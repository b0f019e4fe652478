"""The adding problem: can a recurrent network carry two numbers through 200 steps?

Each step of the input is a random number in [0, 1] and a mark, which is 1 at two steps, one in each half, and
else 0. The answer, due after the last step, is the sum of the two marked numbers. Who always answers 1 has a
mean squared error of 1/6; under 0.01 counts as solved (Hochreiter and Schmidhuber 1997; Le, Jaitly and Hinton
2015, arXiv 1504.00941).

An IRNN and a tanh RNN train side by side, from the same initial weights and on the same data: they differ in
nothing but the nonlinearity. Then a table and a picture say who solved it, and how long a step took in fastrnn
and in plain NumPy.

    python examples/adding.py                       at most a minute or so, on two cores
    python examples/adding.py --T 100 --seed 4      an easier one, on other data from other weights
"""

from __future__ import annotations

import argparse
import math
import os
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

# NumPy's BLAS reads this when it is loaded. On one thread it is measured in its own right, not by how well its
# threads get along with what else the machine is doing.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import fastrnn
from fastrnn.train import Adam, Linear, clip_global_norm

Array = NDArray[Any]
HIDDEN, BATCH, TEST_ROWS = 64, 64, 500
JUDGE_EVERY = 10  # iterations
SOLVED, BASELINE = 0.01, 1 / 6


def adding_problem(rng: np.random.Generator, T: int, B: int) -> tuple[Array, Array]:
    """B problems: x (T, B, 2), numbers and marks, and the answers (B, 1)."""
    x = np.zeros((T, B, 2), np.float32)
    x[:, :, 0] = rng.random((T, B))
    rows = np.arange(B)
    first, second = rng.integers(0, T // 2, B), rng.integers(T // 2, T, B)
    x[first, rows, 1] = x[second, rows, 1] = 1
    return x, (x[first, rows, 0] + x[second, rows, 0])[:, None]


# --- the network and its training ---------------------------------------------------------------------------


class Network:
    """A recurrent layer and a linear readout of its last state, trained by Adam on the mean squared error."""

    def __init__(self, layer: Any, readout: Linear) -> None:
        self.layer, self.readout = layer, readout
        self.adam = Adam([layer.flat, readout.flat], lr=1e-3)

    def answer(self, x: Array) -> Array:
        """x (T, B, 2) -> (B, 1)"""
        _, h = self.layer(x)
        return self.readout(h[-1])

    def step(self, x: Array, target: Array) -> None:
        """Forward, backward, and a step of the optimiser."""
        _, h, tape = self.layer.forward(x)
        answer, readout_tape = self.readout.forward(h[-1])
        readout_grads = readout_tape.backward(2 * (answer - target) / len(target))
        grads = [tape.backward(dstate=readout_grads.x[None]).flat, readout_grads.flat]
        # An IRNN's gradients explode now and then, also in a training that succeeds. Clipped they do no harm;
        # where even their norm is not finite, the step is skipped.
        if math.isfinite(clip_global_norm(grads, max_norm=1.0)):
            self.adam.step(grads)


@dataclass
class Run:
    """A network and the story of its training."""

    name: str
    network: Network
    iterations: list[int] = field(default_factory=list)  # at which the error was judged
    errors: list[float] = field(default_factory=list)

    @property
    def solved(self) -> bool:
        return self.errors[-1] < SOLVED

    def judge(self, iteration: int, x: Array, target: Array) -> None:
        difference = (self.network.answer(x) - target).astype(np.float64)
        self.iterations.append(iteration)
        self.errors.append(float(np.mean(difference**2)))


def new_runs(seed: int) -> list[Run]:
    """An IRNN and a tanh RNN with the same initial weights."""
    rng = np.random.default_rng(seed)
    irnn, readout = fastrnn.IRNN(2, HIDDEN, input_std=0.1, rng=rng), Linear(HIDDEN, 1, rng=rng)
    tanh, tanh_readout = fastrnn.RNN(2, HIDDEN, nonlinearity="tanh"), Linear(HIDDEN, 1)
    tanh.flat[:], tanh_readout.flat[:] = irnn.flat, readout.flat
    return [Run("IRNN", Network(irnn, readout)), Run("tanh RNN", Network(tanh, tanh_readout))]


def train(runs: list[Run], args: argparse.Namespace, test: tuple[Array, Array], console: Console) -> None:
    """Train each until it has solved the problem, or the steps or the time are up."""
    rng = np.random.default_rng([args.seed, 1])
    deadline = time.perf_counter() + args.seconds
    for run in runs:
        run.judge(0, *test)
    columns = [TextColumn("{task.description:8}"), BarColumn(None), MofNCompleteColumn()]
    columns += [TextColumn("error {task.fields[error]:.4f}"), TimeElapsedColumn()]
    with Progress(*columns, console=console) as progress:
        bars = [progress.add_task(run.name, total=args.steps, error=run.errors[-1]) for run in runs]
        for iteration in range(1, args.steps + 1):
            active = [(run, bar) for run, bar in zip(runs, bars, strict=True) if not run.solved]
            if not active or time.perf_counter() > deadline:
                break
            batch = adding_problem(rng, args.T, BATCH)
            for run, bar in active:
                run.network.step(*batch)
                if iteration % JUDGE_EVERY == 0 or iteration == args.steps:
                    run.judge(iteration, *test)
                progress.update(bar, advance=1, error=run.errors[-1])
                if run.solved:
                    progress.stop_task(bar)


# --- the same layer in plain NumPy, for the comparison of times ---------------------------------------------


class NumpyLoop:
    """An RNN layer as one writes it in NumPy when it has to be quick.

    What needs no loop is done for all steps at once, the loops hold one product each and work in place, and the
    gradient of x, which nobody needs here, is left out.
    """

    def __init__(self, layer: fastrnn.RNN) -> None:
        self.flat, self.params = layer.flat, layer.params
        self.relu = layer.nonlinearity == "relu"

    def forward(self, x: Array) -> tuple[Array, Array, NumpyLoop]:
        w_ih, w_hh, b_ih, b_hh = self.params.values()
        T, B, _ = x.shape
        a = x @ w_ih.T + (b_ih + b_hh)
        h = np.zeros((T + 1, B, len(w_hh)), x.dtype)
        for t in range(T):
            np.matmul(h[t], w_hh.T, out=h[t + 1])
            h[t + 1] += a[t]
            if self.relu:
                np.maximum(h[t + 1], 0, out=h[t + 1])
            else:
                np.tanh(h[t + 1], out=h[t + 1])
        self.x, self.h = x, h
        return h[1:], h[-1:], self

    def backward(self, dstate: Array) -> SimpleNamespace:
        (dh,), x, h, w_hh = dstate, self.x, self.h, self.params["weight_hh_l0"]
        da = (h[1:] > 0).astype(x.dtype) if self.relu else 1 - h[1:] ** 2  # the slopes, to begin with
        for t in reversed(range(len(x))):
            da[t] *= dh
            dh = da[t] @ w_hh
        da, x, h = (v.reshape(-1, v.shape[-1]) for v in (da, x, h[:-1]))
        db = da.sum(axis=0)
        return SimpleNamespace(flat=np.concatenate([(da.T @ x).ravel(), (da.T @ h).ravel(), db, db]))


def quickest_steps(args: argparse.Namespace, threads: int) -> Array:
    """Milliseconds of a step, the quickest of 20: rows are the networks, columns fastrnn on so many threads, fastrnn on one
    thread, and NumPy on one. They take turns, so that what else the machine does meets them all."""
    batch = adding_problem(np.random.default_rng([args.seed, 1]), args.T, BATCH)
    contestants = [(threads, new_runs(args.seed)), (1, new_runs(args.seed)), (1, new_runs(args.seed))]
    for run in contestants[-1][1]:
        run.network.layer = NumpyLoop(run.network.layer)
    times = np.zeros((20, 2, len(contestants)))
    for turn in times:
        for column, (n, runs) in enumerate(contestants):
            fastrnn.set_num_threads(n)
            for row, run in enumerate(runs):
                start = time.perf_counter()
                run.network.step(*batch)
                turn[row, column] = 1e3 * (time.perf_counter() - start)
    fastrnn.set_num_threads(threads)
    quickest: Array = times.min(axis=0)
    return quickest


# --- what came out ------------------------------------------------------------------------------------------


def show_table(runs: list[Run], args: argparse.Namespace, console: Console) -> None:
    title = f"The adding problem, T = {args.T}: H = {HIDDEN}, batches of {BATCH}, seed {args.seed}"
    table = Table("network", title=title)
    threads = fastrnn.get_num_threads()
    for heading in ("solved at\niteration", "least\nerror", f"{threads} threads", "1 thread", "NumPy", "ratio"):
        table.add_column(heading, justify="right", vertical="bottom")
    for run, times in zip(runs, quickest_steps(args, threads), strict=True):
        solved = f"{run.iterations[-1]}" if run.solved else f"not in {run.iterations[-1]}"
        shown = [f"{ms:.2f} ms" for ms in times] + [f"{times[2] / times[1]:.1f}"]
        table.add_row(run.name, solved, f"{min(run.errors):.4f}", *shown)
    console.print(table)
    console.print(
        f"Solved: the mean squared error on {TEST_ROWS} other problems is under {SOLVED}; always answering 1 "
        f"has {BASELINE:.4f}.\nTimes of a step (forward, backward, clipping, Adam), the quickest of 20: fastrnn on "
        f"{threads} threads and on 1; a plain\nNumPy loop over time in float32, on 1. The ratio is of the last two.",
        highlight=False,
        soft_wrap=True,
    )


def draw(runs: list[Run], args: argparse.Namespace, test: tuple[Array, Array], console: Console) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        console.print("No picture: matplotlib is not installed.")
        return
    figure = Figure(figsize=(9, 7.5), dpi=150, layout="constrained")
    above, below = figure.subplots(2, height_ratios=[3, 2])
    draw_errors(above, runs, args)
    draw_input(below, runs, test)
    figure.savefig(args.out)
    console.print(f"Picture: {args.out}", highlight=False)


def draw_errors(axes: Any, runs: list[Run], args: argparse.Namespace) -> None:
    for run, colour in zip(runs, ("tab:blue", "tab:orange"), strict=True):
        verdict = f"solved at iteration {run.iterations[-1]}" if run.solved else "not solved"
        axes.plot(run.iterations, run.errors, color=colour, lw=1.8, label=f"{run.name}: {verdict}")
        if run.solved:
            axes.plot(run.iterations[-1], run.errors[-1], "o", color=colour, ms=8)
    axes.axhline(BASELINE, color="black", ls="--", lw=1, label="always answering 1: 1/6")
    axes.axhline(SOLVED, color="black", ls=":", lw=1, label=f"solved: under {SOLVED}")
    axes.set(yscale="log", ylim=(SOLVED / 2, 2), xlim=(0, max(run.iterations[-1] for run in runs)))
    axes.set(xlabel="iteration", ylabel="mean squared error on the test set")
    axes.set_title(f"The adding problem over {args.T} steps")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")


def draw_input(axes: Any, runs: list[Run], test: tuple[Array, Array]) -> None:
    row = int(np.argmax(np.abs(test[1] - 1) > 0.5))  # the first problem that 1 is no good answer to
    x, target = test[0][:, row : row + 1], test[1][row, 0]
    numbers, marked = x[:, 0, 0], np.flatnonzero(x[:, 0, 1])
    axes.plot(numbers, ".", color="0.6", ms=5, label="the numbers")
    axes.vlines(marked, 0, numbers[marked], color="tab:red", lw=1.5)
    axes.plot(marked, numbers[marked], "o", color="tab:red", ms=8, label="the two with a mark")
    for t in marked:
        right = t < len(x) / 2
        axes.annotate(
            f"{numbers[t]:.2f}",
            (t, numbers[t]),
            xytext=(9 if right else -9, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            color="tab:red",
            weight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
    answers = ", ".join(f"{run.name} {run.network.answer(x).item():.2f}" for run in runs)
    first, second = numbers[marked]
    axes.set_title(f"One input: {first:.2f} + {second:.2f} = {target:.2f}. Answers: {answers}")
    axes.set(xlabel="step t", ylabel="input", xlim=(-1, len(x)), ylim=(0, 1.05))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="An IRNN and a tanh RNN on the adding problem.")
    parser.add_argument("--T", type=int, default=200, help="length of the input (%(default)s)")
    parser.add_argument("--steps", type=int, default=2000, help="iterations at most (%(default)s)")
    parser.add_argument("--seconds", type=float, default=50, help="of training at most (%(default)s)")
    parser.add_argument("--seed", type=int, default=3, help="of the data and the weights (%(default)s)")
    parser.add_argument("--out", default="adding.png", help="the picture (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="done in seconds: --T 20 --steps 800")
    args = parser.parse_args()
    if args.quick:
        parser.set_defaults(T=20, steps=800)
        args = parser.parse_args()
    if args.T < 2 or args.steps < 1 or args.seed < 0:
        parser.error("expected --T of at least 2, --steps of at least 1, --seed of at least 0")
    return args


def main() -> None:
    args = arguments()
    console = Console()
    test = adding_problem(np.random.default_rng([args.seed, 2]), args.T, TEST_ROWS)
    runs = new_runs(args.seed)
    with np.errstate(over="ignore", invalid="ignore"):  # a state that explodes is nothing to warn of here
        train(runs, args, test, console)
        show_table(runs, args, console)
        draw(runs, args, test, console)


if __name__ == "__main__":
    main()
