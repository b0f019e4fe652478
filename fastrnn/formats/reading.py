"""From the arrays of a format to ours: the way of each number, worked out once for arrays of the same shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._engine.memory import new_array
from .axes import copy_into
from .slots import GATES, PEEPHOLES, Block, Slot

if TYPE_CHECKING:
    from .cell import Cell

Array = NDArray[Any]
_OURS = {  # the kinds of what they are made of, of which the first that is there counts
    "weight_ih": ("x",),
    "weight_hh": ("h",),
    "bias_ih": ("bx", "b"),
    "bias_hh": ("bh",),
    "weight_ch": ("c",),
    "weight_hr": ("p",),
}


class Measures:
    """I, H and P, the width of h where it is projected, as the shapes of the arrays tell them one after the other."""

    def __init__(self, projected: bool) -> None:
        self.names = {"x": "I", "h": "P" if projected else "H", "p": "H"}
        self.sizes: dict[str, int] = {}

    def width(self, kind: str) -> int:
        """The numbers of this kind per gate and unit."""
        return self.sizes[self.names[kind]] if kind in self.names else 1

    def fit(self, slot: Slot, shape: tuple[int, ...]) -> dict[str, int] | None:
        """The sizes of the axes g, u, n of an array; None where it does not fit what the others said."""
        unknown = [name for column in slot.columns if (name := self.names.get(column[0].kind)) and name not in self.sizes]
        units = "P" if "p" in slot.kinds else "H"
        known = {"g": slot.gates}
        if units in self.sizes:
            known["u"] = self.sizes[units]
        if not unknown:
            known["n"] = sum(self.width(column[0].kind) for column in slot.columns)
        axes = slot.axes.sizes(shape, known)
        if axes is None:
            return None
        self.sizes[units] = axes["u"]
        unknown = [name for name in unknown if name not in self.sizes]
        if unknown:
            self.sizes[unknown[0]] = 0
            self.sizes[unknown[0]] = axes["n"] - sum(self.width(column[0].kind) for column in slot.columns)
        fits = axes["n"] == sum(self.width(column[0].kind) for column in slot.columns)
        return axes if fits and min(self.sizes.values()) >= 0 else None

    def __str__(self) -> str:
        """For an error message."""
        known = ", ".join(f"{name} = {size}" for name, size in self.sizes.items() if size >= 0)
        return f" with {known}" if known else ""


class Move(NamedTuple):
    """One part: core[gate, :, start:end] of an array becomes a block of one of ours, times a scale."""

    source: str
    gate: int
    start: int
    end: int
    target: str = ""
    block: int = 0
    scale: float = 1


class Source(NamedTuple):
    """How an array becomes a core (gates, units, numbers)."""

    full: tuple[int, ...]
    order: tuple[int, ...]
    core: tuple[int, ...]


class Target(NamedTuple):
    """One of ours as blocks (gates, units, numbers), its own shape, what is added to it block by block, and if it is filled."""

    blocks: tuple[int, int, int]
    shape: tuple[int, ...]
    offset: Sequence[float] | None
    filled: bool


class Reading:
    """How a cell's arrays of certain shapes are read.

    Raises: ValueError for a shape that does not fit the others.
    """

    def __init__(self, form: str, cell: Cell, shapes: Mapping[str, tuple[int, ...]], label: str) -> None:
        slots = [slot for slot in cell.slots if slot.name in shapes]
        measures = Measures(any("p" in slot.kinds for slot in slots))
        self.sources: dict[str, Source] = {}
        parts: dict[Block, Move] = {}
        for slot in slots:
            axes = measures.fit(slot, shapes[slot.name])
            if axes is None:
                name = label.format(slot.name or "weights")
                raise ValueError(f"{name}: expected {slot.symbols()}{measures}, got {shapes[slot.name]}")
            self.sources[slot.name] = Source(*slot.axes.views(axes))
            parts.update(_parts(slot, measures))
        self.targets: dict[str, Target] = {}
        self.moves: list[Move] = []
        for target, kinds in _OURS.items():
            self._add_target(target, kinds, form, cell, parts)

    def _add_target(self, target: str, kinds: tuple[str, ...], form: str, cell: Cell, parts: Mapping[Block, Move]) -> None:
        """One of ours, where there is anything for it: biases where there are any of either kind."""
        gates = {"weight_ch": PEEPHOLES, "weight_hr": "p"}.get(target, GATES[form])
        there = {"b", "bx", "bh"} if target.startswith("bias") else set(kinds)
        if not (cell.offset and target.startswith("bias")) and not any(part.kind in there for part in parts):
            return
        units = self.sources[parts[Block("h", GATES[form][0])].source].core[1]
        found = [next((parts[Block(kind, gate)] for kind in kinds if Block(kind, gate) in parts), None) for gate in gates]
        for block, (gate, part) in enumerate(zip(gates, found)):
            if part is not None:
                units = self.sources[part.source].core[1]
                self.moves.append(part._replace(target=target, block=block, scale=cell.scale.get(gate, 1)))
        n = next((part.end - part.start for part in found if part), 1)
        rows = len(gates) * units
        shape = {"bias_ih": (rows,), "bias_hh": (rows,), "weight_ch": (len(gates), units)}.get(target, (rows, n))
        added = [cell.offset.get(gate, 0.0) for gate in gates] if cell.offset and target == "bias_hh" else None
        self.targets[target] = Target((len(gates), units, n), shape, added, None not in found)

    def __call__(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """New arrays of ours; each number is copied once."""
        dtype = np.result_type(*arrays.values())
        dtype = np.dtype(np.float64) if dtype.kind in "iub" else dtype
        ours = {name: (new_array if t.filled else np.zeros)(t.blocks, dtype) for name, t in self.targets.items()}
        cores = {name: arrays[name].reshape(s.full).transpose(s.order).reshape(s.core) for name, s in self.sources.items()}
        for source, gate, start, end, target, block, scale in self.moves:
            part = cores[source][gate, :, start:end]
            copy_into(ours[target][block], part if scale == 1 else part * scale)
        for name, t in self.targets.items():
            if t.offset is not None:
                ours[name] += np.array(t.offset, dtype)[:, None, None]
        return {name: array.reshape(self.targets[name].shape) for name, array in ours.items()}


def _parts(slot: Slot, measures: Measures) -> Iterator[tuple[Block, Move]]:
    """Where in its core each part of an array stands."""
    start = 0
    for column in slot.columns:
        end = start + measures.width(column[0].kind)
        blocks = (Block(block.kind, gate) for block in column for gate in block.gates)
        yield from ((block, Move(slot.name, g, start, end)) for g, block in enumerate(blocks))
        start = end
