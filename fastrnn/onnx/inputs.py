"""The inputs of a node, checked against each other and cut into directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._api import checks
from .attributes import Attributes

Array = NDArray[Any]

_FIRST = ("X", "W", "R", "B", "sequence_lens", "initial_h")
NAMES = {"RNN": _FIRST, "GRU": _FIRST, "LSTM": (*_FIRST, "initial_c", "P")}
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@dataclass(frozen=True)
class Direction:
    """One direction's share, in the operator's own gate order: i, o, f, c of an LSTM, z, r, h of a GRU."""

    W: Array  # (G*H, I)
    R: Array  # (G*H, H)
    B: Array | None  # (2*G*H,): that of W, that of R
    P: Array | None  # (3*H,): i, o, f
    h0: Array | None  # (N, H)
    c0: Array | None

    def weights(self) -> dict[str, Array]:
        """Those that there are, by name."""
        named = {"W": self.W, "R": self.R, "B": self.B, "P": self.P}
        return {name: array for name, array in named.items() if array is not None}


@dataclass(frozen=True)
class Inputs:
    """X is (T, N, I), or (N, T, I) in layout 1; lengths (N,) or None."""

    X: Array
    lengths: NDArray[np.intp] | None
    directions: tuple[Direction, ...]


def read(attributes: Attributes, inputs: Sequence[Any]) -> Inputs:
    """Raises: TypeError, ValueError (the message names the input)."""
    given = _named(attributes.op_type, inputs)
    X = checks.floats("X", given["X"], None, (3,))
    R = checks.floats("R", given["R"], X.dtype, (3,))
    shapes = _shapes(attributes, X, attributes.hidden_size or max(R.shape[2], 1))
    given["R"] = checks.shaped("R", R, X.dtype, *shapes["R"])  # before the others, whose shapes follow from it
    arrays = {
        name: None if value is None else checks.shaped(name, value, X.dtype, *shapes[name])
        for name, value in given.items()
        if name in shapes
    }
    lengths = given["sequence_lens"]
    if lengths is not None:
        N, T = X.shape[:2] if attributes.batch_first else X.shape[1::-1]
        lengths = checks.integers("sequence_lens", lengths, "(batch_size,)", N, T)
    return Inputs(X, lengths, tuple(_direction(attributes, arrays, d) for d in range(len(attributes.reverse))))


def _shapes(attributes: Attributes, X: Array, H: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What each float input has to be, in symbols and in numbers."""
    D, G = len(attributes.reverse), GATES[attributes.op_type]
    rows = "hidden_size" if G == 1 else f"{G}*hidden_size"
    state = ("(num_directions, batch_size, hidden_size)", (D, X.shape[1], H))
    if attributes.batch_first:
        state = ("(batch_size, num_directions, hidden_size)", (X.shape[0], D, H))
    return {
        "W": (f"(num_directions, {rows}, input_size)", (D, G * H, X.shape[2])),
        "R": (f"(num_directions, {rows}, hidden_size)", (D, G * H, H)),
        "B": (f"(num_directions, {2 * G}*hidden_size)", (D, 2 * G * H)),
        "P": ("(num_directions, 3*hidden_size)", (D, 3 * H)),
        "initial_h": state,
        "initial_c": state,
    }


def _direction(attributes: Attributes, arrays: dict[str, Any], d: int) -> Direction:
    W, R, B, P = (arrays.get(name) for name in ("W", "R", "B", "P"))
    states = (arrays.get(name) for name in ("initial_h", "initial_c"))
    h0, c0 = (None if s is None else s.take(d, 1 if attributes.batch_first else 0) for s in states)
    assert W is not None and R is not None
    return Direction(W[d], R[d], None if B is None else B[d], None if P is None else P[d], h0, c0)


def _named(op_type: str, inputs: Sequence[Any]) -> dict[str, Any]:
    """The inputs by name; what is left out at the end is None."""
    names = NAMES[op_type]
    if not isinstance(inputs, (list, tuple)):
        raise TypeError(f"inputs: expected a list or tuple of arrays, got {type(inputs).__name__}")
    if not 3 <= len(inputs) <= len(names):
        raise ValueError(f"inputs: expected 3 to {len(names)}, {', '.join(names)}, got {len(inputs)}")
    given = dict.fromkeys(names) | dict(zip(names, inputs))
    missing = [name for name in ("X", "W", "R") if given[name] is None]
    if missing:
        raise ValueError(f"{missing[0]}: expected an array, got None")
    return given
