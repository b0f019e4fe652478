"""Tensors, checked at the door and seen as arrays: no copies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd import forward_ad

from .._api import checks

Array = NDArray[Any]
Tensor = Any  # torch.Tensor

DTYPES: dict[Any, np.dtype[Any]] = {torch.float32: checks.F32, torch.float64: checks.F64}
_transforming = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)


def left_to_torch() -> bool:
    """Does PyTorch want to see inside the call? Traced, compiled, under torch.func's transforms or forward-mode differentiation, a
    module has to be made of PyTorch's operations, so there its own forward is taken."""
    return bool(
        torch.jit.is_tracing() or torch.compiler.is_compiling() or _transforming() or getattr(forward_ad, "_current_level", -1) >= 0
    )


def check_placement(device: Any, dtype: Any) -> None:
    """A constructor's arguments: the CPU, and float32 or float64; None is PyTorch's default."""
    device = torch.get_default_device() if device is None else torch.device(device)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if device.type != "cpu":
        raise ValueError(f"device: expected the CPU, on which fastrnn computes, got {device}; torch.nn has modules for others")
    if dtype not in DTYPES:
        raise TypeError(f"dtype: expected torch.float32 or torch.float64, got {dtype}; torch.nn has modules for others")


def misplaced(parameters: Iterable[Tensor]) -> str | None:
    """What keeps these parameters from our kernels, if something does."""
    kinds = {(p.device.type, p.dtype) for p in parameters}
    if {device for device, _ in kinds} != {"cpu"}:
        return f"its parameters are on {' and '.join(sorted({device for device, _ in kinds}))}, not on the CPU"
    dtypes = sorted({str(dtype) for _, dtype in kinds})
    if len(dtypes) > 1 or next(iter(kinds))[1] not in DTYPES:
        return f"its parameters are {' and '.join(dtypes)}, not all torch.float32 or all torch.float64"
    return None


def dtype_of(name: str, tensor: Tensor) -> Any:
    """That of the first weight, which is that of the module."""
    dtype = getattr(tensor, "dtype", None)
    if dtype not in DTYPES:
        raise _misplaced(name, "torch.float32 or torch.float64", tensor)
    return dtype


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
    """An input or a state: on the CPU, of the parameters' dtype, with a last axis of n, which is called `size`.

    Inside an enabled autocast other floating dtypes are brought to the parameters', as autocast does for PyTorch's own operations
    that want full precision.
    """
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name}: expected a tensor of {dtype}, got {type(tensor).__name__}")
    if not tensor.is_cpu:
        raise ValueError(f"{name}: expected a tensor on the CPU, got one on {tensor.device}; pass {name}.cpu()")
    if tensor.dtype != dtype:
        if not (tensor.is_floating_point() and torch.is_autocast_enabled("cpu")):
            other = f", or convert the model: model.to({tensor.dtype})" if tensor.dtype in DTYPES else ""
            raise ValueError(f"{name}: expected dtype {dtype}, got {tensor.dtype}; pass {name}.to({dtype}){other}")
        tensor = tensor.to(dtype)
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
