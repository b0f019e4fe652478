"""RNN, GRU and LSTM as modules: PyTorch's own, but for forward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import PackedSequence

from .._api import checks
from .._api.layout import Layout
from .._api.packed import Packed, scatter
from .._api.parameters import shapes_of
from .._engine.cells import Cell
from .._engine.plan import make_plan
from .._engine.stack import Options, Pass
from .._engine.weights import Weights
from .autocast import PRECISION, WithPrecision, autocasts, lowers, narrowed, widened
from .calls import outputs_of, threads
from .forward import bare, left_to_torch, scriptable
from .plain import calls_of
from .tensors import DTYPES, Tensor, argument, array, computed_here, pair, parameter, tensors, watched

Array = NDArray[Any]
CELLS = {"RNN_TANH": Cell.RNN_TANH, "RNN_RELU": Cell.RNN_RELU, "GRU": Cell.GRU_AFTER, "LSTM": Cell.LSTM}


class Recurrent(WithPrecision):
    """Mixed into a module of torch.nn before it: its forward on our kernels."""

    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        """As the forward of the module of torch.nn: its arguments, shapes and results.

        Parameters
        ----------
        input : tensor (T, B, I) or PackedSequence
            (B, T, I) with batch_first; (T, I) without a batch. The parameters' dtype.
        hx : tensor (L*D, B, P), optional
            (L*D, P) without a batch; of an LSTM a pair (h_0, c_0) with c_0 (L*D, B, H). None for zeros.

        Returns
        -------
        y : tensor (T, B, D*P)
            Or as input is.
        hx : tensor, or of an LSTM a pair (h_n, c_n)
            The final state.

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it. What PyTorch raises where PyTorch computes.
        MemoryError
        """
        if watched():
            return left_to_torch(theirs(self.mode), self, input, hx)
        weights = flat_weights(self)
        packed = input if isinstance(input, PackedSequence) else None
        if autocasts("cpu"):
            return _autocast(self, input, hx, packed, weights)
        done = None if packed is not None or self.bidirectional else _plain(self, input, hx, weights)
        if done is not None:
            return done
        x = input if packed is None else packed.data
        if not computed_here(x, hx, weights):
            return left_to_torch(theirs(self.mode), self, input, hx)
        return result_of(self, _general(self, x, hx, packed, weights, self.__dict__.get(PRECISION, "float32")), packed)

    __prepare_scriptable__ = scriptable


def _general(module: Any, x: Any, hx: Any, packed: Any, weights: list[Any], precision: str) -> tuple[Tensor, ...]:
    form = form_of(module)
    x, states = input_of(form, x, hx, weights[0].dtype, packed, module.batch_first)
    dropout = float(module.dropout) if module.training and module.num_layers > 1 else 0.0
    call = LayerCall(form, x.dtype, packed, module.batch_first, dropout, len(states), precision)
    return outputs_of(call, x, *states, *weights)


def _autocast(module: Any, input: Any, hx: Any, packed: Any, weights: list[Any]) -> Any:
    x = input if packed is None else packed.data
    if not computed_here(x, hx, weights) or not lowers(x, hx, weights):
        return left_to_torch(theirs(module.mode), module, input, hx)
    outputs = _general(module, widened(x), widened(hx), packed, weights, "bf16")
    return result_of(module, autocast_outputs(module, outputs, x, hx, packed), packed)


def autocast_outputs(module: Any, outputs: tuple[Tensor, ...], x: Any, hx: Any, packed: Any) -> tuple[Tensor, ...]:
    """In the dtypes of PyTorch's module. x, hx: as they came."""
    projected = module.proj_size > 0
    fused = module.mode == "LSTM" and packed is None and not projected
    return narrowed(CELLS[module.mode], outputs, x, hx, fused=fused, projected=projected)


