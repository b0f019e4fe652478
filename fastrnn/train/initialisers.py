"""Initial values of weights.

Each of these makes a function (shape, rng) -> array; `initialise` calls it for each gate's block of a layer's matrices, and
`weight[...] = orthogonal()(weight.shape, rng)` fills any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._api import checks

__all__ = ["glorot", "identity", "initialise", "normal", "np_rnn", "np_rnn_input", "orthogonal", "uniform"]

Array = NDArray[Any]
Initialiser = Callable[[tuple[int, int], np.random.Generator], Array]


def identity(scale: float = 1.0) -> Initialiser:
    """scale on the diagonal, 0 beside it, for recurrent weights (Le, Jaitly and Hinton 2015, arXiv 1504.00941). Raises: TypeError.

    >>> initialise(layer, weight_hh=identity(0.9))
    """
    scale = checks.real("scale", scale)
    return lambda shape, rng: scale * np.eye(*shape)


def orthogonal(scale: float = 1.0) -> Initialiser:
    """scale times a random orthogonal matrix, each as likely as any other; of a matrix that is not square, the rows or the columns,
    whichever are fewer, are orthogonal (Saxe, McClelland and Ganguli 2014, arXiv 1312.6120). Raises: TypeError.

    >>> initialise(layer, weight_hh=orthogonal())
    """
    scale = checks.real("scale", scale)

    def fill(shape: tuple[int, int], rng: np.random.Generator) -> Array:
        q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
        q *= np.where(np.diag(r) < 0, -1, 1)  # without the signs it would not be uniform (Mezzadri 2007)
        return scale * (q if shape[0] >= shape[1] else q.T)

    return fill


def glorot(scale: float = 1.0) -> Initialiser:
    """U(-a, a) with a = scale sqrt(6 / (rows + columns)) (Glorot and Bengio 2010). In `initialise` the rows are one gate's H;
    Keras counts those of all gates together. Raises: TypeError.

    >>> initialise(layer, weight_ih=glorot(), weight_hh=orthogonal(), bias=0.0)     # nearly Keras's
    """
    scale = checks.real("scale", scale)

    def fill(shape: tuple[int, int], rng: np.random.Generator) -> Array:
        limit = scale * math.sqrt(6 / sum(shape))
        return rng.uniform(-limit, limit, shape)

    return fill


def uniform(limit: float | None = None) -> Initialiser:
    """U(-limit, limit); None: 1/sqrt(rows), which for a gate's block is PyTorch's 1/sqrt(H). Raises: TypeError, ValueError.

    >>> initialise(layer, weight_ih=uniform(0.08), weight_hh=uniform(0.08))
    """
    limit = None if limit is None else checks.real("limit", limit, 0)

    def fill(shape: tuple[int, int], rng: np.random.Generator) -> Array:
        most = 1 / math.sqrt(shape[0]) if limit is None else limit
        return rng.uniform(-most, most, shape)

    return fill


def normal(std: float) -> Initialiser:
    """N(0, std^2). Raises: TypeError, ValueError.

    >>> initialise(layer, weight_ih=normal(0.01))
    """
    std = checks.real("std", std, 0)
    return lambda shape, rng: rng.normal(0, std, shape)


def np_rnn() -> Initialiser:
    """For the recurrent weights of ReLU networks: (A + I) / e, with A = R^T R / H, R of standard normal numbers, and e the largest
    eigenvalue of A + I. It is positive definite; its largest eigenvalue is 1, and the others are less (Talathi and Vartak 2015,
    arXiv 1511.03771).

    >>> initialise(layer, weight_ih=np_rnn_input(), weight_hh=np_rnn(), bias=0.0)
    """

    def fill(shape: tuple[int, int], rng: np.random.Generator) -> Array:
        H = shape[0]
        if shape[1] != H:
            raise ValueError(f"np_rnn: expected a square matrix, got shape {shape}")
        r = rng.standard_normal(shape)
        a = r.T @ r / H + np.eye(H)
        return a / np.linalg.eigvalsh(a)[-1]

    return fill


def np_rnn_input() -> Initialiser:
    """For the input weights beside np_rnn: N(0, alpha^2 / H) with alpha = sqrt(2) exp(1.2 / (max(H, 6) - 2.4)), the gain of
    Sussillo and Abbott 2014 (arXiv 1412.6558) for ReLU. The paper's "N(0, 1/N)" is read as a variance here."""

    def fill(shape: tuple[int, int], rng: np.random.Generator) -> Array:
        alpha = math.sqrt(2) * math.exp(1.2 / (max(shape[0], 6) - 2.4))
        return rng.normal(0, alpha / math.sqrt(shape[0]), shape)

    return fill


def initialise(
    layer: Any,
    *,
    weight_ih: Initialiser | None = None,
    weight_hh: Initialiser | None = None,
    bias: float | None = None,
    forget_bias: float | None = None,
    rng: Any = None,
) -> None:
    """Give a layer other initial values, in place; what is None stays as it is.

    Args:
        layer: an RNN, GRU or LSTM, with any number of layers and directions.
        weight_ih, weight_hh: for the weights of those names, gate by gate: each block of H rows is filled by itself.
        bias: both biases become this number.
        forget_bias: of an LSTM: bias_ih + bias_hh of the forget gate is this number (Gers, Schmidhuber and Cummins 2000; 1 by
            Jozefowicz, Zaremba and Sutskever 2015). bias_ih takes it, bias_hh becomes 0.
        rng: a seed or a numpy.random.Generator.

    Raises: TypeError, ValueError.

    >>> initialise(layer, weight_ih=glorot(), weight_hh=orthogonal(), bias=0.0, forget_bias=1.0, rng=0)
    """
    rng, H = checks.generator("rng", rng), layer.hidden_size
    for name, array in layer.params.items():
        kind = "_".join(name.split("_")[:2])
        fill = {"weight_ih": weight_ih, "weight_hh": weight_hh}.get(kind)
        if fill is not None:
            for gate in range(0, len(array), H):
                block = array[gate : gate + H]
                filled = fill(block.shape, rng)
                if np.shape(filled) != block.shape:
                    raise ValueError(f"{kind}: expected a function that makes {block.shape}, got an array {np.shape(filled)}")
                block[...] = filled
        elif kind in ("bias_ih", "bias_hh") and bias is not None:
            array[...] = checks.real("bias", bias)
    if forget_bias is not None:
        _set_forget_bias(layer, checks.real("forget_bias", forget_bias))


def _set_forget_bias(layer: Any, value: float) -> None:
    H = layer.hidden_size
    biases = {name: array for name, array in layer.params.items() if name.startswith("bias_")}
    if not biases or any(len(array) != 4 * H for array in biases.values()):
        raise ValueError(f"forget_bias: expected None for a layer without a forget gate's bias, got {value} for {layer!r}")
    for name, array in biases.items():
        array[H : 2 * H] = value if name.startswith("bias_ih") else 0
