"""What PyTorch's autograd sees of our kernels: one function, whose way back is a tape."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch
from numpy.typing import NDArray

from .. import config
from .tensors import Tensor, are_special, under_vmap, watched

Array = NDArray[Any]


class Call(Protocol):
    """A module's call, but for its tensors: those are handed to each run, so that PyTorch alone says how long they live.

    exposed: how many of the outputs, from the first on, are arrays that the way back reads.
    """

    exposed: int

    def run(self, given: tuple[Tensor, ...], record: bool) -> tuple[Tensor, ...]:
        """The outputs, each time anew; recorded, what `gradients` needs is kept, in place of what an earlier run has kept."""
        ...

    def gradients(self, given: tuple[Tensor | None, ...], needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        """From the gradients of the outputs to those of the tensors; of what was kept, nothing is left."""
        ...

    def by_torch(self, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The outputs once more, by PyTorch's own operations."""
        ...

    def has_tape(self) -> bool:
        """Is there something kept?"""
        ...


def threads() -> int:
    """As many as both packages are allowed to use."""
    return min(config.get_num_threads(), torch.get_num_threads())


def outputs_of(call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The outputs, recorded if one of the tensors that the call depends on wants a gradient."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors if t is not None):
        return _Recorded.apply(call, *tensors)
    return call.run(tensors, record=False)


class _Recorded(torch.autograd.Function):
    """A call with its way back.

    PyTorch lets a graph be gone back through repeatedly (retain_graph=True), but a tape can be used once; so the call is run again
    where its tape has gone. It is run again, too, where an output was modified in place, as PyTorch's modules allow.

    Where the way back is itself to be differentiated, or to be seen into, or where its gradients are batched, it is made of
    PyTorch's operations.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs = call.run(tensors, record=True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)  # so that PyTorch notices if one of them is modified before backward
        ctx.call = call
        aliases = [output.detach() for output in outputs[: call.exposed]]  # they share the counter of modifications
        ctx.exposed = [(alias, alias._version) for alias in aliases]
        return outputs

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, needed, call = ctx.saved_tensors, ctx.needs_input_grad[1:], ctx.call
        present = [d for d in given if d is not None]
        if not present:
            return (None,) * (1 + len(saved))
        if torch.is_grad_enabled() or watched() or are_special(present):
            return None, *gradients_by_torch(call, saved, given, needed)
        if not call.has_tape() or any(alias._version != version for alias, version in ctx.exposed):
            call.run(saved, record=True)
        ctx.exposed = []  # nobody has seen the outputs of a further run
        return None, *call.gradients(given, needed)


def gradients_by_torch(
    call: Call, tensors: tuple[Tensor, ...], given: tuple[Tensor | None, ...], needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """As call.gradients; with a graph, if one is wanted, back to the tensors and to the given gradients."""
    if under_vmap(d for d in given if d is not None):  # a state of the thread that forbids to draw dropout's masks
        with ThreadPoolExecutor(1) as other:
            views, outputs = other.submit(_recomputed, call, tensors, needed).result()
    else:
        views, outputs = _recomputed(call, tensors, needed)
    wanted = [view for view, need in zip(views, needed) if need]
    through, by = zip(*((output, d) for output, d in zip(outputs, given) if d is not None))
    with torch.autocast("cpu", enabled=False):
        found = iter(torch.autograd.grad(through, wanted, by, create_graph=torch.is_grad_enabled(), allow_unused=True))
    return tuple(next(found) if need else None for need in needed)


def _recomputed(call: Call, tensors: tuple[Tensor, ...], needed: tuple[bool, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The tensors as PyTorch's operations got them, and the outputs, in their own precision."""
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        # One of the tensors may depend on another: a view of each takes what belongs to it alone.
        views = tuple(t.view_as(t) if need else t for t, need in zip(tensors, needed))
        return views, call.by_torch(views)
