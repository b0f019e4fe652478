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
from .tensors import Tensor, argument, array, check_placement, dtype_of, left_to_torch, pair, parameter, tensors

Array = NDArray[Any]


class RecurrentCell:
    """In front of a module of torch.nn: its forward on our kernels."""

    _cell: Cell  # but of an RNNCell, whose nonlinearity says it

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_placement(kwargs.get("device"), kwargs.get("dtype"))
        super().__init__(*args, **kwargs)

    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        """As the forward of the module of torch.nn.

        input: (B, I) or (I,), the parameters' dtype. hx: (B, H) or (H,), an LSTMCell's a pair (h_0, c_0); None for zeros.

        Returns: the new state, as hx.

        Raises: TypeError, ValueError (the message names the argument), MemoryError.
        """
        if left_to_torch():
            return super().forward(input, hx)  # type: ignore[misc]
        cell = self._kind()
        shapes = _shapes(cell, self.input_size, self.hidden_size, self.bias)
        weights = [getattr(self, name) for name in shapes]
        dtype = dtype_of("weight_ih", weights[0])
        x = argument("input", input, dtype, (1, 2), self.input_size, "input_size")
        states = _states(cell, hx, dtype, x, self.hidden_size)
        final = outputs_of(_CellCall(cell, dtype, shapes, len(states)), x, *states, *weights)
        return final if cell.is_lstm else final[0]

    def _kind(self) -> Cell:
        return self._cell


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

    def _outward(self, a: Array) -> Array:
        return a[0] if self.unbatched else a


class RNNCell(RecurrentCell, torch.nn.RNNCell):
    """torch.nn.RNNCell on fastrnn's kernels: its arguments, parameters and results; see RecurrentCell.forward.

    Raises beside PyTorch's own errors: ValueError for a device other than the CPU, TypeError for a dtype other than torch.float32
    and torch.float64.

    >>> cell = fastrnn.torch.RNNCell(10, 20)
    >>> h = cell(torch.randn(3, 10), h)
    """

    def _kind(self) -> Cell:
        kinds = {"tanh": Cell.RNN_TANH, "relu": Cell.RNN_RELU}
        if self.nonlinearity not in kinds:  # torch.nn.RNNCell takes anything until it is called
            raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {self.nonlinearity!r}")
        return kinds[self.nonlinearity]


class GRUCell(RecurrentCell, torch.nn.GRUCell):
    """torch.nn.GRUCell on fastrnn's kernels: its arguments, parameters and results; see RecurrentCell.forward.

    Raises: as fastrnn.torch.RNNCell.

    >>> cell = fastrnn.torch.GRUCell(10, 20)
    >>> h = cell(torch.randn(3, 10), h)
    """

    _cell = Cell.GRU_AFTER


class LSTMCell(RecurrentCell, torch.nn.LSTMCell):
    """torch.nn.LSTMCell on fastrnn's kernels: its arguments, parameters and results; see RecurrentCell.forward.

    Raises: as fastrnn.torch.RNNCell.

    >>> cell = fastrnn.torch.LSTMCell(10, 20)
    >>> h, c = cell(torch.randn(3, 10), (h, c))
    """

    _cell = Cell.LSTM
