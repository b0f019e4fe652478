"""fastrnn.jax: rnn, gru and lstm as functions of JAX arrays, under jit, grad and vmap.

The arguments and shapes are those of fastrnn.rnn, fastrnn.gru and fastrnn.lstm without `record`; what comes back is (y, h_n), of
the LSTM (y, (h_n, c_n)), with the same bits. The kernels are called by the compiled program itself, as targets of XLA's foreign
function interface: no Python runs in between, and nothing waits for the interpreter or for JAX's threads. On the CPU alone.

Gradients are reverse mode, once: forward mode and gradients of gradients are refused. A forward pass that gradients are asked of
keeps gates and cell states for the backward pass, or, with `checkpoint`, little. vmap calls once per element. Mistakes in shapes,
dtypes and options are found while tracing; wrong values, such as lengths beyond T, when the program runs, as an error of JAX's with
our text in it. threads: None is the number at the time of tracing, or a lower one that holds when the program runs. The large
products are the package's own, whatever fastrnn.set_gemm says. Needs the package jax: pip install 'fastrnn[jax]'.

>>> import jax, jax.numpy as np, fastrnn.jax
>>> x, w_ih, w_hh = np.ones((7, 2, 3)), np.ones((12, 3)), np.ones((12, 4))  # T=7 B=2 I=3 H=4
>>> @jax.jit
... def loss(w_hh):
...     y, h_n = fastrnn.jax.gru(x, w_ih, w_hh)
...     return (y**2).sum()
>>> dw_hh = jax.grad(loss)(w_hh)
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from . import _core
from ._api.optional import missing
from ._bridge import FLOATS, OF_ROWS, Arrays, Call, function
from ._engine import schedule
from ._engine.cells import Cell

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise missing("fastrnn.jax", "jax", "jax", error) from error
try:
    from jax import ffi
except ImportError:
    raise ImportError(f"fastrnn.jax: expected jax 0.5 or later, got {jax.__version__}; pip install 'jax>=0.5'") from None

__all__ = ["gru", "lstm", "rnn"]

_FORWARD, _BACKWARD = "fastrnn_forward", "fastrnn_backward"
for _name, _target in zip((_FORWARD, _BACKWARD), _core.xla_targets()):
    ffi.register_ffi_target(_name, _target, platform="cpu")


class _Layer(NamedTuple):
    """What is known while tracing, besides the arrays' shapes."""

    cell: Cell
    reverse: bool
    batch_first: bool
    hold: bool
    checkpoint: int  # 0: none
    fewer_threads: bool  # does a lower number of the process hold, too?
    threads: int
    bf16: bool

    def options(self, sizes: _Sizes, backward: bool, checkpoint: int) -> tuple[int, ...]:
        """fr_options of _xla/frame.h."""
        T, B, I, H, _ = sizes
        of_size = (min(T, checkpoint) if checkpoint else T, B, I, H, self.cell.gates, self.threads)
        how, recompute = (schedule.backward if backward else schedule.forward)(*of_size), schedule.recompute(*of_size)
        return *self[:4], checkpoint, self.fewer_threads, self.bf16, *how, *recompute


class _Sizes(NamedTuple):
    T: int
    B: int
    I: int
    H: int
    P: int


def _run(call: Call, floats: Arrays, of_rows: Arrays) -> tuple[Any, ...]:
    floats, of_rows = ({name: jnp.asarray(a) for name, a in arrays.items()} for arrays in (floats, of_rows))
    layer, unbatched = _check(call, floats, of_rows)
    if "lengths" in of_rows:
        of_rows["lengths"] = of_rows["lengths"].astype(int).reshape(-1)
    if unbatched:
        floats |= {name: jnp.expand_dims(floats[name], name == "x") for name in ("x", "h0", "c0") if name in floats}
        of_rows |= {name: of_rows[name][:, None] for name in ("reset", "mask") if name in of_rows}
    elif layer.batch_first:
        of_rows |= {name: of_rows[name].T for name in ("reset", "mask") if name in of_rows}
    y, h_n, c_n = _apply(layer, floats, of_rows)
    outputs = (y, h_n, c_n) if layer.cell.is_lstm else (y, h_n)
    return tuple(a.squeeze(a.ndim - 2) for a in outputs) if unbatched else outputs


