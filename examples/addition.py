"""Addition, character by character: "12+7" to "19", by two LSTMs, one that reads and one that writes.

The encoder reads the sum and hands its state over to the decoder, which writes the answer; there is no other way between them
(Sutskever, Vinyals and Le 2014, arXiv 1409.3215). They found that reading the source backwards helps, because its beginning
then is near the beginning of the answer. Here both ways train side by side, from the same weights, on the same sums.

    python examples/addition.py                     two digits, about a minute
    python examples/addition.py --digits 3 --sums 50000 --epochs 100 --seconds 3600
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastrnn
from common import Training, console, options, parse, picture
from fastrnn.train import Adam, Linear, beam_search, reverse_padded, sample, schedules, softmax_cross_entropy
from fastrnn.train.initialisers import glorot, initialise, orthogonal

Array = NDArray[Any]
CLASSES = "0123456789+ <"  # a blank fills up and ends an answer; < starts it
BLANK, START, V = CLASSES.index(" "), CLASSES.index("<"), len(CLASSES)
HIDDEN = 128
ONE_HOT = np.eye(V, dtype=np.float32)


class Sums(NamedTuple):
    """n sums: sources (2*digits+1, n) and their lengths (n,), answers (digits+2, n) with a blank at the end."""

    source: Array
    lengths: Array
    answer: Array

    def some(self, which: Any) -> Sums:
        return Sums(*(array[..., which] for array in self))


def encode(text: str, width: int) -> list[int]:
    return [CLASSES.index(c) for c in text.ljust(width)]


def sums(rng: np.random.Generator, n: int, digits: int) -> Sums:
    """Of different pairs, so that none is asked for that was seen the other way round; shuffled, because the short ones come first
    when each number of digits is as frequent as the others."""
    seen: dict[tuple[int, int], tuple[str, int]] = {}
    while len(seen) < n:
        a, b = (int(rng.integers(0, 10 ** int(rng.integers(1, digits + 1)))) for _ in range(2))
        seen.setdefault((min(a, b), max(a, b)), (f"{a}+{b}", a + b))
    source = np.array([encode(text, 2 * digits + 1) for text, _ in seen.values()]).T
    answer = np.array([encode(str(total), digits + 2) for _, total in seen.values()]).T
    return Sums(source, np.array([len(text) for text, _ in seen.values()]), answer).some(rng.permutation(n))


class Network:
    def __init__(self, reverse: bool, args: argparse.Namespace, steps: int) -> None:
        rng = np.random.default_rng(args.seed)
        self.reverse, self.name = reverse, "reversed" if reverse else "as it is"
        self.encoder, self.decoder = fastrnn.LSTM(V, HIDDEN, rng=rng), fastrnn.LSTM(V, HIDDEN, rng=rng)
        for layer in (self.encoder, self.decoder):
            initialise(layer, weight_ih=glorot(), weight_hh=orthogonal(), bias=0.0, forget_bias=1.0, rng=rng)
        self.readout = Linear(HIDDEN, V, rng=rng)
        params = [self.encoder.flat, self.decoder.flat, self.readout.flat]
        self.adam = Adam(params, lr=schedules.cosine(args.lr, steps))

    @property
    def parts(self) -> dict[str, Any]:
        names = ("encoder", "decoder", "readout", "adam")
        return {f"{name} of {self.name}": getattr(self, name) for name in names}

    def read(self, data: Sums) -> Any:
        """The state behind the sources, and the tape."""
        source = reverse_padded(data.source, data.lengths) if self.reverse else data.source
        return self.encoder.forward(ONE_HOT[source], lengths=data.lengths)[1:]

    def step(self, data: Sums) -> float:
        """The decoder is given what it should have written so far: teacher forcing."""
        state, encoder_tape = self.read(data)
        before = np.concatenate([np.full_like(data.answer[:1], START), data.answer[:-1]])
        y, _, decoder_tape = self.decoder.forward(ONE_HOT[before], state)
        o, readout_tape = self.readout.forward(y)
        loss, do = softmax_cross_entropy(o, data.answer)
        readout_grads = readout_tape.backward(do)
        decoder_grads = decoder_tape.backward(readout_grads.x)
        encoder_grads = encoder_tape.backward(dstate=decoder_grads.state)
        self.adam.clipped_step([encoder_grads.flat, decoder_grads.flat, readout_grads.flat], max_norm=5.0)
        return loss

    def accuracy(self, data: Sums) -> float:
        """Of the characters, each the likeliest, and fed back; the blank that is always the last does not count."""
        steps, n = data.answer.shape
        written, _ = sample(self.decoder, self.readout, np.full((1, n), START), steps, temperature=0, state=self.read(data)[0])
        return float((written == data.answer)[:-1].mean())


def train(networks: list[Network], args: argparse.Namespace, data: Sums, test: Sums, epoch: int) -> Training:
    """epoch: its steps. The curves are the accuracies on the test set behind each."""
    n = len(data.lengths)
    training = Training(args, **{name: part for network in networks for name, part in network.parts.items()})
    for step in training.each(epoch * args.epochs):
        k, at = divmod(step - 1, epoch)
        order = np.random.default_rng([args.seed, 1, k]).permutation(n)  # of the epoch, the same whenever it is asked for
        batch = data.some(order[at * args.batch :][: args.batch])
        for network in networks:
            network.step(batch)
        if at == epoch - 1:
            training.note(**{network.name: network.accuracy(test) for network in networks})
    return training


def show(network: Network, test: Sums) -> None:
    """A few answers, by beam search."""
    for k in range(3):
        one = test.some([k])
        steps = len(one.answer)
        best = beam_search(network.decoder, network.readout, START, BLANK, steps, width=3, state=network.read(one)[0])
        answers = ", ".join(f"{text(b.ids)} ({100 * np.exp(b.log_probability):.1f} %)" for b in best)
        console.print(f"{text(one.source[:, 0])} = {answers}")


def text(ids: Array) -> str:
    return "".join(CLASSES[i] for i in ids).strip()


def draw(training: Training, args: argparse.Namespace, epoch: int) -> Any:
    def panel(axes: Any) -> None:
        for name in training.notes:
            steps, right = training.curve(name)
            axes.plot(steps / epoch, 100 * right, lw=1.8, label=f"source {name}")
        axes.set(xlabel="epoch", ylabel="characters right, %", title=f"Addition of {args.digits} digits, {args.sums} sums")
        axes.axhline(99, color="black", ls=":", lw=1)
        axes.grid(alpha=0.3)
        axes.legend()

    return panel


def main() -> None:
    parser = options(__doc__, out="addition.png", seconds=180)
    parser.add_argument("--digits", type=int, default=2, help="of each number at most")
    parser.add_argument("--sums", type=int, default=5000, help="in all; a tenth of them is for testing")
    parser.add_argument("--epochs", type=int, default=55, help="through the other nine tenths")
    parser.add_argument("--batch", type=int, default=32, help="sums of a step")
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate of Adam at the start, which falls to 0")
    args = parse(parser, sums=600, epochs=3)
    pairs = 10**args.digits * (10**args.digits + 1) // 2
    if args.digits > 9 or not 10 <= args.sums <= 0.99 * pairs + 1:
        parser.error(f"expected --digits up to 9, and --sums from 10 to 99 % of the pairs that there are, {pairs}")
    data = sums(np.random.default_rng(args.seed), args.sums, args.digits)
    test, rest = data.some(slice(args.sums // 10)), data.some(slice(args.sums // 10, None))
    epoch = -(-len(rest.lengths) // args.batch)
    networks = [Network(reverse, args, epoch * args.epochs) for reverse in (True, False)]
    training = train(networks, args, rest, test, epoch)
    for network in networks:
        steps, right = training.curve(network.name)
        solved = next((f"{step // epoch}" for step, value in zip(steps, right) if value >= 0.99), "none")
        latest = f"{100 * training.latest(network.name):.2f} % of characters after {training.step // epoch} epochs"
        console.print(f"source {network.name}: {latest}; 99 % at epoch {solved}")
    show(networks[0], test)
    picture(args.out, draw(training, args, epoch))


if __name__ == "__main__":
    main()
