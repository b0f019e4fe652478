"""The precision of a module's products: its own, or that of torch.autocast to bfloat16.

Within autocast a call takes tensors of float32 and bfloat16, computes in float32 with products of bfloat16 operands, and returns
the dtypes that PyTorch's modules return.
"""

from __future__ import annotations

from typing import Any

import torch

from .._api import checks
from .._engine.cells import Cell
from .tensors import DTYPES, Tensor

PRECISION = "_fastrnn_precision"  # an attribute of a module whose precision is not "float32"
_TAKEN = {torch.float32, torch.bfloat16}

autocasts: Any = torch.is_autocast_enabled  # asked with "cpu" at each call


class WithPrecision:
    """Mixed into a module of torch.nn before it: the keyword and the attribute `precision`."""

    def __init__(self, *arguments: Any, precision: str = "float32", **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.precision = precision

    @property
    def precision(self) -> str:
        """The precision of products outside of torch.autocast, "float32" or "bf16". It may be assigned.

        With "bf16" the operands of all products, forward and backward, are rounded to bfloat16; all else stays float32.

        Raises
        ------
        ValueError
            Another name is assigned.
        TypeError
            "bf16" is assigned to a module in torch.float64.

        Examples
        --------
        >>> import fastrnn.torch
        >>> layer = fastrnn.torch.GRU(3, 4)
        >>> layer.precision = "bf16"
        >>> layer
        GRU(3, 4, precision='bf16')
        """
        found: str = vars(self).get(PRECISION, "float32")
        return found

    @precision.setter
    def precision(self: Any, value: str) -> None:
        checks.precision(value, DTYPES.get(next(self.parameters()).dtype, checks.F32))
        set_precision(self, value)

    def extra_repr(self: Any) -> str:
        """As that of the module of torch.nn, and the precision."""
        shown: str = super().extra_repr()  # type: ignore[misc]
        return shown + shown_precision(self)


def shown_precision(module: Any) -> str:
    """What follows a module's other arguments."""
    return f", precision={vars(module)[PRECISION]!r}" if PRECISION in vars(module) else ""


def set_precision(module: Any, precision: str) -> None:
    """Of the module's products where there is no autocast. "float32" leaves no trace."""
    vars(module).pop(PRECISION, None)
    if precision != "float32":
        vars(module)[PRECISION] = precision


def lowers(x: Any, hx: Any, weights: list[Any]) -> bool:
    """Is a call with these tensors within autocast, of float32 parameters to bfloat16?"""
    states = hx if isinstance(hx, (tuple, list)) else () if hx is None else (hx,)
    to_bf16 = torch.get_autocast_dtype("cpu") is torch.bfloat16 and weights[0].dtype is torch.float32
    return to_bf16 and all(getattr(t, "dtype", None) in _TAKEN for t in (x, *states))


def widened(given: Any) -> Any:
    """An input, or a state or None, in float32."""
    if isinstance(given, (tuple, list)):
        return tuple(map(widened, given))
    return None if given is None else given.float()


def narrowed(cell: Cell, outputs: tuple[Tensor, ...], x: Tensor, hx: Any, *, fused: bool = False, projected: bool = False) -> Any:
    """The outputs of a call, c last, in the dtypes of PyTorch's: what comes out of a product is bfloat16, and what is carried over
    from the state before, or from zeros of x's dtype, has the wider dtype of both.

    x, hx: as they came. fused: is it an LSTM that PyTorch leaves to oneDNN, which gives bfloat16 out? projected: is h of a product?
    """
    state = hx[1] if cell.is_lstm and hx is not None else hx
    carried = (x if state is None else state).dtype
    if fused or cell in (Cell.RNN_TANH, Cell.RNN_RELU):
        carried = torch.bfloat16
    of_h = torch.bfloat16 if projected else carried
    n = len(outputs) - cell.is_lstm
    return tuple(output.to(of_h if k < n else carried) for k, output in enumerate(outputs))
