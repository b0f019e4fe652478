"""What layers can do with the weights of other systems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._engine.cells import Cell
from . import checks
from .parameters import RecurrentModule

if TYPE_CHECKING:
    from ..formats import Format

Array = NDArray[Any]
_Layer = TypeVar("_Layer", bound="Portable")
_STRUCTURE = ("input_size", "hidden_size", "num_layers", "bidirectional", "proj_size", "reset_after")


class Portable(RecurrentModule):
    """A layer whose weights come from and go to other systems: see fastrnn.formats."""

    _family: str
    _cell: Cell

    def load_weights(self, weights: Any, format: str | Format = "pytorch") -> None:
        """Copy the weights of another system into this layer; all or none.

        Biases are there for all gates, directions and layers or, with bias=False, for none; peepholes likewise. What the format has
        no place for, such as a second bias or peepholes, becomes zero.

        Weights do not tell the activations of the layer that they are from: this layer must have been made with the same ones.
        Layers of Keras 1 and 2 have recurrent_activation="hard_sigmoid" unless they say otherwise.

        Parameters
        ----------
        weights : mapping or list of arrays
            As the format has them, such as a state_dict or keras_layer.get_weights(); arrays of any library.
        format : str or fastrnn.formats.Format, default "pytorch"
            "pytorch", "keras", "onnx", ...: the keys of fastrnn.formats.FORMATS.

        Raises
        ------
        KeyError
            Names are missing or unexpected.
        ValueError
            Wrong shapes, or something that is not zero and that this layer has no place for.
        TypeError
            The layer's dtype would round.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> kernel, recurrent, bias = np.ones((3, 16)), np.ones((4, 16)), np.zeros(16)  # as keras.layers.LSTM(4).get_weights()
        >>> layer = fastrnn.LSTM(3, 4, dtype=np.float64, rng=0)
        >>> layer.load_weights([kernel, recurrent, bias], format="keras")
        >>> layer.params["weight_ih_l0"].shape
        (16, 3)
        """
        from .. import formats

        given = {name: getattr(self, name) for name in _STRUCTURE if hasattr(self, name)}
        optional = {name: True for name in ("bias", "peephole") if getattr(self, name, False)}
        params, sizes = formats.read(weights, format, self._family, given | optional)
        self._check_sizes(sizes, given)
        self._take_over(params)

    def export_weights(self, format: str | Format = "pytorch") -> Any:
        """New arrays with this layer's weights as another system stores them.

        Parameters
        ----------
        format : str or fastrnn.formats.Format, default "pytorch"
            As in `load_weights`.

        Returns
        -------
        weights : dict or list of arrays
            As the format has them.

        Raises
        ------
        ValueError
            An unknown format; one that has no place for something that is not zero; or an activation that the other system's
            layers do not have.

        Examples
        --------
        >>> import fastrnn
        >>> layer = fastrnn.GRU(3, 4, rng=0)
        >>> [w.shape for w in layer.export_weights(format="keras")]
        [(3, 12), (4, 12), (2, 12)]
        """
        from .. import formats
        from ..formats.table import has_activations, lookup

        for name, activation in self._cell.unusual():
            if not has_activations(format, self._family):
                raise ValueError(
                    f"{name}: expected the usual one for the format {lookup(format).name}, of a system whose "
                    f"{self._family.upper()} has no other activations; got {activation.given!r}"
                )
        return formats.write(self.params, format, self._family, getattr(self, "reset_after", True))

    def export_gradients(self, gradients: Mapping[str, Array], format: str | Format = "pytorch") -> Any:
        """New arrays with the gradients of this layer's parameters, laid out as another system lays out its weights' gradients.

        They are the gradients of a loss with respect to the weights that load_weights takes: what these do not have has none.

        Parameters
        ----------
        gradients : mapping of names to arrays
            grads.params of a tape of this layer.
        format : str or fastrnn.formats.Format, default "pytorch"
            As in `load_weights`.

        Returns
        -------
        gradients : dict or list of arrays
            As the format has the weights.

        Raises
        ------
        KeyError
            Other names than those of `params`.
        ValueError, TypeError
            A wrong shape or dtype, or an unknown format.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> layer = fastrnn.GRU(3, 4, rng=0)
        >>> y, h_n, tape = layer.forward(np.ones((7, 2, 3), np.float32))
        >>> [d.shape for d in layer.export_gradients(tape.backward(y).params, format="keras")]
        [(3, 12), (4, 12), (2, 12)]
        """
        from .. import formats

        if not isinstance(gradients, Mapping):
            raise TypeError(f"gradients: expected a mapping of names to arrays, got {type(gradients).__name__}")
        if set(gradients) != set(self.params):
            raise KeyError(f"gradients: expected the names {list(self.params)}, got {list(gradients)}")
        found = {
            name: checks.shaped(name, gradients[name], self.dtype, "its shape", array.shape) for name, array in self.params.items()
        }
        return formats.pull_back(found, format, self._family, getattr(self, "reset_after", True))

    @classmethod
    def from_weights(
        cls: type[_Layer], weights: Any, format: str | Format = "pytorch", *, dtype: DTypeLike | None = None, **options: Any
    ) -> _Layer:
        """A new layer with the weights of another system, of the sizes that the weights have.

        Weights do not tell the activations of the layer that they are from: it is tanh and sigmoid unless `options` name others.
        A Keras layer with recurrent_activation="hard_sigmoid", the default of Keras 1 and 2, has the same arrays as one with
        "sigmoid": look at layer.get_config(), or let fastrnn.load_model read the file.

        Parameters
        ----------
        weights, format
            As in `load_weights`.
        dtype : dtype, optional
            float32 or float64, rounding if need be; None: that of the weights, float32 for bfloat16 and float16.
        **options
            Arguments of the constructor. Those that the weights also determine must agree with them. Those that the format does not
            determine are needed: reset_after of a GRU in "onnx", the sizes in "jax" and "thinc", bidirectional in "jax", "thinc"
            and "chainer" (else one direction).

        Returns
        -------
        layer : RNN, GRU or LSTM
            Of the class it is called on.

        Raises
        ------
        KeyError, ValueError, TypeError
            As in `load_weights`; ValueError also where an option contradicts the weights.

        Examples
        --------
        >>> import fastrnn
        >>> weights = fastrnn.LSTM(3, 4, num_layers=2, rng=0).state_dict()  # or torch_lstm.state_dict()
        >>> fastrnn.LSTM.from_weights(weights)
        LSTM(3, 4, num_layers=2)
        """
        from .. import formats

        if options.get("forget_bias"):
            got = options["forget_bias"]
            raise ValueError(f"forget_bias: expected none here, since the biases are those of the weights, got {got!r}")
        params, sizes = formats.read(weights, format, cls._family, options)
        kind = checks.float_dtype("dtype", dtype) if dtype is not None else _layer_dtype(params)
        arguments = {name: value for name, value in sizes.items() if name in _STRUCTURE[:2] or value is not _DEFAULTS.get(name)}
        for name, value in options.items():
            if name in sizes and value != sizes[name]:
                raise ValueError(f"{name}: expected {sizes[name]}, as the weights tell, got {value!r}")
            if name not in sizes:
                arguments[name] = value
        layer = cls(**arguments | {"dtype": kind})
        layer._take_over({name: array.astype(kind) for name, array in params.items()} if dtype is not None else params)
        return layer

    def _check_sizes(self, sizes: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        wrong = [f"{name} = {value}, got {sizes[name]}" for name, value in given.items() if sizes.get(name, value) != value]
        if wrong:
            raise ValueError(f"weights: expected this layer's {'; '.join(wrong)}")

    def _take_over(self, params: Mapping[str, Array]) -> None:
        """Write the parameters, zeros where there are none; or raise and write none."""
        for name, array in params.items():
            if name not in self.params and _adds(name, array, params).any():
                raise ValueError(f"weights: this layer has no place for {name}, which is not zero")
            if not np.can_cast(array.dtype, self.dtype, "safe"):
                raise TypeError(f"weights: expected what {self.dtype} holds without rounding, got {array.dtype}; round them first")
        for name, own in self.params.items():
            own[...] = params.get(name, 0)


_DEFAULTS = {"num_layers": 1, "bias": True, "bidirectional": False, "proj_size": 0, "peephole": False, "reset_after": True}


def _adds(name: str, array: Array, params: Mapping[str, Array]) -> Array:
    """What a parameter adds to the preactivations: of the two biases, their sum, since a format may split what is zero."""
    for one, other in (("bias_ih", "bias_hh"), ("bias_hh", "bias_ih")):
        partner = params.get(name.replace(one, other)) if name.startswith(one) else None
        if partner is not None:
            return array + partner
    return array


def _layer_dtype(params: Mapping[str, Array]) -> np.dtype[Any]:
    """The smaller of float32 and float64 that holds them."""
    dtype = next(iter(params.values())).dtype
    for kind in (checks.F32, checks.F64):
        if np.can_cast(dtype, kind, "safe"):
            return kind
    raise TypeError(f"weights: expected what float64 holds without rounding, got {dtype}; pass dtype=np.float64")
