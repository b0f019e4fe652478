"""What layers can do with the weights of other systems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import checks
from .parameters import Module

if TYPE_CHECKING:
    from ..formats import Format

Array = NDArray[Any]
_Layer = TypeVar("_Layer", bound="Portable")
_STRUCTURE = ("input_size", "hidden_size", "num_layers", "bidirectional", "proj_size", "reset_after")


class Portable(Module):
    """A layer whose weights come from and go to other systems: see fastrnn.formats."""

    _family: str

    def load_weights(self, weights: Any, format: str | Format = "pytorch") -> None:
        """Take over the weights of another system; all or none.

        Args:
            weights: as the format has them, such as a state_dict or keras_layer.get_weights(); arrays of any library.
            format: "pytorch", "keras", "onnx", ... (the keys of fastrnn.formats.FORMATS), or a fastrnn.formats.Format.

        Biases are there for all gates, directions and layers or, with bias=False, for none; peepholes likewise. What the format has
        no place for, such as a second bias or peepholes, becomes zero. Raises: KeyError for names that are missing or unexpected;
        ValueError for wrong shapes and for what this layer has no place for; TypeError where this layer's dtype would round.

        >>> layer.load_weights(keras_layer.get_weights(), format="keras")
        """
        from .. import formats

        given = {name: getattr(self, name) for name in _STRUCTURE if hasattr(self, name)}
        optional = {name: True for name in ("bias", "peephole") if getattr(self, name, False)}
        params, sizes = formats.read(weights, format, self._family, given | optional)
        self._check_sizes(sizes, given)
        self._take_over(params)

    def export_weights(self, format: str | Format = "pytorch") -> Any:
        """New arrays with this layer's weights as another system stores them.

        Raises: ValueError where the format has no place for something that is not zero.

        >>> keras_layer.set_weights(layer.export_weights(format="keras"))
        """
        from .. import formats

        return formats.write(self.params, format, self._family, getattr(self, "reset_after", True))

    def export_gradients(self, gradients: Mapping[str, Array], format: str | Format = "pytorch") -> Any:
        """New arrays with the gradients of this layer's parameters, laid out as another system lays out its weights' gradients.

        Args:
            gradients: grads.params of a tape of this layer.
            format: as load_weights takes it.

        They are the gradients of a loss with respect to the weights that load_weights takes, so what these do not have has none.

        Raises: KeyError, ValueError, TypeError.

        >>> dweights = layer.export_gradients(tape.backward(dy).params, format="keras")
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
        """A new layer with the weights of another system, of the sizes that they tell.

        Args:
            weights, format: as load_weights takes them.
            dtype: float32 or float64, rounding if need be; None: that of the weights, float32 for bfloat16 and float16.
            options: arguments of the constructor. Those that the weights tell too must agree with them. Where the format does not
                tell them they are needed: reset_after of a GRU in "onnx", the sizes in "jax" and "thinc", bidirectional in "jax",
                "thinc" and "chainer" (else one direction).

        Raises: KeyError, ValueError, TypeError, as load_weights.

        >>> layer = fastrnn.LSTM.from_weights(torch_lstm.state_dict())
        """
        from .. import formats

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
