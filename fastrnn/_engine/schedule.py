"""How a call is run: threads, what they share out, and how much goes through the caches at a time.

Nothing here changes a bit of any result; it is about time and memory alone. The constants were measured: docs/tuning.md.

fastrnn.schedule shows what a call does, and fastrnn.show_config() does so for a few sizes.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import NamedTuple

from .. import _core

_WORK_PER_THREAD = 2_000_000  # multiply-adds below which a second thread costs more than it brings
_WORK_PER_LENT_THREAD = 60_000  # the same for threads of another library that are awake: two microseconds
_WORK_PER_AWAKE_THREAD = 700_000  # likewise, for a thread that has just finished another call
_MAX_AWAKE = 4  # threads that are asked for such calls
_WORK_OF_PASS = 2  # multiply-adds that take as long as reading or packing a weight
_WORK_OF_FAR_PASS = 6  # likewise, of weights that do not stay in the L2 of a core
_WEIGHTS_OF_L2 = 400_000
_WORK_PER_WAIT = 80  # multiply-adds for each nanosecond of waiting for a thread: a core does 20 to 45 in it
_FORWARD_ITEMS = 256  # items per chunk when input products are made first
_BACKWARD_ITEMS = 512  # items per chunk of the backward products
_UNIT_ITEMS = 64  # items per chunk where units are shared: how much a thread that was late keeps the other waiting for
_STEP_FOR_UNITS = 16000  # multiply-adds of a thread between two barriers that are worth one
_UNITS_OF_STEP = 64  # units per thread from which their vectors come out even
_LARGE_WEIGHTS = 120_000  # weights of which each core would rather keep its part: 480 kB of float32
_FEW_ROWS = 4  # rows per thread up to which input products are made first
_ROWS_OF_A_BLOCK = 4  # at least, or tiles are too low
_CHUNKS_OF_BLOCKS = 8  # about so many turns at each, unless they would be longer than
_STEPS_OF_A_TURN = 32
_WEIGHTS_OF_BLOCKS = 150_000  # weights that stay in the L2 of a core when it changes row blocks
_DIRECT_ITEMS = 4  # items (rows times steps) of up to two steps up to which a packed copy of the weights is more work than it saves
_BYTES_PER_THREAD = 6_400_000  # of an elementwise rule, below which a second thread costs more than it brings: 80 to 160 us
_BYTES_PER_RELEASE = 1_600_000  # below which handing the GIL over costs more than the rule
_BYTES_PER_WAIT = 320  # bytes for each nanosecond of waiting for a thread: a core does 40 to 80 in it


class Schedule(NamedTuple):
    """How a call is run: a named tuple that prints as a sentence.

    Attributes
    ----------
    threads : int
        How many.
    split_units : bool
        They share the hidden units, not the rows.
    input_first : bool
        The input products of a chunk are made before its recurrence.
    chunk : int
        Items (rows times steps) per chunk.
    patience : int
        Nanoseconds for which threads that sleep are waited for.
    row_blocks : int
        Dynamic scheduling: threads take turns at so many blocks of rows, chunk by chunk; 0: a static split of the rows.
    direct : bool
        There is no packed copy of the weights: they are read as they lie or, for more than four rows of a single step, each panel
        is packed where it is about to be used.
    """

    threads: int
    split_units: bool
    input_first: bool
    chunk: int
    patience: int = 100_000
    row_blocks: int = 0
    direct: bool = False

    def __str__(self) -> str:
        """
        >>> print(forward(100, 1, 256, 256, 4, threads=2))
        2 threads share the hidden units, input products first, 64 items a chunk
        """
        what = "hidden units" if self.split_units else f"{self.row_blocks} blocks of rows" if self.row_blocks else "rows"
        who = "1 thread" if self.threads == 1 else f"{self.threads} threads share the {what}"
        return f"{who}{', input products first' if self.input_first else ''}, {self.chunk} items a chunk"


@lru_cache
def forward(T: int, B: int, I: int, H: int, G: int, threads: int, lent: bool = False) -> Schedule:
    """The schedule of a forward call.

    Parameters
    ----------
    T, B, I, H, G : int
        Steps, rows, inputs, hidden units, gates: 1 of an RNN, 3 of a GRU, 4 of an LSTM.
    threads : int
        At most so many.
    lent : bool, default False
        They are another library's, and awake.

    Returns
    -------
    schedule : Schedule

    Examples
    --------
    >>> from fastrnn import schedule
    >>> print(schedule.forward(T=100, B=1, I=256, H=256, G=4, threads=2))
    2 threads share the hidden units, input products first, 64 items a chunk
    """
    work = _work(T * B, G * H * (I + H))
    if _shares_units(T, B, I, H, G, threads):
        chunk = max(_UNIT_ITEMS, B)
        threads = _useful_threads(work, threads, lent)
        return Schedule(threads, True, I >= 16 and T > 1, chunk, _patience(work), 0, _is_direct(T, B, True))
    threads = _useful_threads(work, min(threads, B), lent)
    input_first = -(-B // threads) <= _FEW_ROWS and I >= 16 and T > 1
    row_blocks = _row_blocks(T, B, G * H * (I + H), threads)
    direct = _is_direct(T, B, threads == 1)
    steps = min(T // _CHUNKS_OF_BLOCKS, _STEPS_OF_A_TURN) if row_blocks else 1
    return Schedule(threads, False, input_first, max(_FORWARD_ITEMS, steps * B), _patience(work), row_blocks, direct)


@lru_cache
def recompute(T: int, B: int, I: int, H: int, G: int, threads: int) -> Schedule:
    """The schedule of recomputing gates and c, where no step waits for another's h."""
    work = T * B * G * H * (I + H)
    return Schedule(_useful_threads(work, threads), threads > B, False, max(_BACKWARD_ITEMS, B), _patience(work))


