"""How a call is run: threads, what they share out, and how much goes through the caches at a time.

Nothing here changes a bit of any result; it is about time and memory alone. The constants were measured: docs/tuning.md.
"""

from __future__ import annotations

from typing import NamedTuple

_WORK_PER_THREAD = 2_000_000  # multiply-adds below which a second thread costs more than it brings
_FORWARD_ITEMS = 256  # items per chunk when input products are made first
_BACKWARD_ITEMS = 512  # items per chunk of the backward products
_FEW_ROWS = 4  # rows per thread up to which input products are made first


class Schedule(NamedTuple):
    """threads: how many; split_units: they share the hidden units, not the rows; input_first: the input products of a chunk are
    made before its recurrence; chunk: items (rows times steps) per chunk."""

    threads: int
    split_units: bool
    input_first: bool
    chunk: int


def forward(T: int, B: int, I: int, H: int, G: int, threads: int) -> Schedule:
    """The schedule of a forward call on at most `threads` threads."""
    threads = _useful_threads(T * B * G * H * (I + H), B, threads)
    rows = -(-B // threads)
    return Schedule(threads, False, rows <= _FEW_ROWS and I >= 16 and T > 1, max(_FORWARD_ITEMS, B))


def backward(T: int, B: int, I: int, H: int, G: int, threads: int) -> Schedule:
    """The schedule of a backward call."""
    threads = _useful_threads(2 * T * B * G * H * (I + H), B, threads)
    return Schedule(threads, False, False, max(_BACKWARD_ITEMS, B))


def _useful_threads(work: int, B: int, threads: int) -> int:
    return max(1, min(threads, B, work // _WORK_PER_THREAD))
