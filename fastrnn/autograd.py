"""fastrnn.autograd: rnn, gru and lstm as primitives of HIPS autograd (github.com/HIPS/autograd).

The arguments, their shapes and errors are those of fastrnn.rnn, fastrnn.gru and fastrnn.lstm without `record`; what comes back is
(y, h_n), of the LSTM (y, (h_n, c_n)). Gradients, of any of the float arrays, come from the compiled backward pass; gradients of
gradients are not available. Needs the package autograd: pip install 'fastrnn[autograd]'.

>>> import autograd, autograd.numpy as np, fastrnn.autograd
>>> x, w_ih, w_hh = np.ones((7, 2, 3)), np.ones((12, 3)), np.ones((12, 4))  # T=7 B=2 I=3 H=4
>>> def loss(w_hh):
...     y, h_n = fastrnn.autograd.gru(x, w_ih, w_hh)
...     return np.sum(y**2)
>>> dw_hh = autograd.grad(loss)(w_hh)
"""

from __future__ import annotations

from typing import Any

from ._api.optional import missing
from ._bridge import FLOATS, Arrays, Call, function

try:
    from autograd.extend import defvjp_argnums, primitive
    from autograd.tracer import isbox
except ImportError as error:
    raise missing("fastrnn.autograd", "autograd", "autograd", error) from error

__all__ = ["gru", "lstm", "rnn"]


def _run(call: Call, floats: Arrays, of_rows: Arrays) -> tuple[Any, ...]:
    if not any(map(isbox, floats.values())):
        return call.forward({**floats, **of_rows})[0]
    outputs = _recorded(call, of_rows, [], *(floats.get(name) for name in FLOATS))
    return tuple(outputs[i] for i in range(len(outputs)))


def _record(call: Call, of_rows: Arrays, tapes: list[Any], *floats: Any) -> tuple[Any, ...]:
    """The outputs. The tape is left in tapes, for the vector-Jacobian product."""
    given = {name: value for name, value in zip(FLOATS, floats) if value is not None}
    outputs, tape = call.forward({**given, **of_rows}, record=True)
    tapes.append(tape)
    return outputs


def _vjp(argnums: tuple[int, ...], outputs: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    call, of_rows, tapes, *floats = arguments
    names = [FLOATS[i - 3] for i in argnums]

    def product(cotangents: tuple[Any, ...]) -> tuple[Any, ...]:
        if any(map(isbox, (*floats, *cotangents))):
            raise NotImplementedError("fastrnn.autograd: gradients of gradients are not available")
        try:
            tape = tapes.pop()
        except IndexError:  # a Jacobian asks once per number of y, and a tape can be used once
            again: list[Any] = []
            _record(call, of_rows, again, *floats)
            tape = again.pop()
        gradients = call.backward(tape, tuple(d.astype(y.dtype) for d, y in zip(cotangents, outputs)))
        return tuple(gradients[name] for name in names)

    return product


_recorded = primitive(_record)
defvjp_argnums(_recorded, _vjp)


@function(_run)
def rnn(*arguments: Any, **keywords: Any) -> Any:
    """fastrnn.rnn as a function of autograd's arrays.

    Parameters
    ----------
    x, w_ih, w_hh, ...
        As in fastrnn.rnn, without `record`.

    Returns
    -------
    y : array (T, B, H)
    h_n : array (B, H)
        As in fastrnn.rnn.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As in fastrnn.rnn.

    Examples
    --------
    >>> import fastrnn.autograd
    >>> import autograd.numpy as np
    >>> x, w_ih, w_hh = np.ones((7, 2, 3)), np.ones((4, 3)), np.ones((4, 4))  # T=7 B=2 I=3 H=4
    >>> y, h_n = fastrnn.autograd.rnn(x, w_ih, w_hh, lengths=[7, 5])
    >>> y.shape, h_n.shape
    ((7, 2, 4), (2, 4))
    """


@function(_run)
def gru(*arguments: Any, **keywords: Any) -> Any:
    """fastrnn.gru as a function of autograd's arrays.

    Parameters
    ----------
    x, w_ih, w_hh, ...
        As in fastrnn.gru, without `record`.

    Returns
    -------
    y : array (T, B, H)
    h_n : array (B, H)
        As in fastrnn.gru.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As in fastrnn.gru.

    Examples
    --------
    >>> import fastrnn.autograd
    >>> import autograd.numpy as np
    >>> x, w_ih, w_hh = np.ones((7, 2, 3)), np.ones((12, 3)), np.ones((12, 4))  # T=7 B=2 I=3 H=4
    >>> y, h_n = fastrnn.autograd.gru(x, w_ih, w_hh, lengths=[7, 5])
    >>> y.shape, h_n.shape
    ((7, 2, 4), (2, 4))
    """


@function(_run)
def lstm(*arguments: Any, **keywords: Any) -> Any:
    """fastrnn.lstm as a function of autograd's arrays.

    Parameters
    ----------
    x, w_ih, w_hh, ...
        As in fastrnn.lstm, without `record`.

    Returns
    -------
    y : array (T, B, H)
    (h_n, c_n) : arrays (B, H)
        As in fastrnn.lstm.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As in fastrnn.lstm.

    Examples
    --------
    >>> import fastrnn.autograd
    >>> import autograd.numpy as np
    >>> x, w_ih, w_hh = np.ones((7, 2, 3)), np.ones((16, 3)), np.ones((16, 4))  # T=7 B=2 I=3 H=4
    >>> y, (h_n, c_n) = fastrnn.autograd.lstm(x, w_ih, w_hh, lengths=[7, 5])
    >>> y.shape, h_n.shape, c_n.shape
    ((7, 2, 4), (2, 4), (2, 4))
    """
