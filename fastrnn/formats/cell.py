"""One layer in one direction: the arrays of a foreign format from and to those of PyTorch's layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..parameters import NAMES
from .axes import Axes

Array = NDArray[Any]
GATES = {"rnn": "a", "gru_after": "rzn", "gru_before": "rzn", "lstm": "ifgo"}  # the row blocks of the layers' parameters
PEEPHOLES = "ifo"
_KINDS = ("x", "h", "b", "bx", "bh", "c", "p")


class Block(NamedTuple):
    """A part of an array: numbers of one kind for some gates."""

    kind: str
    gates: str


class Slot:
    """One array of a format: its name, its layout, and what stands in it."""

    def __init__(self, name: str, text: str, order: str) -> None:
        self.optional = name.endswith("?")
        self.name = name.removesuffix("?")
        if len(text.split()) != 2:
            raise ValueError(f"{name}: expected a layout and a content, got {text!r}")
        axes, content = text.split()
        self.axes = Axes(axes)
        self.columns = [[_block(part, order) for part in column.split("+")] for column in content.split(",")]
        self.gates = len("".join(block.gates for block in self.columns[0]))
        self.blocks = [block for column in self.columns for block in column]
        self.kinds = {block.kind for block in self.blocks}
        if any(len("".join(block.gates for block in column)) != self.gates for column in self.columns):
            raise ValueError(f"{name}: expected as many gates in each column, got {text!r}")

    def shape(self, I: int, H: int) -> tuple[int, ...]:
        """Its shape for a layer without a projection."""
        n = sum({"x": I, "h": H}.get(column[0].kind, 1) for column in self.columns)
        return self.axes.shape({"g": self.gates, "u": H, "n": n})

    def symbols(self) -> str:
        """Its shape for a reader."""
        width = {"x": "I", "h": "H", "p": "H"}
        n = "+".join(width.get(column[0].kind, "1") for column in self.columns)
        if set(n) == {"1", "+"}:
            n = str(len(self.columns))
        return self.axes.symbols(self.gates, "P" if "p" in self.kinds else "H", n)


def _block(text: str, order: str) -> Block:
    kind, _, gates = text.partition(".")
    if kind not in _KINDS:
        raise ValueError(f"block: expected one of {_KINDS}, got {text!r}")
    return Block(kind, gates or {"c": PEEPHOLES, "p": "p"}.get(kind, order))


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


@dataclass(frozen=True)
class Cell:
    """How a format stores one layer in one direction.

    order: its order of the gates: i, f, g, o of an LSTM; r, z, n of a GRU; a of a plain RNN.
    arrays: name -> "layout content"; a name that ends in ? may be absent. The content is a list of kinds of numbers side by side
        (joined by commas), or gate behind gate (joined by +), each with its gates behind a dot where it has not all of them:
        x, h    the weights of the input and of the hidden state
        b       the one bias of a gate; of the n of a GRU with the reset after the product that of the input
        bx, bh  the biases of the input and of the hidden state, apart
        c       peepholes (gates i, f, o);   p   the projection of an LSTM
    scale: gate -> factor by which ours is theirs multiplied: -1 where they store 1 - z, 2 where their gate is logistic(2 y).
    offset: gate -> what they add to the bias while they compute.
    """

    order: str
    arrays: Mapping[str, str]
    scale: Mapping[str, float] = field(default_factory=dict)
    offset: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def slots(self) -> list[Slot]:
        return [Slot(name, text, self.order) for name, text in self.arrays.items()]

    @cached_property
    def held(self) -> set[Block]:
        """What has its own place, gate by gate."""
        return {Block(block.kind, gate) for slot in self.slots for block in slot.blocks for gate in block.gates}

    def merges(self, form: str, gate: str) -> bool:
        """Whether the gate's one bias is the sum of our two; not of a gated n, whose recurrent bias is multiplied by r."""
        return Block("bh", gate) not in self.held and not (form == "gru_after" and gate == "n")

    # --- from theirs to ours ------------------------------------------------------------------------------------

    def read(self, form: str, arrays: Mapping[str, Array], where: str = "") -> dict[str, Array]:
        """weight_ih, weight_hh and, where there are any, bias_ih, bias_hh, weight_ch, weight_hr.

        Raises: KeyError for names that are missing or unexpected, ValueError for a wrong shape.
        """
        missing = [slot.name for slot in self.slots if slot.name not in arrays and not slot.optional]
        unexpected = [name for name in arrays if all(name != slot.name for slot in self.slots)]
        if missing or unexpected:
            raise KeyError(f"weights{where}: expected {[*self.arrays]}, missing {missing}, unexpected {unexpected}")
        projected = any("p" in slot.kinds and slot.name in arrays for slot in self.slots)
        measures = Measures(projected)
        parts: dict[Block, Array] = {}
        for slot in self.slots:
            if slot.name in arrays:
                parts |= self._read_slot(slot, arrays[slot.name], measures, where)
        return self._assemble(form, parts)

    def _read_slot(self, slot: Slot, array: Array, measures: Measures, where: str) -> dict[Block, Array]:
        """The parts (u, n) of one array."""
        axes = measures.fit(slot, array.shape)
        if axes is None:
            raise ValueError(f"{slot.name or 'weights'}{where}: expected {slot.symbols()}{measures}, got {array.shape}")
        core, start = slot.axes.read(array, axes), 0
        parts = {}
        for column in slot.columns:
            end = start + measures.width(column[0].kind)
            for g, (kind, gate) in enumerate((block.kind, gate) for block in column for gate in block.gates):
                part, scale = core[g, :, start:end], self.scale.get(gate, 1)
                parts[Block(kind, gate)] = part if scale == 1 else part * scale
            start = end
        return parts

    def _assemble(self, form: str, parts: Mapping[Block, Array]) -> dict[str, Array]:
        """New arrays, each number copied once: the transposed ones take their time."""
        dtype = np.result_type(*parts.values())
        order, none = GATES[form], np.zeros((len(parts[Block("h", GATES[form][0])]), 1), dtype)

        def rows(*kinds: str, offset: bool = False) -> Array:
            """The gates in our order, each by the first kind that is there."""
            found = [next((parts[Block(k, gate)] for k in kinds if Block(k, gate) in parts), none) for gate in order]
            together = np.empty((len(order), *found[0].shape), dtype)
            for gate, part, into in zip(order, found, together):
                into[...] = part + self.offset.get(gate, 0) if offset else part
            return together.reshape(len(order) * together.shape[1], together.shape[2])

        ours = {"weight_ih": rows("x"), "weight_hh": rows("h")}
        if self.offset or any(block.kind in ("b", "bx", "bh") for block in parts):
            ours |= {"bias_ih": rows("bx", "b").ravel(), "bias_hh": rows("bh", offset=True).ravel()}
        if any(block.kind == "c" for block in parts):
            ours["weight_ch"] = np.stack([parts.get(Block("c", gate), none)[:, 0] for gate in PEEPHOLES])
        if Block("p", "p") in parts:
            ours["weight_hr"] = np.array(parts[Block("p", "p")], order="C")
        return ours

    def arguments(self, form: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The same as keywords of fastrnn.rnn, gru or lstm; without the zeros of a recurrent bias that the format never has."""
        ours = self.read(form, arrays)
        if not self.offset and all(block.kind != "bh" for block in self.held):
            ours.pop("bias_hh", None)
        return {argument: ours[name] for argument, name in NAMES.items() if name in ours}

    # --- from ours to theirs ------------------------------------------------------------------------------------

    def write(self, form: str, ours: Mapping[str, Array], name: str = "the format", where: str = "") -> dict[str, Array]:
        """The arrays of the format. Raises: ValueError where something that is not zero has no place in it."""
        self._check_held(form, ours, name, where)
        return dict(self._write(form, ours, adjoint=False))

    def pull_back(self, form: str, gradients: Mapping[str, Array]) -> dict[str, Array]:
        """The gradients of the format's arrays from those of ours: the transpose of read."""
        return dict(self._write(form, gradients, adjoint=True))

    def _write(self, form: str, ours: Mapping[str, Array], adjoint: bool) -> Iterator[tuple[str, Array]]:
        for slot in self.slots:
            needs = {"c": "weight_ch", "p": "weight_hr"} | dict.fromkeys(("b", "bx", "bh"), "bias_ih")
            if slot.optional and not any(needs.get(kind, "weight_ih") in ours for kind in slot.kinds):
                continue
            columns = [
                np.stack([self._part(form, ours, block.kind, gate, adjoint) for block in column for gate in block.gates])
                for column in slot.columns
            ]
            yield slot.name, slot.axes.write(np.concatenate(columns, axis=2))

    def _part(self, form: str, ours: Mapping[str, Array], kind: str, gate: str, adjoint: bool) -> Array:
        """(u, n) of one kind and gate, by their scale; the gradients of a sum of two are those of the first."""
        rows = (PEEPHOLES if kind == "c" else "p" if kind == "p" else GATES[form]).index(gate)
        name = {"x": "weight_ih", "h": "weight_hh", "c": "weight_ch", "p": "weight_hr", "bh": "bias_hh"}.get(kind, "bias_ih")
        part = _rows(ours, name, rows, ours["weight_hh"].shape[0] // len(GATES[form]))
        scale = self.scale.get(gate, 1)
        if adjoint:
            return part if scale == 1 else part * scale
        if kind == "b" and self.merges(form, gate):
            recurrent = _rows(ours, "bias_hh", rows, len(part))
            part = part + (recurrent - self.offset.get(gate, 0))
        return part if scale == 1 else part / scale

    def _check_held(self, form: str, ours: Mapping[str, Array], name: str, where: str) -> None:
        """Raise if something has no place in the format."""
        held = set(self.held)
        held |= {Block("bx", block.gates) for block in held if block.kind == "b"}
        held |= {Block("bh", block.gates) for block in held if block.kind == "b" and self.merges(form, block.gates)}
        H = ours["weight_hh"].shape[0] // len(GATES[form])
        for kind, parameter in (("bx", "bias_ih"), ("bh", "bias_hh"), ("c", "weight_ch")):
            for row, gate in enumerate(PEEPHOLES if kind == "c" else GATES[form]) if parameter in ours else ():
                if Block(kind, gate) not in held and _rows(ours, parameter, row, H).any():
                    raise ValueError(f"{parameter}{where}: {name} has no place for that of gate {gate}, which is not zero")
        if "weight_hr" in ours and Block("p", "p") not in held:
            raise ValueError(f"weight_hr{where}: {name} has no place for a projection")


def _rows(ours: Mapping[str, Array], name: str, block: int, H: int) -> Array:
    """(u, n) of a row block; zeros of a bias that is not there."""
    if name not in ours:
        return np.zeros((H, 1), ours["weight_hh"].dtype)
    array = ours[name]
    if name == "weight_hr":
        return array
    if name == "weight_ch":
        return array[block, :, None]
    part = array[block * H : (block + 1) * H]
    return part[:, None] if part.ndim == 1 else part
