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
    """scale on the diagonal, 0 elsewhere, for recurrent weights (Le, Jaitly and Hinton 2015, arXiv 1504.00941).

    Parameters
    ----------
    scale : float, default 1

    Returns
    -------
    fill : function
        (shape, rng) -> array (rows, columns).

    Raises
    ------
    TypeError
        `scale` is no number.

    Examples
    --------
    >>> from fastrnn.train.initialisers import identity
    >>> identity(0.5)((2, 2), None)
    array([[0.5, 0. ],
           [0. , 0.5]])
    """
    scale = checks.real("scale", scale)
    return lambda shape, rng: scale * np.eye(*shape)


def orthogonal(scale: float = 1.0) -> Initialiser:
    """scale times a random orthogonal matrix, uniformly distributed (Saxe, McClelland and Ganguli 2014, arXiv 1312.6120).

    Of a matrix that is not square, the rows or the columns, whichever are fewer, are orthogonal.

    Parameters
    ----------
    scale : float, default 1

    Returns
    -------
    fill : function
        (shape, rng) -> array (rows, columns).

    Raises
    ------
    TypeError
        `scale` is no number.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train.initialisers import orthogonal
    >>> w = orthogonal()((4, 4), np.random.default_rng(0))
    >>> np.allclose(w @ w.T, np.eye(4))
    True
    """
    scale = checks.real("scale", scale)

    def fill(shape: tuple[int, int], rng: np.random.Generator) -> Array:
        q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
        q *= np.where(np.diag(r) < 0, -1, 1)  # without the signs it would not be uniform (Mezzadri 2007)
        return scale * (q if shape[0] >= shape[1] else q.T)

    return fill


def glorot(scale: float = 1.0) -> Initialiser:
    """U(-a, a) with a = scale sqrt(6 / (rows + columns)) (Glorot and Bengio 2010).

    In `initialise` the rows are one gate's H; Keras counts those of all gates together.

    Parameters
    ----------
    scale : float, default 1

    Returns
    -------
    fill : function
        (shape, rng) -> array (rows, columns).

    Raises
    ------
    TypeError
        `scale` is no number.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train.initialisers import glorot
    >>> w = glorot()((4, 2), np.random.default_rng(0))
    >>> w.shape, bool(abs(w).max() <= 1)
    ((4, 2), True)
    """
    scale = checks.real("scale", scale)

    def fill(shape: tuple[int, int], rng: np.random.Generator) -> Array:
        limit = scale * math.sqrt(6 / sum(shape))
        return rng.uniform(-limit, limit, shape)

    return fill


def uniform(limit: float | None = None) -> Initialiser:
    """U(-limit, limit).

    Parameters
    ----------
    limit : float, optional
        At least 0. None: 1/sqrt(rows), which for a gate's block is PyTorch's 1/sqrt(H).

    Returns
    -------
    fill : function
        (shape, rng) -> array (rows, columns).

    Raises
    ------
    TypeError, ValueError
        A wrong `limit`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train.initialisers import uniform
    >>> bool(abs(uniform(0.08)((4, 2), np.random.default_rng(0))).max() <= 0.08)
    True
    """
    limit = None if limit is None else checks.real("limit", limit, 0)

    def fill(shape: tuple[int, int], rng: np.random.Generator) -> Array:
        most = 1 / math.sqrt(shape[0]) if limit is None else limit
        return rng.uniform(-most, most, shape)

    return fill


def normal(std: float) -> Initialiser:
    """N(0, std^2).

    Parameters
    ----------
    std : float
        At least 0.

    Returns
    -------
    fill : function
        (shape, rng) -> array (rows, columns).

    Raises
    ------
    TypeError, ValueError
        A wrong `std`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train.initialisers import normal
    >>> normal(0.01)((4, 2), np.random.default_rng(0)).shape
    (4, 2)
    """
    std = checks.real("std", std, 0)
    return lambda shape, rng: rng.normal(0, std, shape)


def np_rnn() -> Initialiser:
    """For the recurrent weights of ReLU networks: (A + I) / e, with A = R^T R / H, R of standard normal numbers, and e the largest
    eigenvalue of A + I (Talathi and Vartak 2015, arXiv 1511.03771).

    It is positive definite; its largest eigenvalue is 1, and the others are less. The function raises ValueError for a matrix that
    is not square.

    Returns
    -------
    fill : function
        (shape, rng) -> array (rows, columns).

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train.initialisers import np_rnn
    >>> w = np_rnn()((4, 4), np.random.default_rng(0))
    >>> round(float(np.linalg.eigvalsh(w).max()), 6)
    1.0
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
    """For the input weights together with np_rnn: N(0, alpha^2 / H) with alpha = sqrt(2) exp(1.2 / (max(H, 6) - 2.4)), the gain of
    Sussillo and Abbott 2014 (arXiv 1412.6558) for ReLU. The paper's "N(0, 1/N)" is read as a variance here.

    Returns
    -------
    fill : function
        (shape, rng) -> array (rows, columns).

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train.initialisers import np_rnn_input
    >>> np_rnn_input()((4, 2), np.random.default_rng(0)).shape
    (4, 2)
    """

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

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        With any number of layers and directions.
    weight_ih, weight_hh : function, optional
        (shape, rng) -> array, for the weights of those names, gate by gate: each block of H rows is filled by itself.
    bias : float, optional
        Both biases become this number.
    forget_bias : float, optional
        Of an LSTM: bias_ih + bias_hh of the forget gate is this number (Gers, Schmidhuber and Cummins 2000; 1 by Jozefowicz,
        Zaremba and Sutskever 2015). bias_ih takes it, bias_hh becomes 0.
    rng : int or numpy.random.Generator, optional
        The source of random numbers, or its seed.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; also ValueError for a function that makes another shape, and for `forget_bias` of a layer without one.

    Examples
    --------
    >>> import fastrnn
    >>> from fastrnn.train.initialisers import glorot, initialise, orthogonal
    >>> layer = fastrnn.LSTM(3, 2, rng=0)
    >>> initialise(layer, weight_ih=glorot(), weight_hh=orthogonal(), bias=0.0, forget_bias=1.0, rng=0)  # nearly Keras's
    >>> layer.params["bias_ih_l0"]
    array([0., 0., 1., 1., 0., 0., 0., 0.], dtype=float32)
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
