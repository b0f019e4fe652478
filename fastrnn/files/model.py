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

    def __repr__(self) -> str:
        lines = [f"recurrent layers of {self.path!r}: {'' if self.layers else 'none'}".rstrip()]
        lines += [f"  {name}: {layer}" for name, layer in self.layers.items()]
        lines += ["not taken over:"] if self.skipped else []
        lines += [f"  {skipped.name}: {skipped.reason}" for skipped in self.skipped]
        return "\n".join(lines)


def take(model: Model, name: str, make: Callable[[], Layer], weights: Any = None) -> None:
    """Add a layer under a name that no other has, or the reason why not: the KeyError, ValueError or TypeError of make."""
    others = {*model.layers, *(skipped.name for skipped in model.skipped)}
    unique = next(n for n in (name, *(f"{name}_{k}" for k in range(2, len(others) + 3))) if n not in others)
    try:
        model.layers[unique] = make()
    except (KeyError, ValueError, TypeError) as error:
        skip(model, unique, str(error.args[0]), weights)


def skip(model: Model, name: str, reason: str, weights: Any = None) -> None:
    """Note what is not taken over."""
    model.skipped.append(Skipped(name, reason, weights))


@dataclass(frozen=True)
class Wishes:
    """What the caller of load_model asked for; None for what the file says."""

    batch_first: bool | None
    dtype: Any

    def options(self, batch_first: bool) -> dict[str, Any]:
        """Arguments of from_weights. batch_first: that of the file's system."""
        return {"batch_first": batch_first if self.batch_first is None else self.batch_first, "dtype": self.dtype}
