"""HIPS autograd, examples/rnn.py and examples/lstm.py, differentiable by autograd as there (needs the package autograd).

T steps, N sequences, D inputs, O outputs. The parameters are dictionaries of matrices whose last row is the bias: "init hiddens"
(1, H), "change" (D+H+1, H), "predict" (H+1, O); of the LSTM also "init cells" (1, H), "forget", "ingate", "outgate". sigmoid(y) is
the examples' own, logistic(2 y). A gradient of a gradient raises NotImplementedError.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._api.optional import missing
from ._recorded import Recorded

try:
    import autograd.numpy as anp
    from autograd.extend import Box, defvjp_argnums, primitive
    from autograd.scipy.special import logsumexp
except ImportError as error:
    raise missing("fastrnn.compat.autograd", "autograd", "autograd", error) from error

__all__ = [
    "build_dataset",
    "concat_and_multiply",
    "create_rnn_params",
    "init_lstm_params",
    "lstm_log_likelihood",
    "lstm_predict",
    "one_hot_to_string",
    "rnn_log_likelihood",
    "rnn_predict",
    "sigmoid",
    "string_to_one_hot",
]

Array = Any  # arrays of NumPy, or what autograd puts around them
_GATES = ("change", "forget", "ingate", "outgate")
_newest = threading.local()  # the pass whose gradient autograd is about to ask for


def sigmoid(x: Array) -> Array:
    """The examples' (tanh(x) + 1) / 2, which is logistic(2 x).

    Parameters
    ----------
    x : array

    Returns
    -------
    y : array
    """
    return 0.5 * (anp.tanh(x) + 1.0)


def concat_and_multiply(weights: Array, *args: Array) -> Array:
    """[args, 1] weights.

    Parameters
    ----------
    weights : array (sum of the widths + 1, M)
    *args : arrays (N, .)

    Returns
    -------
    product : array (N, M)
    """
    return anp.dot(anp.hstack([*args, np.ones((args[0].shape[0], 1))]), weights)


def create_rnn_params(
    input_size: int, state_size: int, output_size: int, param_scale: float = 0.01, rs: Any = None
) -> dict[str, Any]:
    """Random parameters of a plain RNN.

    Parameters
    ----------
    input_size, state_size, output_size : int
        D, H, O.
    param_scale : float, default 0.01
        The standard deviation.
    rs : numpy.random.RandomState, optional
        None: that of seed 0.

    Returns
    -------
    params : dict of arrays

    Examples
    --------
    >>> from fastrnn.compat.autograd import create_rnn_params
    >>> {name: array.shape for name, array in create_rnn_params(3, 4, 2).items()}
    {'init hiddens': (1, 4), 'change': (8, 4), 'predict': (5, 2)}
    """
    rs = rs if rs is not None else np.random.RandomState(0)  # the original's generator, and its draws
    shapes = {
        "init hiddens": (1, state_size),
        "change": (input_size + state_size + 1, state_size),
        "predict": (state_size + 1, output_size),
    }
    return {name: rs.randn(*shape) * param_scale for name, shape in shapes.items()}


def init_lstm_params(
    input_size: int, state_size: int, output_size: int, param_scale: float = 0.01, rs: Any = None
) -> dict[str, Any]:
    """Random parameters of an LSTM.

    Parameters
    ----------
    input_size, state_size, output_size : int
        D, H, O.
    param_scale : float, default 0.01
        The standard deviation.
    rs : numpy.random.RandomState, optional
        None: that of seed 0.

    Returns
    -------
    params : dict of arrays

    Examples
    --------
    >>> from fastrnn.compat.autograd import init_lstm_params
    >>> init_lstm_params(3, 4, 2)["forget"].shape
    (8, 4)
    """
    rs = rs if rs is not None else np.random.RandomState(0)
    shapes = {"init cells": (1, state_size), "init hiddens": (1, state_size)}
    shapes |= dict.fromkeys(_GATES, (input_size + state_size + 1, state_size))
    shapes["predict"] = (state_size + 1, output_size)
    return {name: rs.randn(*shape) * param_scale for name, shape in shapes.items()}


def rnn_predict(params: Mapping[str, Array], inputs: Array) -> list[Array]:
    """The logarithms of the probabilities of every step's outputs.

    Parameters
    ----------
    params : dict of arrays
        As create_rnn_params makes them.
    inputs : array (T, N, D)

    Returns
    -------
    logprobs : list of arrays (N, O)
        T + 1 of them, the first before any input.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.autograd import create_rnn_params, rnn_predict
    >>> logprobs = rnn_predict(create_rnn_params(3, 4, 2), np.ones((7, 5, 3)))  # T=7 N=5
    >>> len(logprobs), logprobs[0].shape
    (8, (5, 2))
    """
    h0 = anp.repeat(params["init hiddens"], inputs.shape[1], axis=0)
    return _log_probabilities(h0, _hiddens(inputs, h0, None, params["change"]), params["predict"])


def lstm_predict(params: Mapping[str, Array], inputs: Array) -> list[Array]:
    """The logarithms of the probabilities of every step's outputs.

    Parameters
    ----------
    params : dict of arrays
        As init_lstm_params makes them.
    inputs : array (T, N, D)

    Returns
    -------
    logprobs : list of arrays (N, O)
        T + 1 of them, the first before any input.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.autograd import init_lstm_params, lstm_predict
    >>> logprobs = lstm_predict(init_lstm_params(3, 4, 2), np.ones((7, 5, 3)))  # T=7 N=5
    >>> len(logprobs), logprobs[0].shape
    (8, (5, 2))
    """
    h0, c0 = (anp.repeat(params[name], inputs.shape[1], axis=0) for name in ("init hiddens", "init cells"))
    return _log_probabilities(h0, _hiddens(inputs, h0, c0, *(params[name] for name in _GATES)), params["predict"])


def rnn_log_likelihood(params: Mapping[str, Array], inputs: Array, targets: Array) -> Array:
    """The mean over steps and sequences of the log probability of the targets.

    Parameters
    ----------
    params : dict of arrays
        As create_rnn_params makes them.
    inputs : array (T, N, D)
    targets : array (T, N, O)

    Returns
    -------
    loglik : number

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from autograd import grad
    >>> from fastrnn.compat.autograd import create_rnn_params, rnn_log_likelihood
    >>> params, inputs = create_rnn_params(3, 4, 3), np.ones((7, 5, 3))  # T=7 N=5
    >>> gradient = grad(lambda params: -rnn_log_likelihood(params, inputs, inputs))(params)
    >>> gradient["change"].shape
    (8, 4)
    """
    return _log_likelihood(rnn_predict(params, inputs), inputs, targets)


def lstm_log_likelihood(params: Mapping[str, Array], inputs: Array, targets: Array) -> Array:
    """The mean over steps and sequences of the log probability of the targets.

    Parameters
    ----------
    params : dict of arrays
        As init_lstm_params makes them.
    inputs : array (T, N, D)
    targets : array (T, N, O)

    Returns
    -------
    loglik : number

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from autograd import grad
    >>> from fastrnn.compat.autograd import init_lstm_params, lstm_log_likelihood
    >>> params, inputs = init_lstm_params(3, 4, 3), np.ones((7, 5, 3))  # T=7 N=5
    >>> gradient = grad(lambda params: -lstm_log_likelihood(params, inputs, inputs))(params)
    >>> gradient["change"].shape
    (8, 4)
    """
    return _log_likelihood(lstm_predict(params, inputs), inputs, targets)


def string_to_one_hot(string: str, maxchar: int) -> NDArray[Any]:
    """1 at each character's code.

    Parameters
    ----------
    string : str
    maxchar : int

    Returns
    -------
    one_hot : integers (len(string), maxchar)

    Examples
    --------
    >>> from fastrnn.compat.autograd import one_hot_to_string, string_to_one_hot
    >>> one_hot_to_string(string_to_one_hot("gru", 128))
    'gru'
    """
    codes = np.array([ord(c) for c in string], dtype=int)
    return (codes[:, None] == np.arange(maxchar)).astype(int)


def one_hot_to_string(one_hot_matrix: Array) -> str:
    """The characters at the largest number of each row.

    Parameters
    ----------
    one_hot_matrix : array (n, maxchar)

    Returns
    -------
    string : str
    """
    return "".join(chr(int(np.argmax(row))) for row in one_hot_matrix)


def build_dataset(filename: str, sequence_length: int, alphabet_size: int, max_lines: int = -1) -> NDArray[Any]:
    """The lines of a file that are longer than two characters, one-hot, cut or padded with blanks.

    Parameters
    ----------
    filename : path
    sequence_length, alphabet_size : int
    max_lines : int, default -1
        Read lines[:max_lines].

    Returns
    -------
    dataset : array (sequence_length, lines, alphabet_size)

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with open(filename) as file:
        lines = [line for line in file.readlines()[:max_lines] if len(line) > 2]
    rows = [string_to_one_hot(line[:sequence_length].ljust(sequence_length), alphabet_size) for line in lines]
    return np.stack(rows, axis=1).astype(float) if rows else np.zeros((sequence_length, 0, alphabet_size))


