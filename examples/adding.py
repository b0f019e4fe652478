"""The adding problem: can a recurrent network carry two numbers through 200 steps?

Each step of the input is a random number in [0, 1] and a mark, which is 1 at two steps, one in each half, and
else 0. The answer, due after the last step, is the sum of the two marked numbers. Who always answers 1 has a
mean squared error of 1/6; under 0.01 counts as solved (Hochreiter and Schmidhuber 1997; Le, Jaitly and Hinton
2015, arXiv 1504.00941).

An IRNN and a tanh RNN train side by side, from the same initial weights and on the same data: they differ in
nothing but the nonlinearity. An LSTM and a GRU may join them. Then a table and a picture say who solved it, and
how long a step took in fastrnn and in plain NumPy.

    python examples/adding.py                       at most a minute or so, on two cores
    python examples/adding.py --T 100 --seed 4      an easier one, on other data from other weights
    python examples/adding.py --networks irnn tanh lstm gru --T 150 --steps 6000 --seconds 1200
"""

from __future__ import annotations

import argparse
import os
import time
from types import SimpleNamespace
from typing import Any

# NumPy's BLAS reads this when it is loaded. On one thread it is measured in its own right, not by how well its
# threads get along with what else the machine is doing.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

import fastrnn
from common import Training, console, options, parse, picture, precision
from fastrnn.train import Adam, Linear
from fastrnn.train.initialisers import initialise, orthogonal

Array = NDArray[Any]
HIDDEN, BATCH, TEST_ROWS = 64, 64, 500
JUDGE_EVERY = 10  # iterations
KINDS = ("irnn", "tanh", "lstm", "gru")
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

    def __init__(self, name: str, layer: Any, readout: Linear) -> None:
        self.name, self.layer, self.readout = name, layer, readout
        self.adam = Adam([layer.flat, readout.flat], lr=1e-3)
        self.parts = {f"{name} {kind}": part for kind, part in (("layer", layer), ("readout", readout), ("adam", self.adam))}

    def answer(self, x: Array) -> Array:
        """x (T, B, 2) -> (B, 1)"""
        _, state = self.layer(x)
        return self.readout(last(state))

    def error(self, x: Array, target: Array) -> float:
        return float(np.mean((self.answer(x) - target).astype(np.float64) ** 2))

    def step(self, x: Array, target: Array) -> None:
        """Forward, backward, and a step of the optimiser."""
        _, state, tape = self.layer.forward(x)
        answer, readout_tape = self.readout.forward(last(state))
        readout_grads = readout_tape.backward(2 * (answer - target) / len(target))
        dh = readout_grads.x[None]
        grads = tape.backward(dstate=(dh, None) if isinstance(state, tuple) else dh)
        # An IRNN's gradients explode now and then, also in a training that succeeds. Clipped they do no harm;
        # where even their norm is not finite, the step is skipped.
        self.adam.clipped_step([grads.flat, readout_grads.flat], max_norm=1.0)


def last(state: Any) -> Array:
    """The hidden state of the one layer (B, H), without an LSTM's c."""
    h: Array = state[0] if isinstance(state, tuple) else state
    return h[-1]


def new_networks(seed: int, kinds: list[str], precision: str = "float32") -> list[Network]:
    """Those of these kinds; an IRNN and a tanh RNN have the same initial weights."""
    rng = np.random.default_rng(seed)
    irnn = fastrnn.IRNN(2, HIDDEN, input_std=0.1, precision=precision, rng=rng)
    readout = Linear(HIDDEN, 1, rng=rng)
    layers: dict[str, tuple[str, Any]] = {
        "irnn": ("IRNN", irnn),
        "tanh": ("tanh RNN", fastrnn.RNN(2, HIDDEN, nonlinearity="tanh", precision=precision)),
        "lstm": ("LSTM", fastrnn.LSTM(2, HIDDEN, precision=precision, rng=rng)),
        "gru": ("GRU", fastrnn.GRU(2, HIDDEN, precision=precision, rng=rng)),
    }
    layers["tanh"][1].flat[:] = irnn.flat
    initialise(layers["lstm"][1], forget_bias=1.0)
    initialise(layers["gru"][1], weight_hh=orthogonal(), rng=rng)
    networks = [Network(*layers[kind], Linear(HIDDEN, 1)) for kind in kinds]
    for network in networks:
        network.readout.flat[:] = readout.flat
    return networks


def train(networks: list[Network], args: argparse.Namespace, test: tuple[Array, Array]) -> Training:
    """Train each until it has solved the problem, or the steps or the time are up. Its curve is that of the error."""
    rng = np.random.default_rng([args.seed, 1])
    training = Training(args, rng=rng, **{name: part for network in networks for name, part in network.parts.items()})
    if training.step == 0:
        training.note(**{network.name: network.error(*test) for network in networks})
    for step in training.each(args.steps):
        active = [network for network in networks if not solved(training, network)]
        batch = adding_problem(rng, args.T, BATCH)
        for network in active:
            network.step(*batch)
            if step % JUDGE_EVERY == 0 or step == args.steps:
                training.note(**{network.name: network.error(*test)})
        if all(solved(training, network) for network in networks):
            training.stop()
    return training


