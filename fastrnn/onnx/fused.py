"""One direction of an operator with the standard attributes, on the compiled kernels."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from .. import functional
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
    if attributes.op_type == "LSTM":
        y, state, _ = functional.lstm(inputs.X, **weights, h0=direction.h0, c0=direction.c0, **options)
        return y, state
    if attributes.op_type == "GRU":
        y, h, _ = functional.gru(inputs.X, **weights, h0=direction.h0, reset_after=attributes.linear_before_reset, **options)
        return y, (h,)
    nonlinearity = attributes.activations[d][0].name.lower()
    y, h, _ = functional.rnn(inputs.X, **weights, h0=direction.h0, nonlinearity=nonlinearity, **options)
    return y, (h,)
