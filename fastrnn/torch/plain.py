"""Plain calls: straight from PyTorch's tensors to the kernels, through one compiled function.

A call is plain where nothing special is going on: tensors on the CPU that stand in memory as the kernels read them, no hooks on
what autograd saves; and the caller has asked `watched` and for autocast. What is not plain gets None and goes the general way,
through calls.py, with the same bits.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from .._api.parameters import NAMES, shapes_of
from .._core import TensorCalls, borrow_threads, use_tensors
from .._engine.cells import Cell
from .._engine.weights import Weights
from .tensors import DTYPES

_can_look = use_tensors(torch.Tensor, torch.nn.Parameter, torch.get_num_threads)


def _borrow_threads() -> bool:
    """PyTorch's threads, those of its OpenMP, spin for a while after each of its operations: a call in between is faster on them
    than on threads of our own, which would have to take the cores from them. Are they to be had?"""
    try:
        library = ctypes.CDLL(torch._C.__file__)
        functions = [getattr(library, name) for name in ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")]
    except (OSError, AttributeError, TypeError):  # PyTorch is built on another library
        return False
    borrow_threads(*[ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions])
    return True


_borrows = _can_look and torch.backends.openmp.is_available() and _borrow_threads()
_hooks: Any = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


def nothing_special() -> bool:
    """Can tensors be looked at, with no hooks on what is saved for backward?"""
    return bool(_can_look and _hooks(False) is None)


def calls_of(
    cell: Cell, I: int, H: int, proj_size: int, layers: int, bias: bool, precision: str, weights: list[Any]
) -> TensorCalls | None:
    """The plain calls of modules of these sizes, or None where none is plain now. layers: 0 for a cell."""
    if not nothing_special():
        return None
    return _calls(cell, I, H, proj_size, layers, bias, precision, getattr(weights[0], "dtype", None))


@lru_cache(maxsize=256)
def _calls(cell: Cell, I: int, H: int, proj_size: int, layers: int, bias: bool, precision: str, dtype: Any) -> TensorCalls | None:
    if dtype not in DTYPES or (precision == "bf16" and dtype != torch.float32):  # an error, for the general way
        return None
    nothing, P, weights = np.zeros(1, DTYPES[dtype]), proj_size or H, []
    for k in range(layers or 1):
        shapes = shapes_of(cell, P if k else I, H, P, bias)
        named: dict[str, Any] = dict.fromkeys(Weights.NAMES)
        named |= {own: np.broadcast_to(nothing, shapes[name]) for own, name in NAMES.items() if name in shapes}
        weights.append(Weights(**named, precision=precision))
    return TensorCalls(cell, cell.form, weights, nothing, layers > 0)


def calls_of_snapshot(cell: Cell, weights: list[Weights], stacked: bool) -> TensorCalls:
    """The plain calls on these weights, which are packed: with None for the weights of a call. stacked: of a layer."""
    return TensorCalls(cell, cell.form, weights, weights[0].w_ih[:0, 0], stacked)
