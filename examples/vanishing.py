"""How much of a state is left in a later one: the norm of dh_T/dh_k in a tanh RNN, an IRNN, an LSTM and a GRU, before any training.

It bounds how far back a gradient reaches. For the simple networks it has itself a bound, (the norm of W_hh)^(T-k) (Pascanu, Mikolov
and Bengio 2013, arXiv 1211.5063): with a norm below 1 it vanishes; the IRNN starts with a norm of exactly 1.

    python examples/vanishing.py                    a picture, in seconds
    python examples/vanishing.py --T 300 --scale 1.2
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fastrnn
from common import console, options, parse
from fastrnn.diagnostics import jacobian_norms, plot
from fastrnn.train.initialisers import initialise, orthogonal


def networks(H: int, scale: float, seed: int) -> dict[str, Any]:
    """W_hh of the tanh RNN is an orthogonal matrix times `scale`."""
    rng = np.random.default_rng(seed)
    tanh, lstm = fastrnn.RNN(2, H, rng=rng), fastrnn.LSTM(2, H, rng=rng)
    initialise(tanh, weight_hh=orthogonal(scale), rng=rng)
    initialise(lstm, forget_bias=1.0)
    return {"tanh RNN": tanh, "IRNN": fastrnn.IRNN(2, H, rng=rng), "LSTM": lstm, "GRU": fastrnn.GRU(2, H, rng=rng)}


def main() -> None:
    parser = options(__doc__, out="vanishing.png", seconds=None)
    parser.add_argument("--T", type=int, default=100, help="steps")
    parser.add_argument("--hidden", type=int, default=64, help="units")
    parser.add_argument("--scale", type=float, default=0.95, help="of the tanh RNN's recurrent weights")
    args = parse(parser, T=30, hidden=16)
    x = np.random.default_rng([args.seed, 1]).random((args.T, 1, 2), dtype=np.float32)
    found = {name: jacobian_norms(layer, x) for name, layer in networks(args.hidden, args.scale, args.seed).items()}
    for name, (norms, bound) in found.items():
        text = ""
        if bound is not None:
            text = f", bound {bound[0]:.2e}; it holds at every step: {bool((norms <= bound * (1 + 1e-6)).all())}"
        console.print(f"{name:8}: norm of dh_T/dh_0 {norms[0]:.2e}{text}")
    bounds = {name: bound for name, (_, bound) in found.items()}
    curves = {name: norms for name, (norms, _) in found.items()}
    try:
        plot(curves, args.out, bounds=bounds, title="What is left of step k at the end", label="norm of dh_T/dh_k")
    except ImportError as error:
        console.print(f"No picture: {error}")
    else:
        console.print(f"Picture: {args.out}")


if __name__ == "__main__":
    main()
