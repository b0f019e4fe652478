"""Modules for inference alone, on a snapshot of their parameters that is packed once: accelerate(model, frozen=True)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import PackedSequence

from .._core import PackedWeights, TensorCalls
from .._engine.cells import Cell
from .._engine.weights import Weights
from .autocast import PRECISION, autocasts, lowers, narrowed, widened
from .cells import cell_of, states_of
from .cells import theirs as theirs_of_cell
from .forward import left_to_torch
from .layers import CELLS, LayerCall, autocast_outputs, by_cell, flat_weights, form_of, input_of, result_of
from .layers import theirs as theirs_of_layer
from .plain import calls_of_snapshot, nothing_special
from .steps import GeneralStep, shapes
from .tensors import Tensor, argument, array, computed_here, watched

Array = NDArray[Any]
ADVICE = "fastrnn.torch.accelerate(model) gives a module that can be trained"


class Packed(NamedTuple):
    """Weights that do not change, for products of one precision, and the plain calls on them."""

    precision: str
    weights: list[Weights]
    plain: TensorCalls


class Snapshot:
    """The parameters of a module as they were, packed, and how to tell that they have changed: an attribute of the module.

    A copy or a pickle of the module takes a snapshot of its own when it is first called.
    """

    NAME = "_fastrnn_snapshot"

    def __init__(self) -> None:
        self.parameters: list[Tensor] | None = None

    def __reduce__(self) -> Any:
        return Snapshot, ()

    def take(self, module: Any, cell: Cell, parameters: list[Tensor]) -> None:
        """Of these parameters, packed for the module's precision."""
        self._cell, self._stacked, self._copies = cell, isinstance(module, torch.nn.RNNBase), _copied(module, parameters)
        self._packed: dict[str, Packed] = {}
        self.own = self.packed(module.__dict__.get(PRECISION, "float32"))
        self.parameters, self.states = list(parameters), list(map(_state_of, parameters))

    def packed(self, precision: str) -> Packed:
        """For this precision; for another than the module's, which is autocast's, when it is first asked for."""
        made = self._packed.get(precision)
        if made is None:
            weights = [w.in_precision(precision) for w in self._copies]
            for w in weights:
                w.packed = PackedWeights(self._cell, w)
            made = self._packed[precision] = Packed(precision, weights, calls_of_snapshot(self._cell, weights, self._stacked))
        return made

    def are(self, parameters: list[Tensor]) -> bool:
        """The same tensors, in the same memory, and not modified since by an operation that autograd can see?"""
        known = self.parameters
        assert known is not None
        return all(a is b for a, b in zip(parameters, known, strict=True)) and list(map(_state_of, parameters)) == self.states


def _state_of(parameter: Tensor) -> tuple[int, int]:
    """Where its numbers stand, and how often they were modified."""
    return parameter.data_ptr(), 0 if parameter.is_inference() else parameter._version


def _copied(module: Any, parameters: list[Tensor]) -> list[Weights]:
    arrays = [np.array(array(p), order="C") for p in parameters]
    if isinstance(module, torch.nn.RNNBase):
        return by_cell(form_of(module), arrays)
    w_ih, w_hh, *biases = arrays
    return [Weights(w_ih, w_hh, *biases)] if biases else [Weights(w_ih, w_hh, None, None)]


def refuse_gradients(module: Any, given: tuple[Any, ...], parameters: list[Tensor]) -> None:
    """A RuntimeError in training mode, and where autograd would record the call."""
    name = type(module).__name__
    if module.training:
        raise RuntimeError(f"{name}: expected inference, as it was frozen, but is in training mode; call model.eval(). {ADVICE}")
    if torch.is_grad_enabled() and any(getattr(t, "requires_grad", False) for t in (*given, *parameters)):
        raise RuntimeError(
            f"{name}: expected a call without gradients, as it was frozen; "
            f"call it within torch.no_grad() or torch.inference_mode(). {ADVICE}"
        )


def snapshot_of(module: Any, cell: Cell, parameters: list[Tensor]) -> Snapshot:
    """The module's, taken now if there is none, and known to be of these parameters."""
    found: Snapshot = vars(module)[Snapshot.NAME]
    if found.parameters is None:
        found.take(module, cell, parameters)
    elif not found.are(parameters):
        raise RuntimeError(
            f"{type(module).__name__}: its parameters have changed since it was frozen; "
            f"call fastrnn.torch.accelerate(model, frozen=True) again. {ADVICE}"
        )
    return found


