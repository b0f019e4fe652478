"""fastrnn.jax: rnn, gru and lstm as functions of JAX arrays, under jit and grad.

The arguments and shapes are those of fastrnn.rnn, fastrnn.gru and fastrnn.lstm without `record`; what comes back is (y, h_n), of
the LSTM (y, (h_n, c_n)). The computation is a callback to the host (jax.pure_callback): arrays of another device travel there and
back. Gradients are reverse mode, once: the backward pass runs the forward pass again, so that nothing but the arguments is kept.
vmap calls once per element. Forward mode and gradients of gradients are not available. Mistakes in shapes, dtypes and options are
found while tracing; wrong values, such as lengths beyond T, when the callback runs, as an error of JAX's with our text in it.
Needs the package jax: pip install 'fastrnn[jax]'.

>>> import jax, jax.numpy as np, fastrnn.jax
>>> x, w_ih, w_hh = np.ones((7, 2, 3)), np.ones((12, 3)), np.ones((12, 4))  # T=7 B=2 I=3 H=4
>>> @jax.jit
... def loss(w_hh):
...     y, h_n = fastrnn.jax.gru(x, w_ih, w_hh)
...     return (y**2).sum()
>>> dw_hh = jax.grad(loss)(w_hh)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .bridge import Arrays, Call, function
from .optional import missing

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise missing("fastrnn.jax", "jax", "jax", error) from error

__all__ = ["gru", "lstm", "rnn"]


def _run(call: Call, floats: Arrays, of_rows: Arrays) -> tuple[Any, ...]:
    floats, of_rows = ({name: jnp.asarray(a) for name, a in arrays.items()} for arrays in (floats, of_rows))
    return _apply(call, floats, of_rows)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(call: Call, floats: Arrays, of_rows: Arrays) -> tuple[Any, ...]:
    return jax.pure_callback(_Forward(call), _results(call, floats, of_rows), floats, of_rows, vmap_method="sequential")


def _apply_forward(call: Call, floats: Arrays, of_rows: Arrays) -> tuple[Any, Any]:
    return _apply(call, floats, of_rows), (floats, of_rows)


def _apply_backward(call: Call, saved: Any, cotangents: tuple[Any, ...]) -> tuple[Any, None]:
    floats, of_rows = saved
    shapes = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in floats.items()}
    return jax.pure_callback(_Backward(call), shapes, floats, of_rows, cotangents, vmap_method="sequential"), None


_apply.defvjp(_apply_forward, _apply_backward)


# JAX compiles anew for a callback that is not equal to the last one, so these are equal where their calls are.
@dataclass(frozen=True)
class _Forward:
    """On the host: the flat outputs."""

    call: Call

    def __call__(self, floats: Arrays, of_rows: Arrays) -> tuple[Any, ...]:
        outputs, _ = self.call.forward(_on_host(floats, of_rows))
        return outputs


@dataclass(frozen=True)
class _Backward:
    """On the host: the gradients of the arguments that there are."""

    call: Call

    def __call__(self, floats: Arrays, of_rows: Arrays, cotangents: tuple[Any, ...]) -> Arrays:
        _, tape = self.call.forward(_on_host(floats, of_rows), record=True)
        assert tape is not None
        gradients = self.call.backward(tape, cotangents)
        return {name: gradients[name] for name in floats}


def _on_host(*arrays: Arrays) -> Arrays:
    return {name: np.asarray(a) for group in arrays for name, a in group.items()}


def _results(call: Call, floats: Arrays, of_rows: Arrays) -> tuple[Any, ...]:
    """The shapes and dtypes of the outputs, by a call of the same shapes but no steps; which finds errors while tracing, too."""
    x = floats["x"]
    axis = 1 if x.ndim == 3 and dict(call.options).get("batch_first") else 0
    empty = {name: np.zeros(a.shape, a.dtype) for name, a in {**floats, **of_rows}.items()}
    empty |= {name: empty[name].take([], axis if name == "x" else 0) for name in ("x", "reset", "mask") if name in empty}
    y, *states = call.forward(empty)[0]
    shape = (*y.shape[:axis], *x.shape[axis : axis + 1], *y.shape[axis + 1 :])
    return jax.ShapeDtypeStruct(shape, y.dtype), *(jax.ShapeDtypeStruct(s.shape, s.dtype) for s in states)


@function(_run)
def rnn(*arguments: Any, **keywords: Any) -> Any:
    """fastrnn.rnn without `record`: arguments, shapes and errors as there.

    Returns: y (T, B, H) and h_n (B, H), as fastrnn.rnn without the tape.

    >>> import fastrnn.jax
    >>> import jax.numpy as np
    >>> x, w_ih, w_hh = np.ones((7, 2, 3)), np.ones((4, 3)), np.ones((4, 4))  # T=7 B=2 I=3 H=4
    >>> y, h_n = fastrnn.jax.rnn(x, w_ih, w_hh, lengths=[7, 5])
    >>> y.shape, h_n.shape
    ((7, 2, 4), (2, 4))
    """


@function(_run)
def gru(*arguments: Any, **keywords: Any) -> Any:
    """fastrnn.gru without `record`: arguments, shapes and errors as there.

    Returns: y (T, B, H) and h_n (B, H), as fastrnn.gru without the tape.

    >>> import fastrnn.jax
    >>> import jax.numpy as np
    >>> x, w_ih, w_hh = np.ones((7, 2, 3)), np.ones((12, 3)), np.ones((12, 4))  # T=7 B=2 I=3 H=4
    >>> y, h_n = fastrnn.jax.gru(x, w_ih, w_hh, lengths=[7, 5])
    >>> y.shape, h_n.shape
    ((7, 2, 4), (2, 4))
    """


@function(_run)
def lstm(*arguments: Any, **keywords: Any) -> Any:
    """fastrnn.lstm without `record`: arguments, shapes and errors as there.

    Returns: y (T, B, H) and h_n and c_n, each (B, H), as fastrnn.lstm without the tape.

    >>> import fastrnn.jax
    >>> import jax.numpy as np
    >>> x, w_ih, w_hh = np.ones((7, 2, 3)), np.ones((16, 3)), np.ones((16, 4))  # T=7 B=2 I=3 H=4
    >>> y, (h_n, c_n) = fastrnn.jax.lstm(x, w_ih, w_hh, lengths=[7, 5])
    >>> y.shape, h_n.shape, c_n.shape
    ((7, 2, 4), (2, 4), (2, 4))
    """
