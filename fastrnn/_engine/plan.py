"""Which rows are processed at which step: lengths, masks, resets and direction, told to the kernels as a list of items.

A row's steps are numbered as it takes them: step k is its k-th in the direction of travel, and what is skipped has no number. So a
mask, a length and a direction are one thing to the kernels: a time for each step of each row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FROM_INITIAL, FROM_ZERO = -1, -2  # where a state comes from, if not from a time


Indices = NDArray[np.intp] | None


class Plan:
    """The items of one call: step s holds the items first[s] to first[s+1]-1, each a row at a time, with the time of its state.

    A dense plan (every row at every step) has no lists: first is None.
    """

    __slots__ = ("B", "T", "first", "held", "last", "padded", "prev", "rank", "reverse", "row", "steps", "time")

    def __init__(self, T: int, B: int, reverse: bool) -> None:
        self.T, self.B, self.reverse = T, B, reverse
        self.steps = T if B else 0
        self.first: Indices = None
        self.row: Indices = None
        self.time: Indices = None
        self.prev: Indices = None
        self.rank: Indices = None  # (B,) place of each row in the order of length
        self.last: Indices = None  # (B,) the time that each row's final state comes from, or FROM_INITIAL, or FROM_ZERO
        self.held: tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None = None  # row, time and source of outputs carried over
        self.padded = False  # are there places without an item?

    def items(self, s0: int, s1: int) -> slice:
        """The items of the steps s0 to s1-1."""
        if self.first is None:
            return slice(s0 * self.B, s1 * self.B)
        return slice(int(self.first[s0]), int(self.first[s1]))

    def cuts(self, most: int, s0: int, s1: int) -> list[int]:
        """From s0 to s1, the steps at which to cut so that no piece has more than `most` items, unless a single step has."""
        if self.first is None:
            steps = max(1, most // max(1, self.B))
            return [*range(s0, s1, steps), s1]
        cuts = [s0]
        while cuts[-1] < s1:
            fits = int(np.searchsorted(self.first, self.first[cuts[-1]] + most, side="right")) - 1
            cuts.append(min(s1, max(fits, cuts[-1] + 1)))
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


def make_plan(
    T: int,
    B: int,
    reverse: bool,
    lengths: NDArray[Any] | None = None,
    reset: NDArray[Any] | None = None,
    mask: NDArray[Any] | None = None,
    hold: bool = False,
) -> Plan:
    """The plan of T steps and B rows. lengths (B,), reset and mask (T, B) are checked already.

    Rows are listed by falling number of steps, so that those alive at a step come first; a reversed row starts at its own end.
    """
    plan = Plan(T, B, reverse)
    if lengths is not None and (lengths == T).all():
        lengths = None
    if mask is not None and mask.all():
        mask = None
    if (lengths is None and reset is None and mask is None) or T == 0 or B == 0:
        return plan
    rows = _Rows(T, B, reverse, lengths, reset, mask)
    order = np.argsort(-rows.count, kind="stable")
    plan.padded = bool((rows.count < T).any())
    plan.steps = steps = int(rows.count.max())
    alive = B - np.searchsorted(np.sort(rows.count), np.arange(steps), side="right")
    first = plan.first = np.zeros(steps + 1, np.intp)
    np.cumsum(alive, out=first[1:])
    step = np.repeat(np.arange(steps), alive)
    plan.row = row = order[np.arange(first[-1]) - first[step]]
    plan.time = time = rows.time(row, step)
    plan.prev = rows.source(row, step - 1, time)
    plan.rank = np.empty(B, np.intp)
    plan.rank[order] = np.arange(B)
    every = np.arange(B)
    plan.last = rows.source(every, rows.count - 1, rows.end)
    if hold and mask is not None:
        plan.held = rows.held()
    return plan


class _Rows:
    """The times at which each row has a step, and the cuts between them."""

    def __init__(
        self, T: int, B: int, reverse: bool, lengths: Indices, reset: NDArray[Any] | None, mask: NDArray[Any] | None
    ) -> None:
        self.reverse = reverse
        self.length = np.full(B, T, np.intp) if lengths is None else lengths
        self.count = self.length  # (B,) steps
        self._times: Indices = None  # of all rows, one after the other, rising within a row; None: all from 0 on
        if mask is not None:
            self._inside = np.arange(T)[:, None] < self.length  # (T, B): not padding
            self._live = self._inside & mask
            self.count = self._live.sum(axis=0)
            self._times = np.nonzero(self._live.T)[1]
            self._offset = np.cumsum(self.count) - self.count
        last = self.length - 1
        # (B,) the times at which a row's journey starts and ends, whether or not a mask skips them
        self.start: NDArray[np.intp] = last if reverse else np.full(B, -1)
        self.end: NDArray[np.intp] = np.minimum(last, 0) if reverse else last
        self._resets: Indices = None  # (T+1, B): how many are before the times below t
        if reset is not None:
            self._resets = np.zeros((T + 1, B), np.intp)
            np.cumsum(reset, axis=0, out=self._resets[1:])

    def time(self, row: NDArray[Any], step: NDArray[Any]) -> NDArray[Any]:
        """The time of a row's step."""
        k = self.count[row] - 1 - step if self.reverse else step
        return k if self._times is None else self._times[self._offset[row] + k]

    def source(self, row: NDArray[Any], step: NDArray[Any], time: NDArray[Any]) -> NDArray[Any]:
        """Where the state that meets `time` comes from, the row's last step up to there being `step`: its time, or FROM_INITIAL
        where step is -1, or FROM_ZERO where the row was cut in between."""
        none = step < 0
        source = np.full(len(row), FROM_INITIAL)
        source[~none] = self.time(row[~none], step[~none])
        if self._resets is not None:  # a cut before t lies between t-1 and t, from whichever side it is met
            left = np.where(none, self.start[row], source)
            low, high = np.minimum(left, time), np.maximum(left, time)
            source[self._resets[high + 1, row] > self._resets[low + 1, row]] = FROM_ZERO
        return source

    def held(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """(row, time, source) of the steps that the mask skips, row by row."""
        row, time = np.nonzero((self._inside & ~self._live).T)
        done = np.cumsum(self._live, axis=0)[time, row]  # steps at or below this time
        step = self.count[row] - 1 - done if self.reverse else done - 1
        return row, time, self.source(row, step, time)
