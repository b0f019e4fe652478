"""Parity: is the number of ones so far odd or even? Learned on short strings of bits, asked of long ones.

A network that has understood it carries one bit through any number of steps. An LSTM is trained on strings of 1 to 50 bits, all
lengths in one padded batch, with an answer at every step, and asked strings of up to 500, ten times longer than any it has seen.

    python examples/parity.py                       about half a minute
    python examples/parity.py --seed 3 --hidden 8   from other weights
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastrnn
from common import console, each_step, options, parse, picture
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


def main() -> None:
    parser = options(__doc__, steps=3000, seconds=60, out="parity.png", quick={"steps": 600})
    parser.add_argument("--hidden", type=int, default=16, help="units of the LSTM")
    args = parse(parser)
    rng = np.random.default_rng(args.seed)
    network, losses = Network(args.hidden, rng), [1.0]
    test = strings(np.random.default_rng([args.seed, 1]), np.full(200, TEST))
    for step in each_step(args, lambda: f"loss {losses[-1]:.4f}"):
        lengths = rng.integers(1, LONGEST + 1, BATCH)
        losses.append(network.step(*strings(rng, lengths), lengths))
        if step % 100 == 0 and network.right(*test).mean() > 0.9999:
            break
    right = network.right(*test)
    for T in (LONGEST, TEST):
        console.print(f"length {T:3}: {100 * right[T - 1].mean():6.2f} % right at the last step, {100 * right[:T].mean():.2f} % at all")

    def draw(axes: Any) -> None:
        axes[0].semilogy(range(1, len(losses)), losses[1:], lw=1)
        axes[0].set(xlabel="step of training", ylabel="loss, nats", title=f"Parity: an LSTM of {args.hidden} units")
        axes[1].plot(range(1, TEST + 1), 100 * right.mean(axis=1), lw=1.5)
        axes[1].axvspan(1, LONGEST, alpha=0.15, label="lengths of the training")
        axes[1].set(xlabel="length of the string", ylabel="right, %", ylim=(45, 102))
        axes[1].legend(loc="lower left")

    picture(args.out, draw, panels=2)


if __name__ == "__main__":
    main()
