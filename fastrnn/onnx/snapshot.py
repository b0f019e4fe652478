"""A node's weights as a frozen layer: packed once, where nothing can change them."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._api import checks

Array = NDArray[Any]
INPUTS = {"X", "sequence_lens", "initial_h", "initial_c"}  # of a call; all others are weights


def locked(value: Any) -> Array:
    """The array, or a copy, over bytes, which nothing can write to."""
    array = np.asarray(value)
    if cannot_change(array) or not array.size:
        return array
    return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)


def cannot_change(array: Any) -> bool:
    """Does it lie in an object of type bytes? The flag of any other array can be set, written under, and set back."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, bytes)


class Snapshot:
    """A node as it was, and its frozen layer; frozen is None where no layer computes what the node does."""

    def __init__(self, attributes: Mapping[str, Any], weights: tuple[Any, ...], layer: Any) -> None:
        self._attributes, self._weights = deepcopy(dict(attributes)), weights  # lists may be changed in place
        self.frozen = None if layer is None else layer.frozen()
        if layer is not None:
            self._dtype, self._I, self._H = layer.dtype, layer.input_size, layer.hidden_size
            self._lstm, self._batch_first = layer._family == "lstm", layer.batch_first
            self._D = 2 if layer.bidirectional else 1

    def is_of(self, attributes: Mapping[str, Any], weights: tuple[Any, ...]) -> bool:
        """Is the node still the same?"""
        try:
            return all(map(operator.is_, weights, self._weights)) and bool(dict(attributes) == self._attributes)
        except ValueError:  # arrays among the attributes, which are neither equal nor different
            return False

    def run(self, given: Mapping[str, Any]) -> list[Array] | None:
        """The outputs, or None for what is not plain, which run_node computes or refuses."""
        X, lengths = given["X"], given.get("sequence_lens")
        if self.frozen is None or not self._is_plain(X, (None, None, self._I)) or X.size == 0:
            return None
        T, N = X.shape[1::-1] if self._batch_first else X.shape[:2]
        members = [given.get(name) for name in (("initial_h", "initial_c") if self._lstm else ("initial_h",))]
        shape = (N, self._D, self._H) if self._batch_first else (self._D, N, self._H)
        if not all(member is None or self._is_plain(member, shape) for member in members):
            return None
        if lengths is not None:
            lengths = checks.integers("sequence_lens", lengths, "(batch_size,)", N, T)
        y, state = self.frozen(X, self._state(members, N), lengths)
        states = list(state) if self._lstm else [state]
        if lengths is not None:
            for s in states:
                s[:, lengths == 0] = 0
        return [self._by_direction(y), *(self._turned(s) for s in states)]

    def _is_plain(self, array: Any, shape: tuple[int | None, ...]) -> bool:
        return (
            type(array) is np.ndarray
            and array.dtype == self._dtype
            and array.ndim == 3
            and all(n is None or n == size for n, size in zip(shape, array.shape))
        )

    def _state(self, members: list[Any], N: int) -> Any:
        """The frozen layer's initial state."""
        if all(member is None for member in members):
            return None
        zeros = (self._D, N, self._H)
        state = tuple(np.zeros(zeros, self._dtype) if m is None else self._turned(m) for m in members)
        return state if self._lstm else state[0]

    def _turned(self, state: Array) -> Array:
        """(D, N, H) from (N, D, H) in layout 1, or the other way round."""
        return np.ascontiguousarray(state.swapaxes(0, 1)) if self._batch_first else state

    def _by_direction(self, y: Array) -> Array:
        """Y from (., ., D*H)."""
        y = y.reshape(*y.shape[:2], self._D, self._H)
        return y if self._batch_first else y.swapaxes(1, 2) if self._D == 1 else np.ascontiguousarray(y.swapaxes(1, 2))