def solved(training: Training, network: Network) -> bool:
    return training.latest(network.name) < SOLVED


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
    thread, and NumPy on one; NaN for NumPy's LSTM and GRU, which are not here. They take turns, so that what else the machine
    does meets them all."""
    batch = adding_problem(np.random.default_rng([args.seed, 1]), args.T, BATCH)
    contestants = [(n, new_networks(args.seed, args.networks, args.precision)) for n in (threads, 1, 1)]
    for network in contestants[-1][1]:
        network.layer = NumpyLoop(network.layer) if isinstance(network.layer, fastrnn.RNN) else None
    times = np.full((20, len(args.networks), len(contestants)), np.nan)
    for turn in times:
        for column, (n, networks) in enumerate(contestants):
            fastrnn.set_num_threads(n)
            for row, network in enumerate(networks):
                if network.layer is not None:
                    start = time.perf_counter()
                    network.step(*batch)
                    turn[row, column] = 1e3 * (time.perf_counter() - start)
    fastrnn.set_num_threads(threads)
    quickest: Array = times.min(axis=0)
    return quickest


# --- what came out ------------------------------------------------------------------------------------------


def show_table(networks: list[Network], training: Training, args: argparse.Namespace) -> None:
    title = f"The adding problem, T = {args.T}: H = {HIDDEN}, batches of {BATCH}, seed {args.seed}"
    table = Table("network", title=title)
    threads = fastrnn.get_num_threads()
    for heading in ("solved at\niteration", "least\nerror", f"{threads} threads", "1 thread", "NumPy", "ratio"):
        table.add_column(heading, justify="right", vertical="bottom")
    for network, times in zip(networks, quickest_steps(args, threads), strict=True):
        iterations, errors = training.curve(network.name)
        verdict = f"{iterations[-1]}" if solved(training, network) else f"not in {iterations[-1]}"
        shown = [f"{ms:.2f} ms" for ms in times] + [f"{times[2] / times[1]:.1f}"]
        table.add_row(network.name, verdict, f"{min(errors):.4f}", *(cell if "nan" not in cell else "" for cell in shown))
    console.print(table)
    console.print(
        f"Solved: the mean squared error on {TEST_ROWS} other problems is under {SOLVED}; always answering 1 "
        f"has {BASELINE:.4f}.\nTimes of a step (forward, backward, clipping, Adam), the quickest of 20: fastrnn on "
        f"{threads} threads and on 1; a plain\nNumPy loop over time in float32, on 1. The ratio is of the last two."
    )


def draw(networks: list[Network], training: Training, args: argparse.Namespace, test: tuple[Array, Array]) -> None:
    def panels(axes: Any) -> None:
        draw_errors(axes[0], networks, training, args)
        draw_input(axes[1], networks, test)

    picture(args.out, panels, panels=2)


def draw_errors(axes: Any, networks: list[Network], training: Training, args: argparse.Namespace) -> None:
    for k, network in enumerate(networks):
        iterations, errors = training.curve(network.name)
        done = solved(training, network)
        verdict = f"solved at iteration {iterations[-1]}" if done else "not solved"
        axes.plot(iterations, errors, color=f"C{k}", lw=1.8, label=f"{network.name}: {verdict}")
        if done:
            axes.plot(iterations[-1], errors[-1], "o", color=f"C{k}", ms=8)
    axes.axhline(BASELINE, color="black", ls="--", lw=1, label="always answering 1: 1/6")
    axes.axhline(SOLVED, color="black", ls=":", lw=1, label=f"solved: under {SOLVED}")
    axes.set(yscale="log", ylim=(SOLVED / 2, 2), xlim=(0, training.step))
    axes.set(xlabel="iteration", ylabel="mean squared error on the test set")
    axes.set_title(f"The adding problem over {args.T} steps")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")


def draw_input(axes: Any, networks: list[Network], test: tuple[Array, Array]) -> None:
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
    answers = ", ".join(f"{network.name} {network.answer(x).item():.2f}" for network in networks)
    first, second = numbers[marked]
    axes.set_title(f"One input: {first:.2f} + {second:.2f} = {target:.2f}. Answers: {answers}")
    axes.set(xlabel="step t", ylabel="input", xlim=(-1, len(x)), ylim=(0, 1.05))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)


def arguments() -> argparse.Namespace:
    parser = options(__doc__, out="adding.png", seconds=50, steps=2000)
    parser.set_defaults(seed=3)
    parser.add_argument("--T", type=int, default=200, help="length of the input")
    parser.add_argument("--networks", nargs="+", choices=KINDS, default=["irnn", "tanh"], help="which are to train")
    precision(parser)
    args = parse(parser, T=20, steps=800)
    if args.T < 2:
        parser.error(f"--T: expected at least 2, got {args.T}")
    return args


def main() -> None:
    args = arguments()
    test = adding_problem(np.random.default_rng([args.seed, 2]), args.T, TEST_ROWS)
    networks = new_networks(args.seed, args.networks, args.precision)
    with np.errstate(over="ignore", invalid="ignore"):  # a state that explodes is nothing to warn of here
        training = train(networks, args, test)
        show_table(networks, training, args)
        draw(networks, training, args, test)


if __name__ == "__main__":
    main()
