"""The inputs of a node, checked against each other and cut into directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import checks
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
    Wb: Array | None  # (G*H,)
    Rb: Array | None
    P: Array | None  # (3, H), rows i, o, f
    h0: Array | None  # (N, H)
    c0: Array | None


@dataclass(frozen=True)
class Inputs:
    """X is (T, N, I), or (N, T, I) in layout 1; lengths (N,) or None."""

    X: Array
    lengths: NDArray[np.intp] | None
    directions: tuple[Direction, ...]


def read(attributes: Attributes, inputs: Sequence[Any]) -> Inputs:
    """Raises: TypeError, ValueError (the message names the input)."""
    given = _named(attributes.op_type, inputs)
    D, G = len(attributes.reverse), GATES[attributes.op_type]
    X = checks.floats("X", given["X"], None, (3,))
    I = X.shape[2]
    N, T = X.shape[:2] if attributes.batch_first else X.shape[1::-1]
    R = checks.floats("R", given["R"], X.dtype, (3,))
    H = attributes.hidden_size or max(R.shape[2], 1)

    def shaped(name: str, symbols: str, *shape: int) -> Array | None:
        symbols = f"({symbols})".replace("1*", "")
        return None if given[name] is None else checks.shaped(name, given[name], X.dtype, symbols, shape)

    R = shaped("R", f"num_directions, {G}*hidden_size, hidden_size", D, G * H, H)
    W = shaped("W", f"num_directions, {G}*hidden_size, input_size", D, G * H, I)
    B = shaped("B", f"num_directions, {2 * G}*hidden_size", D, 2 * G * H)
    P = shaped("P", "num_directions, 3*hidden_size", D, 3 * H) if "P" in given else None
    order, state = ("batch_size, num_directions", (N, D, H)) if attributes.batch_first else ("num_directions, batch_size", (D, N, H))
    h0 = shaped("initial_h", f"{order}, hidden_size", *state)
    c0 = shaped("initial_c", f"{order}, hidden_size", *state) if "initial_c" in given else None
    lengths = given["sequence_lens"]
    if lengths is not None:
        lengths = checks.integers("sequence_lens", lengths, "(batch_size,)", N, T)
    assert W is not None and R is not None
    axis = 1 if attributes.batch_first else 0
    directions = tuple(
        Direction(
            W[d],
            R[d],
            None if B is None else B[d, : G * H],
            None if B is None else B[d, G * H :],
            None if P is None else P[d].reshape(3, H),
            None if h0 is None else h0.take(d, axis),
            None if c0 is None else c0.take(d, axis),
        )
        for d in range(D)
    )
    return Inputs(X, lengths, directions)


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
