"""madmom.ml.nn.layers, inference: RecurrentLayer, LSTMLayer, GRULayer, BidirectionalLayer, with Gate, Cell, GRUCell.

A layer takes data (T, I) and gives (T, H); with reset=False it goes on from where the last call ended. Its arrays are read when it
is made, and cannot be written to afterwards. Activations: sigmoid of the gates, tanh, and relu of the RecurrentLayer; the kernels
have no others. Outputs of LSTMLayer and GRULayer are float32, as in madmom.

Networks that were made of madmom's own layers, such as its models, change in place:

>>> from fastrnn.compat.madmom import accelerate
>>> accelerate(network)  # its recurrent layers are now these
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers
from .._api.pickling import Pickled
from ._one_user import layer_in_use, one_user
from ._recorded import as_floats
from ._step import sigmoid as _sigmoid

__all__ = [
    "BidirectionalLayer",
    "Cell",
    "GRUCell",
    "GRULayer",
    "Gate",
    "LSTMLayer",
    "Layer",
    "RecurrentLayer",
    "accelerate",
    "relu",
    "sigmoid",
    "tanh",
]

Array = NDArray[Any]
Activation = Callable[..., Array]
_F32 = np.dtype(np.float32)


def tanh(x: Array, out: Array | None = None) -> Array:
    """Hyperbolic tangent."""
    return np.tanh(x, out=out)


def sigmoid(x: Array, out: Array | None = None) -> Array:
    """1 / (1 + exp(-x))."""
    y = _sigmoid(np.asarray(x))
    if out is None:
        return y
    out[...] = y
    return out


def relu(x: Array, out: Array | None = None) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0, out=out)


@dataclass(frozen=True, eq=False)
class Gate(Pickled):
    """weights (I, H), bias (H,), recurrent_weights (H, H), peephole_weights (H,) or None."""

    weights: Array
    bias: Array
    recurrent_weights: Array
    peephole_weights: Array | None = None
    activation_fn: Activation = sigmoid

    def __post_init__(self) -> None:
        _freeze(self)
        _require("activation_fn", self.activation_fn, sigmoid)


@dataclass(frozen=True, eq=False)
class Cell(Pickled):
    """weights (I, H), bias (H,), recurrent_weights (H, H)."""

    weights: Array
    bias: Array
    recurrent_weights: Array
    activation_fn: Activation = tanh

    def __post_init__(self) -> None:
        _freeze(self)
        _require("activation_fn", self.activation_fn, tanh)


class GRUCell(Cell):
    """As Cell, for a GRULayer: the reset gate is applied to the product of h and recurrent_weights."""


def _freeze(gate: Any) -> None:
    """Read-only copies of the arrays, of one dtype."""
    names = ("weights", "bias", "recurrent_weights", "peephole_weights")
    arrays = as_floats({name: value for name in names if (value := getattr(gate, name, None)) is not None})
    for name, array in arrays.items():
        array = array.copy() if name.endswith("weights") and name != "peephole_weights" else array.flatten()
        array.flags.writeable = False
        object.__setattr__(gate, name, array)


def _require(name: str, function: Any, *known: Activation) -> Activation:
    """The one of ours that does what a function does, told by some values."""
    probe = np.linspace(-3, 3, 7)
    for candidate in known:
        if function is candidate or (callable(function) and np.allclose(function(probe.copy()), candidate(probe), rtol=1e-9)):
            return candidate
    expected = " or ".join(candidate.__name__ for candidate in known)
    raise ValueError(f"{name}: expected {expected}, got {getattr(function, '__name__', function)!r}; the kernels have no others")


class Layer(Pickled):
    """What can be called with data."""

    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        return self.activate(*args, **kwargs)

    def activate(self, data: Array, reset: bool = True) -> Array:
        """data (T, I) -> (T, H)."""
        raise NotImplementedError("a subclass has it")

    def reset(self) -> None:
        """Back to the initial state."""


class _Recurrent(Layer):
    """A layer on the kernels. Subclasses say what it is made of."""

    _kind: type[layers.Recurrent]
    _options: dict[str, Any]

    def __init__(self, weights: Any, init: Any, **options: Any) -> None:
        made = self._kind.from_weights(weights, "madmom", **options)
        self._weights, self._options, self._made = weights, options, {made.dtype: made}
        self._in_use = layer_in_use()
        self.init = self._initial("init", init)

    def _layer(self, dtype: np.dtype[Any]) -> layers.Recurrent:
        """The layer that computes in this dtype."""
        if dtype not in self._made:
            self._made[dtype] = self._kind.from_weights(self._weights, "madmom", dtype=dtype, **self._options)
        return self._made[dtype]

    def _initial(self, name: str, value: Any) -> Array:
        """A state (H,) of what is given."""
        (layer,) = list(self._made.values())[:1]
        H = layer.hidden_size
        if value is None:
            return np.zeros(H, np.float32)
        array = as_floats({name: value})[name].flatten()
        if array.shape != (H,):
            raise ValueError(f"{name}: expected (H,) = ({H},), got {array.shape}")
        return array

    @one_user
    def reset(self, init: Any = None) -> None:
        """Back to the initial state, or to `init` (H,)."""
        self._reset(init)

    def _reset(self, init: Any = None) -> None:
        self._prev = self.init if init is None else self._initial("init", init)

    def _run(self, data: Any, states: list[Array]) -> tuple[Array, list[Array]]:
        """y (T, H) and the states behind the last step, from those in front of the first."""
        arrays = as_floats({"data": data, "weights": np.empty(0, next(iter(self._made)))})
        x, dtype = arrays["data"], arrays["data"].dtype
        if x.ndim != 2:
            raise ValueError(f"data: expected (T, I), got {x.shape}")
        given = [state.astype(dtype)[None] for state in states]
        y, final = self._layer(dtype)(np.ascontiguousarray(x), tuple(given) if len(given) > 1 else given[0])
        return y, [state[0] for state in (final if len(given) > 1 else (final,))]

    _not_pickled = ("_prev", "_state")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.reset()


class RecurrentLayer(_Recurrent):
    """h_t = activation_fn(x_t weights + bias + h_{t-1} recurrent_weights).

    weights (I, H), bias (H,), recurrent_weights (H, H); init (H,) or None for zeros.

    Raises: TypeError, ValueError.
    """

    _kind = layers.RNN

    def __init__(
        self, weights: Array, bias: Array, recurrent_weights: Array, activation_fn: Activation = tanh, init: Array | None = None
    ) -> None:
        name = _require("activation_fn", activation_fn, tanh, relu).__name__
        self.activation_fn = activation_fn
        parts = {"weights": weights, "bias": np.ravel(bias), "recurrent_weights": recurrent_weights}
        parts = {key: array.copy() for key, array in as_floats(parts).items()}
        for key, array in parts.items():
            array.flags.writeable = False
            setattr(self, key, array)
        super().__init__(parts, init, nonlinearity=name)
        self.reset()

    @one_user
    def activate(self, data: Array, reset: bool = True) -> Array:
        """data (T, I) -> (T, H); from the initial state, or with reset=False from where the last call ended."""
        if reset:
            self._reset()
        y, (self._prev,) = self._run(data, [self._prev])
        return y


class LSTMLayer(_Recurrent):
    """An LSTM of gates, with peepholes where these have some; gates of madmom's own will do as well.

    init, cell_init: (H,) or None for zeros. Raises: TypeError, ValueError.
    """

    _kind = layers.LSTM

    def __init__(
        self,
        input_gate: Any,
        forget_gate: Any,
        cell: Any,
        output_gate: Any,
        activation_fn: Activation = tanh,
        init: Array | None = None,
        cell_init: Array | None = None,
    ) -> None:
        _require("activation_fn", activation_fn, tanh)
        self.activation_fn = activation_fn
        self.input_gate, self.forget_gate, self.output_gate = (_gate(gate) for gate in (input_gate, forget_gate, output_gate))
        self.cell = _gate(cell, Cell)
        super().__init__({name: _parts(getattr(self, name)) for name in ("input_gate", "forget_gate", "cell", "output_gate")}, init)
        self.cell_init = self._initial("cell_init", cell_init)
        self.reset()

    @one_user
    def reset(self, init: Any = None, cell_init: Any = None) -> None:
        """Back to the initial state, or to `init` and `cell_init` (H,)."""
        self._reset(init, cell_init)

    def _reset(self, init: Any = None, cell_init: Any = None) -> None:
        super()._reset(init)
        self._state = self.cell_init if cell_init is None else self._initial("cell_init", cell_init)

    @one_user
    def activate(self, data: Array, reset: bool = True) -> Array:
        """data (T, I) -> (T, H) float32; from the initial state, or with reset=False from where the last call ended."""
        if reset:
            self._reset()
        y, (self._prev, self._state) = self._run(data, [self._prev, self._state])
        return y.astype(_F32, copy=False)


class GRULayer(_Recurrent):
    """A GRU of gates: h_t = u cell + (1 - u) h_{t-1}; gates of madmom's own will do as well.

    init: (H,) or None for zeros. Raises: TypeError, ValueError.
    """

    _kind = layers.GRU

    def __init__(self, reset_gate: Any, update_gate: Any, cell: Any, init: Array | None = None) -> None:
        self.reset_gate, self.update_gate, self.cell = _gate(reset_gate), _gate(update_gate), _gate(cell, GRUCell)
        super().__init__({name: _parts(getattr(self, name)) for name in ("reset_gate", "update_gate", "cell")}, init)
        self.reset()

    @one_user
    def activate(self, data: Array, reset: bool = True) -> Array:
        """data (T, I) -> (T, H) float32; from the initial state, or with reset=False from where the last call ended."""
        if reset:
            self._reset()
        y, (self._prev,) = self._run(data, [self._prev])
        return y.astype(_F32, copy=False)


class BidirectionalLayer(Layer):
    """Two layers, the second over the reversed data; their outputs stand side by side."""

    def __init__(self, fwd_layer: Any, bwd_layer: Any) -> None:
        self.fwd_layer, self.bwd_layer = fwd_layer, bwd_layer

    def activate(self, data: Array, reset: bool = True) -> Array:
        """data (T, I) -> (T, 2H)."""
        data = np.asarray(data)
        return np.hstack((self.fwd_layer(data, reset=reset), self.bwd_layer(data[::-1], reset=reset)[::-1]))


def _gate(gate: Any, kind: type[Gate] | type[Cell] = Gate) -> Any:
    """One of ours with the arrays of any."""
    if isinstance(gate, (Gate, Cell)):
        return gate
    arrays = {"weights": gate.weights, "bias": gate.bias, "recurrent_weights": gate.recurrent_weights}
    if kind is Gate:
        arrays["peephole_weights"] = gate.peephole_weights
    return kind(**arrays, activation_fn=gate.activation_fn)


def _parts(gate: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(gate).items() if name != "activation_fn"}


_ARGUMENTS = {
    "RecurrentLayer": ("weights", "bias", "recurrent_weights", "activation_fn", "init"),
    "LSTMLayer": ("input_gate", "forget_gate", "cell", "output_gate", "activation_fn", "init", "cell_init"),
    "GRULayer": ("reset_gate", "update_gate", "cell", "init"),
}


def accelerate(network: Any) -> Any:
    """Replace the recurrent layers inside a network of madmom's by these, in place; a recurrent layer itself is returned anew.

    A layer with an activation that the kernels lack stays as it is.
    """
    name = type(network).__name__
    if isinstance(network, Layer):
        return network
    if name in _ARGUMENTS:
        try:
            return globals()[name](*(getattr(network, argument) for argument in _ARGUMENTS[name]))
        except ValueError:
            return network
    for part in ("fwd_layer", "bwd_layer"):
        if hasattr(network, part):
            setattr(network, part, accelerate(getattr(network, part)))
    if isinstance(getattr(network, "layers", None), list):
        network.layers[:] = [accelerate(layer) for layer in network.layers]
    return network
