"""RNNCell, GRUCell and LSTMCell as modules: PyTorch's own, but for forward."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .._api import checks
from .._api.parameters import Shapes, shapes_of
from .._engine.cells import Cell
from .._engine.plan import Plan
from .._engine.run import Run
from .._engine.weights import Weights
from .calls import outputs_of, threads
from .forward import bare, left_to_torch, scriptable
from .tensors import Tensor, argument, array, computed_here, pair, parameter, tensors, watched

Array = NDArray[Any]


class RecurrentCell:
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
            return left_to_torch(_theirs(self), self, input, hx)
        cell = _cell_of(self)
        shapes = _shapes(cell, self.input_size, self.hidden_size, self.bias)
        own = self._parameters  # asked first, as the way by getattr is longer; hooks and parametrisations make others
        weights = [own[name] if name in own else getattr(self, name) for name in shapes]
        if not computed_here(input, hx, weights):
            return left_to_torch(_theirs(self), self, input, hx)
        dtype = weights[0].dtype
        x = argument("input", input, dtype, (1, 2), self.input_size, "input_size")
        states = _states(cell, hx, dtype, x, self.hidden_size)
        final = outputs_of(_CellCall(cell, dtype, shapes, len(states)), x, *states, *weights)
        return final if cell.is_lstm else final[0]

    __prepare_scriptable__ = scriptable


NONLINEARITIES = {"tanh": Cell.RNN_TANH, "relu": Cell.RNN_RELU}


def _theirs(module: Any) -> Any:
    kinds = torch.nn.LSTMCell, torch.nn.GRUCell, torch.nn.RNNCell
    return next(kind for kind in kinds if isinstance(module, kind))


def _cell_of(module: Any) -> Cell:
    if isinstance(module, torch.nn.LSTMCell):
        return Cell.LSTM
    if isinstance(module, torch.nn.GRUCell):
        return Cell.GRU_AFTER
    if module.nonlinearity not in NONLINEARITIES:  # torch.nn.RNNCell takes anything until it is called
        raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {module.nonlinearity!r}")
    return NONLINEARITIES[module.nonlinearity]


@lru_cache(maxsize=256)
def _shapes(cell: Cell, I: int, H: int, bias: bool) -> Shapes:
    return shapes_of(cell, I, H, H, bias)


def _states(cell: Cell, hx: Any, dtype: Any, x: Tensor, H: int) -> list[Tensor]:
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


class _CellCall:
    """A calls.Call of one step. Its tensors are the input, the states that are given, and the parameters in PyTorch's order."""

    exposed = 0  # the new state is a copy of what the way back reads

    def __init__(self, cell: Cell, dtype: Any, shapes: Shapes, states: int) -> None:
        self.cell, self.dtype, self.shapes, self.states = cell, dtype, shapes, states
        self._run: Run | None = None

    def run(self, given: tuple[Tensor, ...], record: bool) -> tuple[Tensor, ...]:
        first = 1 + self.states
        named = [parameter(name, w, self.dtype, shape) for (name, shape), w in zip(self.shapes.items(), given[first:])]
        weights = Weights(named[0], named[1], *(named[2:] or (None, None)))
        x = checks.rows_contiguous("input", array(given[0]))
        self.unbatched = x.ndim == 1
        x = x[None, None] if self.unbatched else x[None]
        h0, c0 = (*(np.ascontiguousarray(array(s)).reshape(-1, s.shape[-1]) for s in given[1:first]), None, None)[:2]
        run = Run(self.cell, Plan(1, x.shape[1], False), x, weights, h0, c0, threads)
        run.forward(record)
        self._run = run if record else None
        return tensors(self._outward(end) for end in (run.h_n, run.c_n) if end is not None)

    def has_tape(self) -> bool:
        return self._run is not None

    def gradients(self, given: tuple[Tensor | None, ...], needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        assert self._run is not None
        run, self._run = self._run, None
        ends = [end for end in (run.h_n, run.c_n) if end is not None]
        ends = [np.zeros_like(end) if d is None else array(d).reshape(end.shape).copy() for end, d in zip(ends, given)]
        into = run.weights.zeros_like()
        dc = ends[1] if len(ends) > 1 else None
        dx = run.backward(None, ends[0], dc, into, need_x=needed[0])
        found: list[Array | None] = [None if dx is None else self._outward(dx[0])]
        found += [self._outward(end) for end in ends[: self.states]]
        found += [into.w_ih, into.w_hh, into.b_ih, into.b_hh][: len(self.shapes)]
        return tuple(torch.from_numpy(a) if need and a is not None else None for a, need in zip(found, needed, strict=True))

    def by_torch(self, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        first = 1 + self.states
        hx = None if first == 1 else given[1:first] if self.cell.is_lstm else given[1]
        final = _torchs(self.cell, dict(zip(self.shapes, given[first:]))).forward(given[0], hx)
        return final if self.cell.is_lstm else (final,)

    def _outward(self, a: Array) -> Array:
        return a[0] if self.unbatched else a


def _torchs(cell: Cell, weights: dict[str, Tensor]) -> Any:
    """PyTorch's module for this cell, with tensors of any kind as its weights."""
    kind = {Cell.LSTM: torch.nn.LSTMCell, Cell.GRU_AFTER: torch.nn.GRUCell}.get(cell, torch.nn.RNNCell)
    nonlinearity = next((name for name, one in NONLINEARITIES.items() if one is cell), None)
    given = {"hidden_size": weights["weight_hh"].shape[1], "nonlinearity": nonlinearity, "bias_ih": None, "bias_hh": None}
    return bare(kind, given | weights)


class RNNCell(RecurrentCell, torch.nn.RNNCell):
    """torch.nn.RNNCell on fastrnn's kernels: its arguments, parameters and results.

    On other devices than the CPU, and with parameters that are not all torch.float32 or all torch.float64, PyTorch computes.

    Parameters
    ----------
    input_size, hidden_size, bias, ...
        As in torch.nn.

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

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> cell = fastrnn.torch.LSTMCell(10, 20)
    >>> h, c = cell(torch.ones(3, 10))
    >>> h.shape
    torch.Size([3, 20])
    """