def _plain(module: Any, x: Any, hx: Any, weights: list[Any]) -> Any:
    """(y, state) of a plain call in inference, or None."""
    if torch.is_grad_enabled() or (module.dropout and module.training and module.num_layers > 1):
        return None
    sizes = module.input_size, module.hidden_size, module.proj_size, module.num_layers
    calls = calls_of(CELLS[module.mode], *sizes, module.bias, module.__dict__.get(PRECISION, "float32"), weights)
    return None if calls is None else calls.infer(x, hx, weights, module.batch_first)


def flat_weights(module: Any) -> list[Any]:
    """As PyTorch has it after _update_flat_weights(), which takes its time: not called while all are the parameters they were."""
    own = module._parameters
    for ref, name in zip(module._flat_weight_refs, module._flat_weights_names):
        if ref is None or own.get(name) is not ref():
            module._update_flat_weights()
            break
    return module._flat_weights


def theirs(mode: str) -> Any:
    return getattr(torch.nn, mode.split("_")[0])


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


def form_of(module: Any) -> Form:
    sizes = module.input_size, module.hidden_size, module.proj_size
    return _form(CELLS[module.mode], *sizes, module.num_layers, module.bidirectional, module.bias)


def input_of(form: Form, x: Any, hx: Any, dtype: Any, packed: Any, batch_first: bool) -> tuple[Tensor, list[Tensor]]:
    """x, and the states that are given: of the right shapes."""
    x = argument("input", x, dtype, (2, 3) if packed is None else (2,), form.I, "input_size")
    return x, _states(form, hx, dtype, _rows(x, packed, batch_first))


def result_of(module: Any, outputs: tuple[Tensor, ...], packed: Any) -> Any:
    """y and the final state, as PyTorch's modules return them."""
    y, *final = outputs
    y = y if packed is None else PackedSequence(y, *packed[1:])
    return y, tuple(final) if module.mode == "LSTM" else final[0]


def _rows(x: Tensor, packed: Any, batch_first: bool) -> tuple[int, ...]:
    """(B,), or () without a batch."""
    if packed is not None:
        return (int(packed.batch_sizes[0]),)
    return () if x.ndim == 2 else (x.shape[0 if batch_first else 1],)


def _states(form: Form, hx: Any, dtype: Any, rows: tuple[int, ...]) -> list[Tensor]:
    """[h_0], [h_0, c_0], or [] for zeros; of the right shapes."""
    if hx is None:
        return []
    members = [("hx[0]", form.P), ("hx[1]", form.H)] if form.cell.is_lstm else [("hx", form.H)]
    given = pair(hx) if form.cell.is_lstm else (hx,)
    found = []
    for (name, n), tensor in zip(members, given):
        size = "proj_size" if n != form.H else "hidden_size"
        tensor = argument(name, tensor, dtype, (2 + len(rows),), n, size)
        shape = (form.L * form.D, *rows, n)
        if tensor.shape != shape:
            raise ValueError(f"{name}: expected (L*D, {'B, ' if rows else ''}{size}) = {shape}, got {tuple(tensor.shape)}")
        found.append(tensor)
    return found


class _Masks:
    """Dropout's masks, drawn as torch.nn's modules draw them on a CPU."""

    def __init__(self, packed: Packed | None, dtype: Any, generator: Any) -> None:
        self._packed, self._dtype, self._generator = packed, dtype, generator

    def __call__(self, shape: tuple[int, ...], p: float) -> NDArray[np.bool_]:
        """PyTorch draws for the steps that there are, so of a packed sequence in the order of its data; and none for p = 1."""
        if p == 1 or 0 in shape:
            return np.zeros(shape, np.bool_)
        packed = self._packed
        size = shape if packed is None else (len(packed.data), shape[2])
        drawn = torch.empty(size, dtype=self._dtype).bernoulli_(1 - p, generator=self._generator).bool().numpy()
        if packed is None:
            return drawn
        padded = np.zeros(shape, np.bool_)
        scatter(packed._replace(data=drawn), padded)
        return padded


class _Kept(NamedTuple):
    """What a recorded run leaves for the way back."""

    done: Pass
    layout: Layout
    weights: list[Weights]


