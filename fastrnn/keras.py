"""fastrnn.keras: keras.layers.LSTM and GRU on Keras 3's NumPy backend, at compiled speed.

That backend leaves its functions lstm and gru unimplemented, and Keras then calls the cell step by step. install() puts ours there:
nothing else about a model changes, and what the kernels do not compute is left to Keras, as before. The NumPy backend has no
training, so this is inference. Needs Keras 3 with KERAS_BACKEND=numpy.

On the kernels: LSTM and GRU (both values of reset_after) with activation="tanh" and recurrent_activation="sigmoid", in float32 and
float64, alone, stacked or inside Bidirectional, with masks of any kind, initial states, go_backwards, stateful. Left to Keras:
other activations, SimpleRNN, use_cudnn=False, recurrent_dropout, unroll with a mask, float16 and bfloat16. In float64 the kernels
compute in float64 throughout, where Keras's own loop comes down to float32 in between.

Examples
--------
>>> import os; os.environ["KERAS_BACKEND"] = "numpy"
>>> import numpy as np, keras, fastrnn.keras
>>> fastrnn.keras.install()
>>> model = keras.Sequential([keras.layers.LSTM(4), keras.layers.Dense(1)])  # or keras.saving.load_model("model.keras")
>>> model.predict(np.ones((2, 7, 3)), verbose=0).shape
(2, 1)
>>> fastrnn.keras.uninstall()
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import functional, layers
from ._api.optional import missing
from .formats import FORMATS
from .frozen import FrozenLayer

try:
    import keras
    from keras.src import backend
except ImportError as error:
    raise missing("fastrnn.keras", "keras", "keras", error) from error

__all__ = ["install", "uninstall"]

Array = NDArray[Any]

# What Keras tells its own loop but not lstm and gru: what a masked step gives out. None: not told, as no layer is calling.
_zero_output_for_mask: ContextVar[bool | None] = ContextVar("zero_output_for_mask", default=None)
_replaced: list[tuple[Any, str, Any]] = []  # what uninstall puts back


def install() -> None:
    """From now on, Keras layers compute on the kernels where these can. A second call changes nothing.

    Raises
    ------
    RuntimeError
        Keras runs on another backend than NumPy's.

    Examples
    --------
    >>> import os; os.environ["KERAS_BACKEND"] = "numpy"
    >>> import numpy as np, keras, fastrnn.keras
    >>> layer, x = keras.layers.GRU(4, return_sequences=True), np.ones((2, 7, 3), np.float32)
    >>> theirs = np.asarray(layer(x))
    >>> fastrnn.keras.install()
    >>> np.allclose(layer(x), theirs, atol=1e-6)
    True
    >>> fastrnn.keras.uninstall()
    """
    if keras.backend.backend() != "numpy":
        name = keras.backend.backend()
        raise RuntimeError(f"keras: expected the backend 'numpy', got {name!r}; set KERAS_BACKEND=numpy before keras is imported")
    if _replaced:
        return
    _replace(backend, "lstm", _lstm)
    _replace(backend, "gru", _gru)
    for layer in (keras.layers.LSTM, keras.layers.GRU):
        _replace(layer, "inner_loop", _telling(layer.inner_loop))


def uninstall() -> None:
    """Undo install(). Without it, this changes nothing.

    Examples
    --------
    >>> import os; os.environ["KERAS_BACKEND"] = "numpy"
    >>> import fastrnn.keras
    >>> fastrnn.keras.uninstall()
    """
    while _replaced:
        setattr(*_replaced.pop())


def _replace(owner: Any, name: str, new: Any) -> None:
    _replaced.append((owner, name, getattr(owner, name)))
    setattr(owner, name, new)


def _telling(inner_loop: Callable[..., Any]) -> Callable[..., Any]:
    """The layer's inner_loop, which lets lstm and gru know what the layer does with masked steps."""

    @functools.wraps(inner_loop)
    def telling(layer: Any, *arguments: Any, **keywords: Any) -> Any:
        token = _zero_output_for_mask.set(layer.zero_output_for_mask)
        try:
            return inner_loop(layer, *arguments, **keywords)
        finally:
            _zero_output_for_mask.reset(token)

    return telling


def _lstm(
    inputs: Any,
    initial_state_h: Any,
    initial_state_c: Any,
    mask: Any,
    *,
    kernel: Any,
    recurrent_kernel: Any,
    bias: Any,
    go_backwards: bool = False,
    **others: Any,
) -> tuple[Array, Array, list[Array]]:
    """keras.src.backend.lstm: (last output (N, H), outputs (N, T, H) in the order of processing, [h, c])."""
    x, options = _checked(inputs, mask, go_backwards, **others)
    h0, c0 = (_array(s, x.dtype) for s in (initial_state_h, initial_state_c))
    weights = _arrays(x.dtype, kernel, recurrent_kernel, bias)
    frozen = _frozen("lstm", kernel, weights)
    if frozen is not None and _fit(x, weights, h0, c0):
        return _by_frozen(frozen, x, (h0[None], c0[None]), options)
    y, (h, c), _ = functional.lstm(x, **_ours("lstm", weights), h0=h0, c0=c0, **options)
    return _returned(y, go_backwards, [h, c])


