"""Tensors, checked at the door and seen as arrays: no copies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd import forward_ad
from torch.utils._device import DeviceContext

from .._api import checks

Array = NDArray[Any]
Tensor = Any  # torch.Tensor

DTYPES: dict[Any, np.dtype[Any]] = {torch.float32: checks.F32, torch.float64: checks.F64}
PLAIN = {
    torch.Tensor,
    torch.nn.Parameter,
    type(None),
}  # FakeTensor, DTensor and others, and fx's Proxy, bring operations of their own

# Asked at each call, so without a way through Python where there is one.
_is_compiling = torch.compiler.is_compiling
_tracing, _transforming = torch._C._get_tracing_state, torch._C._are_functorch_transforms_active
_modes, _function_modes = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack
_is_batched = torch._C._functorch.is_legacy_batchedtensor  # under the vmap behind is_grads_batched and jacobian(vectorize=True)


def watched() -> bool:
    """Does PyTorch want to see inside a call? Compiled, traced, under torch.func's transforms, forward-mode differentiation or a
    mode (fake tensors, make_fx, counters of operations), a module has to be made of PyTorch's operations."""
    return (
        _is_compiling()
        or _tracing() is not None
        or _transforming()
        or forward_ad._current_level >= 0
        or _modes() > 0
        or (_function_modes() > 0 and _watching_function_modes())
    )


def _watching_function_modes() -> bool:
    """torch.set_default_device is a mode too, but only for the functions that make tensors."""
    modes = map(torch._C._get_function_stack_at, range(_function_modes()))
    return any(not isinstance(mode, DeviceContext) for mode in modes)


def computed_here(x: Any, hx: Any, weights: list[Any]) -> bool:
    """Can our kernels compute a call with these tensors? What is no tensor at all they refuse.

    Not on other devices, nor in other dtypes; and not with tensors that have operations of their own.
    """
    weight = weights[0]
    if weight is None or weight.dtype not in DTYPES or not weight.is_cpu:
        return False
    given = (x, *weights) if hx is None else (x, *hx, *weights) if isinstance(hx, (tuple, list)) else (x, hx, *weights)
    return PLAIN.issuperset(map(type, given)) or not any(map(_is_special, given))


def _is_special(tensor: Any) -> bool:
    return type(tensor) not in PLAIN and hasattr(type(tensor), "__torch_function__")


def are_special(gradients: list[Tensor]) -> bool:
    """Does one of them stand for several, or have operations of its own?"""
    return not PLAIN.issuperset(map(type, gradients)) or any(map(_is_batched, gradients))


def under_vmap(gradients: Iterable[Tensor]) -> bool:
    return bool(_transforming()) or any(map(_is_batched, gradients))


def misplaced(parameters: Iterable[Tensor], precision: str) -> str | None:
    """What keeps these parameters from our kernels of this precision, if something does."""
    kinds = {(p.device.type, p.dtype) for p in parameters}
    if {device for device, _ in kinds} != {"cpu"}:
        return f"its parameters are on {' and '.join(sorted({device for device, _ in kinds}))}, not on the CPU"
    dtypes = sorted({str(dtype) for _, dtype in kinds})
    if len(dtypes) > 1 or next(iter(kinds))[1] not in DTYPES:
        return f"its parameters are {' and '.join(dtypes)}, not all torch.float32 or all torch.float64"
    if precision == "bf16" and dtypes != ["torch.float32"]:
        return f"its parameters are {dtypes[0]}, and precision='bf16' is for torch.float32"
    return None


def parameter(name: str, tensor: Tensor, dtype: Any, shape: tuple[int, ...]) -> Array:
    """A weight as the kernels read it: a view, if its numbers stand side by side."""
    if not isinstance(tensor, torch.Tensor) or tensor.dtype != dtype or not tensor.is_cpu:
        raise _misplaced(name, str(dtype), tensor)
    return checks.shaped(name, array(tensor), DTYPES[dtype], "its shape", shape)


def _misplaced(name: str, wanted: str, tensor: Tensor) -> TypeError:
    is_tensor = isinstance(tensor, torch.Tensor)
    got = f"{tensor.dtype} on {tensor.device}" if is_tensor else type(tensor).__name__
    advice = "; fastrnn.torch.restore(model) gives the module back to PyTorch" if is_tensor else ""
    return TypeError(f"{name}: expected a tensor of {wanted} on the CPU, got {got}{advice}")


def argument(name: str, tensor: Tensor, dtype: Any, ndim: tuple[int, ...], n: int, size: str) -> Tensor:
    """An input or a state: on the CPU, of the parameters' dtype, with a last axis of n, which is called `size`."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name}: expected a tensor of {dtype}, got {type(tensor).__name__}")
    if not tensor.is_cpu:
        raise ValueError(f"{name}: expected a tensor on the CPU, got one on {tensor.device}; pass {name}.cpu()")
    if tensor.dtype != dtype:
        other = f", or convert the model: model.to({tensor.dtype})" if tensor.is_floating_point() else ""
        raise ValueError(f"{name}: expected dtype {dtype}, got {tensor.dtype}; pass {name}.to({dtype}){other}")
    if tensor.ndim not in ndim:
        raise ValueError(f"{name}: expected {' or '.join(map(str, ndim))} dimensions, got shape {tuple(tensor.shape)}")
    if tensor.shape[-1] != n:
        raise ValueError(f"{name}: expected the last axis to be {size} = {n}, got shape {tuple(tensor.shape)}")
    return tensor


def pair(hx: Any) -> tuple[Any, Any]:
    """An LSTM's state."""
    if not isinstance(hx, (tuple, list)) or len(hx) != 2:
        raise TypeError(f"hx: expected a pair (h_0, c_0) of tensors, got {type(hx).__name__}")
    return hx[0], hx[1]


def array(tensor: Tensor) -> Array:
    """The same memory as a NumPy array."""
    return tensor.numpy(force=True)  # without `force` it would refuse those that need a gradient


def tensors(arrays: Iterable[Array]) -> tuple[Tensor, ...]:
    """The same memory as tensors."""
    return tuple(map(torch.from_numpy, arrays))
