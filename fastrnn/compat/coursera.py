"""Coursera, Deep Learning Specialization, course 5, week 1: "Building your Recurrent Neural Network - Step by Step".

m rows stand in columns: x (n_x, m, T_x), a (n_a, m, T_x), y (n_y, m, T_x). parameters is the notebook's dictionary: Wax (n_a, n_x),
Waa (n_a, n_a), Wya (n_y, n_a), ba (n_a, 1), by (n_y, 1); of the LSTM Wf, Wi, Wc, Wo (n_a, n_a + n_x), bf, bi, bc, bo (n_a, 1),
Wy (n_y, n_a), by.

Caches have the notebook's structure, so that they can be combined with steps of one's own: caches is (steps, x), and steps[t] is
(a_next, a_prev, xt, parameters) or (a_next, c_next, a_prev, c_prev, ft, it, cct, ot, xt, parameters), made when it is asked for.
lstm_backward is the whole gradient; early versions of the notebook left out what flows back from one step to the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .._engine.memory import new_array
from ..formats.axes import copy_into
from . import _step
from ._recorded import Recorded, contiguous
from ._step import sigmoid

__all__ = [
    "lstm_backward",
    "lstm_cell_backward",
    "lstm_cell_forward",
    "lstm_forward",
    "rnn_backward",
    "rnn_cell_backward",
    "rnn_cell_forward",
    "rnn_forward",
    "sigmoid",
    "softmax",
]

Array = NDArray[Any]
Parameters = Mapping[str, Any]
_RNN, _LSTM = ("Wax", "Waa", "ba"), ("Wf", "bf", "Wi", "bi", "Wc", "bc", "Wo", "bo")


def softmax(x: Array) -> Array:
    """exp(x) by columns (axis 0), divided by its sum.

    Parameters
    ----------
    x : array (n, ...)

    Returns
    -------
    p : array (n, ...)

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.coursera import softmax
    >>> softmax(np.zeros((2, 3)))
    array([[0.5, 0.5, 0.5],
           [0.5, 0.5, 0.5]])
    """
    e = np.exp(x - np.maximum.reduce(x, 0))
    e /= np.add.reduce(e, 0)
    return e


# --- one step ---------------------------------------------------------------------------------------------------


def rnn_cell_forward(xt: Array, a_prev: Array, parameters: Parameters) -> tuple[Array, Array, tuple[Any, ...]]:
    """One step of a tanh RNN.

    Parameters
    ----------
    xt : array (n_x, m)
    a_prev : array (n_a, m)
    parameters : mapping of arrays
        The notebook's, see the module.

    Returns
    -------
    a_next : array (n_a, m)
    yt_pred : array (n_y, m)
    cache : tuple
        For backward.
    """
    p = parameters
    a_next = np.tanh(np.dot(p["Waa"], a_prev) + np.dot(p["Wax"], xt) + p["ba"])
    return a_next, softmax(np.dot(p["Wya"], a_next) + p["by"]), (a_next, a_prev, xt, parameters)


def rnn_cell_backward(da_next: Array, cache: Sequence[Any]) -> dict[str, Array]:
    """The gradients of rnn_cell_forward.

    Parameters
    ----------
    da_next : array (n_a, m)
    cache

    Returns
    -------
    gradients : dict of arrays
        dxt, da_prev, dWax, dWaa, dba.
    """
    a_next, a_prev, xt, p = cache
    d = da_next * (1 - a_next * a_next)
    return {
        "dxt": np.dot(p["Wax"].T, d),
        "da_prev": np.dot(p["Waa"].T, d),
        "dWax": _step.product(d, xt.T),
        "dWaa": _step.product(d, a_prev.T),
        "dba": np.add.reduce(d, 1, keepdims=True),
    }


def lstm_cell_forward(
    xt: Array, a_prev: Array, c_prev: Array, parameters: Parameters
) -> tuple[Array, Array, Array, tuple[Any, ...]]:
    """One step of an LSTM.

    Parameters
    ----------
    xt : array (n_x, m)
    a_prev, c_prev : array (n_a, m)
    parameters : mapping of arrays
        The notebook's, see the module.

    Returns
    -------
    a_next, c_next : arrays (n_a, m)
    yt_pred : array (n_y, m)
    cache : tuple
        For backward.
    """
    p, both = parameters, np.concatenate([a_prev, xt])
    before = [np.dot(p["Wf"], both) + p["bf"], np.dot(p["Wi"], both) + p["bi"], np.dot(p["Wo"], both) + p["bo"]]
    f, i, o = _step.sigmoid(np.array(before))
    g = np.tanh(np.dot(p["Wc"], both) + p["bc"])
    a_next, c_next = _step.forward(i, f, g, o, c_prev)
    cache = (a_next, c_next, a_prev, c_prev, f, i, g, o, xt, parameters)
    return a_next, c_next, softmax(np.dot(p["Wy"], a_next) + p["by"]), cache


def lstm_cell_backward(da_next: Array, dc_next: Array, cache: Sequence[Any]) -> dict[str, Array]:
    """The gradients of lstm_cell_forward.

    Parameters
    ----------
    da_next, dc_next : array (n_a, m)
    cache

    Returns
    -------
    gradients : dict of arrays
        dxt, da_prev, dc_prev, dWf, dbf, dWi, dbi, dWc, dbc, dWo, dbo.
    """
    _, c_next, a_prev, c_prev, f, i, g, o, xt, p = cache
    d, dc_prev = _step.backward(da_next, dc_next, _step.Gates(i, f, g, o), c_prev, c_next)
    d_both = np.dot(p["Wf"].T, d.f) + np.dot(p["Wi"].T, d.i) + np.dot(p["Wc"].T, d.g) + np.dot(p["Wo"].T, d.o)
    gradients = {"dxt": d_both[len(a_prev) :], "da_prev": d_both[: len(a_prev)], "dc_prev": dc_prev}
    columns = np.concatenate([a_prev, xt]).T
    for gate, d_gate in (("f", d.f), ("i", d.i), ("c", d.g), ("o", d.o)):
        gradients["dW" + gate] = _step.product(d_gate, columns)
        gradients["db" + gate] = np.add.reduce(d_gate, 1, keepdims=True)
    return gradients


# --- sequences ----------------------------------------------------------------------------------------------------


class Steps(Sequence[Any]):
    """The caches of all steps, each made when it is asked for, and the pass that they are of."""

    def __init__(self, recorded: Recorded, make: Callable[[int], Any], T: int) -> None:
        self.recorded, self._make, self._T = recorded, make, T

    def __len__(self) -> int:
        return self._T

    @overload
    def __getitem__(self, t: int) -> Any: ...

    @overload
    def __getitem__(self, t: slice) -> list[Any]: ...

    def __getitem__(self, t: Any) -> Any:
        which = range(self._T)[t]
        return [self._make(k) for k in which] if isinstance(which, range) else self._make(which)


def rnn_forward(x: Array, a0: Array, parameters: Parameters) -> tuple[Array, Array, tuple[Steps, Array]]:
    """A tanh RNN over a sequence.

    Parameters
    ----------
    x : array (n_x, m, T_x)
    a0 : array (n_a, m)
    parameters : mapping of arrays
        The notebook's, see the module.

    Returns
    -------
    a : array (n_a, m, T_x)
    y_pred : array (n_y, m, T_x)
    caches : tuple
        For backward.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.coursera import rnn_forward
    >>> shapes = {"Wax": (4, 3), "Waa": (4, 4), "Wya": (2, 4), "ba": (4, 1), "by": (2, 1)}
    >>> parameters = {name: np.ones(shape) for name, shape in shapes.items()}
    >>> a, y_pred, caches = rnn_forward(np.ones((3, 5, 7)), np.zeros((4, 5)), parameters)  # m=5 T_x=7
    >>> a.shape, y_pred.shape
    ((4, 5, 7), (2, 5, 7))
    """
    recorded = _record("rnn", x, a0, {name: parameters[name] for name in _RNN})
    a = _from_rows(recorded.y)

    def step(t: int) -> tuple[Any, ...]:
        return a[:, :, t], a[:, :, t - 1] if t else a0, x[:, :, t], parameters

    return a, _predict(parameters["Wya"], a, parameters["by"]), (Steps(recorded, step, a.shape[2]), x)


def rnn_backward(da: Array, caches: tuple[Sequence[Any], Array]) -> dict[str, Array]:
    """The gradients of rnn_forward.

    Parameters
    ----------
    da : array (n_a, m, T_x)
    caches

    Returns
    -------
    gradients : dict of arrays
        dx, da0, dWax, dWaa, dba.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.coursera import rnn_backward, rnn_forward
    >>> shapes = {"Wax": (4, 3), "Waa": (4, 4), "Wya": (2, 4), "ba": (4, 1), "by": (2, 1)}
    >>> parameters = {name: np.ones(shape) for name, shape in shapes.items()}
    >>> a, y_pred, caches = rnn_forward(np.ones((3, 5, 7)), np.zeros((4, 5)), parameters)  # m=5 T_x=7
    >>> {name: d.shape for name, d in rnn_backward(a, caches).items()}
    {'dx': (3, 5, 7), 'da0': (4, 5), 'dWax': (4, 3), 'dWaa': (4, 4), 'dba': (4, 1)}
    """
    steps, x = caches
    if isinstance(steps, Steps):
        recorded = steps.recorded
    else:
        _, a0, _, p = steps[0]
        recorded = _record("rnn", x, a0, {name: p[name] for name in _RNN})
    return _backward(recorded, da)


def lstm_forward(x: Array, a0: Array, parameters: Parameters) -> tuple[Array, Array, Array, tuple[Steps, Array]]:
    """An LSTM over a sequence, from a cell state of zeros.

    Parameters
    ----------
    x : array (n_x, m, T_x)
    a0 : array (n_a, m)
    parameters : mapping of arrays
        The notebook's, see the module.

    Returns
    -------
    a : array (n_a, m, T_x)
    y : array (n_y, m, T_x)
    c : array (n_a, m, T_x)
    caches : tuple
        For backward.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.coursera import lstm_forward
    >>> parameters = {"Wy": np.ones((2, 4)), "by": np.ones((2, 1))}
    >>> parameters |= {"W" + gate: np.ones((4, 7)) for gate in "fico"} | {"b" + gate: np.ones((4, 1)) for gate in "fico"}
    >>> a, y, c, caches = lstm_forward(np.ones((3, 5, 7)), np.zeros((4, 5)), parameters)  # m=5 T_x=7
    >>> a.shape, y.shape, c.shape
    ((4, 5, 7), (2, 5, 7), (4, 5, 7))
    """
    recorded = _record("lstm", x, a0, {name: parameters[name] for name in _LSTM})
    assert recorded.c is not None
    a, c = _from_rows(recorded.y), _from_rows(recorded.c)

    def step(t: int) -> tuple[Any, ...]:
        xt, a_prev, c_prev = x[:, :, t], a[:, :, t - 1] if t else a0, c[:, :, t - 1] if t else np.zeros_like(a[:, :, 0])
        both = np.concatenate([a_prev, xt])
        f, i, g, o = (parameters[f"W{gate}"] @ both + parameters[f"b{gate}"] for gate in "fico")
        return a[:, :, t], c[:, :, t], a_prev, c_prev, sigmoid(f), sigmoid(i), np.tanh(g), sigmoid(o), xt, parameters

    return a, _predict(parameters["Wy"], a, parameters["by"]), c, (Steps(recorded, step, a.shape[2]), x)


def lstm_backward(da: Array, caches: tuple[Sequence[Any], Array]) -> dict[str, Array]:
    """The gradients of lstm_forward.

    Parameters
    ----------
    da : array (n_a, m, T_x)
    caches

    Returns
    -------
    gradients : dict of arrays
        dx, da0, dWf, dbf, dWi, dbi, dWc, dbc, dWo, dbo.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.coursera import lstm_backward, lstm_forward
    >>> parameters = {"Wy": np.ones((2, 4)), "by": np.ones((2, 1))}
    >>> parameters |= {"W" + gate: np.ones((4, 7)) for gate in "fico"} | {"b" + gate: np.ones((4, 1)) for gate in "fico"}
    >>> a, y, c, caches = lstm_forward(np.ones((3, 5, 7)), np.zeros((4, 5)), parameters)  # m=5 T_x=7
    >>> gradients = lstm_backward(a, caches)
    >>> gradients["dx"].shape, gradients["dWf"].shape
    ((3, 5, 7), (4, 7))
    """
    steps, x = caches
    if isinstance(steps, Steps):
        recorded = steps.recorded
    else:
        _, _, a0, c0, *_, p = steps[0]
        recorded = _record("lstm", x, a0, {name: p[name] for name in _LSTM}, c0)
    return _backward(recorded, da)


def _record(form: str, x: Any, a0: Any, weights: Mapping[str, Any], c0: Any = None) -> Recorded:
    x, a0 = np.asarray(x), np.asarray(a0)
    if x.ndim != 3 or a0.ndim != 2:
        raise ValueError(f"x, a0: expected (n_x, m, T_x), (n_a, m), got {x.shape}, {a0.shape}")
    c0 = None if c0 is None else np.asarray(c0).T
    lstm = form == "lstm"
    return Recorded("coursera", form, _to_rows(x), weights, a0.T, c0, batch_first=True, cells=lstm, copied=False)


def _backward(recorded: Recorded, da: Any) -> dict[str, Array]:
    dx, da0, _, weights = recorded.backward(_to_rows(np.asarray(da)))
    return {"dx": _from_rows(dx), "da0": np.ascontiguousarray(da0.T), **{f"d{name}": array for name, array in weights.items()}}


def _to_rows(x: Array) -> Array:
    """(m, T, n) from (n, m, T), as a new array."""
    rows = new_array((*x.shape[1:], x.shape[0]), x.dtype)
    copy_into(rows.reshape(-1, len(x)), x.reshape(len(x), -1).T)
    return rows


def _from_rows(y: Array) -> Array:
    """(n, m, T) from (m, T, n), as a new array."""
    m, T, n = y.shape
    x = new_array((n, m, T), y.dtype)
    copy_into(x.reshape(n, -1), contiguous(y).reshape(-1, n).T)
    return x


def _predict(W: Array, a: Array, b: Array) -> Array:
    """softmax(W a + b) at all steps at once."""
    W, b = np.asarray(W), np.asarray(b)
    scores = new_array((len(W), *a.shape[1:]), np.result_type(W, a, b))
    np.matmul(W, a.reshape(len(a), -1), out=scores.reshape(len(W), -1))
    scores += b[:, :, None]
    scores -= scores.max(axis=0)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=0)
    return scores
