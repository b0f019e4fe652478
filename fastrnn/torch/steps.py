"""Steps of cells on tensors, forward and backward: the plain ones, whose graph makes the parameters' gradients of all steps of a
loop at once, and those that go the general way."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .._api import checks
from .._api.parameters import Shapes, shapes_of
from .._core import TensorSums
from .._engine.cells import Cell
from .._engine.plan import Plan
from .._engine.run import Run
from .._engine.weights import Weights
from .autocast import PRECISION
from .calls import gradients_by_torch, threads
from .forward import bare
from .plain import calls_of
from .tensors import DTYPES, Tensor, are_special, array, parameter, tensors, watched

Array = NDArray[Any]
NONLINEARITIES = {"tanh": Cell.RNN_TANH, "relu": Cell.RNN_RELU}


@lru_cache(maxsize=256)
def shapes(cell: Cell, I: int, H: int, bias: bool) -> Shapes:
    """Of a cell's parameters, by name."""
    return shapes_of(cell, I, H, H, bias)


# --- plain steps ----------------------------------------------------------------------------------------------------------------

_task, _will_run, _records = torch._C._current_graph_task_id, torch._C._will_engine_execute_node, torch.is_grad_enabled


def plain_step(module: Any, cell: Cell, named: Shapes, x: Any, hx: Any, weights: list[Any]) -> Any:
    """The new state, or None where the call is not plain."""
    precision = module.__dict__.get(PRECISION, "float32")
    calls = calls_of(cell, module.input_size, module.hidden_size, 0, 0, module.bias, precision, weights)
    if calls is None:
        return None
    if not _records():
        return calls.step(x, hx, weights)
    done = calls.record_step(x, hx, weights)
    if done is None:
        return None
    states = () if hx is None else hx if cell.is_lstm else (hx,)
    flags = [w.requires_grad for w in weights]
    if True in flags:
        stand_in = _stand_in(module, weights, flags, precision)
    elif x.requires_grad or any(s.requires_grad for s in states):
        stand_in = None
    else:
        return done[0]
    return _apply_step(done, (calls, cell, named, flags, precision), stand_in, weights, x, *states)


class Parameters:
    """The parameters of a cell in the graph of its steps: an attribute of the module, and each copy or pickle of it has its own.

    One tensor stands for all of them. The way back behind it, _Parameters, runs when those of all steps have run that a backward
    goes through; so it can make the gradients of many steps in one product. Where one of the parameters is another tensor, wants
    gradients or does not, unlike before, or the precision is another, or a backward has come by, the next step gets a new one.
    """

    NAME = "_fastrnn_parameters"
    __slots__ = ("flags", "precision", "stand_in", "weights")

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.flags: list[bool] = []
        self.precision = "float32"
        self.stand_in: Any = None

    def __reduce__(self) -> Any:
        return Parameters, ()

    def are(self, weights: list[Tensor], flags: list[bool], precision: str) -> bool:
        """Are they still what they were, and has no backward come by?"""
        if self.stand_in is None or flags != self.flags or precision != self.precision or self.stand_in.grad_fn.done:
            return False
        return all(a is b for a, b in zip(weights, self.weights, strict=True))


def _stand_in(module: Any, weights: list[Tensor], flags: list[bool], precision: str) -> Tensor:
    """The tensor that stands for these weights, of which `flags` says which want gradients, in steps of one precision."""
    if not all(w.is_leaf for w in weights):  # made for this call, by a parametrisation say
        return _apply_parameters(*weights)
    own = vars(module)
    known = own.get(Parameters.NAME)
    if known is None:
        known = own[Parameters.NAME] = Parameters()
    if known.are(weights, flags, precision):
        return known.stand_in
    stand_in = _apply_parameters(*weights)
    known.weights, known.flags, known.precision, known.stand_in = weights, flags, precision, stand_in
    return stand_in


