"""Arrays and generators in pickles that every NumPy reads.

NumPy's own pickles name its private modules, which are others in NumPy 1 and 2, and say of a generator what only the newer one
understands. Ours hold bytes, shapes and dtypes as text, and a generator's name and state.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Pickled:
    """A class whose attributes may be arrays and generators. copy.copy, which pickles by halves, shares them."""

    _not_pickled: tuple[str, ...] = ()  # attributes that are made again when they are needed

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self).copy()  # at once: another thread may make something meanwhile
        return {name: portable(value) for name, value in state.items() if name not in self._not_pickled}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({name: plain(value) for name, value in state.items()})


def reduced(instance: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The __reduce__ of a named tuple with arrays."""
    return rebuilt, (type(instance), tuple(map(portable, instance)), {})


def rebuilt(kind: type, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """kind(*arguments, **keywords), of what `portable` gave out."""
    return kind(*map(plain, arguments), **{name: plain(value) for name, value in keywords.items()})


def portable(value: Any) -> Any:
    """What pickles into `value`, which may be an array, a NumPy number or a generator, or have such inside of tuples, lists and
    mappings; anything else is pickled as it always is."""
    if type(value) in (tuple, list):
        return type(value)(map(portable, value))
    if type(value) is dict:
        return {name: portable(member) for name, member in value.items()}
    if not isinstance(value, np.generic) and not _is_plain_array(value) and not _is_plain_generator(value):
        return value
    carried = _carried.get(id(value))
    if carried is None:
        carried = _carried[id(value)] = _Carried(value)
    return carried


def plain(value: Any) -> Any:
    """The inverse of portable for what no pickle has been made of."""
    if type(value) in (tuple, list):
        return type(value)(map(plain, value))
    if type(value) is dict:
        return {name: plain(member) for name, member in value.items()}
    return value.value if isinstance(value, _Carried) else value


class _Carried:
    """Stands for an array or a generator in a pickle. One thing has one stand-in at a time, so that what was shared still is."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce_ex__(self, protocol: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        value = self.value
        if isinstance(value, np.random.Generator):
            bits = value.bit_generator
            return _generator, (type(bits).__name__, portable(_members(bits.state)), _seed_of(bits))
        array = np.ascontiguousarray(value)
        data = pickle.PickleBuffer(array.data) if protocol >= 5 else array.tobytes()
        kind = "number" if isinstance(value, np.generic) else "array" if value.flags.writeable else "read-only"
        return _array, (array.dtype.str, np.shape(value), data, kind)

    def __deepcopy__(self, memo: Any) -> Any:
        copied = deepcopy(self.value, memo)
        if isinstance(copied, np.ndarray):
            copied.flags.writeable = self.value.flags.writeable
        return copied


_carried: WeakValueDictionary[int, _Carried] = WeakValueDictionary()  # by the identity of what they stand for


def _is_plain_array(value: Any) -> bool:
    return type(value) is np.ndarray and not value.dtype.hasobject and np.dtype(value.dtype.str) == value.dtype


def _is_plain_generator(value: Any) -> bool:
    return type(value) is np.random.Generator and type(value.bit_generator) is getattr(
        np.random, type(value.bit_generator).__name__, None
    )


def _array(dtype: str, shape: tuple[int, ...], data: Any, kind: str) -> Any:
    array = np.empty(shape, dtype)
    if array.size:
        array[...] = np.frombuffer(data, dtype).reshape(shape)
    array.flags.writeable = kind == "array"
    return array[()] if kind == "number" else array


def _generator(name: str, state: Mapping[str, Any], seed: Mapping[str, Any] | None) -> np.random.Generator:
    bits = getattr(np.random, name)(0 if seed is None else np.random.SeedSequence(**seed))
    bits.state = state
    return np.random.Generator(bits)


def _seed_of(bits: Any) -> Any:
    """What its children are made from, as the arguments of a SeedSequence; None if it is of another kind."""
    seed = bits.seed_seq
    return None if type(seed) is not np.random.SeedSequence else portable(_members(seed.state))


def _members(state: Mapping[str, Any]) -> dict[str, Any]:
    """Plain dictionaries throughout."""
    return {name: _members(value) if isinstance(value, Mapping) else value for name, value in state.items()}
