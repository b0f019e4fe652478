"""One layer in one direction: the arrays of a foreign format from and to those of PyTorch's layout."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._api.parameters import NAMES
from .pulling import Pulling
from .reading import Reading
from .slots import GATES, PEEPHOLES, Block, Slot

Array = NDArray[Any]


@dataclass(frozen=True)
class Cell:
    """How a format stores one layer in one direction.

    order: its order of the gates: i, f, g, o of an LSTM; r, z, n of a GRU; a of a plain RNN.
    arrays: name -> "layout content"; a name that ends in ? may be absent. The content is a list of kinds of numbers side by side
        (joined by commas), or gate after gate (joined by +), each with its gates after a dot where it has not all of them:
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
    def _made(self) -> dict[Any, Any]:
        return {}

    def _remembered(self, key: Any, make: Callable[[], Any]) -> Any:
        """What was made last: who reads at each call has the same shapes again and again."""
        made = self._made.get(key)
        if made is None:
            made = make()
            if len(self._made) >= 64:
                self._made.clear()
            self._made[key] = made
        return made

    @cached_property
    def held(self) -> set[Block]:
        """What has its own place, gate by gate."""
        return {Block(block.kind, gate) for slot in self.slots for block in slot.blocks for gate in block.gates}

    def merges(self, form: str, gate: str) -> bool:
        """Whether the gate's one bias is the sum of our two; not of a gated n, whose recurrent bias is multiplied by r."""
        return Block("bh", gate) not in self.held and not (form == "gru_after" and gate == "n")

    # --- from theirs to ours ------------------------------------------------------------------------------------

    def groups(self, arrays: Mapping[str, Array]) -> frozenset[str]:
        """Of biases and peepholes, those that there are any of."""
        return frozenset(slot.group for slot in self.slots if slot.name in arrays and slot.group)

    def read(
        self, form: str, arrays: Mapping[str, Array], label: str = "{}", groups: frozenset[str] = frozenset()
    ) -> dict[str, Array]:
        """weight_ih, weight_hh and, where there are any, bias_ih, bias_hh, weight_ch, weight_hr.

        label: what errors call an array, with {} for its name.
        groups: of "biases" and "peepholes", what must be there where the format has a place for it, as in the layer's other cells.

        Raises: KeyError for names that are missing or unexpected, ValueError for a wrong shape.
        """
        shapes = {name: array.shape for name, array in arrays.items()}

        def make() -> Reading:
            self._check_names(arrays, label, groups)
            return Reading(form, self, shapes, label)

        ours: dict[str, Array] = self._remembered((form, label, groups, *shapes.items()), make)(arrays)
        return ours

    def _check_names(self, arrays: Mapping[str, Array], label: str, groups: frozenset[str]) -> None:
        there = groups | self.groups(arrays)
        absent = [slot for slot in self.slots if slot.name not in arrays]
        missing = [label.format(slot.name) for slot in absent if not slot.optional or slot.group in there]
        unexpected = [label.format(name) for name in arrays if all(name != slot.name for slot in self.slots)]
        if missing or unexpected:
            expected = [label.format(slot.name) for slot in self.slots]
            partial = sorted({slot.group for slot in absent if slot.optional and slot.group in there})
            hint = "".join(f"; {group} are there for all or for none, so give zeros where they are 0" for group in partial)
            raise KeyError(f"weights: expected {expected}, missing {missing}, unexpected {unexpected}{hint}")

    def arguments(self, form: str, arrays: Mapping[str, Array]) -> dict[str, Any]:
        """The same as keywords of fastrnn.rnn, gru or lstm; without the zeros of a recurrent bias that the format never has."""
        ours = self.read(form, arrays)
        if not self.offset and all(block.kind != "bh" for block in self.held):
            ours.pop("bias_hh", None)
        return {argument: ours[name] for argument, name in NAMES.items() if name in ours}

    # --- from ours to theirs ------------------------------------------------------------------------------------

    def write(self, form: str, ours: Mapping[str, Array], name: str = "the format", label: str = "{}") -> dict[str, Array]:
        """The arrays of the format. Raises: ValueError where something that is not zero has no place in it."""
        self._check_held(form, ours, name, label)
        return dict(self._write(form, ours))

    def pull_back(self, form: str, gradients: Mapping[str, Array]) -> dict[str, Array]:
        """The gradients of the format's arrays from those of ours: the transpose of read."""
        shapes = {name: array.shape for name, array in gradients.items()}
        pulling = self._remembered(("pull back", form, *shapes.items()), lambda: Pulling(form, self, shapes))
        theirs: dict[str, Array] = pulling(gradients)
        return theirs

    def written(self, ours: Container[str]) -> list[Slot]:
        """Those arrays that the parameters of ours have something for."""
        needs = {"c": "weight_ch", "p": "weight_hr"} | dict.fromkeys(("b", "bx", "bh"), "bias_ih")
        return [s for s in self.slots if not s.optional or any(needs.get(kind, "weight_ih") in ours for kind in s.kinds)]

    def _write(self, form: str, ours: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        for slot in self.written(ours):
            columns = [
                np.stack([self._part(form, ours, block.kind, gate) for block in column for gate in block.gates])
                for column in slot.columns
            ]
            yield slot.name, slot.axes.write(np.concatenate(columns, axis=2))

    def _part(self, form: str, ours: Mapping[str, Array], kind: str, gate: str) -> Array:
        """(u, n) of one kind and gate, by their scale."""
        rows = (PEEPHOLES if kind == "c" else "p" if kind == "p" else GATES[form]).index(gate)
        name = {"x": "weight_ih", "h": "weight_hh", "c": "weight_ch", "p": "weight_hr", "bh": "bias_hh"}.get(kind, "bias_ih")
        part = _rows(ours, name, rows, ours["weight_hh"].shape[0] // len(GATES[form]))
        scale = self.scale.get(gate, 1)
        if kind == "b" and self.merges(form, gate):
            recurrent = _rows(ours, "bias_hh", rows, len(part))
            part = part + (recurrent - self.offset.get(gate, 0))
        return part if scale == 1 else part / scale

    def _check_held(self, form: str, ours: Mapping[str, Array], name: str, label: str) -> None:
        """Raise if something has no place in the format."""
        held = set(self.held)
        held |= {Block("bx", block.gates) for block in held if block.kind == "b"}
        held |= {Block("bh", block.gates) for block in held if block.kind == "b" and self.merges(form, block.gates)}
        H = ours["weight_hh"].shape[0] // len(GATES[form])
        for kind, parameter in (("bx", "bias_ih"), ("bh", "bias_hh"), ("c", "weight_ch")):
            for row, gate in enumerate(PEEPHOLES if kind == "c" else GATES[form]) if parameter in ours else ():
                if Block(kind, gate) not in held and _rows(ours, parameter, row, H).any():
                    raise ValueError(f"{label.format(parameter)}: {name} has no place for that of gate {gate}, which is not zero")
        if "weight_hr" in ours and Block("p", "p") not in held:
            raise ValueError(f"{label.format('weight_hr')}: {name} has no place for a projection")


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
