"""What stands in one array of a format."""

from __future__ import annotations

from typing import NamedTuple

from .axes import Axes

GATES = {"rnn": "a", "gru_after": "rzn", "gru_before": "rzn", "lstm": "ifgo"}  # the row blocks of the layers' parameters
PEEPHOLES = "ifo"
_KINDS = ("x", "h", "b", "bx", "bh", "c", "p")
_TOGETHER = {"b": "biases", "bx": "biases", "bh": "biases", "c": "peepholes"}  # are there for all gates and cells, or for none


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
        self.group = next((_TOGETHER[kind] for kind in _KINDS if kind in self.kinds and kind in _TOGETHER), None)
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
