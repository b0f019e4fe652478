"""RNN, GRU and LSTM as modules: PyTorch's own, but for forward."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import PackedSequence

from ..engine import Cell, Weights
from ..layout import Layout
from ..packed import Packed, scatter
from ..parameters import shapes_of
from ..plan import make_plan
from ..stack import Options, Pass
from .calls import outputs_of, threads
from .tensors import DTYPES, Tensor, argument, array, check_placement, left_to_torch, pair, parameter, tensors

Array = NDArray[Any]
CELLS = {"RNN_TANH": Cell.RNN_TANH, "RNN_RELU": Cell.RNN_RELU, "GRU": Cell.GRU_AFTER, "LSTM": Cell.LSTM}


class Recurrent:
    """In front of a module of torch.nn: its forward on our kernels."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_placement(kwargs.get("device"), kwargs.get("dtype"))
        super().__init__(*args, **kwargs)

    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        """As the forward of the module of torch.nn: its arguments, shapes and results.

        Args:
            input: (T, B, I); (B, T, I) with batch_first; (T, I) without a batch; or a PackedSequence. The parameters' dtype.
            hx: (L*D, B, P), or (L*D, P) without a batch; an LSTM's is a pair (h_0, c_0) with c_0 (L*D, B, H); None for zeros.

        Returns: y (T, B, D*P), or as input is; h_n, or (h_n, c_n), as hx.

        Raises: TypeError, ValueError (the message names the argument), MemoryError.
        """
        if left_to_torch():
            return super().forward(input, hx)  # type: ignore[misc]
        self._update_flat_weights()
        packed = isinstance(input, PackedSequence)
        x = input.data if packed else input
        sizes = self.input_size, self.hidden_size, self.proj_size
        form = _form(CELLS[self.mode], *sizes, self.num_layers, self.bidirectional, self.bias)
        weights = self._flat_weights
        dtype = getattr(weights[0], "dtype", None)
        named = [parameter(name, w, dtype, shape) for (name, shape), w in zip(form.shapes, weights, strict=True)]
        x = argument("input", x, dtype, (2,) if packed else (2, 3), form.I, "input_size")
        given = input._replace(data=array(x)) if packed else array(x)
        layout = Layout(given, DTYPES[dtype], form.I, self.batch_first)
        states = _states(form, hx, dtype, layout)
        dropout = float(self.dropout) if self.training and self.num_layers > 1 else 0.0
        call = _LayerCall(form, layout, [array(s) for s in states], named, dropout)
        y, *final = outputs_of(call, x, *states, *weights)
        y = PackedSequence(y, *input[1:]) if packed else y
        return y, tuple(final) if form.cell.is_lstm else final[0]


class Form(NamedTuple):
    """What a module's attributes say. shapes: of all parameters by name, in PyTorch's order."""

    cell: Cell
    I: int
    H: int
    P: int
    L: int
    D: int
    fields: tuple[str, ...]  # of each cell
    shapes: tuple[tuple[str, tuple[int, ...]], ...]


@lru_cache(maxsize=256)
def _form(cell: Cell, I: int, H: int, proj_size: int, L: int, bidirectional: bool, bias: bool) -> Form:
    P, D = proj_size or H, 2 if bidirectional else 1
    shapes = []
    for k in range(L):
        one = shapes_of(cell, D * P if k else I, H, P, bias)
        shapes += [(f"{name}_l{k}{way}", shape) for way in ("", "_reverse")[:D] for name, shape in one.items()]
    fields = ("w_ih", "w_hh", *(("b_ih", "b_hh") if bias else ()), *(("w_hr",) if proj_size else ()))
    return Form(cell, I, H, P, L, D, fields, tuple(shapes))


def _states(form: Form, hx: Any, dtype: Any, layout: Layout) -> list[Tensor]:
    """[h_0], [h_0, c_0], or [] for zeros; of the right shapes."""
    if hx is None:
        return []
    members = [("hx[0]", form.P), ("hx[1]", form.H)] if form.cell.is_lstm else [("hx", form.H)]
    given = pair(hx) if form.cell.is_lstm else (hx,)
    rows, symbols = ((), "L*D") if layout.unbatched else ((layout.B,), "L*D, B")
    found = []
    for (name, n), tensor in zip(members, given):
        size = "proj_size" if n != form.H else "hidden_size"
        tensor = argument(name, tensor, dtype, (2 + len(rows),), n, size)
        shape = (form.L * form.D, *rows, n)
        if tensor.shape != shape:
            raise ValueError(f"{name}: expected ({symbols}, {size}) = {shape}, got {tuple(tensor.shape)}")
        found.append(tensor)
    return found


