"""state_dict and load_state_dict for whatever keeps its numbers in named arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def copies(live: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array.copy() for name, array in live.items()}


def take_over(live: Mapping[str, Array], mapping: Mapping[str, Any]) -> None:
    """Write the arrays of mapping into the live ones of the same names; all or none.

    Raises: KeyError with the names that are missing or unexpected, ValueError for a wrong shape or a negative count, TypeError for
    a wrong dtype, a masked array or what is no mapping.
    """
    if not isinstance(mapping, Mapping):
        raise TypeError(f"mapping: expected a mapping of names to arrays, got {type(mapping).__name__}")
    missing = [name for name in live if name not in mapping]
    unexpected = [name for name in mapping if name not in live]
    if missing or unexpected:
        raise KeyError(f"mapping: expected the names of the state, missing {missing}, unexpected {unexpected}")
    new = {}
    for name, array in live.items():
        if isinstance(mapping[name], np.ma.MaskedArray):
            raise TypeError(f"{name}: expected an array, got {type(mapping[name]).__name__}")
        value = new[name] = np.array(mapping[name])  # a copy: it may be a view of the live arrays, in another order
        if value.dtype != array.dtype:
            raise TypeError(f"{name}: expected dtype {array.dtype}, got {value.dtype}")
        if value.shape != array.shape:
            raise ValueError(f"{name}: expected shape {array.shape}, got {value.shape}")
        if value.dtype.kind == "i" and (value < 0).any():
            raise ValueError(f"{name}: expected a count of at least 0, got {value}")
    for name, array in live.items():
        array[...] = new[name]
