"""One vector or several, as everything here takes them: a list of arrays that may be written to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Array | Sequence[Array]
_WORK = 1000  # to tell interleaved arrays from overlapping ones; some microseconds


def vectors(name: str, value: Arrays) -> list[Array]:
    """The arrays of `value` themselves, but subclasses as plain arrays of the same memory: float32 or float64, of any shape.

    Raises: TypeError.
    """
    if not isinstance(value, (np.ndarray, list, tuple)):
        raise TypeError(f"{name}: expected a NumPy array or a list of them, got {type(value).__name__}")
    arrays = [value] if isinstance(value, np.ndarray) else list(value)
    for k, array in enumerate(arrays):
        if type(array) is not np.ndarray:
            if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
                raise TypeError(f"{name}[{k}]: expected a NumPy array, got {type(array).__name__}")
            arrays[k] = array = np.asarray(array)  # the same memory, without the subclass's own indexing
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"{name}[{k}]: expected float32 or float64, got {array.dtype}")
    return arrays


def writable(name: str, arrays: list[Array]) -> list[Array]:
    """The same list. Raises ValueError if one of them is read-only or shares memory with another, which would be changed twice."""
    for k, array in enumerate(arrays):
        if not array.flags.writeable:
            raise ValueError(f"{name}[{k}]: expected an array that may be written to, got a read-only one")
        for j, other in enumerate(arrays[:k]):
            if np.may_share_memory(other, array, max_work=_WORK):  # type: ignore[arg-type]  # any number of steps
                raise ValueError(f"{name}[{k}]: expected memory of its own, got an array that overlaps {name}[{j}]")
    return arrays


def matching(name: str, value: Arrays, params: list[Array]) -> list[Array]:
    """The arrays of `value`, one for each of params, of its shape and dtype. Raises: TypeError, ValueError."""
    arrays = vectors(name, value)
    if len(arrays) != len(params):
        raise ValueError(f"{name}: expected {len(params)} arrays, one for each of params, got {len(arrays)}")
    for k, (p, a) in enumerate(zip(params, arrays)):
        if a.shape != p.shape:
            raise ValueError(f"{name}[{k}]: expected the shape of params[{k}], {p.shape}, got {a.shape}")
        if a.dtype != p.dtype:
            raise TypeError(f"{name}[{k}]: expected the dtype of params[{k}], {p.dtype}, got {a.dtype}")
    return arrays


class Blocks:
    """Parameters and what is kept beside them, in blocks that stay in the cache while a dozen operations pass over them.

    params: arrays; kept: lists of arrays of their shapes. An array that is not contiguous is one block.
    """

    SIZE = 8192  # numbers: seven vectors of them are 224 or 448 KB

    def __init__(self, params: list[Array], kept: list[list[Array]]) -> None:
        self._blocks = [list(self._cut([p, *(arrays[k] for arrays in kept)])) for k, p in enumerate(params)]
        sizes: dict[np.dtype[Any], int] = {}
        for block in self._all():
            sizes[block[1].dtype] = max(block[1].size, sizes.get(block[1].dtype, 0))
        buffers = {dtype: (np.empty(size, dtype), np.empty(size, dtype)) for dtype, size in sizes.items()}
        self._scratch = [
            [tuple(b[: p.size].reshape(p.shape) for b in buffers[p.dtype]) for _, p, _ in blocks] for blocks in self._blocks
        ]

    def of(self, grads: list[Array]) -> Iterator[tuple[Array, Array, tuple[Array, ...], tuple[Array, ...]]]:
        """Block by block: p, g, two arrays of scratch, and what is kept."""
        for blocks, scratch, g in zip(self._blocks, self._scratch, grads):
            source = g.reshape(-1) if blocks and blocks[0][0] is not Ellipsis else g
            for (index, p, kept), s in zip(blocks, scratch):
                yield p, source[index], s, kept

    def _all(self) -> Iterator[tuple[Any, Array, tuple[Array, ...]]]:
        return (block for blocks in self._blocks for block in blocks)

    def _cut(self, arrays: list[Array]) -> Iterator[tuple[Any, Array, tuple[Array, ...]]]:
        if not all(a.flags.c_contiguous for a in arrays):
            yield Ellipsis, arrays[0], tuple(arrays[1:])
            return
        flat = [a.reshape(-1) for a in arrays]
        for start in range(0, flat[0].size, self.SIZE):
            index = slice(start, start + self.SIZE)
            p, *kept = (a[index] for a in flat)
            yield index, p, tuple(kept)
