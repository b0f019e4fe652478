"""Trees of one system each: arrays that have several names, stand in scopes, or lie in another order in memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cell import Cell
from .containers import Arrays, Tree, Units, flattened

Array = NDArray[Any]
Move = Callable[[Array, int], Array]  # an array and its number of gates


class Renaming(Tree):
    """A Tree whose arrays may come by several names."""

    def has_names(self, weights: Mapping[Any, Any], cell: Cell) -> bool:
        return super().has_names({self._name(str(name)): None for name in weights}, cell)

    def _name(self, name: str) -> str:
        """The one that the cell has."""
        return name

    def _named(self, found: dict[str, Any]) -> dict[str, Any]:
        """What comes twice, by two of its names, keeps its own, which nothing expects."""
        named: dict[str, Any] = {}
        for name, value in found.items():
            ours = self._name(name)
            named[name if ours in named or (ours != name and ours in found) else ours] = value
        return named


class Aliased(Renaming):
    """`names` has for each other name of an array that in the cell."""

    def __init__(self, names: Mapping[str, str]) -> None:
        super().__init__()
        self.names = names

    def _name(self, name: str) -> str:
        return self.names.get(name, name)


class Gatewise(Aliased):
    """Matrices (H, n), n > H, or their transposes, which the shape tells; biases (H,), (H, 1) or (1, H)."""

    def _cell(self, value: Any, cell: Cell) -> Arrays:
        biases = {slot.name for slot in cell.slots if slot.group}
        return {name: _turned(array, name in biases) for name, array in super()._cell(value, cell).items()}


def _turned(array: Array, is_bias: bool) -> Array:
    if array.ndim != 2:
        return array
    if is_bias:
        return array.ravel() if 1 in array.shape else array
    return array.T if array.shape[0] > array.shape[1] else array


class Scoped(Tree):
    """The variables of TensorFlow 1 by their names: those of one cell, without or with their scope; of scopes that differ in fw and
    bw, which are two directions; or in cell_0, cell_1 and so on, which are layers."""

    def split(self, weights: Any, cell: Cell, given: Mapping[str, Any]) -> Units:
        return super().split(self._by_scope(weights, cell) if isinstance(weights, Mapping) else weights, cell, given)

    def _by_scope(self, weights: Mapping[Any, Any], cell: Cell) -> Any:
        """What a Tree takes: a mapping, a pair of them, or a list of these."""
        every = {name.removesuffix(":0"): value for name, value in flattened(weights)}
        names = sorted((slot.name for slot in cell.slots), key=len, reverse=True)
        scopes: dict[str, dict[str, Any]] = {}
        unexpected = []
        for name, value in every.items():
            last = next((last for last in names if name == last or name.endswith(f"/{last}")), None)
            if last is None:
                unexpected.append(name)
                continue
            scopes.setdefault(name[: -len(last)], {})[last] = value
        if unexpected and scopes:
            raise KeyError(f"weights: expected names that end in {names}, unexpected {unexpected}")
        if len(scopes) < 2:
            return next(iter(scopes.values()), every)  # without any, an error of the cell says so
        places = {scope: _place(scope) for scope in scopes}
        layers, directions = ({place[1][k] for place in places.values()} for k in (0, 1))
        if len({place[0] for place in places.values()}) > 1 or not _counts(layers, directions, places):
            expected = "the variables of one cell, of scopes that differ in fw and bw, or in cell_0, cell_1, ... for layers"
            raise KeyError(f"weights: expected {expected}, got the scopes {sorted(scopes)}")
        if len(layers) > 1 and any(re.search("(^|/)[fb]w/.*cell_[0-9]+/", scope) for scope in scopes):
            raise KeyError(
                "weights: expected layers that read both directions of the one before, got those of MultiRNNCell in each of fw and "
                "bw, where each direction reads itself alone; take those of fw and those of bw apart, one layer object each"
            )
        found = {place[1]: scopes[scope] for scope, place in places.items()}
        both = [tuple(found[layer, way] for way in sorted(directions)) for layer in sorted(layers)]
        stack = [pair if len(pair) == 2 else pair[0] for pair in both]
        return stack if len(stack) > 1 else stack[0]

    def has_names(self, weights: Mapping[Any, Any], cell: Cell) -> bool:
        names = [str(name).removesuffix(":0") for name in weights]
        return any(name == slot.name or name.endswith(f"/{slot.name}") for name in names for slot in cell.slots)


def _place(scope: str) -> tuple[str, tuple[int, int]]:
    """What scopes of one network share, the layer, and the direction."""
    parts = scope.split("/")
    layer = next((int(part[5:]) for part in parts if re.fullmatch("cell_[0-9]+", part)), 0)
    shared = ["cell" if re.fullmatch("cell_[0-9]+", part) else "way" if part in ("fw", "bw") else part for part in parts]
    return "/".join(shared), (layer, int("bw" in parts))


def _counts(layers: set[int], directions: set[int], places: Mapping[str, Any]) -> bool:
    """Is there one cell for each layer and direction?"""
    whole = layers == set(range(len(layers))) and 0 in directions
    return whole and len(set(places.values())) == len(places) == len(layers) * len(directions)


class Rearranged(Renaming):
    """A Tree whose arrays are moved within themselves before the cell reads them: `moves` has for a name the way there and back."""

    def __init__(
        self, moves: Mapping[str, tuple[Move, Move]], positional: bool = False, joined: bool = False, numbered: str = ""
    ) -> None:
        """numbered: a pattern of what is left out of names."""
        super().__init__(positional, joined)
        self.moves, self.numbered = moves, numbered

    def _name(self, name: str) -> str:
        return re.sub(self.numbered, "", name) if self.numbered else name

    def _cell(self, value: Any, cell: Cell) -> Arrays:
        return self._moved(super()._cell(value, cell), cell, 0)

    def join(self, units: Units, cell: Cell) -> Any:
        return super().join([[self._moved(arrays, cell, 1) for arrays in both] for both in units], cell)

    def _moved(self, arrays: Arrays, cell: Cell, way: int) -> Arrays:
        gates = {slot.name: slot.gates for slot in cell.slots}
        return {name: self.moves[name][way](a, gates[name]) if name in self.moves else a for name, a in arrays.items()}


def _from_cudnn(array: Array, gates: int) -> Array:
    """Keras's (n, G*H) from blocks of n*H numbers in cuDNN's order, (H, n), that are written as if they were (n, H)."""
    if array.ndim != 2 or array.shape[1] % gates:
        return array  # the cell says what is wrong
    n, H = array.shape[0], array.shape[1] // gates
    blocks = array.reshape(n, gates, H).swapaxes(0, 1).reshape(gates, H, n)
    return blocks.transpose(2, 0, 1).reshape(n, gates * H)


def _to_cudnn(array: Array, gates: int) -> Array:
    n, H = array.shape[0], array.shape[1] // gates
    blocks = array.reshape(n, gates, H).transpose(1, 2, 0).reshape(gates, n, H)
    return blocks.swapaxes(0, 1).reshape(n, gates * H)


def _from_paddle(array: Array, gates: int) -> Array:
    """(H, 3*H) of three blocks from memory that holds (H, 2*H) and then (H, H)."""
    if array.ndim != 2 or array.shape[1] != gates * array.shape[0]:
        return array  # the cell says what is wrong
    H = len(array)
    first, last = np.split(array.ravel(), [(gates - 1) * H * H])
    return np.concatenate([first.reshape(H, -1), last.reshape(H, H)], axis=1)


def _to_paddle(array: Array, gates: int) -> Array:
    H = len(array)
    first, last = np.split(array, [(gates - 1) * H], axis=1)
    return np.concatenate([first.ravel(), last.ravel()]).reshape(array.shape)


CUDNN = {"kernel": (_from_cudnn, _to_cudnn), "recurrent_kernel": (_from_cudnn, _to_cudnn)}
PADDLE = {"gru.w_0": (_from_paddle, _to_paddle)}
