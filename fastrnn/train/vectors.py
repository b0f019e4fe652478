"""One vector or several, as everything here takes them: a list of arrays that may be written to; and what is done to all of their
numbers in one compiled call."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core, config
from .._api.checks import F32, F64
from .._engine import schedule

Array = NDArray[Any]
Arrays = Array | Sequence[Array]
_WORK = 1000  # to tell interleaved arrays from overlapping ones; some microseconds


def vectors(name: str, value: Arrays) -> list[Array]:
    """The arrays of `value` themselves, but subclasses as plain arrays of the same memory: float32 or float64, of any shape.

    Raises: TypeError.
    """
    if not isinstance(value, (np.ndarray, list, tuple)):
        raise TypeError(f"{name}: expected a NumPy array or a list of them, got {type(value).__name__}")
    arrays = [value] if isinstance(value, np.ndarray) else list(value)
    for k, array in enumerate(arrays):
        if type(array) is not np.ndarray:
            if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
                raise TypeError(f"{name}[{k}]: expected a NumPy array, got {type(array).__name__}")
            arrays[k] = array = np.asarray(array)  # the same memory, without the subclass's own indexing
        kind = array.dtype
        if kind is not F32 and kind is not F64 and kind not in (F32, F64):
            raise TypeError(f"{name}[{k}]: expected float32 or float64, got {kind}")
    return arrays


def writable(name: str, arrays: list[Array]) -> list[Array]:
    """The same list. Raises ValueError if one of them is read-only or shares memory with another, which would be changed twice."""
    for k, array in enumerate(arrays):
        if not array.flags.writeable:
            raise ValueError(f"{name}[{k}]: expected an array that may be written to, got a read-only one")
    if not _core.apart(arrays):
        _refuse_overlaps(name, arrays)
    return arrays


def _refuse_overlaps(name: str, arrays: list[Array]) -> None:
    for k, array in enumerate(arrays):
        for j, other in enumerate(arrays[:k]):
            if np.may_share_memory(other, array, max_work=_WORK):  # type: ignore[arg-type]  # any number of steps
                raise ValueError(f"{name}[{k}]: expected memory of its own, got an array that overlaps {name}[{j}]")


def matching(name: str, value: Arrays, params: Sequence[Array]) -> list[Array]:
    """The arrays of `value`, one for each of params, of its shape and dtype. Raises: TypeError, ValueError."""
    arrays = [value] if isinstance(value, np.ndarray) else value
    if _core.alike(arrays, params) and all(type(array) is np.ndarray for array in arrays):
        return list(arrays)
    arrays = vectors(name, value)
    if len(arrays) != len(params):
        raise ValueError(f"{name}: expected {len(params)} arrays, one for each of params, got {len(arrays)}")
    for k, (p, a) in enumerate(zip(params, arrays)):
        if a.shape != p.shape:
            raise ValueError(f"{name}[{k}]: expected the shape of params[{k}], {p.shape}, got {a.shape}")
        if a.dtype != p.dtype:
            raise TypeError(f"{name}[{k}]: expected the dtype of params[{k}], {p.dtype}, got {a.dtype}")
    return arrays


def plain(array: Array) -> Array:
    """The array itself if it is contiguous and aligned, else a copy that is."""
    return np.require(array, requirements=["C", "A"])


def spread(arrays: Sequence[Array], columns: int = 1) -> schedule.Elementwise:
    """The schedule of a rule for these arrays and as many, of the same sizes, in each other column."""
    return schedule.elementwise(columns * sum([array.nbytes for array in arrays]), config.get_num_threads())


class Rule(IntEnum):
    """The kernels' names of what they do to a row of arrays, number by number. csrc/fastrnn.h says to which, and what it takes."""

    SGD = 0
    RMSPROP = 1
    ADAGRAD = 2
    ADAM = 3
    AVERAGE = 4
    EXCHANGE = 5
    SCALE = 6


Column = Sequence[Array] | None  # one array of each row; None where the rule does without


def apply(rule: Rule, numbers: tuple[float, ...], changed: tuple[Column, ...], read: tuple[Column, ...] = ()) -> None:
    """Do this to all numbers of all arrays, in one pass. Denormal numbers count as 0.

    Args: numbers: the rule's. changed: columns of arrays that change, the first of which is not None. read: the others.

    Arrays that are not contiguous go in and out as copies, row by row, since one may be a part of another.

    Raises: ValueError if an array that changes is read-only, or has got another size than its neighbours.
    """
    assert changed[0] is not None
    how = spread(changed[0], len(changed) + len(read))
    if _core.update(rule, numbers, changed, read, how):
        return
    for column in changed:
        writable("params", list(column or ()))
    for k in range(len(changed[0])):
        row = [None if column is None else column[k] for column in (*changed, *read)]
        copies = [None if a is None else plain(a) for a in row]
        columns = tuple([None if a is None else (a,) for a in copies])
        if not _core.update(rule, numbers, columns[: len(changed)], columns[len(changed) :], how):
            raise ValueError(f"params[{k}]: expected arrays of one size, got {[None if a is None else a.shape for a in row]}")
        for a, copy in zip(row[: len(changed)], copies):
            if a is not None and a is not copy:
                a[...] = copy
