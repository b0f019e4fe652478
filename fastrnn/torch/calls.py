"""What PyTorch's autograd sees of our kernels: one function, whose way back is a tape."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch.autograd.function import once_differentiable

from .. import config
from .tensors import Tensor

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
    @once_differentiable
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, needed, call = ctx.saved_tensors, ctx.needs_input_grad[1:], ctx.call
        if all(d is None for d in given):
            return (None,) * (1 + len(saved))
        if not call.has_tape() or any(alias._version != version for alias, version in ctx.exposed):
            call.run(saved, record=True)
        ctx.exposed = []  # nobody has seen the outputs of a further run
        return None, *call.gradients(given, needed)
