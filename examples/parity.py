"""Parity: is the number of ones so far odd or even? Learned on short strings of bits, asked of long ones.

A network that has understood it carries one bit through any number of steps. An LSTM is trained on strings of 1 to 50 bits, all
lengths in one padded batch, with an answer at every step, and asked strings of up to 500, ten times longer than any it has seen.

    python examples/parity.py                       seconds
    python examples/parity.py --seed 3 --hidden 8   from other weights
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastrnn
from common import Training, console, options, parse, picture
from fastrnn.train import Adam, Linear, sigmoid_cross_entropy

Array = NDArray[Any]
BATCH, LONGEST, TEST = 64, 50, 500


def strings(rng: np.random.Generator, lengths: Array) -> tuple[Array, Array]:
    """Random bits x and the parity of those so far, both (T, B, 1), with 0 behind the end of each row."""
    T = lengths.max()
    x = rng.integers(0, 2, (T, len(lengths), 1)) * (np.arange(T)[:, None] < lengths)[..., None]
    return x.astype(np.float32), np.cumsum(x, axis=0) % 2


class Network:
    def __init__(self, hidden: int, rng: np.random.Generator) -> None:
        self.layer, self.readout = fastrnn.LSTM(1, hidden, rng=rng), Linear(hidden, 1, rng=rng)
        self.adam = Adam([self.layer.flat, self.readout.flat], lr=1e-2)

    def step(self, x: Array, target: Array, lengths: Array) -> float:
        y, _, tape = self.layer.forward(x, lengths=lengths)
        o, readout_tape = self.readout.forward(y)
        loss, do = sigmoid_cross_entropy(o, target, lengths=lengths)
        grads = readout_tape.backward(do)
        self.adam.clipped_step([tape.backward(grads.x).flat, grads.flat], max_norm=1.0)
        return loss

    def right(self, x: Array, target: Array) -> Array:
        """(T, B) booleans."""
        y, _ = self.layer(x)
        return ((self.readout(y) > 0) == target)[..., 0]


def train(args: argparse.Namespace, test: tuple[Array, Array]) -> tuple[Network, Training]:
    rng = np.random.default_rng(args.seed)
    network = Network(args.hidden, rng)
    training = Training(args, layer=network.layer, readout=network.readout, adam=network.adam, rng=rng)
    for step in training.each(args.steps):
        lengths = rng.integers(1, LONGEST + 1, BATCH)
        training.note(loss=network.step(*strings(rng, lengths), lengths))
        if step % 100 == 0:
            training.note(right=network.right(*test).mean())
            if training.latest("right") > 0.9999:
                training.stop()
    return network, training


def draw(training: Training, right: Array, hidden: int) -> Any:
    def panels(axes: Any) -> None:
        axes[0].semilogy(*training.curve("loss"), lw=1)
        axes[0].set(xlabel="step of training", ylabel="loss, nats", title=f"Parity: an LSTM of {hidden} units")
        axes[1].plot(np.arange(TEST) + 1, 100 * right.mean(axis=1), lw=1.5)
        axes[1].axvspan(1, LONGEST, alpha=0.15, label="lengths of the training")
        axes[1].set(xlabel="length of the string", ylabel="right, %", ylim=(45, 102))
        axes[1].legend(loc="lower left")

    return panels


def main() -> None:
    parser = options(__doc__, out="parity.png", steps=3000)
    parser.add_argument("--hidden", type=int, default=16, help="units of the LSTM")
    args = parse(parser, steps=600)
    test = strings(np.random.default_rng([args.seed, 1]), np.full(200, TEST))
    network, training = train(args, test)
    right = network.right(*test)
    for T in (LONGEST, TEST):
        at_the_end, at_all = 100 * right[T - 1].mean(), 100 * right[:T].mean()
        console.print(f"length {T:3}: {at_the_end:6.2f} % right at the last step, {at_all:.2f} % at all")
    picture(args.out, draw(training, right, args.hidden), panels=2)


if __name__ == "__main__":
    main()