# --- the kernels, as one function that autograd knows the gradient of ----------------------------------------------


def _hiddens(*args: Array) -> Array:
    """(T, N, H) of inputs, h0, c0 (None for a plain RNN), and the matrices."""
    if any(isinstance(arg, Box) for arg in args):
        return _differentiable(*args)
    return _record(*args, record=False).y


def _record(inputs: Array, h0: Array, c0: Array, *matrices: Array, record: bool = True) -> Recorded:
    if np.ndim(inputs) != 3:
        raise ValueError(f"inputs: expected (T, N, D), got {np.shape(inputs)}")
    weights = dict(zip(_GATES, matrices))
    return Recorded("autograd", "rnn" if c0 is None else "lstm", inputs, weights, h0, c0, record=record)


@primitive  # type: ignore[untyped-decorator]
def _differentiable(*args: Array) -> Array:
    _newest.recorded = _record(*args)
    return _newest.recorded.y


def _vjp(argnums: Sequence[int], ans: Array, args: Sequence[Array], kwargs: Any) -> Any:
    """What goes back: called by autograd right after the call that gave `ans`."""
    if isinstance(ans, Box) or any(isinstance(arg, Box) for arg in args):
        raise NotImplementedError("fastrnn.compat.autograd: there is no gradient of a gradient")
    newest = _newest.__dict__.pop("recorded", None)
    recorded = newest if newest is not None and newest.y is ans else _record(*args)

    def back(dy: Array) -> tuple[Array, ...]:
        if isinstance(dy, Box):
            raise NotImplementedError("fastrnn.compat.autograd: there is no gradient of a gradient")
        dx, dh0, dc0, weights = recorded.backward(dy)
        gradients = (dx, dh0, dc0, *weights.values())
        return tuple(gradients[k] for k in argnums)

    return back


defvjp_argnums(_differentiable, _vjp)


def _log_probabilities(h0: Array, hiddens: Array, predict: Array) -> list[Array]:
    every = anp.concatenate([h0[None], hiddens])
    output = anp.dot(every, predict[:-1]) + predict[-1]
    output = output - logsumexp(output, axis=2, keepdims=True)
    return [output[t] for t in range(output.shape[0])]


def _log_likelihood(logprobs: list[Array], inputs: Array, targets: Array) -> Array:
    T, N, _ = inputs.shape
    return sum(anp.sum(logprobs[t] * targets[t]) for t in range(T)) / (T * N)
