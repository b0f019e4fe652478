"""Plain calls: straight from PyTorch's tensors to the kernels, through one compiled function.

A call is plain where nothing special is going on: tensors on the CPU that stand in memory as the kernels read them, no autocast, no
hooks on what autograd saves; and the caller has asked `watched`. What is not plain gets None and goes the general way, through
calls.py, with the same bits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from .._api.parameters import NAMES, shapes_of
from .._core import TensorCalls, use_tensors
from .._engine.cells import Cell
from .._engine.weights import Weights
from .tensors import DTYPES

_can_look = use_tensors(torch.Tensor, torch.nn.Parameter, torch.get_num_threads)
_autocasts = torch.is_autocast_enabled
_hooks = torch._C._autograd._top_saved_tensors_default_hooks if _can_look else None


def calls_of(cell: Cell, I: int, H: int, proj_size: int, layers: int, bias: bool, weights: list[Any]) -> TensorCalls | None:
    """The plain calls of modules of these sizes, or None where none is plain now."""
    if not _can_look or _autocasts("cpu") or _hooks(False) is not None:
        return None
    return _calls(cell, I, H, proj_size, layers, bias, getattr(weights[0], "dtype", None))


@lru_cache(maxsize=256)
def _calls(cell: Cell, I: int, H: int, proj_size: int, layers: int, bias: bool, dtype: Any) -> TensorCalls | None:
    if dtype not in DTYPES:
        return None
    nothing, P, names, weights = np.zeros(1, DTYPES[dtype]), proj_size or H, [NAMES[own] for own in Weights.NAMES], []
    for k in range(layers):
        shapes = shapes_of(cell, P if k else I, H, P, bias)
        weights.append(Weights(*[np.broadcast_to(nothing, shapes[name]) if name in shapes else None for name in names]))
    return TensorCalls(cell, cell.form, weights, nothing)