def _gru(
    inputs: Any,
    initial_state: Any,
    mask: Any,
    *,
    kernel: Any,
    recurrent_kernel: Any,
    bias: Any,
    go_backwards: bool = False,
    reset_after: bool = True,
    **others: Any,
) -> tuple[Array, Array, list[Array]]:
    """keras.src.backend.gru: (last output (N, H), outputs (N, T, H) in the order of processing, [h])."""
    x, options = _checked(inputs, mask, go_backwards, **others)
    h0, form = _array(initial_state, x.dtype), "gru_after" if reset_after else "gru_before"
    weights = _arrays(x.dtype, kernel, recurrent_kernel, bias)
    frozen = _frozen(form, kernel, weights)
    if frozen is not None and _fit(x, weights, h0):
        return _by_frozen(frozen, x, h0[None], options)
    y, h, _ = functional.gru(x, **_ours(form, weights), h0=h0, reset_after=bool(reset_after), **options)
    return _returned(y, go_backwards, [h])


def _checked(
    inputs: Any,
    mask: Any,
    go_backwards: bool,
    activation: Any = None,
    recurrent_activation: Any = None,
    unroll: bool = False,
    return_sequences: bool = False,
) -> tuple[Array, dict[str, Any]]:
    """x and the keywords for our function; NotImplementedError, which makes Keras go its own way, where there is none."""
    x = np.asarray(inputs)
    standard = activation is keras.activations.tanh and recurrent_activation is keras.activations.sigmoid
    if not standard or x.ndim != 3 or x.shape[1] == 0 or x.dtype not in (np.float32, np.float64):
        raise NotImplementedError
    options: dict[str, Any] = {"batch_first": True, "reverse": bool(go_backwards)}
    if mask is not None:
        zero = _zero_output_for_mask.get()
        if unroll or zero is None:
            raise NotImplementedError
        options["mask"] = np.asarray(mask, np.bool_).reshape(x.shape[:2])
        options["masked"] = "zero" if zero else "hold"
    return x, options


def _array(value: Any, dtype: Any) -> Any:
    """A variable or an array of Keras as an array, as Keras itself would use it beside x."""
    return np.asarray(backend.convert_to_tensor(value), dtype)


def _arrays(dtype: Any, kernel: Any, recurrent_kernel: Any, bias: Any) -> dict[str, Array]:
    """A layer's weights by Keras's names."""
    given = {"kernel": kernel, "recurrent_kernel": recurrent_kernel} | ({} if bias is None else {"bias": bias})
    return {name: _array(value, dtype) for name, value in given.items()}


def _ours(form: str, weights: Mapping[str, Array]) -> dict[str, Any]:
    """The same as our functions take them."""
    return FORMATS["keras"].cells[form].arguments(form, weights)


def _returned(y: Array, go_backwards: bool, states: list[Array]) -> tuple[Array, Array, list[Array]]:
    outputs = y[:, ::-1] if go_backwards else y
    return outputs[:, -1], outputs, states


# --- frozen layers ------------------------------------------------------------------------------------------------------

# Weights are arrays that anybody can write to. So they are compared, byte by byte, with what they were when they were packed, which
# takes a tenth of the time of arranging and packing them.


class _Known(NamedTuple):
    """The weights of a layer at its last call, and at the second call with the same bytes a frozen layer of them."""

    kernel: weakref.ref[Any]
    layout: Any
    bytes: list[bytearray]
    frozen: FrozenLayer | None

    def is_of(self, layout: Any, lying: list[Array]) -> bool:
        return bool(layout == self.layout) and all(map(bytearray.__eq__, self.bytes, lying))


_known: dict[int, _Known] = {}  # by the identity of the kernel


def _frozen(form: str, kernel: Any, named: Mapping[str, Array]) -> FrozenLayer | None:
    """A frozen layer of these weights if they were the same at the last call."""
    weights, key = list(named.values()), id(kernel)
    lying = [array if array.flags.c_contiguous else array.T for array in weights]  # Keras's own orthogonal matrices are in F order
    if not all(array.flags.c_contiguous for array in lying):
        return None
    layout = form, [(array.dtype, array.shape, array.flags.c_contiguous) for array in weights]
    known = _known.get(key)
    if known is None or not known.is_of(layout, lying):
        try:
            reference = weakref.ref(kernel, lambda _: _known.pop(key, None))
        except TypeError:  # then nobody would say when it goes
            return None
        _known[key] = _Known(reference, layout, [bytearray(array) for array in lying], None)
        return None
    if known.frozen is None:
        then = [np.frombuffer(kept, array.dtype).reshape(array.shape) for kept, array in zip(known.bytes, lying)]
        then = [kept if array.flags.c_contiguous else kept.T for kept, array in zip(then, weights)]
        known = _known[key] = known._replace(frozen=_made(form, then))
    return known.frozen


def _made(form: str, weights: list[Array]) -> FrozenLayer:
    kind: Any = layers.LSTM if form == "lstm" else layers.GRU
    options = {} if form == "lstm" else {"reset_after": form == "gru_after"}
    frozen: FrozenLayer = kind.from_weights(weights, "keras", batch_first=True, **options).frozen()
    return frozen


def _fit(x: Array, weights: Mapping[str, Array], *states: Array) -> bool:
    """Are the sizes those of the weights? If not, our functions say so."""
    I, N, H = len(weights["kernel"]), len(x), len(weights["recurrent_kernel"])
    return x.shape[2] == I and all(state.shape == (N, H) for state in states)


def _by_frozen(frozen: FrozenLayer, x: Array, state: Any, options: dict[str, Any]) -> tuple[Array, Array, list[Array]]:
    """What our functions give, in the order of processing."""
    mask, masked = options.get("mask"), options.get("masked", "zero")
    if options["reverse"]:
        x, mask = x[:, ::-1], None if mask is None else mask[:, ::-1]
    y, final = frozen(x, state, mask=mask, masked=masked)
    states = final if isinstance(final, tuple) else (final,)
    return y[:, -1], y, [s[0] for s in states]