class FrozenRecurrent:
    """Mixed into a layer of torch.nn before it: its forward on a snapshot."""

    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        """As the forward of the module of torch.nn, but for gradients."""
        packed, x = (input, input.data) if isinstance(input, PackedSequence) else (None, input)
        parameters = flat_weights(self)
        casts = autocasts("cpu")
        if watched() or not computed_here(x, hx, parameters) or (casts and not lowers(x, hx, parameters)):
            return left_to_torch(theirs_of_layer(self.mode), self, input, hx)
        refuse_gradients(self, (x, *(hx if isinstance(hx, (tuple, list)) else (hx,))), parameters)
        snapshot = snapshot_of(self, CELLS[self.mode], parameters)
        if casts:
            outputs = _run(self, widened(x), widened(hx), packed, snapshot.packed("bf16"))
            return result_of(self, autocast_outputs(self, outputs, x, hx, packed), packed)
        taken = snapshot.own
        if packed is None and not self.bidirectional and nothing_special():
            done = taken.plain.infer(x, hx, None, self.batch_first)
            if done is not None:
                return done
        return result_of(self, _run(self, x, hx, packed, taken), packed)


def _run(module: Any, x: Any, hx: Any, packed: Any, taken: Packed) -> tuple[Tensor, ...]:
    """A layer's call, the general way."""
    form = form_of(module)
    x, states = input_of(form, x, hx, module._flat_weights[0].dtype, packed, module.batch_first)
    call = LayerCall(form, x.dtype, packed, module.batch_first, 0.0, len(states), taken.precision, taken.weights)
    return call.run((x, *states), record=False)


class FrozenRecurrentCell:
    """Mixed into a cell of torch.nn before it: its forward on a snapshot."""

    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        """As the forward of the module of torch.nn, but for gradients."""
        cell = cell_of(self)
        named = shapes(cell, self.input_size, self.hidden_size, self.bias)
        parameters = [getattr(self, name) for name in named]
        casts = autocasts("cpu")
        if watched() or not computed_here(input, hx, parameters) or (casts and not lowers(input, hx, parameters)):
            return left_to_torch(theirs_of_cell(self), self, input, hx)
        refuse_gradients(self, (input, *(hx if isinstance(hx, (tuple, list)) else (hx,))), parameters)
        snapshot = snapshot_of(self, cell, parameters)
        if casts:
            final = _step(self, cell, widened(input), widened(hx), parameters, snapshot.packed("bf16"))
            final = narrowed(cell, final, input, hx)
            return final if cell.is_lstm else final[0]
        taken = snapshot.own
        done = taken.plain.step(input, hx, None) if nothing_special() else None
        if done is not None:
            return done
        final = _step(self, cell, input, hx, parameters, taken)
        return final if cell.is_lstm else final[0]


def _step(module: Any, cell: Cell, x: Any, hx: Any, parameters: list[Tensor], taken: Packed) -> tuple[Tensor, ...]:
    """A cell's call, the general way."""
    x = argument("input", x, parameters[0].dtype, (1, 2), module.input_size, "input_size")
    states = states_of(cell, hx, x.dtype, x, module.hidden_size)
    named = shapes(cell, module.input_size, module.hidden_size, module.bias)
    return GeneralStep(cell, x.dtype, named, len(states), taken.precision, taken.weights[0]).run((x, *states), record=False)


class FrozenRNN(FrozenRecurrent, torch.nn.RNN):
    """torch.nn.RNN on a snapshot."""


class FrozenGRU(FrozenRecurrent, torch.nn.GRU):
    """torch.nn.GRU on a snapshot."""


class FrozenLSTM(FrozenRecurrent, torch.nn.LSTM):
    """torch.nn.LSTM on a snapshot."""


class FrozenRNNCell(FrozenRecurrentCell, torch.nn.RNNCell):
    """torch.nn.RNNCell on a snapshot."""


class FrozenGRUCell(FrozenRecurrentCell, torch.nn.GRUCell):
    """torch.nn.GRUCell on a snapshot."""


class FrozenLSTMCell(FrozenRecurrentCell, torch.nn.LSTMCell):
    """torch.nn.LSTMCell on a snapshot."""


FROZEN = {kind.__mro__[2]: kind for kind in (FrozenRNN, FrozenGRU, FrozenLSTM, FrozenRNNCell, FrozenGRUCell, FrozenLSTMCell)}


def freeze(module: Any) -> None:
    """Take a snapshot of its parameters now."""
    vars(module)[Snapshot.NAME] = Snapshot()
    if isinstance(module, torch.nn.RNNBase):
        snapshot_of(module, CELLS[module.mode], flat_weights(module))
    else:
        snapshot_of(module, cell_of(module), [getattr(module, name) for name in _names(module)])


def _names(module: Any) -> list[str]:
    """Of its parameters."""
    if isinstance(module, torch.nn.RNNBase):
        return list(module._flat_weights_names)
    return list(shapes(cell_of(module), module.input_size, module.hidden_size, module.bias))


def cannot_be_frozen(module: Any) -> str | None:
    """Why there is no telling whether its parameters have changed, if there is not."""
    other = [name for name in _names(module) if name not in module._parameters]
    return f"cannot be frozen, as its {other[0]} is made anew at each call" if other else None
