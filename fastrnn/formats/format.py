"""What a format is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .cell import Cell
from .containers import Container


@dataclass(frozen=True)
class Format:
    """A format: how one layer in one direction is stored, and how the layers and directions are put together.

    Parameters
    ----------
    name : str
        For messages.
    container : Container
        A Named, Tree, Stacked or Flat of fastrnn.formats.
    cells : mapping of Cell
        By "rnn", "gru_after", "gru_before" (a GRU whose reset gate is applied after or before the product with h), "lstm".
    also : tuple of str
        Names of formats of the same system, whose weights are read as such where they cannot be of this one.

    Examples
    --------
    >>> import fastrnn
    >>> from fastrnn.formats import Cell, Format, Tree
    >>> mine = Format("mine", Tree(), {"rnn": Cell("a", {"W": "un x", "U": "un h", "b": "u b"})})  # W (H, I), U (H, H), b (H,)
    >>> weights = fastrnn.RNN(3, 4, rng=0).export_weights(mine)
    >>> {name: array.shape for name, array in weights.items()}
    {'W': (4, 3), 'U': (4, 4), 'b': (4,)}
    """

    name: str
    container: Container
    cells: Mapping[str, Cell]
    also: tuple[str, ...] = ()


def each(gates: Mapping[str, str], arrays: Mapping[str, str]) -> dict[str, str]:
    """The same arrays for each gate: {} in a name is the gate's."""
    return {
        name.format(theirs): axes + " " + ",".join(f"{kind}.{ours}" for kind in content.split(","))
        for ours, theirs in gates.items()
        for name, text in arrays.items()
        for axes, content in [text.split()]
    }
