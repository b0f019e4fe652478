"""Ragged batches as PyTorch packs them: the steps of all rows in one array, without padding. No torch is imported."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import checks
from .pickling import reduced

Array = NDArray[Any]
Indices = NDArray[np.int64]


class Packed(NamedTuple):
    """A batch of sequences of several lengths, in the form of torch.nn.utils.rnn.PackedSequence: a named tuple.

    Attributes
    ----------
    data : array (N, ...)
        The N steps of all rows: those of all rows at time 0, the longest first, then of those that have a time 1, and so on.
    batch_sizes : integers (T,)
        The number of rows that have a step, at each time.
    sorted_indices : integers (B,) or None
        The row of the batch that comes first, second, ...; None: they were in the order of length already.
    unsorted_indices : integers (B,) or None
        The inverse: the place of each row.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> packed = fastrnn.pack(np.array([[1, 2], [3, 4], [0, 6]]), [2, 3])  # rows 1 3 and 2 4 6
    >>> packed.data, packed.batch_sizes, packed.sorted_indices
    (array([2, 1, 4, 3, 6]), array([2, 2, 1]), array([1, 0]))
    """

    data: Array
    batch_sizes: Indices
    sorted_indices: Indices | None
    unsorted_indices: Indices | None

    def __reduce__(self) -> Any:
        return reduced(self)


def pack(x: Array, lengths: Any, batch_first: bool = False) -> Packed:
    """Pack padded sequences, as torch.nn.utils.rnn.pack_padded_sequence(..., enforce_sorted=False) does.

    The gradient of pack is unpack(packed_gradient, total_length=T), and the reverse.

    Parameters
    ----------
    x : array (T, B, ...)
        (B, T, ...) with `batch_first`. Any dtype.
    lengths : integers (B,)
        From 1 to T, in any order; a packed sequence has no form for rows of length 0.
    batch_first : bool, default False

    Returns
    -------
    packed : Packed

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> layer = fastrnn.GRU(3, 4, rng=0)
    >>> packed = fastrnn.pack(np.ones((5, 3, 3), np.float32), [3, 5, 2])  # T=5 B=3
    >>> y, h_n = layer(packed)
    >>> y, lengths = fastrnn.unpack(y)
    >>> y.shape, lengths
    ((5, 3, 4), array([3, 5, 2]))
    """
    x = _time_major(_array("x", x), checks.flag("batch_first", batch_first))
    T, B = x.shape[:2]
    lengths = checks.integers("lengths", lengths, "(B,)", B, T)
    if B == 0 or lengths.min() == 0:
        what = f"0 at row {lengths.argmin()}" if B else "no rows"
        raise ValueError(f"lengths: expected the length of all samples to be greater than 0, got {what}")
    order = np.argsort(-lengths, kind="stable")
    sizes = B - np.searchsorted(lengths[order[::-1]], np.arange(lengths.max()), side="right")
    time, place = _places(sizes)
    back = np.empty(B, np.int64)
    back[order] = np.arange(B)
    return Packed(x[time, order[place]], sizes.astype(np.int64), order.astype(np.int64), back)


def unpack(packed: Any, batch_first: bool = False, total_length: int | None = None) -> tuple[Array, NDArray[np.intp]]:
    """The padded sequences and lengths of a packed one, as torch.nn.utils.rnn.pad_packed_sequence returns them.

    Parameters
    ----------
    packed : Packed
        Or anything with its four attributes (such as torch's, of a tensor in main memory that needs no gradient).
    batch_first : bool, default False
    total_length : int, optional
        T, at least the longest length; None: the longest length.

    Returns
    -------
    x : array (T, B, ...)
        (B, T, ...) with `batch_first`; 0 after the ends, in the order of rows before they were packed.
    lengths : integers (B,)

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> packed = fastrnn.pack(np.array([[1, 2], [3, 4], [5, 6]]), [2, 3])  # rows 1 3 and 2 4 6
    >>> fastrnn.unpack(packed, batch_first=True)
    (array([[1, 3, 0],
           [2, 4, 6]]), array([2, 3]))
    """
    batch_first, packed = checks.flag("batch_first", batch_first), check_packed("packed", packed)
    lengths = packed_lengths(packed)
    T = len(packed.batch_sizes)
    if total_length is not None:
        total = checks.integer("total_length", total_length, 0)
        if total < T:
            raise ValueError(f"total_length: expected at least the length of the longest sequence = {T}, got {total}")
        T = total
    shape = (len(lengths), T) if batch_first else (T, len(lengths))
    padded = checks.allocate("packed", "(T, B, ...)", (*shape, *packed.data.shape[1:]), packed.data.dtype, zero=True)
    scatter(packed, _time_major(padded, batch_first))
    return padded, lengths


def is_packed(value: Any) -> bool:
    """Is this meant as a packed sequence?"""
    return hasattr(value, "batch_sizes")


def check_packed(name: str, value: Any) -> Packed:
    """A packed sequence whose parts fit each other."""
    if not all(hasattr(value, field) for field in Packed._fields):
        raise TypeError(f"{name}: expected a packed sequence with {', '.join(Packed._fields)}, got {type(value).__name__}")
    data, sizes = _array(f"{name}.data", value.data), _array(f"{name}.batch_sizes", value.batch_sizes)
    if sizes.dtype.kind not in "iu" or sizes.ndim != 1:
        raise TypeError(f"{name}.batch_sizes: expected (T,) integers, got {sizes.dtype} of shape {sizes.shape}")
    if (np.diff(sizes.astype(np.int64)) > 0).any() or (sizes <= 0).any():
        raise ValueError(f"{name}.batch_sizes: expected positive numbers that never rise, got {sizes!r:.60}")
    if data.ndim < 1 or sizes.max(initial=0) > len(data) or sizes.sum() != len(data):  # a sum may overflow
        N = sum(sizes.tolist())
        raise ValueError(f"{name}.data: expected (N, ...) with N = {N}, the sum of batch_sizes, got {data.shape}")
    B = int(sizes[0]) if len(sizes) else 0
    order, back = (
        None if (indices := getattr(value, field)) is None else _permutation(f"{name}.{field}", indices, B)
        for field in ("sorted_indices", "unsorted_indices")
    )
    if order is not None:
        if back is not None and not np.array_equal(order[back], np.arange(B)):
            raise ValueError(f"{name}.unsorted_indices: expected the inverse of sorted_indices, got {back!r:.60}")
        back = np.argsort(order)
    elif back is not None:
        order = np.argsort(back)
    return Packed(data, sizes.astype(np.int64), order, back)


def packed_lengths(packed: Packed) -> NDArray[np.intp]:
    """(B,) the length of each row, in the order before packing."""
    sizes = packed.batch_sizes
    B = int(sizes[0]) if len(sizes) else 0
    lengths = len(sizes) - np.searchsorted(sizes[::-1], np.arange(B), side="right")
    return lengths if packed.unsorted_indices is None else lengths[packed.unsorted_indices]


def scatter(packed: Packed, padded: Array) -> None:
    """Write the data to its places in (T, B, ...)."""
    padded[_rows(packed)] = packed.data


def gather(packed: Packed, padded: Array) -> Packed:
    """A sequence packed in the same way, of the numbers of (T, B, ...)."""
    return packed._replace(data=padded[_rows(packed)])


def _rows(packed: Packed) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(time, row) of each item of the data."""
    time, place = _places(packed.batch_sizes)
    return time, place if packed.sorted_indices is None else packed.sorted_indices[place]


def _places(sizes: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(time, place in the order of length) of each item."""
    time = np.repeat(np.arange(len(sizes)), sizes)
    return time, np.arange(len(time)) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _time_major(x: Array, batch_first: bool) -> Array:
    if x.ndim < 2:
        raise ValueError(f"x: expected at least 2 dimensions, got shape {x.shape}")
    return x.swapaxes(0, 1) if batch_first else x


def _permutation(name: str, value: Any, B: int) -> Indices:
    indices = _array(name, value)
    if indices.dtype.kind not in "iu" or not np.array_equal(np.sort(indices, axis=None), np.arange(B)):
        raise ValueError(f"{name}: expected the numbers from 0 to B - 1 = {B - 1} in any order, got {indices!r:.60}")
    return indices.astype(np.int64).reshape(B)


def _array(name: str, value: Any) -> Array:
    """A NumPy array, or what becomes one, such as a torch tensor in main memory."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}")
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: torch's, for a tensor that needs a gradient
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}: {error}") from None
