"""From our gradients to those of a format's arrays: the way of each number, worked out once for arrays of the same shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._engine.memory import new_array
from .axes import copy_into
from .slots import GATES, PEEPHOLES, Slot

if TYPE_CHECKING:
    from .cell import Cell

Array = NDArray[Any]
_SOURCES = {"x": "weight_ih", "h": "weight_hh", "c": "weight_ch", "p": "weight_hr", "bh": "bias_hh"}  # else bias_ih


class Part(NamedTuple):
    """A block of rows of one of ours, times a scale, becomes core[gate, :, start:end] of an array."""

    source: str
    first: int
    last: int
    gate: int
    start: int
    end: int
    scale: float


class Target(NamedTuple):
    """An array of the format: its name and shape, its way to a core (gates, units, numbers), what fills it, and if it all does."""

    name: str
    shape: tuple[int, ...]
    full: tuple[int, ...]
    order: tuple[int, ...]
    core: tuple[int, ...]
    parts: list[Part]
    filled: bool


class Pulling:
    """How a cell's gradients of certain shapes are pulled back: the transpose of Reading."""

    def __init__(self, form: str, cell: Cell, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.targets = [_target(slot, form, cell, shapes) for slot in cell.written(shapes)]

    def __call__(self, ours: Mapping[str, Array]) -> dict[str, Array]:
        """New arrays of the format; each number is copied once."""
        dtype, theirs = ours["weight_hh"].dtype, {}
        for name, shape, full, order, core_shape, parts, filled in self.targets:
            array = theirs[name] = new_array(shape, dtype) if filled else np.zeros(shape, dtype)
            core = array.reshape(full).transpose(order).reshape(core_shape)
            for source, first, last, gate, start, end, scale in parts:
                rows = ours[source][first:last]
                rows = rows[:, None] if rows.ndim == 1 else rows.T if source == "weight_ch" else rows
                copy_into(core[gate, :, start:end], rows if scale == 1 else rows * scale)
        return theirs


def _target(slot: Slot, form: str, cell: Cell, shapes: Mapping[str, tuple[int, ...]]) -> Target:
    parts = list(_parts(slot, form, cell, shapes))
    units = shapes["weight_hr"][0] if "p" in slot.kinds else shapes["weight_hh"][0] // len(GATES[form])
    core = (slot.gates, units, max(part.end for part in parts))
    sizes = dict(zip("gun", core))
    there = [part for part in parts if part.source in shapes]
    return Target(slot.name, slot.axes.shape(sizes), *slot.axes.views(sizes), there, len(there) == len(parts))


def _parts(slot: Slot, form: str, cell: Cell, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Part]:
    """All parts of an array, also of a bias that is not there; the gradients of a sum of two biases are those of the first."""
    H, start = shapes["weight_hh"][0] // len(GATES[form]), 0
    for column in slot.columns:
        source = _SOURCES.get(column[0].kind, "bias_ih")
        end = start + (shapes[source][1] if source in ("weight_ih", "weight_hh", "weight_hr") else 1)
        for g, (kind, gate) in enumerate((block.kind, gate) for block in column for gate in block.gates):
            source = _SOURCES.get(kind, "bias_ih")
            size = shapes[source][0] if kind == "p" else 1 if kind == "c" else H
            row = (PEEPHOLES if kind == "c" else "p" if kind == "p" else GATES[form]).index(gate)
            yield Part(source, row * size, (row + 1) * size, g, start, end, cell.scale.get(gate, 1))
        start = end
