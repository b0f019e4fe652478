"""Sequences to classes: a recurrent layer reads, and a readout of its last state says which class it was."""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import Training, console, precision
from digits import Digits
from fastrnn.train import Adam, Average, Linear, clip_global_norm, schedules, softmax_cross_entropy

Array = NDArray[Any]


class Classifier:
    """A layer and a readout, trained by Adam at a rate that falls to 0; `average` has the mean of the weights over the last steps.

    The layer works at every step, so what its weights are changed by adds up over the sequence: `slower` divides their rate.
    """

    def __init__(self, layer: Any, args: argparse.Namespace, steps: int) -> None:
        self.layer, self.readout = layer, Linear(layer.hidden_size, 10, rng=layer.rng)
        self.fast = Adam([self.readout.flat], lr=schedules.cosine(args.lr, steps))
        self.slow = Adam([layer.flat], lr=schedules.cosine(args.lr / args.slower, steps))
        self.average = Average([layer.flat, self.readout.flat], decay=args.decay)

    @property
    def parts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("layer", "readout", "fast", "slow", "average")}

    def step(self, x: Array, y: Array) -> float:
        """x (T, B, I), y (B,). The loss in nats."""
        _, state, tape = self.layer.forward(x)
        o, readout_tape = self.readout.forward(last(state))
        loss, do = softmax_cross_entropy(o, y)
        readout_grads = readout_tape.backward(do)
        dh = readout_grads.x[None]
        grads = tape.backward(dstate=(dh, None) if isinstance(state, tuple) else dh).flat
        if math.isfinite(clip_global_norm([grads, readout_grads.flat], max_norm=1.0)):
            self.fast.step([readout_grads.flat])
            self.slow.step([grads])
            self.average.update()
        return loss

    def accuracy(self, x: Array, y: Array, batch: int = 500) -> float:
        """x (T, N, I), y (N,)"""
        right = 0
        for start in range(0, len(y), batch):
            _, state = self.layer(np.ascontiguousarray(x[:, start : start + batch]))
            right += int((self.readout(last(state)).argmax(axis=1) == y[start : start + batch]).sum())
        return right / len(y)


def last(state: Any) -> Array:
    """The hidden state of the last layer (B, H), without an LSTM's c."""
    h: Array = state[0] if isinstance(state, tuple) else state
    return h[-1]


def numbers(pictures: Array, I: int) -> Array:
    """(N, height, width) bytes as sequences (T, N, I) of numbers from 0 to 1, I pixels at a step."""
    x = pictures.reshape(len(pictures), -1, I).swapaxes(0, 1)
    return np.ascontiguousarray(x, np.float32) / 255


def train(classifier: Classifier, args: argparse.Namespace, data: Digits) -> Training:
    """The curves: each step's loss and, behind each epoch, what is right of the test set, by the weights and by their mean."""
    N, I = len(data.x_train), classifier.layer.input_size
    epoch = -(-N // args.batch)
    x_test = numbers(data.x_test, I)
    training = Training(args, **classifier.parts)
    for step in training.each(epoch * args.epochs):
        k, at = divmod(step - 1, epoch)
        order = np.random.default_rng([args.seed, k]).permutation(N)  # of the epoch, the same whenever it is asked for
        some = order[at * args.batch :][: args.batch]
        training.note(loss=classifier.step(numbers(data.x_train[some], I), data.y_train[some]))
        if at == epoch - 1:
            training.note(right=classifier.accuracy(x_test, data.y_test))
            with classifier.average.swapped():
                training.note(mean=classifier.accuracy(x_test, data.y_test))
            loss = training.curve("loss")[1][-epoch:].mean()
            right = f"{100 * training.latest('right'):.2f} %, by the mean weights {100 * training.latest('mean'):.2f} %"
            console.print(f"epoch {k + 1:3}: loss {loss:.4f}, right {right}, {training.seconds:.0f} s")
    return training


def draw(training: Training, epoch: int, title: str) -> Any:
    """epoch: its steps."""

    def panels(axes: Any) -> None:
        losses = training.curve("loss")[1]
        means = losses[: len(losses) // epoch * epoch].reshape(-1, epoch).mean(axis=1)
        axes[0].semilogy(np.arange(len(means)) + 1, means, lw=1.5)
        axes[0].set(ylabel="loss of the training, nats", title=title)
        for name, label in (("right", "the weights"), ("mean", "their mean over the last steps")):
            steps, right = training.curve(name)
            axes[1].plot(steps / epoch, 100 * right, lw=1.5, label=label)
        axes[1].set(xlabel="epoch", ylabel="test set right, %")
        axes[1].legend(loc="lower right")
        for each in axes:
            each.grid(alpha=0.3)

    return panels


def rates(parser: argparse.ArgumentParser, batch: int, epochs: int, lr: float, slower: float, decay: float) -> None:
    """The options of a training, and their defaults."""
    precision(parser)
    parser.add_argument("--batch", type=int, default=batch, help="sequences of a step")
    parser.add_argument("--epochs", type=int, default=epochs, help="through the training set, while the learning rate falls to 0")
    parser.add_argument("--lr", type=float, default=lr, help="learning rate of Adam at the start")
    parser.add_argument("--slower", type=float, default=slower, help="what that is divided by for the recurrent layer")
    parser.add_argument("--decay", type=float, default=decay, help="of the mean of the weights, at each step")
