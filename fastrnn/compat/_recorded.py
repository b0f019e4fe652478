"""A pass over a whole sequence in the layout of another system, that can be gone back as often as one likes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import functional
from .._api import checks
from .._api.parameters import NAMES
from .._engine.memory import new_array
from ..formats import FORMATS

Array = NDArray[Any]
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "rnn": functional.rnn,
    "gru_after": functional.gru,
    "gru_before": partial(functional.gru, reset_after=False),
    "lstm": functional.lstm,
}


def as_floats(values: Mapping[str, Any]) -> dict[str, Array]:
    """Arrays of one dtype, float32 if all are, else float64; None is left out.

    Raises: TypeError for what is no array of real numbers, or has more digits than float64.
    """
    arrays = {}
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError(f"{name}: expected an array, got {type(value).__name__}")
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{name}: expected an array of real numbers, got {array.dtype}")
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:
            raise TypeError(f"{name}: expected at most float64, got {array.dtype}; pass {name}.astype(np.float64)")
        arrays[name] = array
    kinds = {array.dtype if array.dtype.kind == "f" else checks.F64 for array in arrays.values()}
    dtype = checks.F64 if any(kind.itemsize == 8 for kind in kinds) else checks.F32
    return {name: array.astype(dtype, copy=False) for name, array in arrays.items()}


def copy(array: Array) -> Array:
    """A new array in C order."""
    new = new_array(array.shape, array.dtype)
    new[...] = array
    return new


def contiguous(array: Array) -> Array:
    """In C order: itself, or a copy."""
    return array if array.flags.c_contiguous else copy(array)


class Recorded:
    """One layer over a sequence: y, h_n and c_n (None if there is none), and the way back.

    Args:
        format, form: a cell in fastrnn.formats.FORMATS.
        x: (T, B, I), or (B, T, I) with batch_first.
        weights: the arrays of the cell by name.
        h0, c0: (B, H), None for zeros.
        record: whether backward will be called.
        cells: whether c, the sequence of the cell states, is wanted.
        copied: whether y and c are new arrays that may be written to, or what the way back reads, and read-only.
        options: more keywords of fastrnn.rnn, gru or lstm.

    x is kept, not copied: it must stay as it is until backward.
    """

    def __init__(
        self,
        format: str,
        form: str,
        x: Any,
        weights: Mapping[str, Any],
        h0: Any,
        c0: Any = None,
        *,
        batch_first: bool = False,
        record: bool = True,
        cells: bool = False,
        copied: bool = True,
        **options: Any,
    ) -> None:
        self.form, self.cell = form, FORMATS[format].cells[form]
        arrays = as_floats({"x": x, "h0": h0, "c0": c0} | dict(weights))
        if arrays["x"].ndim != 3:
            raise ValueError(f"x: expected 3 dimensions, got shape {arrays['x'].shape}")
        self.call = partial(
            _FUNCTIONS[form],
            contiguous(arrays["x"]),
            **self.cell.arguments(form, {name: arrays[name] for name in weights}),
            **{name: contiguous(arrays[name]) for name in ("h0", "c0") if name in arrays},
            batch_first=batch_first,
            **options,
        )
        y, state, tape = self.call(record=record)
        self._tapes = [tape]
        self.y: Array = copy(y) if record and copied else y
        self.c: Array | None = None if not cells else copy(tape.c) if copied else tape.c
        self.h_n: Array = state[0] if form == "lstm" else state
        self.c_n: Array | None = state[1] if form == "lstm" else None

    def backward(self, dy: Any, dh: Any = None, dc: Any = None) -> tuple[Array, Array, Array | None, dict[str, Array]]:
        """Gradients of x, h0, c0 and of the weights by name, from those of y, h_n and c_n (None for zeros)."""
        try:
            tape = self._tapes.pop()  # one thread alone gets it
        except IndexError:
            tape = None
        tape = tape or self.call(record=True)[2]
        dtype = self.y.dtype
        dy, dh, dc = (None if d is None else contiguous(np.asarray(d).astype(dtype, copy=False)) for d in (dy, dh, dc))
        grads = tape.backward(dy, (dh, dc) if self.form == "lstm" else dh)
        ours = {name: array for argument, name in NAMES.items() if (array := getattr(grads, argument, None)) is not None}
        theirs = self.cell.pull_back(self.form, ours)
        return grads.x, grads.h0, getattr(grads, "c0", None), theirs
