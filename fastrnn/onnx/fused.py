"""One direction of an operator, on the compiled kernels."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from .. import functional
from .._engine.cells import Cell, gru_cell, lstm_cell, rnn_cell
from ..formats import FORMATS
from .attributes import Attributes
from .inputs import Inputs

Array = NDArray[Any]


def run(attributes: Attributes, inputs: Inputs, d: int, threads: int | None) -> tuple[Array, tuple[Array, ...]]:
    """Direction d: Y (T, N, H), or (N, T, H) in layout 1, and the final state, each (N, H)."""
    direction = inputs.directions[d]
    weights = FORMATS["onnx"].cells[attributes.form].arguments(attributes.form, direction.weights())
    options: dict[str, Any] = {
        "lengths": inputs.lengths,
        "reverse": attributes.reverse[d],
        "batch_first": attributes.batch_first,
        "threads": threads,
    }
    cell = _cell(attributes, d, peephole="peephole" in weights)
    return functional.infer(cell, inputs.X, weights, direction.h0, direction.c0, **options)


def _cell(attributes: Attributes, d: int, peephole: bool) -> Cell:
    f, *rest = (activation.fused() for activation in attributes.activations[d])
    if attributes.op_type == "RNN":
        return rnn_cell(f)
    if attributes.op_type == "GRU":
        return gru_cell(attributes.linear_before_reset, rest[0], f)
    return lstm_cell(peephole, rest[0], f, rest[1])
