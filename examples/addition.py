"""Addition, character by character: "12+7" to "19", by two LSTMs, one that reads and one that writes.

The encoder reads the sum and hands its state over to the decoder, which writes the answer; there is no other way between them
(Sutskever, Vinyals and Le 2014, arXiv 1409.3215). They found that reading the source backwards helps, because its beginning
then is near the beginning of the answer. Here both ways train side by side, from the same weights, on the same sums.

    python examples/addition.py                     two digits, about a minute
    python examples/addition.py --digits 3 --sums 50000 --epochs 100 --seconds 3600
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastrnn
from common import console, each_step, options, parse, picture
from fastrnn.train import Adam, Linear, beam_search, reverse_padded, sample, softmax_cross_entropy

Array = NDArray[Any]
CLASSES = "0123456789+ <"  # a blank fills up and ends an answer; < starts it
BLANK, START, V = CLASSES.index(" "), CLASSES.index("<"), len(CLASSES)
HIDDEN, BATCH = 128, 128
ONE_HOT = np.eye(V, dtype=np.float32)


def encode(text: str, width: int) -> list[int]:
    return [CLASSES.index(c) for c in text.ljust(width)]


def sums(rng: np.random.Generator, n: int, digits: int) -> tuple[Array, Array, Array]:
    """n different sums: sources (2*digits+1, n) and their lengths, answers (digits+2, n) with a blank at the end."""
    seen: dict[str, int] = {}
    while len(seen) < n:
        a, b = (int(rng.integers(0, 10 ** int(rng.integers(1, digits + 1)))) for _ in range(2))
        seen[f"{a}+{b}"] = a + b
    source = np.array([encode(text, 2 * digits + 1) for text in seen]).T
    answer = np.array([encode(str(total), digits + 2) for total in seen.values()]).T
    return source, np.array([len(text) for text in seen]), answer


class Network:
    def __init__(self, reverse: bool, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.reverse = reverse
        self.encoder, self.decoder = fastrnn.LSTM(V, HIDDEN, rng=rng), fastrnn.LSTM(V, HIDDEN, rng=rng)
        self.readout = Linear(HIDDEN, V, rng=rng)
        self.adam = Adam([self.encoder.flat, self.decoder.flat, self.readout.flat], lr=2e-3)

    def read(self, source: Array, lengths: Array) -> Array:
        return ONE_HOT[reverse_padded(source, lengths) if self.reverse else source]

    def step(self, source: Array, lengths: Array, answer: Array) -> float:
        """The decoder is given what it should have written so far: teacher forcing."""
        _, state, encoder_tape = self.encoder.forward(self.read(source, lengths), lengths=lengths)
        before = np.concatenate([np.full_like(answer[:1], START), answer[:-1]])
        y, _, decoder_tape = self.decoder.forward(ONE_HOT[before], state)
        o, readout_tape = self.readout.forward(y)
        loss, do = softmax_cross_entropy(o, answer)
        readout_grads = readout_tape.backward(do)
        decoder_grads = decoder_tape.backward(readout_grads.x)
        encoder_grads = encoder_tape.backward(dstate=decoder_grads.state)
        self.adam.clipped_step([encoder_grads.flat, decoder_grads.flat, readout_grads.flat], max_norm=5.0)
        return loss

    def write(self, source: Array, lengths: Array, steps: int) -> Array:
        """(steps, B): each character the likeliest, and fed back."""
        _, state = self.encoder(self.read(source, lengths), lengths=lengths)
        first = np.full((1, source.shape[1]), START)
        return sample(self.decoder, self.readout, first, steps, temperature=0, state=state)[0]


def train(network: Network, args: argparse.Namespace, train_set: tuple[Array, ...], test: tuple[Array, ...]) -> list[float]:
    """The accuracy per character on the test set, behind each epoch."""
    rng = np.random.default_rng([args.seed, 1])
    source, lengths, answer = train_set
    curve, epoch = [0.0], -(-len(lengths) // BATCH)
    args.steps = epoch * args.epochs
    order = rng.permutation(len(lengths))
    for step in each_step(args, lambda: f"{'reversed' if network.reverse else 'as it is':8} {100 * curve[-1]:5.1f} % of characters"):
        some = order[(step - 1) % epoch * BATCH :][:BATCH]
        network.step(source[:, some], lengths[some], answer[:, some])
        if step % epoch == 0:
            order = rng.permutation(len(lengths))
            curve.append(float((network.write(*test[:2], len(test[2])) == test[2]).mean()))
    return curve


def main() -> None:
    parser = options(__doc__, steps=10**9, seconds=60, out="addition.png", quick={"sums": 600, "epochs": 3})
    parser.add_argument("--digits", type=int, default=2, help="of each number at most")
    parser.add_argument("--sums", type=int, default=5000, help="in all; a tenth of them is for testing")
    parser.add_argument("--epochs", type=int, default=55, help="through the other nine tenths")
    args = parse(parser)
    if not 1 <= args.digits <= 9 or not 10 <= args.sums <= 10 ** (2 * args.digits) // 2:
        parser.error("expected --digits from 1 to 9, and --sums of at least 10 and at most half of all there are")
    data = sums(np.random.default_rng(args.seed), args.sums, args.digits)
    cut = args.sums // 10
    test, train_set = tuple(a[..., :cut] for a in data), tuple(a[..., cut:] for a in data)
    networks = {name: Network(reverse, args.seed) for name, reverse in (("reversed", True), ("as it is", False))}
    curves = {name: train(network, args, train_set, test) for name, network in networks.items()}
    for name, curve in curves.items():
        solved = next((str(k) for k, value in enumerate(curve) if value >= 0.99), "none")
        console.print(f"source {name}: {100 * curve[-1]:.2f} % of characters after {len(curve) - 1} epochs; 99 % at epoch {solved}")
    show(networks["reversed"], test, args.digits)

    def draw(axes: Any) -> None:
        for name, curve in curves.items():
            axes.plot([100 * value for value in curve], lw=1.8, label=f"source {name}")
        axes.set(xlabel="epoch", ylabel="characters right, %", title=f"Addition of {args.digits} digits, {args.sums} sums")
        axes.axhline(99, color="black", ls=":", lw=1)
        axes.grid(alpha=0.3)
        axes.legend()

    picture(args.out, draw)


def show(network: Network, test: tuple[Array, ...], digits: int) -> None:
    """A few answers, by beam search."""
    source, lengths, _ = test
    for k in range(3):
        one = source[:, k : k + 1], lengths[k : k + 1]
        _, state = network.encoder(network.read(*one), lengths=one[1])
        best = beam_search(network.decoder, network.readout, START, BLANK, digits + 2, width=3, state=state)
        answers = ", ".join(f"{''.join(CLASSES[i] for i in b.ids).strip()} ({100 * np.exp(b.log_probability):.1f} %)" for b in best)
        console.print(f"{''.join(CLASSES[i] for i in source[: lengths[k], k])} = {answers}", soft_wrap=True)


if __name__ == "__main__":
    main()
