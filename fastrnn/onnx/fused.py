"""One direction of an operator with the standard attributes, on the compiled kernels."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from .. import functional
from .attributes import Attributes
from .inputs import GATES, Direction, Inputs

Array = NDArray[Any]

# Our blocks in the operator's order: LSTM i, f, g, o of i, o, f, c; GRU r, z, n of z, r, h. Likewise the peepholes.
BLOCKS = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}
PEEPHOLES = (0, 2, 1)


def run(attributes: Attributes, inputs: Inputs, d: int, threads: int | None) -> tuple[Array, tuple[Array, ...]]:
    """Direction d: Y (T, N, H), or (N, T, H) in layout 1, and the final state, each (N, H)."""
    direction = inputs.directions[d]
    weights = weights_of(attributes.op_type, direction)
    options: dict[str, Any] = {
        "lengths": inputs.lengths,
        "reverse": attributes.reverse[d],
        "batch_first": attributes.batch_first,
        "threads": threads,
    }
    if attributes.op_type == "LSTM":
        peephole = None if direction.P is None else direction.P[list(PEEPHOLES)]
        y, state, _ = functional.lstm(inputs.X, *weights, direction.h0, direction.c0, peephole=peephole, **options)
        return y, state
    if attributes.op_type == "GRU":
        y, h, _ = functional.gru(inputs.X, *weights, direction.h0, reset_after=attributes.linear_before_reset, **options)
        return y, (h,)
    nonlinearity = attributes.activations[d][0].name.lower()
    y, h, _ = functional.rnn(inputs.X, *weights, direction.h0, nonlinearity=nonlinearity, **options)
    return y, (h,)


def weights_of(op_type: str, direction: Direction) -> tuple[Array, Array, Array | None, Array | None]:
    """w_ih, w_hh, b_ih, b_hh in our order of the gates."""
    w_ih, w_hh = (_ours(op_type, w) for w in (direction.W, direction.R))
    b_ih, b_hh = (None if b is None else _ours(op_type, b) for b in (direction.Wb, direction.Rb))
    return w_ih, w_hh, b_ih, b_hh


def _ours(op_type: str, rows: Array) -> Array:
    """(G*H, ...) with its blocks in our order."""
    G = GATES[op_type]
    blocks = rows.reshape(G, len(rows) // G, *rows.shape[1:])
    return blocks[list(BLOCKS[op_type])].reshape(rows.shape)
