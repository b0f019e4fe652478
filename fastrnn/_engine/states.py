"""The states at the ends of a run, and those carried over what it skips: initial, final, held; and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .plan import FROM_INITIAL, FROM_ZERO, Plan

Array = NDArray[Any]


def initial(state: Array | None, shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    """A copy, or zeros."""
    return np.zeros(shape, dtype) if state is None else state.copy()


def gather(sequence: Array, first: Array | None, source: Array, row: Array) -> Array:
    """(n, H): the states of these rows, each from a time of the sequence (T, B, H), or FROM_INITIAL, or FROM_ZERO."""
    states = sequence[np.maximum(source, 0), row]
    states[source == FROM_ZERO] = 0
    starts = source == FROM_INITIAL
    states[starts] = 0 if first is None else first[row[starts]]
    return states


def final(plan: Plan, sequence: Array, first: Array | None) -> Array:
    """(B, H): the state after each row's last step."""
    if plan.last is not None:
        return gather(sequence, first, plan.last, np.arange(plan.B))
    if plan.steps == 0:
        return initial(first, (plan.B, sequence.shape[2]), sequence.dtype)
    return sequence[0 if plan.reverse else -1].copy()


def cut_after(plan: Plan, state: Array | None) -> Array | None:
    """The same final state, or gradient of it, with zeros in the rows that are cut after their last step."""
    if state is not None and plan.last is not None:
        state[plan.last == FROM_ZERO] = 0
    return state


def hold(plan: Plan, sequence: Array, first: Array | None) -> None:
    """At the steps that a mask skips, the state that is carried over them, if that is wanted."""
    if plan.held is not None:
        row, time, source = plan.held
        sequence[time, row] = gather(sequence, first, source, row)


def hold_backward(plan: Plan, d: Array | None) -> tuple[Array | None, Array | None]:
    """The gradient of a sequence with that of each held output added to the step that it came from; and what so came from the
    initial state (B, H)."""
    if d is None or plan.held is None:
        return d, None
    row, time, source = plan.held
    d, first = d.copy(), np.zeros(d.shape[1:], d.dtype)
    if len(row):  # what has one source stands together: the list goes row by row
        starts = np.flatnonzero(np.r_[True, (np.diff(row) != 0) | (np.diff(source) != 0)])
        sums = np.add.reduceat(d[time, row], starts, axis=0)
        row, source = row[starts], source[starts]
        d[source[source >= 0], row[source >= 0]] += sums[source >= 0]
        first[row[source == FROM_INITIAL]] = sums[source == FROM_INITIAL]
    return d, first
