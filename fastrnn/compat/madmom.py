"""madmom.ml.nn.layers, inference: RecurrentLayer, LSTMLayer, GRULayer, BidirectionalLayer, with Gate, Cell, GRUCell.

A layer takes data (T, I) and returns (T, H); with reset=False it continues from where the last call ended. Its arrays are read when
it is made, and cannot be written to afterwards. Activations: sigmoid of the gates, tanh, and relu of the RecurrentLayer; the
kernels have no others. Outputs of LSTMLayer and GRULayer are float32, as in madmom. Networks that were made of madmom's own layers,
such as its models, change in place by `accelerate`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers
from .._api.pickling import Pickled
from ..frozen import FrozenLayer
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
    """Hyperbolic tangent.

    Parameters
    ----------
    x : array
    out : array, optional
        Of x's shape, for the result.

    Returns
    -------
    y : array
    """
    return np.tanh(x, out=out)


def sigmoid(x: Array, out: Array | None = None) -> Array:
    """1 / (1 + exp(-x)).

    Parameters
    ----------
    x : array
    out : array, optional
        Of x's shape, for the result.

    Returns
    -------
    y : array
    """
    y = _sigmoid(np.asarray(x))
    if out is None:
        return y
    out[...] = y
    return out


def relu(x: Array, out: Array | None = None) -> Array:
    """max(x, 0).

    Parameters
    ----------
    x : array
    out : array, optional
        Of x's shape, for the result.

    Returns
    -------
    y : array
    """
    return np.maximum(x, 0, out=out)


@dataclass(frozen=True, eq=False)
class Gate(Pickled):
    """The weights of a gate, in copies that are read-only.

    Parameters
    ----------
    weights : array (I, H)
    bias : array (H,)
    recurrent_weights : array (H, H)
    peephole_weights : array (H,), optional
    activation_fn : function
        sigmoid.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.
    """

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
    """The weights of a cell, in copies that are read-only.

    Parameters
    ----------
    weights : array (I, H)
    bias : array (H,)
    recurrent_weights : array (H, H)
    activation_fn : function
        tanh.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.
    """

    weights: Array
    bias: Array
    recurrent_weights: Array
    activation_fn: Activation = tanh

    def __post_init__(self) -> None:
        _freeze(self)
        _require("activation_fn", self.activation_fn, tanh)


class GRUCell(Cell):
    """As Cell, for a GRULayer: the reset gate is applied to the product of h and recurrent_weights.

    Parameters
    ----------
    weights : array (I, H)
    bias : array (H,)
    recurrent_weights : array (H, H)
    activation_fn : function
        tanh.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.
    """


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
    """What can be called with data; the layers are subclasses."""

    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        """As `activate`.

        Parameters
        ----------
        *args, **kwargs

        Returns
        -------
        y : array (T, H)

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it.
        """
        return self.activate(*args, **kwargs)

    def activate(self, data: Array, reset: bool = True) -> Array:
        """The outputs of all steps.

        Parameters
        ----------
        data : array (T, I)
        reset : bool, default True
            Start from the initial state; False: from where the last call ended.

        Returns
        -------
        y : array (T, H)

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it.
        """
        raise NotImplementedError("a subclass has it")

    def reset(self) -> None:
        """Back to the initial state."""


class _Recurrent(Layer):
    """A layer on the kernels. Subclasses say what it is made of."""

    _kind: type[layers.Recurrent]
    _options: dict[str, Any]

    def __init__(self, weights: Any, init: Any, **options: Any) -> None:
        made = self._kind.from_weights(weights, "madmom", **options)
        self._weights, self._options, self._H = weights, options, made.hidden_size
        self._made = {made.dtype: made.frozen()}
        self._in_use = layer_in_use()
        self.init = self._initial("init", init)

    def _layer(self, dtype: np.dtype[Any]) -> FrozenLayer:
        """The layer that computes in this dtype."""
        if dtype not in self._made:
            self._made[dtype] = self._kind.from_weights(self._weights, "madmom", dtype=dtype, **self._options).frozen()
        return self._made[dtype]

    def _initial(self, name: str, value: Any) -> Array:
        """A state (H,) of what is given."""
        if value is None:
            return np.zeros(self._H, np.float32)
        array = as_floats({name: value})[name].flatten()
        if array.shape != (self._H,):
            raise ValueError(f"{name}: expected (H,) = ({self._H},), got {array.shape}")
        return array

    @one_user
    def reset(self, init: Any = None) -> None:
        """Back to the initial state, or to another one.

        Parameters
        ----------
        init : array (H,), optional
        """
        self._reset(init)

    def _reset(self, init: Any = None) -> None:
        self._prev = self.init if init is None else self._initial("init", init)

    def _run(self, data: Any, states: list[Array]) -> tuple[Array, list[Array]]:
        """y (T, H) and the states after the last step, from those before the first."""
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

    Parameters
    ----------
    weights : array (I, H)
    bias : array (H,)
    recurrent_weights : array (H, H)
    activation_fn : function, default tanh
        tanh or relu.
    init : array (H,), optional
        The initial state; None for zeros.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.madmom import RecurrentLayer
    >>> layer = RecurrentLayer(np.ones((3, 4)), np.zeros(4), np.ones((4, 4)))
    >>> layer(np.ones((7, 3))).shape
    (7, 4)
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
        """The outputs of all steps.

        Parameters
        ----------
        data : array (T, I)
        reset : bool, default True
            Start from the initial state; False: from where the last call ended.

        Returns
        -------
        y : array (T, H)

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it.
        """
        if reset:
            self._reset()
        y, (self._prev,) = self._run(data, [self._prev])
        return y


class LSTMLayer(_Recurrent):
    """An LSTM of gates, with peepholes where these have some; gates of madmom's own will do as well.

    Parameters
    ----------
    input_gate, forget_gate : Gate
    cell : Cell
    output_gate : Gate
    activation_fn : function, default tanh
    init, cell_init : array (H,), optional
        The initial state; None for zeros.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.madmom import Cell, Gate, LSTMLayer
    >>> arrays = np.ones((3, 4)), np.zeros(4), np.ones((4, 4))
    >>> layer = LSTMLayer(Gate(*arrays), Gate(*arrays), Cell(*arrays), Gate(*arrays))
    >>> layer(np.ones((7, 3))).shape
    (7, 4)
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
        """Back to the initial state, or to another one.

        Parameters
        ----------
        init, cell_init : array (H,), optional
        """
        self._reset(init, cell_init)

    def _reset(self, init: Any = None, cell_init: Any = None) -> None:
        super()._reset(init)
        self._state = self.cell_init if cell_init is None else self._initial("cell_init", cell_init)

    @one_user
    def activate(self, data: Array, reset: bool = True) -> Array:
        """The outputs of all steps.

        Parameters
        ----------
        data : array (T, I)
        reset : bool, default True
            Start from the initial state; False: from where the last call ended.

        Returns
        -------
        y : array (T, H) float32

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it.
        """
        if reset:
            self._reset()
        y, (self._prev, self._state) = self._run(data, [self._prev, self._state])
        return y.astype(_F32, copy=False)


