"""A character language model: an LSTM reads a text, guesses each next character, and then writes one of its own.

Its mark is the bigram entropy of the text: how well the next character can be told from the one before it, by one who has counted
all pairs. The loss on the last tenth of the text, which it is not trained on, has to fall below that. The default text is what
Python's help() says about the language; it differs from version to version.

    python examples/characters.py                            about a minute
    python examples/characters.py --text book.txt --seconds 1800 --state book.npz
"""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastrnn
from common import Arrays, Training, console, options, parse, picture, precision
from fastrnn.train import Adam, Linear, sample, schedules, softmax_cross_entropy

Array = NDArray[Any]
T, B = 64, 32  # steps of a piece of text, and how many are read side by side
BITS = 1 / math.log(2)


def read(path: Path | None) -> str:
    if path is None:
        from pydoc_data.topics import topics

        return re.sub(" +", " ", "\n".join(topics.values()))  # blanks in a row are too easy to tell
    return path.read_text(encoding="utf-8")


def bigram_entropy(ids: Array, V: int) -> float:
    """Bits for each character, given the one before it: the entropy of the pairs less that of their first."""
    pairs = np.bincount(ids[:-1] * V + ids[1:], minlength=V * V) / (len(ids) - 1)
    return entropy(pairs) - entropy(pairs.reshape(V, V).sum(axis=1))


def entropy(p: Array) -> float:
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


class Network:
    """It reads B places of the text side by side, and remembers at each what came before, but learns T steps back at most."""

    def __init__(self, V: int, args: argparse.Namespace) -> None:
        rng, H, L = np.random.default_rng(args.seed), args.hidden, args.layers
        self.layer = fastrnn.LSTM(V, H, num_layers=L, precision=args.precision, rng=rng)
        self.readout = Linear(H, V, rng=rng)
        self.adam = Adam([self.layer.flat, self.readout.flat], lr=schedules.warmup(50, schedules.constant(args.lr)))
        self.memory = Arrays(h=np.zeros((L, B, H), np.float32), c=np.zeros((L, B, H), np.float32))

    def step(self, ids: Array) -> float:
        """ids (T+1, B): the text and, one step later, what is to be guessed. The loss in bits for each character.

        The layer takes the integers themselves, in place of one-hot rows."""
        y, state, tape = self.layer.forward(ids[:-1], (self.memory["h"], self.memory["c"]))
        self.memory["h"], self.memory["c"] = state
        o, readout_tape = self.readout.forward(y)
        loss, do = softmax_cross_entropy(o, ids[1:])
        grads = readout_tape.backward(do)
        self.adam.clipped_step([tape.backward(grads.x).flat, grads.flat], max_norm=1.0)
        return loss * BITS

    def forget(self) -> None:
        for array in self.memory.values():
            array[...] = 0

    def judge(self, ids: Array) -> float:
        """The loss on a text that it only reads."""
        y, _ = self.layer(ids[:-1, None])
        return softmax_cross_entropy(self.readout(y), ids[1:, None])[0] * BITS


def train(network: Network, args: argparse.Namespace, ids: Array, test: Array) -> Training:
    n = (len(ids) - 1) // B
    places = np.stack([ids[k * n : (k + 1) * n + 1] for k in range(B)], axis=1)  # (n+1, B)
    pieces = n // T
    parts = {"layer": network.layer, "readout": network.readout, "adam": network.adam, "memory": network.memory}
    training = Training(args, **parts)
    for step in training.each(args.steps):
        at = (step - 1) % pieces
        if at == 0:
            network.forget()
        training.note(train=network.step(places[at * T : (at + 1) * T + 1]))
        if step % 100 == 0 or step == args.steps:
            training.note(test=network.judge(test))
    return training


def draw(training: Training, args: argparse.Namespace, bigrams: float) -> Any:
    def panel(axes: Any) -> None:
        axes.plot(*training.curve("train"), lw=0.8, alpha=0.6, label="pieces of the training")
        axes.plot(*training.curve("test"), lw=1.8, label="the last tenth of the text")
        axes.axhline(bigrams, color="black", ls="--", lw=1, label=f"bigram entropy: {bigrams:.3f}")
        axes.set(xlabel="step", ylabel="bits for each character", title=f"Characters: {args.layers} x {args.hidden} LSTM units")
        axes.legend()

    return panel


def main() -> None:
    parser = options(__doc__, out="characters.png", steps=3000)
    parser.add_argument("--text", type=Path, help="a file in UTF-8; by default what Python's help() says about the language")
    parser.add_argument("--hidden", type=int, default=128, help="units of a layer")
    parser.add_argument("--layers", type=int, default=2, help="layers")
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate of Adam")
    parser.add_argument("--characters", type=int, default=10**6, help="of the text, at most")
    parser.add_argument("--temperature", type=float, default=0.7, help="of the sample: lower is more careful")
    precision(parser)
    args = parse(parser, steps=300, hidden=64, layers=1, characters=60_000, lr=1e-2)
    text = read(args.text)[: args.characters]
    if len(text) < 10 * B * T:
        parser.error(f"--text: expected at least {10 * B * T} characters, got {len(text)}")
    alphabet, ids = np.unique(np.array(list(text)), return_inverse=True)
    cut = len(ids) * 9 // 10
    V, bigrams = len(alphabet), bigram_entropy(ids, len(alphabet))
    network = Network(V, args)
    training = train(network, args, ids[:cut], ids[cut:])
    test = training.latest("test")
    console.print(f"{len(ids)} characters, {V} different ones; bits for each: {test:.3f} on the last tenth, bigrams {bigrams:.3f}")
    prompt = ids[cut : cut + 100]
    written, _ = sample(network.layer, network.readout, prompt, 400, temperature=args.temperature, rng=args.seed)
    console.print("".join(alphabet[prompt]), style="dim", end="", markup=False)
    console.print("".join(alphabet[written]), markup=False)
    picture(args.out, draw(training, args, bigrams))


if __name__ == "__main__":
    main()
