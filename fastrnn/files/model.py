"""What load_model returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..cells import GRUCell, LSTMCell
from ..layers import GRU, LSTM, RNN

Layer = RNN | GRU | LSTM | GRUCell | LSTMCell


@dataclass(frozen=True)
class Skipped:
    """Something recurrent in a file that no layer was made of.

    Attributes
    ----------
    name : str
        As in the file.
    reason : str
        Why not.
    weights : mapping or list of arrays, or None
        Its arrays, where they were found, for the from_weights of a layer.
    """

    name: str
    reason: str
    weights: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Model:
    """The recurrent layers of a file.

    Attributes
    ----------
    path : str
    layers : dict of layers by name
    skipped : list of Skipped
        What looks recurrent and was not taken over.
    """

    path: str
    layers: dict[str, Layer] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)

    def add(self, name: str, make: Callable[[], Layer], weights: Any = None) -> None:
        """A layer under a name that no other has, or the reason why it cannot be made.

        Parameters
        ----------
        name : str
        make : function without arguments
            It returns the layer, or raises KeyError, ValueError or TypeError with the reason.
        weights : optional
            Of the Skipped.
        """
        others = {*self.layers, *(skipped.name for skipped in self.skipped)}
        unique = next(n for n in (name, *(f"{name}_{k}" for k in range(2, len(others) + 3))) if n not in others)
        try:
            self.layers[unique] = make()
        except (KeyError, ValueError, TypeError) as error:
            self.skipped.append(Skipped(unique, str(error.args[0]), weights))

    def skip(self, name: str, reason: str, weights: Any = None) -> None:
        """Something that is not taken over.

        Parameters
        ----------
        name, reason : str
        weights : optional
            Of the Skipped.
        """
        self.skipped.append(Skipped(name, reason, weights))

    def __repr__(self) -> str:
        lines = [f"recurrent layers of {self.path!r}: {'' if self.layers else 'none'}".rstrip()]
        lines += [f"  {name}: {layer}" for name, layer in self.layers.items()]
        lines += ["not taken over:"] if self.skipped else []
        lines += [f"  {skipped.name}: {skipped.reason}" for skipped in self.skipped]
        return "\n".join(lines)


@dataclass(frozen=True)
class Wishes:
    """What the caller of load_model asked for; None for what the file says."""

    batch_first: bool | None
    dtype: Any

    def options(self, batch_first: bool) -> dict[str, Any]:
        """Arguments of from_weights. batch_first: that of the file's system."""
        return {"batch_first": batch_first if self.batch_first is None else self.batch_first, "dtype": self.dtype}
