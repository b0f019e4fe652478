"""How much of a state is left in a later one: the norm of d h_t / d h_k, and its bound."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._api import checks
from .._api.pickling import reduced
from ..layers import LSTM, RNN
from .chain import Chain, Steps

Array = NDArray[Any]

_ROWS = 8192  # of one call


class JacobianNorms(NamedTuple):
    """Norms of d h_t / d h_k; made by `jacobian_norms`: a named tuple.

    Attributes
    ----------
    norms : array (t+1,)
        For k = 0, ..., t, so the last is 1.
    bound : array (t+1,) or None
        (lambda_W lambda_phi)^(t-k); None for gated cells, which have no such bound.
    """

    norms: Array
    bound: Array | None

    def __reduce__(self) -> Any:
        return reduced(self)


def jacobian_norms(layer: Any, x: Array, t: int | None = None, *, row: int = 0, state: Any = None, cell: int = 0) -> JacobianNorms:
    """The norm (the largest singular value) of d h_t / d h_k for every k up to t.

    d h_t / d h_k is the product of the Jacobians of the steps in between. For the simple network one of these is diag(phi') W_hh,
    whose norm is at most lambda_W lambda_phi, the norm of W_hh times the steepest slope of phi, which is 1 for tanh and ReLU: hence
    the bound (lambda_W lambda_phi)^(t-k) (Pascanu, Mikolov and Bengio 2013, arXiv 1211.5063, section 2.1). The products are scaled
    step by step, so that they neither vanish nor overflow on the way, and their norms are found by power iteration, all in float64.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        Of an LSTM the state is h and c, concatenated.
    x : array (T, B, I)
        As the layer's, with a batch; only `row` of it is used.
    t : int, optional
        The later step, 0 to T; None: T.
    row : int, default 0
        Of the batch.
    state : optional
        As the layer's.
    cell : int, default 0
        Of a stack; k*D + d is layer k in direction d, and a reverse one counts its steps from the end.

    Returns
    -------
    norms : JacobianNorms

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> from fastrnn.diagnostics import jacobian_norms
    >>> x = np.random.default_rng(0).standard_normal((20, 1, 3), np.float32)  # T=20 B=1
    >>> norms, bound = jacobian_norms(fastrnn.RNN(3, 8, rng=0), x)
    >>> norms.shape, bool((norms <= bound * (1 + 1e-9)).all())
    ((21,), True)
    """
    jacobians = step_jacobians(layer, x, row=row, state=state, cell=cell)
    t = len(jacobians) if t is None else checks.integer("t", t, 0, len(jacobians))
    n = jacobians.shape[1]
    products, logs = np.empty((t + 1, n, n)), np.zeros(t + 1)
    products[t] = np.eye(n)
    for k in range(t - 1, -1, -1):
        products[k] = products[k + 1] @ jacobians[k]
        size = float(np.abs(products[k]).max(initial=0))
        if 0 < size < math.inf:
            products[k] /= size
        logs[k] = logs[k + 1] + math.log(size) if size > 0 else -math.inf
    with np.errstate(over="ignore", under="ignore"):
        norms = _norms(products) * np.exp(logs)
        bound = None
        if isinstance(layer, RNN):
            w = layer.params["weight_hh" + layer._suffixes[cell]].astype(np.float64)
            steepest = max((activation.steepest for activation in layer._cell.activations), default=1.0)
            bound = (np.linalg.norm(w, 2) * steepest) ** np.arange(t, -1, -1.0)
    norms[t] = 1
    return JacobianNorms(norms, bound)


def step_jacobians(layer: Any, x: Array, *, row: int = 0, state: Any = None, cell: int = 0) -> Array:
    """d state_t / d state_{t-1} of every step, from the gradients of each single number of state_t.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
    x : array (T, B, I)
        As the layer's, with a batch; only `row` of it is used.
    row : int, default 0
        Of the batch.
    state : optional
        As the layer's.
    cell : int, default 0
        Of a stack; k*D + d is layer k in direction d, and a reverse one counts its steps from the end.

    Returns
    -------
    jacobians : array (T, n, n)
        float64; [t, i, j] of number i after and number j before step t, in the cell's direction; n is H, or of an LSTM the width of
        h and c together.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> from fastrnn.diagnostics import step_jacobians
    >>> layer, x = fastrnn.RNN(3, 4, rng=0), np.ones((5, 1, 3), np.float32)  # T=5 B=1
    >>> jacobians, (y, _) = step_jacobians(layer, x), layer(x)
    >>> np.allclose(jacobians[2], np.diag(1 - y[2, 0] ** 2) @ layer.params["weight_hh_l0"], atol=1e-6)
    True
    """
    steps, row = _steps(layer, x, row, state, cell)
    T, call = len(steps.order), steps.cell
    before = [np.array([s[m][row] for s in steps.states[:-1]]).reshape(T, -1) for m in range(len(steps.states[0]))]
    widths = [s.shape[1] for s in steps.states[0]]
    n, inputs = sum(widths), steps.x[steps.order, row]
    each = np.split(np.eye(n), np.cumsum(widths)[:-1], axis=1)  # one number of the state after the step for each row
    jacobians = np.empty((T, n, n))
    at_once = max(_ROWS // n, 1)
    for start in range(0, T, at_once):
        part = slice(start, start + at_once)
        m = len(inputs[part])
        h = tuple(np.repeat(b[part], n, axis=0) for b in before)
        _, _, tape = call(np.repeat(inputs[part], n, axis=0)[None], h)
        d = tuple(np.tile(e, (m, 1)) for e in each)
        grads = tape.backward(dstate=d if call.is_lstm else d[0])
        jacobians[part] = np.concatenate(grads.state if call.is_lstm else (grads.state,), axis=1).reshape(m, n, n)
    return jacobians


def _steps(layer: Any, x: Any, row: Any, state: Any, cell: Any) -> tuple[Steps, int]:
    """The steps of one cell in float64, and the row."""
    x = checks.floats("x", x, getattr(layer, "dtype", None), (3,))
    row = checks.integer("row", row, 0, x.shape[0 if getattr(layer, "batch_first", False) else 1] - 1)
    wide = layer.astype(np.float64) if hasattr(layer, "astype") else layer
    if state is not None:
        state = tuple(np.asarray(s, np.float64) for s in state) if isinstance(layer, LSTM) else np.asarray(state, np.float64)
    cells = Chain(wide, x.astype(np.float64), state, None, None, None).cells
    return cells[checks.integer("cell", cell, 0, len(cells) - 1)], row


def _norms(matrices: Array, iterations: int = 1000, rtol: float = 1e-12) -> Array:
    """The largest singular value of each, by power iteration of M^T M on all of them together."""
    v = np.random.default_rng(0).standard_normal(matrices.shape[:2])
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    norms = np.zeros(len(matrices))
    for _ in range(iterations):
        u = np.matmul(matrices, v[:, :, None])
        new = np.linalg.norm(u[:, :, 0], axis=1)
        v = np.matmul(matrices.swapaxes(1, 2), u)[:, :, 0]
        length = np.linalg.norm(v, axis=1, keepdims=True)
        v /= np.where(length > 0, length, 1)
        settled = np.abs(new - norms) <= rtol * new
        norms = new
        if settled.all():
            break
    return norms