def _check(call: Call, floats: Arrays, of_rows: Arrays) -> tuple[_Layer, bool]:
    """What the call says, and whether it has no batch. By a call of the same shapes but no steps, which finds all errors."""
    options, x = dict(call.options), floats["x"]
    axis = 1 if x.ndim == 3 and options.get("batch_first") else 0
    empty = {name: np.zeros(a.shape, a.dtype) for name, a in {**floats, **of_rows}.items()}
    empty |= {name: empty[name].take([], axis) for name in ("x", "reset", "mask") if name in empty}
    _, tape = call.forward(empty, record=True)
    assert tape is not None and tape._run is not None
    _refuse_activations(tape._run.cell)
    run, checkpoint = tape._run, int(options.get("checkpoint") or 0)
    fewer_threads, hold = options.get("threads") is None, options.get("masked") == "hold"
    of_call = checkpoint, fewer_threads, run.threads, run.weights.precision == "bf16"
    return _Layer(run.cell, run.plan.reverse, tape._batch_first, hold, *of_call), tape._unbatched


def _refuse_activations(cell: Cell) -> None:
    for name, activation in cell.unusual():
        raise ValueError(f"{name}: expected what fastrnn.jax has, tanh, sigmoid and an RNN's relu, got {activation.given!r}")


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(layer: _Layer, floats: Arrays, of_rows: Arrays) -> tuple[Any, ...]:
    """y, h_n, c_n: with a batch, and c_n without elements where there is none."""
    y, h_n, c_n, *_ = _forward(layer, floats, of_rows, record=False)
    return y, h_n, c_n


def _apply_forward(layer: _Layer, floats: Arrays, of_rows: Arrays) -> tuple[Any, Any]:
    y, h_n, c_n, c, gates = _forward(layer, floats, of_rows, record=True)
    return (y, h_n, c_n), (floats, of_rows, y, c, gates)


def _apply_backward(layer: _Layer, saved: Any, cotangents: tuple[Any, ...]) -> tuple[Any, None]:
    return _backward(layer, *saved, *cotangents), None


_apply.defvjp(_apply_forward, _apply_backward)


def _sizes(layer: _Layer, floats: Arrays) -> _Sizes:
    T, B, I = floats["x"].shape
    P = floats["w_hh"].shape[1]
    return _Sizes(*((B, T) if layer.batch_first else (T, B)), I, floats["w_hr"].shape[1] if "w_hr" in floats else P, P)


def _places(floats: Arrays, of_rows: Arrays) -> list[Any]:
    """The arguments in the order of _xla/frame.h; those that are not given have no elements."""
    nothing, types = jnp.zeros(0, floats["x"].dtype), (int, bool, bool)
    given = [floats.get(name, nothing) for name in FLOATS]
    return given + [of_rows[name] if name in of_rows else jnp.zeros(0, kind) for name, kind in zip(OF_ROWS, types)]