class LayerCall:
    """A calls.Call of a layer. Its tensors are the input, the states that are given, and the parameters in PyTorch's order."""

    exposed = 1  # y

    def __init__(
        self,
        form: Form,
        dtype: Any,
        packed: Any,
        batch_first: bool,
        dropout: float,
        states: int,
        precision: str,
        snapshot: list[Weights] | None = None,
    ) -> None:
        """snapshot: weights in the place of the parameters, which the given tensors then lack: for inference."""
        self.precision = checks.precision(precision, DTYPES[dtype])
        self.snapshot = snapshot
        self.form, self.dtype, self.batch_first, self.dropout, self.states = form, dtype, batch_first, dropout, states
        self.indices = None if packed is None else packed[1:]
        self._drawn_from: Tensor | None = None  # the state of PyTorch's generator before the first run
        self._kept: _Kept | None = None

    def run(self, given: tuple[Tensor, ...], record: bool) -> tuple[Tensor, ...]:
        form, first = self.form, 1 + self.states
        weights, x = self.snapshot or self._weights(given[first:]), array(given[0])
        layout = Layout(x if self.indices is None else Packed(x, *self.indices), DTYPES[self.dtype], form.I, self.batch_first)
        rows = form.L * form.D, layout.B
        h0, c0 = (*(np.ascontiguousarray(array(s)).reshape(*rows, s.shape[-1]) for s in given[1:first]), None, None)[:2]
        plans = [make_plan(layout.T, layout.B, reverse, layout.lengths) for reverse in (False, True)[: form.D]]
        masks = _Masks(layout.packed, self.dtype, self._generator()) if self.dropout else None
        options = Options(form.cell, form.D, layout.rows_first, threads, record, self.dropout, masks)
        done = Pass(options, plans, weights)
        done.forward(layout.x, h0, c0)
        self._kept = _Kept(done, layout, weights) if record else None
        final = [layout.returned_state(s) for s in (done.h_n, done.c_n) if s is not None]
        return tensors([_data(layout.returned(done.y)), *final])

    def _weights(self, parameters: tuple[Tensor, ...]) -> list[Weights]:
        named = zip(self.form.shapes, parameters, strict=True)
        return by_cell(self.form, [parameter(name, w, self.dtype, shape) for (name, shape), w in named], self.precision)

    def by_torch(self, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        first = 1 + self.states
        x = given[0] if self.indices is None else PackedSequence(given[0], *self.indices)
        hx = None if first == 1 else given[1:first] if self.form.cell.is_lstm else given[1]
        with self._drawn_again():
            y, final = _torchs(self.form, given[first:], self.batch_first, self.dropout).forward(x, hx)
        return y if self.indices is None else y.data, *(final if self.form.cell.is_lstm else (final,))

    def _generator(self) -> Any:
        """PyTorch's own (None) for the first run; for another one that draws the same again."""
        if self._drawn_from is None:
            self._drawn_from = torch.get_rng_state()
            return None
        return torch.Generator().set_state(self._drawn_from)

    @contextmanager
    def _drawn_again(self) -> Iterator[None]:
        """Dropout draws as in the first run, and PyTorch's generator is left as it was."""
        if self._drawn_from is None:
            yield
            return
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._drawn_from)
            yield

    def has_tape(self) -> bool:
        return self._kept is not None

    def gradients(self, given: tuple[Tensor | None, ...], needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        assert self._kept is not None
        form, (done, layout, weights), self._kept = self.form, self._kept, None
        dy, *dstates = (None if d is None else array(d) for d in given)
        if dy is not None:
            dy = layout.sequence("dy", dy if layout.packed is None else layout.packed._replace(data=dy), form.D * form.P, "D*P")
        ends = [end for end in (done.h_n, done.c_n) if end is not None]
        ends = [np.zeros_like(end) if d is None else d.reshape(end.shape).copy() for end, d in zip(ends, dstates)]
        into = [w.zeros_like() for w in weights]
        none: list[Array | None] = [None] * len(into)
        dx = done.backward(dy, none, none, ends[0], ends[1] if len(ends) > 1 else None, into, None, need_x=needed[0])
        found = [None if dx is None else _data(layout.returned(dx))]
        found += [layout.returned_state(end) for end in ends[: self.states]]
        found += [getattr(w, field) for w in into for field in form.fields]
        return tuple(torch.from_numpy(a) if need and a is not None else None for a, need in zip(found, needed, strict=True))


def _torchs(form: Form, weights: tuple[Tensor, ...], batch_first: bool, dropout: float) -> Any:
    """PyTorch's module of this form, with tensors of any kind as its weights."""
    mode = next(mode for mode, cell in CELLS.items() if cell is form.cell)
    sizes = {"input_size": form.I, "hidden_size": form.H, "proj_size": form.P if "w_hr" in form.fields else 0}
    flags = {"bias": "b_ih" in form.fields, "batch_first": batch_first, "bidirectional": form.D == 2, "training": True}
    flat = {"_flat_weights": list(weights), "_flat_weights_names": [], "_flat_weight_refs": []}
    return bare(theirs(mode), {"mode": mode, "num_layers": form.L, "dropout": dropout} | sizes | flags | flat)


def by_cell(form: Form, parameters: list[Array], precision: str = "float32") -> list[Weights]:
    n = len(form.fields)
    cells = [dict(zip(form.fields, parameters[k : k + n])) for k in range(0, len(parameters), n)]
    return [Weights(c["w_ih"], c["w_hh"], c.get("b_ih"), c.get("b_hh"), w_hr=c.get("w_hr"), precision=precision) for c in cells]


def _data(y: Array | Packed) -> Array:
    return y.data if isinstance(y, Packed) else y


class RNN(Recurrent, torch.nn.RNN):
    """torch.nn.RNN on fastrnn's kernels: its arguments, parameters (initialised as there) and results.

    On other devices than the CPU, and with parameters that are not all torch.float32 or all torch.float64, PyTorch computes.

    Parameters
    ----------
    input_size, hidden_size, num_layers, ...
        As in torch.nn.
    precision : "float32" or "bf16", default "float32"
        Of products: "bf16" rounds their operands to bfloat16 and sums in float32, for torch.float32 alone.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> layer = fastrnn.torch.RNN(10, 20, nonlinearity="relu")
    >>> y, h_n = layer(torch.ones(5, 3, 10))
    >>> y.shape
    torch.Size([5, 3, 20])
    """


class GRU(Recurrent, torch.nn.GRU):
    """torch.nn.GRU on fastrnn's kernels: its arguments, parameters (initialised as there) and results.

    On other devices than the CPU, and with parameters that are not all torch.float32 or all torch.float64, PyTorch computes.

    Parameters
    ----------
    input_size, hidden_size, num_layers, ...
        As in torch.nn.
    precision : "float32" or "bf16", default "float32"
        Of products: "bf16" rounds their operands to bfloat16 and sums in float32, for torch.float32 alone.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> layer = fastrnn.torch.GRU(10, 20, num_layers=2, bidirectional=True)
    >>> y, h_n = layer(torch.ones(5, 3, 10))
    >>> y.shape
    torch.Size([5, 3, 40])
    """


class LSTM(Recurrent, torch.nn.LSTM):
    """torch.nn.LSTM on fastrnn's kernels: its arguments, parameters (initialised as there) and results.

    On other devices than the CPU, and with parameters that are not all torch.float32 or all torch.float64, PyTorch computes.

    Parameters
    ----------
    input_size, hidden_size, num_layers, ...
        As in torch.nn.
    precision : "float32" or "bf16", default "float32"
        Of products: "bf16" rounds their operands to bfloat16 and sums in float32, for torch.float32 alone.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> layer = fastrnn.torch.LSTM(10, 20, proj_size=5)
    >>> y, (h_n, c_n) = layer(torch.ones(5, 3, 10))
    >>> y.square().mean().backward()
    >>> y.shape, layer.weight_hr_l0.grad.shape
    (torch.Size([5, 3, 5]), torch.Size([5, 20]))
    """