class _Masks:
    """Dropout's masks, from PyTorch's generator as torch.nn's modules draw them on a CPU; a second run gets the same again."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.used = layout, 0
        self.drawn: list[NDArray[np.bool_]] = []

    def __call__(self, shape: tuple[int, ...], p: float) -> NDArray[np.bool_]:
        if self.used == len(self.drawn):
            self.drawn.append(self._draw(shape, p))
        self.used += 1
        return self.drawn[self.used - 1]

    def _draw(self, shape: tuple[int, ...], p: float) -> NDArray[np.bool_]:
        """PyTorch draws for the steps that there are, so of a packed sequence in the order of its data; and none for p = 1."""
        if p == 1 or 0 in shape:
            return np.zeros(shape, np.bool_)
        packed, dtype = self.layout.packed, torch.from_numpy(self.layout.x).dtype
        size = shape if packed is None else (len(packed.data), shape[2])
        drawn = torch.empty(size, dtype=dtype).bernoulli_(1 - p).bool().numpy()
        if packed is None:
            return drawn
        padded = np.zeros(shape, np.bool_)
        scatter(packed._replace(data=drawn), padded)
        return padded


class _LayerCall:
    """A calls.Call of a layer. Its tensors are the input, the states that are given, and the parameters in PyTorch's order."""

    exposed = 1  # y

    def __init__(self, form: Form, layout: Layout, states: list[Array], parameters: list[Array], dropout: float) -> None:
        self.form, self.layout, self.dropout, self.threads = form, layout, dropout, threads()
        self.weights = _by_cell(form, parameters)
        rows = form.L * form.D, layout.B
        self.states = [np.ascontiguousarray(s).reshape(*rows, s.shape[-1]) for s in states]
        self.plans = [make_plan(layout.T, layout.B, reverse, layout.lengths) for reverse in (False, True)[: form.D]]
        self.masks = _Masks(layout)
        self._pass: Pass | None = None

    def run(self, record: bool) -> tuple[Tensor, ...]:
        form, layout = self.form, self.layout
        self.masks.used = 0
        options = Options(form.cell, form.D, layout.batch_first, self.threads, record, self.dropout, self.masks)
        h0, c0 = (*self.states, None, None)[:2]
        done = Pass(options, self.plans, layout.x, self.weights, h0, c0)
        self._pass = done if record else None
        final = [layout.returned_state(s) for s in (done.h_n, done.c_n) if s is not None]
        return tensors([_data(layout.returned(done.y)), *final])

    def has_tape(self) -> bool:
        return self._pass is not None

    def gradients(self, given: tuple[Tensor | None, ...], needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        form, layout, done = self.form, self.layout, self._pass
        assert done is not None
        self._pass = None
        dy, *dstates = (None if d is None else array(d) for d in given)
        if dy is not None:
            dy = layout.sequence("dy", dy if layout.packed is None else layout.packed._replace(data=dy), form.D * form.P, "D*P")
        ends = [end for end in (done.h_n, done.c_n) if end is not None]
        ends = [np.zeros_like(end) if d is None else d.reshape(end.shape).copy() for end, d in zip(ends, dstates)]
        into = [w.zeros_like() for w in self.weights]
        none: list[Array | None] = [None] * len(into)
        dx = done.backward(dy, none, none, ends[0], ends[1] if len(ends) > 1 else None, into, None, need_x=needed[0])
        found = [None if dx is None else _data(layout.returned(dx))]
        found += [layout.returned_state(end) for end in ends[: len(self.states)]]
        found += [getattr(w, field) for w in into for field in form.fields]
        return tuple(torch.from_numpy(a) if need and a is not None else None for a, need in zip(found, needed, strict=True))


def _by_cell(form: Form, parameters: list[Array]) -> list[Weights]:
    n = len(form.fields)
    cells = [dict(zip(form.fields, parameters[k : k + n])) for k in range(0, len(parameters), n)]
    return [Weights(c["w_ih"], c["w_hh"], c.get("b_ih"), c.get("b_hh"), w_hr=c.get("w_hr")) for c in cells]


def _data(y: Array | Packed) -> Array:
    return y.data if isinstance(y, Packed) else y


class RNN(Recurrent, torch.nn.RNN):
    """torch.nn.RNN on fastrnn's kernels: its arguments, parameters (initialised as there) and results; see Recurrent.forward.

    Raises beside PyTorch's own errors: ValueError for a device other than the CPU, TypeError for a dtype other than torch.float32
    and torch.float64.

    >>> layer = fastrnn.torch.RNN(10, 20, nonlinearity="relu")
    >>> y, h_n = layer(torch.randn(5, 3, 10))
    """


class GRU(Recurrent, torch.nn.GRU):
    """torch.nn.GRU on fastrnn's kernels: its arguments, parameters (initialised as there) and results; see Recurrent.forward.

    Raises: as fastrnn.torch.RNN.

    >>> layer = fastrnn.torch.GRU(10, 20, num_layers=2, bidirectional=True)
    >>> y, h_n = layer(torch.randn(5, 3, 10))
    """


class LSTM(Recurrent, torch.nn.LSTM):
    """torch.nn.LSTM on fastrnn's kernels: its arguments, parameters (initialised as there) and results; see Recurrent.forward.

    Raises: as fastrnn.torch.RNN.

    >>> layer = fastrnn.torch.LSTM(10, 20, proj_size=5)
    >>> y, (h_n, c_n) = layer(torch.randn(5, 3, 10))
    """