def _forward(layer: _Layer, floats: Arrays, of_rows: Arrays, record: bool) -> Any:
    """y, h_n, c_n, and what backward needs: c and gates; an LSTM's c alone, every so many steps; or nothing."""
    T, B, _, H, P = sizes = _sizes(layer, floats)
    is_lstm, keeps, nothing = layer.cell.is_lstm, record and layer.cell.form.saves, (0,)
    checkpoint = layer.checkpoint if keeps else 0
    shapes: list[tuple[int, ...]] = [(*floats["x"].shape[:2], P), (B, P), (B, H) if is_lstm else nothing]
    shapes += [(-(-T // checkpoint) if checkpoint else T, B, H) if keeps and is_lstm else nothing]
    shapes += [(T, B, 4 * H) if keeps and not checkpoint else nothing]
    return _kernel(_FORWARD, tuple(shapes), layer.options(sizes, False, checkpoint), *_places(floats, of_rows))


def _backward(layer: _Layer, floats: Arrays, of_rows: Arrays, *more: Any) -> Arrays:
    """The gradients of the arguments that there are, from y, c and gates, and the gradients of y, h_n and c_n."""
    _, B, _, H, P = sizes = _sizes(layer, floats)
    shapes: dict[str, tuple[int, ...]] = {name: floats[name].shape if name in floats else (0,) for name in FLOATS}
    shapes |= {"h0": (B, P), "c0": (B, H) if layer.cell.is_lstm else (0,)}
    options = layer.options(sizes, True, layer.checkpoint if layer.cell.form.saves else 0)
    gradients = _kernel(_BACKWARD, tuple(shapes.values()), options, *_places(floats, of_rows), *more)
    return {name: gradient for name, gradient in zip(FLOATS, gradients) if name in floats}


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _kernel(target: str, shapes: tuple[tuple[int, ...], ...], options: tuple[int, ...], *arguments: Any) -> Any:
    """Arrays of these shapes, of the dtype of the first argument."""
    results = [jax.ShapeDtypeStruct(shape, arguments[0].dtype) for shape in shapes]
    return ffi.ffi_call(target, results, vmap_method="sequential")(*arguments, options=np.array(options, np.int64))


def _refuse(target: str, shapes: Any, options: Any, primals: Any, tangents: Any) -> Any:
    raise NotImplementedError("fastrnn.jax: gradients of gradients are not available; those of jax.lax.scan over a cell are")


_kernel.defjvp(_refuse)


@function(_run)
def rnn(*arguments: Any, **keywords: Any) -> Any:
    """fastrnn.rnn as a function of JAX arrays.

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
        As in fastrnn.rnn; wrong values, such as lengths beyond T, under jit as an error of JAX with our text.

    Examples
    --------
    >>> import fastrnn.jax
    >>> import jax.numpy as np
    >>> x, w_ih, w_hh = np.ones((7, 2, 3)), np.ones((4, 3)), np.ones((4, 4))  # T=7 B=2 I=3 H=4
    >>> y, h_n = fastrnn.jax.rnn(x, w_ih, w_hh, lengths=[7, 5])
    >>> y.shape, h_n.shape
    ((7, 2, 4), (2, 4))
    """


@function(_run)
def gru(*arguments: Any, **keywords: Any) -> Any:
    """fastrnn.gru as a function of JAX arrays.

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
        As in fastrnn.gru; wrong values, such as lengths beyond T, under jit as an error of JAX with our text.

    Examples
    --------
    >>> import fastrnn.jax
    >>> import jax.numpy as np
    >>> x, w_ih, w_hh = np.ones((7, 2, 3)), np.ones((12, 3)), np.ones((12, 4))  # T=7 B=2 I=3 H=4
    >>> y, h_n = fastrnn.jax.gru(x, w_ih, w_hh, lengths=[7, 5])
    >>> y.shape, h_n.shape
    ((7, 2, 4), (2, 4))
    """


@function(_run)
def lstm(*arguments: Any, **keywords: Any) -> Any:
    """fastrnn.lstm as a function of JAX arrays.

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
        As in fastrnn.lstm; wrong values, such as lengths beyond T, under jit as an error of JAX with our text.

    Examples
    --------
    >>> import fastrnn.jax
    >>> import jax.numpy as np
    >>> x, w_ih, w_hh = np.ones((7, 2, 3)), np.ones((16, 3)), np.ones((16, 4))  # T=7 B=2 I=3 H=4
    >>> y, (h_n, c_n) = fastrnn.jax.lstm(x, w_ih, w_hh, lengths=[7, 5])
    >>> y.shape, h_n.shape, c_n.shape
    ((7, 2, 4), (2, 4), (2, 4))
    """
