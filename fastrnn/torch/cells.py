"""RNNCell, GRUCell and LSTMCell as modules: PyTorch's own, but for forward."""

from __future__ import annotations

from typing import Any

import torch

from .._engine.cells import Cell
from .autocast import PRECISION, WithPrecision, autocasts, lowers, narrowed, widened
from .calls import outputs_of
from .forward import left_to_torch, scriptable
from .steps import NONLINEARITIES, GeneralStep, plain_step, shapes
from .tensors import Tensor, argument, computed_here, pair, watched


class RecurrentCell(WithPrecision):
    """Mixed into a module of torch.nn before it: its forward on our kernels."""

    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        """As the forward of the module of torch.nn.

        Parameters
        ----------
        input : tensor (B, I) or (I,)
            The parameters' dtype.
        hx : tensor (B, H) or (H,), optional
            Of an LSTMCell a pair (h_0, c_0); None for zeros.

        Returns
        -------
        hx : tensor (B, H), or of an LSTMCell a pair (h, c)
            The new state.

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it. What PyTorch raises where PyTorch computes.
        MemoryError
        """
        if watched():
            return left_to_torch(theirs(self), self, input, hx)
        if autocasts("cpu"):
            return _autocast(self, input, hx)
        cell = cell_of(self)
        named = shapes(cell, self.input_size, self.hidden_size, self.bias)
        own = self._parameters  # asked first, as the way by getattr is longer; hooks and parametrisations make others
        weights = [own[name] if name in own else getattr(self, name) for name in named]
        new = plain_step(self, cell, named, input, hx, weights)
        if new is not None:
            return new
        if not computed_here(input, hx, weights):
            return left_to_torch(theirs(self), self, input, hx)
        final = _general(self, cell, input, hx, weights, self.__dict__.get(PRECISION, "float32"))
        return final if cell.is_lstm else final[0]

    __prepare_scriptable__ = scriptable


def _general(module: Any, cell: Cell, x: Any, hx: Any, weights: list[Any], precision: str) -> tuple[Tensor, ...]:
    dtype = weights[0].dtype
    x = argument("input", x, dtype, (1, 2), module.input_size, "input_size")
    states = states_of(cell, hx, dtype, x, module.hidden_size)
    named = shapes(cell, module.input_size, module.hidden_size, module.bias)
    return outputs_of(GeneralStep(cell, dtype, named, len(states), precision), x, *states, *weights)


def _autocast(module: Any, x: Any, hx: Any) -> Any:
    cell = cell_of(module)
    weights = [getattr(module, name) for name in shapes(cell, module.input_size, module.hidden_size, module.bias)]
    if not computed_here(x, hx, weights) or not lowers(x, hx, weights):
        return left_to_torch(theirs(module), module, x, hx)
    final = _general(module, cell, widened(x), widened(hx), weights, "bf16")
    final = narrowed(cell, final, x, hx)
    return final if cell.is_lstm else final[0]


def theirs(module: Any) -> Any:
    kinds = torch.nn.LSTMCell, torch.nn.GRUCell, torch.nn.RNNCell
    return next(kind for kind in kinds if isinstance(module, kind))


def cell_of(module: Any) -> Cell:
    if isinstance(module, torch.nn.LSTMCell):
        return Cell.LSTM
    if isinstance(module, torch.nn.GRUCell):
        return Cell.GRU_AFTER
    if module.nonlinearity not in NONLINEARITIES:  # torch.nn.RNNCell takes anything until it is called
        raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {module.nonlinearity!r}")
    return NONLINEARITIES[module.nonlinearity]


def states_of(cell: Cell, hx: Any, dtype: Any, x: Tensor, H: int) -> list[Tensor]:
    """[h_0], [h_0, c_0], or [] for zeros; of the right shapes."""
    if hx is None:
        return []
    found = []
    for name, tensor in zip(("hx[0]", "hx[1]"), pair(hx)) if cell.is_lstm else [("hx", hx)]:
        tensor = argument(name, tensor, dtype, (x.ndim,), H, "hidden_size")
        if tensor.shape[:-1] != x.shape[:-1]:
            raise ValueError(f"{name}: expected (B, hidden_size) = ({x.shape[0]}, {H}), got {tuple(tensor.shape)}")
        found.append(tensor)
    return found


class RNNCell(RecurrentCell, torch.nn.RNNCell):
    """torch.nn.RNNCell on fastrnn's kernels: its arguments, parameters and results.

    On other devices than the CPU, and with parameters that are not all torch.float32 or all torch.float64, PyTorch computes.

    Parameters
    ----------
    input_size, hidden_size, bias, ...
        As in torch.nn.
    precision : "float32" or "bf16", default "float32"
        Of products: "bf16" rounds their operands to bfloat16 and sums in float32, for torch.float32 alone.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> cell = fastrnn.torch.RNNCell(10, 20, nonlinearity="relu")
    >>> cell(torch.ones(3, 10)).shape
    torch.Size([3, 20])
    """


class GRUCell(RecurrentCell, torch.nn.GRUCell):
    """torch.nn.GRUCell on fastrnn's kernels: its arguments, parameters and results.

    On other devices than the CPU, and with parameters that are not all torch.float32 or all torch.float64, PyTorch computes.

    Parameters
    ----------
    input_size, hidden_size, bias, ...
        As in torch.nn.
    precision : "float32" or "bf16", default "float32"
        Of products: "bf16" rounds their operands to bfloat16 and sums in float32, for torch.float32 alone.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> cell = fastrnn.torch.GRUCell(10, 20)
    >>> cell(torch.ones(3, 10), torch.zeros(3, 20)).sum().backward()
    >>> cell.weight_ih.grad.shape
    torch.Size([60, 10])
    """


class LSTMCell(RecurrentCell, torch.nn.LSTMCell):
    """torch.nn.LSTMCell on fastrnn's kernels: its arguments, parameters and results.

    On other devices than the CPU, and with parameters that are not all torch.float32 or all torch.float64, PyTorch computes.

    Parameters
    ----------
    input_size, hidden_size, bias, ...
        As in torch.nn.
    precision : "float32" or "bf16", default "float32"
        Of products: "bf16" rounds their operands to bfloat16 and sums in float32, for torch.float32 alone.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> cell = fastrnn.torch.LSTMCell(10, 20)
    >>> h, c = cell(torch.ones(3, 10))
    >>> h.shape
    torch.Size([3, 20])
    """