class _Parameters(torch.autograd.Function):
    """From the parameters to what stands for them.

    The steps' ways back leave here what the parameters' gradients are made of, apart for each backward: a graph can be gone back
    through repeatedly, from several ends, and by several threads.
    """

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.done, ctx.sums, ctx.made = False, {}, {}
        return weights[0].new_empty(0)

    @staticmethod
    def backward(ctx: Any, _: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.done, task = True, _task()
        sums = ctx.sums.pop(task, None)
        total: Any = None if sums is None else sums.gradients()
        for made in ctx.made.pop(task, ()):
            total = made if total is None else list(map(_sum, total, made))
        return (None,) * len(ctx.needs_input_grad) if total is None else tuple(total)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


class _RecordedStep(torch.autograd.Function):
    """A plain step that has been computed: from what stands for the parameters, the input, and the state if one is given.

    A backward changes nothing of what is saved, so it can be repeated.
    """

    @staticmethod
    def forward(ctx: Any, done: Any, of: Any, stand_in: Any, weights: list[Tensor], *given: Tensor) -> Any:
        new, kept = done
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, *weights, kept)  # so that PyTorch notices if one of them is modified before backward
        ctx.of, ctx.stand_in = of, stand_in
        return new

    @staticmethod
    def backward(ctx: Any, dh: Tensor | None, dc: Tensor | None = None) -> tuple[Tensor | None, ...]:
        saved, needed, (calls, cell, named, flags, precision) = ctx.saved_tensors, ctx.needs_input_grad[4:], ctx.of
        n, task = len(needed), _task()
        node = None if ctx.stand_in is None or task < 0 else ctx.stand_in.grad_fn
        if node is not None and not _will_run(node):
            node = None
        if (dh is None and dc is None) or (node is None and True not in needed):
            return (None,) * (4 + n)
        x, states, weights, kept = saved[0], saved[1:n], list(saved[n:-1]), saved[-1]
        given = (dh, dc) if cell.is_lstm else (dh,)
        special = _records() or watched() or are_special([d for d in given if d is not None])
        if not special:
            sums = None
            if node is not None:
                sums = node.sums.get(task)
                if sums is None:
                    sums = node.sums[task] = TensorSums(calls, cell.form, weights, flags)
            hx = (states if cell.is_lstm else states[0]) if states else None
            done = calls.step_back(x, hx, weights, kept, _contiguous(dh), _contiguous(dc), needed[0], sums)
            if done is not None:
                return None, None, None, None, *done[:n]
        wanted = *needed, *(flags if node is not None else [False] * len(flags))
        step = GeneralStep(cell, weights[0].dtype, named, len(states), precision)
        found = _back_generally(step, saved[:-1], given, wanted, special)
        if node is not None:
            node.made.setdefault(task, []).append(found[n:])
        return None, None, None, None, *found[:n]


def _contiguous(d: Tensor | None) -> Tensor | None:
    return d if d is None or d.is_contiguous() else d.contiguous()


def _back_generally(
    step: GeneralStep, saved: tuple[Tensor, ...], given: tuple[Tensor | None, ...], wanted: tuple[bool, ...], special: bool
) -> tuple[Tensor | None, ...]:
    """The gradients of all of a step's tensors, by running it once more."""
    if special:
        return gradients_by_torch(step, saved, given, wanted)
    step.run(saved, record=True)
    return step.gradients(given, wanted)


# As Function.apply, but for what that does for torch.func: whoever calls a plain step has asked `watched`.
_apply_parameters: Any = super(torch.autograd.Function, _Parameters).apply
_apply_step: Any = super(torch.autograd.Function, _RecordedStep).apply


# --- the general way --------------------------------------------------------------------------------------------------------------


class GeneralStep:
    """A calls.Call of one step. Its tensors are the input, the states that are given, and the parameters in PyTorch's order."""

    exposed = 0  # the new state is a copy of what the way back reads

    def __init__(
        self, cell: Cell, dtype: Any, shapes: Shapes, states: int, precision: str, snapshot: Weights | None = None
    ) -> None:
        """snapshot: weights in the place of the parameters, which the given tensors then lack: for inference."""
        self.cell, self.dtype, self.shapes, self.states, self.snapshot = cell, dtype, shapes, states, snapshot
        self.precision = checks.precision(precision, DTYPES[dtype])
        self._run: Run | None = None

    def run(self, given: tuple[Tensor, ...], record: bool) -> tuple[Tensor, ...]:
        first = 1 + self.states
        weights = self.snapshot or self._weights(given[first:])
        x = checks.rows_contiguous("input", array(given[0]))
        self.unbatched = x.ndim == 1
        x = x[None, None] if self.unbatched else x[None]
        h0, c0 = (*(np.ascontiguousarray(array(s)).reshape(-1, s.shape[-1]) for s in given[1:first]), None, None)[:2]
        run = Run(self.cell, Plan(1, x.shape[1], False), x, weights, h0, c0, threads)
        run.forward(record)
        self._run = run if record else None
        return tensors(self._outward(end) for end in (run.h_n, run.c_n) if end is not None)

    def _weights(self, parameters: tuple[Tensor, ...]) -> Weights:
        named = [parameter(name, w, self.dtype, shape) for (name, shape), w in zip(self.shapes.items(), parameters)]
        return Weights(named[0], named[1], *(named[2:] or (None, None)), precision=self.precision)

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
    nonlinearity = next((name for name, one in NONLINEARITIES.items() if one == cell), None)
    given = {"hidden_size": weights["weight_hh"].shape[1], "nonlinearity": nonlinearity, "bias_ih": None, "bias_hh": None}
    return bare(kind, given | weights)