class GRULayer(_Recurrent):
    """A GRU of gates: h_t = u cell + (1 - u) h_{t-1}; gates of madmom's own will do as well.

    Parameters
    ----------
    reset_gate, update_gate : Gate
    cell : GRUCell
    init : array (H,), optional
        The initial state; None for zeros.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.madmom import Gate, GRUCell, GRULayer
    >>> arrays = np.ones((3, 4)), np.zeros(4), np.ones((4, 4))
    >>> layer = GRULayer(Gate(*arrays), Gate(*arrays), GRUCell(*arrays))
    >>> layer(np.ones((7, 3))).shape
    (7, 4)
    """

    _kind = layers.GRU

    def __init__(self, reset_gate: Any, update_gate: Any, cell: Any, init: Array | None = None) -> None:
        self.reset_gate, self.update_gate, self.cell = _gate(reset_gate), _gate(update_gate), _gate(cell, GRUCell)
        super().__init__({name: _parts(getattr(self, name)) for name in ("reset_gate", "update_gate", "cell")}, init)
        self.reset()

    @one_user
    def activate(self, data: Array, reset: bool = True) -> Array:
        """The outputs of all steps.

        Parameters
        ----------
        data : array (T, I)
        reset : bool, default True
            Start from the initial state; False: from where the last call ended.

        Returns
        -------
        y : array (T, H) float32

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it.
        """
        if reset:
            self._reset()
        y, (self._prev,) = self._run(data, [self._prev])
        return y.astype(_F32, copy=False)


class BidirectionalLayer(Layer):
    """Two layers, the second over the reversed data; their outputs are concatenated.

    Parameters
    ----------
    fwd_layer, bwd_layer : layer

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.madmom import BidirectionalLayer, RecurrentLayer
    >>> one, other = (RecurrentLayer(np.ones((3, 4)), np.zeros(4), np.ones((4, 4))) for _ in range(2))
    >>> BidirectionalLayer(one, other)(np.ones((7, 3))).shape
    (7, 8)
    """

    def __init__(self, fwd_layer: Any, bwd_layer: Any) -> None:
        self.fwd_layer, self.bwd_layer = fwd_layer, bwd_layer

    def activate(self, data: Array, reset: bool = True) -> Array:
        """The outputs of all steps.

        Parameters
        ----------
        data : array (T, I)
        reset : bool, default True
            Start from the initial state; False: from where the last call ended.

        Returns
        -------
        y : array (T, 2*H)

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it.
        """
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
    """Replace the recurrent layers inside a network of madmom's by these, in place.

    A layer with an activation that the kernels lack stays as it is.

    Parameters
    ----------
    network : network or layer of madmom

    Returns
    -------
    network
        The same object; a recurrent layer itself is returned anew.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.madmom import RecurrentLayer, accelerate
    >>> class network:  # as madmom.ml.nn.NeuralNetwork
    ...     layers = [RecurrentLayer(np.ones((3, 4)), np.zeros(4), np.ones((4, 4)))]
    >>> accelerate(network) is network
    True
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
