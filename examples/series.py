"""A time series, one step ahead: a GRU reads the values so far and says the next one.

The series comes from a text file with a number, or several with commas between them, in each line. It is trained on the first four
fifths and judged on the last, beside two simple answers: the value stays as it is, and a linear function of the 16 values before,
fitted by least squares. At the end it goes on by itself, from its own answers.

    python examples/series.py                                 the Mackey-Glass series, about half a minute
    python examples/series.py --data temperatures.csv --column 2
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastrnn
from common import Training, console, options, parse, picture
from fastrnn.train import Adam, Linear, schedules, squared_error

Array = NDArray[Any]
T, B, PAST = 100, 32, 16


def mackey_glass(n: int, every: int = 6, delay: int = 17, substeps: int = 10) -> Array:
    """dx/dt = 0.2 x(t-delay) / (1 + x(t-delay)^10) - 0.1 x, which is chaotic (Mackey and Glass 1977): n values, 6 units of time
    apart, as it is usually asked for."""
    past, apart = delay * substeps, every * substeps
    x = np.full(past + (n + 100) * apart, 1.2)
    for k in range(past, len(x) - 1):
        late = x[k - past]
        x[k + 1] = x[k] + (0.2 * late / (1 + late**10) - 0.1 * x[k]) / substeps
    return x[-n * apart :: apart]


def read(path: Path, column: int) -> Array:
    """Lines that do not begin with a number, such as a heading, are left out."""
    values = []
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = line.replace(";", ",").split(",")
        try:
            values.append(float(cells[column - 1]))
        except (ValueError, IndexError):
            if values and line.strip():
                raise SystemExit(f"--data {path}: expected a number in column {column}, got {line!r:.60}") from None
    return np.array(values)


class Network:
    """The answer is the last value plus what the readout says: to change nothing is where it starts from."""

    def __init__(self, hidden: int, steps: int, lr: float, rng: np.random.Generator) -> None:
        self.layer, self.readout = fastrnn.GRU(1, hidden, rng=rng), Linear(hidden, 1, rng=rng)
        self.adam = Adam([self.layer.flat, self.readout.flat], lr=schedules.cosine(lr, steps))

    def step(self, x: Array) -> float:
        """x (T+1, B, 1)"""
        y, _, tape = self.layer.forward(x[:-1])
        o, readout_tape = self.readout.forward(y)
        loss, do = squared_error(o, x[1:] - x[:-1])
        grads = readout_tape.backward(do)
        self.adam.clipped_step([tape.backward(grads.x).flat, grads.flat], max_norm=1.0)
        return loss

    def ahead(self, x: Array, n: int) -> tuple[Array, Array]:
        """x (N, 1): what it says to come behind each step (N, 1); and n values that it goes on with by itself (n, 1)."""
        stream = self.layer.stream()
        said = x + self.readout(stream(x[:, None])[:, 0])
        own = said[-1:].repeat(n, axis=0)
        for k in range(1, n):
            own[k] = own[k - 1] + self.readout(stream(own[k - 1]))
        return said, own


def linear(x: Array, cut: int) -> Array:
    """(N,): the next value from the PAST values before it, by least squares on the first `cut`; NaN where there are none."""
    windows = np.lib.stride_tricks.sliding_window_view(x, PAST)[:-1]
    rows = np.column_stack([windows, np.ones(len(windows))])
    weights = np.linalg.lstsq(rows[: cut - PAST], x[PAST:cut], rcond=None)[0]
    return np.concatenate([np.full(PAST, np.nan), rows @ weights])


def train(args: argparse.Namespace, x: Array) -> tuple[Network, Training]:
    """x (n, 1): the first part of the series."""
    rng = np.random.default_rng(args.seed)
    network = Network(args.hidden, args.steps, args.lr, rng)
    training = Training(args, layer=network.layer, readout=network.readout, adam=network.adam, rng=rng)
    for _ in training.each(args.steps):
        starts = rng.integers(0, len(x) - T, B)
        training.note(loss=network.step(np.stack([x[k : k + T + 1] for k in starts], axis=1)))
    return network, training


def draw(x: Array, said: Array, own: Array, cut: int, name: str) -> Any:
    """The test part, with what was said of each value; and its end, with what the network would have gone on with there."""

    def panels(axes: Any) -> None:
        seen, n = min(len(x) - cut, 300), len(own)
        axes[0].plot(x[cut : cut + seen], lw=2.5, color="0.75", label=name)
        axes[0].plot(said[cut - 1 : cut - 1 + seen], lw=1, label="said one step ahead")
        axes[1].plot(x[len(x) - n :], lw=2.5, color="0.75", label=name)
        axes[1].plot(own, lw=1, label="said from its own answers")
        for each in axes:
            each.legend(loc="upper right")
            each.set(xlabel="step", ylabel="value")
        axes[0].set_title("The part that it was not trained on")

    return panels


def main() -> None:
    parser = options(__doc__, out="series.png", steps=1500)
    parser.add_argument("--data", type=Path, help="a text file; by default the Mackey-Glass series")
    parser.add_argument("--column", type=int, default=1, help="of the file, from 1")
    parser.add_argument("--hidden", type=int, default=32, help="units of the GRU")
    parser.add_argument("--lr", type=float, default=1e-2, help="learning rate of Adam at the start, which falls to 0")
    args = parse(parser, steps=150)
    x = mackey_glass(3000) if args.data is None else read(args.data, args.column)
    if len(x) < 2 * T or not np.isfinite(x).all():
        parser.error(f"--data: expected at least {2 * T} finite numbers, got {len(x)}")
    cut = len(x) * 4 // 5
    mean, scale = x[:cut].mean(), x[:cut].std() or 1.0
    z = ((x - mean) / scale).astype(np.float32)[:, None]
    network, _ = train(args, z[:cut])
    said = network.ahead(z, 1)[0][:, 0] * scale + mean
    own = network.ahead(z[:-T], T)[1][:, 0] * scale + mean
    errors = {"GRU": said[cut - 1 : -1], "the last value": x[cut - 1 : -1], f"linear in the last {PAST}": linear(x, cut)[cut:]}
    for name, answers in errors.items():
        console.print(f"root of the mean squared error, {name}: {np.sqrt(np.mean((answers - x[cut:]) ** 2)):.3g}")
    picture(args.out, draw(x, said, own, cut, "Mackey-Glass" if args.data is None else args.data.name), panels=2)


if __name__ == "__main__":
    main()
