"""Which rows are processed at which step: lengths, resets and direction, told to the kernels as a list of items."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FROM_INITIAL, FROM_ZERO = -1, -2  # where an item's state comes from, if not from a time


Indices = NDArray[np.intp] | None


class Plan:
    """The items of one call: step s holds the items first[s] to first[s+1]-1, each a row at a time, with the time of its state.

    A dense plan (every row at every step) has no lists: first is None.
    """

    __slots__ = ("B", "T", "first", "last", "padded", "prev", "rank", "reverse", "row", "steps", "time")

    def __init__(self, T: int, B: int, reverse: bool) -> None:
        self.T, self.B, self.reverse = T, B, reverse
        self.steps = T if B else 0
        self.first: Indices = None
        self.row: Indices = None
        self.time: Indices = None
        self.prev: Indices = None
        self.rank: Indices = None  # (B,) place of each row in the order of length
        self.last: Indices = None  # (B,) the time of each row's last item; -1 for a row without one
        self.padded = False

    def items(self, s0: int, s1: int) -> slice:
        """The items of the steps s0 to s1-1."""
        if self.first is None:
            return slice(s0 * self.B, s1 * self.B)
        return slice(int(self.first[s0]), int(self.first[s1]))

    def cuts(self, most: int) -> list[int]:
        """Steps at which to cut so that no piece has more than `most` items, unless a single step has."""
        if self.first is None:
            steps = max(1, most // max(1, self.B))
            return [*range(0, self.steps, steps), self.steps]
        cuts = [0]
        while cuts[-1] < self.steps:
            fits = int(np.searchsorted(self.first, self.first[cuts[-1]] + most, side="right")) - 1
            cuts.append(min(self.steps, max(fits, cuts[-1] + 1)))
        return cuts

    def places(self, s0: int, s1: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """(time, row, prev) of the items of the steps s0 to s1-1, in order."""
        if self.first is not None:
            assert self.time is not None and self.row is not None and self.prev is not None
            items = self.items(s0, s1)
            return self.time[items], self.row[items], self.prev[items]
        step = np.repeat(np.arange(s0, s1), self.B)
        time = self.T - 1 - step if self.reverse else step
        prev = np.where(step == 0, FROM_INITIAL, time + (1 if self.reverse else -1))
        return time, np.tile(np.arange(self.B), s1 - s0), prev


def make_plan(T: int, B: int, reverse: bool, lengths: NDArray[Any] | None, reset: NDArray[Any] | None) -> Plan:
    """The plan of T steps and B rows. lengths (B,) and reset (T, B) are checked already.

    Rows are listed by falling length, so that those alive at a step come first; a reversed row starts at its own end.
    """
    plan = Plan(T, B, reverse)
    if lengths is not None and (lengths == T).all():
        lengths = None
    if (lengths is None and reset is None) or T == 0 or B == 0:
        return plan
    if lengths is None:
        lengths = np.full(B, T, np.intp)
    order = np.argsort(-lengths, kind="stable")
    plan.padded = bool((lengths < T).any())
    plan.steps = steps = int(lengths.max())
    alive = B - np.searchsorted(np.sort(lengths), np.arange(steps), side="right")
    first = plan.first = np.zeros(steps + 1, np.intp)
    np.cumsum(alive, out=first[1:])
    step = np.repeat(np.arange(steps), alive)
    row = order[np.arange(first[-1]) - first[step]]
    time = lengths[row] - 1 - step if reverse else step
    before = time + 1 if reverse else time - 1
    prev = np.where(step == 0, FROM_INITIAL, before)
    if reset is not None:
        if reverse:  # the cut in front of step t+1 lies between t+1 and t
            prev[(step > 0) & reset[np.minimum(before, T - 1), row]] = FROM_ZERO
        else:
            prev[reset[time, row]] = FROM_ZERO
    rank = np.empty(B, np.intp)
    rank[order] = np.arange(B)
    plan.row, plan.time, plan.prev, plan.rank = row, time, prev, rank
    plan.last = np.where(lengths == 0, -1, 0 if reverse else lengths - 1)
    return plan