@lru_cache
def backward(T: int, B: int, I: int, H: int, G: int, threads: int, lent: bool = False) -> Schedule:
    """The schedule of a backward call.

    Parameters
    ----------
    T, B, I, H, G : int
        Steps, rows, inputs, hidden units, gates: 1 of an RNN, 3 of a GRU, 4 of an LSTM.
    threads : int
        At most so many.
    lent : bool, default False
        They are another library's, and awake.

    Returns
    -------
    schedule : Schedule

    Examples
    --------
    >>> from fastrnn import schedule
    >>> print(schedule.backward(T=100, B=32, I=256, H=256, G=4, threads=2))
    2 threads share the rows, 512 items a chunk
    """
    work = _work(2 * T * B, G * H * (I + H))
    if _shares_units(T, B, I, H, G, threads):
        threads, units = _useful_threads(work, threads, lent), True
    else:
        threads, units = _useful_threads(work, min(threads, B), lent), False
    direct = _is_direct(T, B, units or threads == 1)
    return Schedule(threads, units, False, max(_BACKWARD_ITEMS, B), _patience(work), 0, direct)


@lru_cache
def side_by_side(runs: int, T: int, B: int, I: int, H: int, G: int, threads: int) -> bool:
    """Does each of so many runs of this size, which do not need each other, go whole on a thread of its own? Where that takes more
    threads than the rows of one would, unless its units take even more."""
    if not max(1, min(B, threads)) < runs <= threads or (threads > runs and _shares_units(T, B, I, H, G, threads)):
        return False
    return _useful_threads(runs * T * B * G * H * (I + H), runs) == runs


def _work(uses: int, weights: int) -> int:
    """Multiply-adds that take as long as so many uses of each weight, and reading it first."""
    return (uses + (_WORK_OF_PASS if weights <= _WEIGHTS_OF_L2 else _WORK_OF_FAR_PASS)) * weights


def _shares_units(T: int, rows: int, I: int, H: int, G: int, threads: int) -> bool:
    """Do threads share the units? Where rows are fewer than they, or so few that a thread reads all weights for next to nothing, or
    where all weights are read for a single step; and where a thread has enough to do between two barriers."""
    large_for_few = rows <= threads * _FEW_ROWS and G * H * (I + H) >= _LARGE_WEIGHTS
    once = T == 1 and threads * _UNITS_OF_STEP <= H
    return (rows < threads or large_for_few or once) and rows * G * H * H >= threads * _STEP_FOR_UNITS


def _is_direct(T: int, B: int, once: bool) -> bool:
    """Are the weights not packed as a whole? For few items, or where a single step packs each panel once: in one thread, or in that
    which has its units."""
    return (T <= 2 and T * B <= _DIRECT_ITEMS) or (T == 1 and once)


def _row_blocks(T: int, rows: int, weights: int, threads: int) -> int:
    """One more than threads, so that nobody waits for a thread that was descheduled, or has a slow core. Few chunks are too few
    turns to share out evenly."""
    dynamic = 1 < threads <= rows // _ROWS_OF_A_BLOCK - 1 and T * rows >= _CHUNKS_OF_BLOCKS * _FORWARD_ITEMS
    return threads + 1 if dynamic and weights <= _WEIGHTS_OF_BLOCKS else 0


def _patience(work: int) -> int:
    """A quarter to a half of the time that the work takes alone."""
    return work // _WORK_PER_WAIT


def _useful_threads(work: int, most: int, lent: bool = False) -> int:
    if lent:
        return max(1, min(most, work // _WORK_PER_LENT_THREAD))
    awake = min(work // _WORK_PER_AWAKE_THREAD, _MAX_AWAKE)
    return max(1, min(most, max(work // _WORK_PER_THREAD, awake)))


class Elementwise(NamedTuple):
    """How a rule goes over arrays: threads, the patience of a Schedule, and whether other threads of Python may run meanwhile."""

    threads: int
    patience: int
    release: bool


@lru_cache
def elementwise(size: int, threads: int) -> Elementwise:
    """The schedule of a rule that reads, and may write, arrays of so many bytes."""
    useful = max(1, min(threads, size // _BYTES_PER_THREAD))
    return Elementwise(useful, size // _BYTES_PER_WAIT, size >= _BYTES_PER_RELEASE)


_core.use_schedules(sys.modules[__name__])
