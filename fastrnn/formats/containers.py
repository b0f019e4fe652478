"""How a format puts layers and directions together: from and to a list over the layers of a list over the directions of the
arrays of one cell, by name."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cell import Cell

Array = NDArray[Any]
Arrays = dict[str, Array]
Units = list[list[Arrays]]
_UNKNOWN_TO_NUMPY = ("torch.bfloat", "torch.float8")


class Container(ABC):
    """What each of them can do."""

    @abstractmethod
    def split(self, weights: Any, cell: Cell, given: Mapping[str, Any]) -> Units:
        """`given` says what is known of the layer: num_layers, bidirectional, input_size, hidden_size, proj_size, bias."""

    @abstractmethod
    def join(self, units: Units, cell: Cell) -> Any:
        """The inverse."""

    def has_names(self, weights: Mapping[Any, Any], cell: Cell) -> bool:
        """Is some name among these, at the top, one of the cell's?"""
        return any(slot.name in weights for slot in cell.slots)

    def label(self, layer: int, direction: int, layers: int, directions: int) -> str:
        """What errors call an array of this layer and direction, with {} for its name in the cell."""
        if layers == directions == 1:
            return "{}"
        return f"{{}} of layer {layer}{', reverse' if direction else ''}"


def as_array(name: str, value: Any) -> Array:
    """A NumPy array of numbers from an array of any library; a tensor of PyTorch may need gradients and live elsewhere. What NumPy
    has no name for, such as bfloat16, becomes float32, which holds it exactly."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}")
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = value.float() if str(value.dtype).startswith(_UNKNOWN_TO_NUMPY) else value
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}: {error}") from None
    if array.dtype.kind == "V" and array.dtype.name.startswith(("bfloat", "float")):  # ml_dtypes'
        return array.astype(np.float32)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected an array of real numbers, got {type(value).__name__} of {array.dtype}")
    if array.dtype.kind in "iu" and array.itemsize < 4:
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}, which suggests quantised ones; scale them first")
    return array


def _mapping(weights: Any) -> Mapping[str, Any]:
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights: expected a mapping of names to arrays, got {type(weights).__name__}")
    return weights


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape")


class Named(Container):
    """One mapping for all; `template` makes its names of {name}, {layer}, {reverse} (nothing or _reverse), or of {unit}, which
    counts the directions of the layers."""

    def __init__(self, template: str) -> None:
        self.template = template
        fields = {
            "name": r"(?P<name>\w+)",
            "layer": r"(?P<layer>\d+)",
            "reverse": "(?P<reverse>(_reverse)?)",
            "unit": r"(?P<unit>\d+)",
        }
        self.pattern = re.compile(template.format(**fields))

    def split(self, weights: Any, cell: Cell, given: Mapping[str, Any]) -> Units:
        directions = 2 if given.get("bidirectional") else 1
        names = {slot.name for slot in cell.slots}
        found: dict[tuple[int, int], Arrays] = {}
        unexpected = []
        for key, value in _mapping(weights).items():
            match = self.pattern.fullmatch(str(key))
            if match is None or match["name"] not in names:
                unexpected.append(key)
                continue
            fields = match.groupdict()
            place = divmod(int(fields["unit"]), directions) if "unit" in fields else (int(fields["layer"]), bool(fields["reverse"]))
            found.setdefault((place[0], int(place[1])), {})[match["name"]] = as_array(str(key), value)
        if unexpected:
            expected = ", ".join(self._key(slot.name, 0, 0, directions) for slot in cell.slots)
            raise KeyError(f"weights: expected {expected} and so on, unexpected {unexpected}")
        layers = 1 + max((layer for layer, _ in found), default=0)
        directions = 1 + max((direction for _, direction in found), default=0)
        if layers * directions != max(len(found), 1):
            raise KeyError(f"weights: expected {layers} layers of {directions} directions, got only {sorted(found)}")
        return [[found.get((layer, direction), {}) for direction in range(directions)] for layer in range(layers)]

    def has_names(self, weights: Mapping[Any, Any], cell: Cell) -> bool:
        matches = (self.pattern.fullmatch(str(key)) for key in weights)
        return any(match["name"] == slot.name for match in matches if match for slot in cell.slots)

    def join(self, units: Units, cell: Cell) -> Arrays:
        return {
            self._key(name, layer, direction, len(directions)): array
            for layer, directions in enumerate(units)
            for direction, arrays in enumerate(directions)
            for name, array in arrays.items()
        }

    def label(self, layer: int, direction: int, layers: int, directions: int) -> str:
        return self._key("{}", layer, direction, directions)

    def _key(self, name: str, layer: int, direction: int, directions: int) -> str:
        reverse = "_reverse" if direction else ""
        return self.template.format(name=name, layer=layer, reverse=reverse, unit=layer * directions + direction)


class Tree(Container):
    """A cell is a mapping, nested where its names have a /, or an object with such attributes; an array that has no name is the
    whole cell. Two directions are a pair (a tuple), several layers a list.

    positional: a cell is a list of its arrays, in their order. joined: two directions are one list.
    """

    def __init__(self, positional: bool = False, joined: bool = False) -> None:
        self.positional, self.joined = positional, joined

    def split(self, weights: Any, cell: Cell, given: Mapping[str, Any]) -> Units:
        layers = weights if isinstance(weights, list) and not self._is_cell(weights) else [weights]
        if not layers:
            raise ValueError("weights: expected one item for each layer, got an empty list")
        return [list(self._directions(layer, cell, given)) for layer in layers]

    def _is_cell(self, value: list[Any]) -> bool:
        return self.positional and any(_is_array(item) for item in value)

    def _directions(self, layer: Any, cell: Cell, given: Mapping[str, Any]) -> Iterator[Arrays]:
        if self.joined:
            layer = list(layer) if isinstance(layer, (list, tuple)) else layer
            yield from (self._cell(half, cell) for half in self._halves(layer, cell, given))
        elif isinstance(layer, tuple) and len(layer) == 2 and not self._is_cell(list(layer)):
            yield from (self._cell(direction, cell) for direction in layer)
        else:
            yield self._cell(layer, cell)

    def _halves(self, layer: Any, cell: Cell, given: Mapping[str, Any]) -> list[list[Any]]:
        """One or two lists of arrays, by their number."""
        least, most = sum(not slot.optional for slot in cell.slots), len(cell.slots)
        counts = {(2 if both else 1) * n: both for n in (least, most) for both in (False, True)}
        if not isinstance(layer, list) or len(layer) not in counts:
            got = f"{len(layer)}" if isinstance(layer, list) else type(layer).__name__
            raise ValueError(f"weights: expected a list of {least} or {most} arrays, or twice as many, for each layer, got {got}")
        half = len(layer) // 2
        return [layer[:half], layer[half:]] if counts[len(layer)] else [layer]

    def _cell(self, value: Any, cell: Cell) -> Arrays:
        names = [slot.name for slot in cell.slots]
        if names == [""]:
            found = {"": value}
        elif self.positional:
            if not isinstance(value, (list, tuple)) or len(value) > len(names):
                raise ValueError(f"weights: expected a list of the arrays {names}, got {_described(value)}")
            found = dict(zip(names, value))
        elif isinstance(value, Mapping):
            found = self._named(dict(flattened(value)))
        elif isinstance(value, (list, tuple)) or _is_array(value):
            raise TypeError(f"weights: expected a mapping of {names}, got {_described(value)}")
        else:
            found = {name: _attribute(value, name) for name in names}
        return {name: as_array(name or "weights", array) for name, array in found.items() if array is not None}

    def _named(self, found: dict[str, Any]) -> dict[str, Any]:
        """The arrays of a mapping by the names that the cell has for them."""
        return found

    def join(self, units: Units, cell: Cell) -> Any:
        layers = [self._joined([self._value(arrays, cell) for arrays in directions]) for directions in units]
        return layers[0] if len(layers) == 1 else layers

    def _joined(self, directions: list[Any]) -> Any:
        if self.joined:
            return [array for direction in directions for array in direction]
        return directions[0] if len(directions) == 1 else tuple(directions)

    def _value(self, arrays: Arrays, cell: Cell) -> Any:
        if self.positional:
            return list(arrays.values())
        return arrays[""] if "" in arrays else _nested(arrays)


class Stacked(Container):
    """A mapping of arrays with leading axes: "ld" layers and directions; "d" directions, and several layers are a list."""

    def __init__(self, axes: str) -> None:
        self.axes = axes

    def split(self, weights: Any, cell: Cell, given: Mapping[str, Any]) -> Units:
        if self.axes == "ld":
            return self._split(_mapping(weights), 2)
        if isinstance(weights, list) and not weights:
            raise ValueError("weights: expected one item for each layer, got an empty list")
        return [self._split(_mapping(layer), 1)[0] for layer in (weights if isinstance(weights, list) else [weights])]

    def _split(self, weights: Mapping[str, Any], axes: int) -> Units:
        arrays = {name: as_array(name, value) for name, value in weights.items() if value is not None}
        leading = {array.shape[:axes] for array in arrays.values()}
        if len(leading) != 1 or len(shape := leading.pop()) != axes or min(shape) < 1 or shape[-1] > 2:
            shapes = {name: array.shape for name, array in arrays.items()}
            expected = "(directions, ...)" if axes == 1 else "(layers, directions, ...)"
            raise ValueError(f"weights: expected arrays {expected} of 1 or 2 directions, got {shapes}")
        shape = (1,) * (2 - axes) + shape
        flat = {name: array.reshape(*shape, *array.shape[axes:]) for name, array in arrays.items()}
        return [[{name: a[l, d] for name, a in flat.items()} for d in range(shape[1])] for l in range(shape[0])]

    def join(self, units: Units, cell: Cell) -> Any:
        layers = [{name: np.stack([arrays[name] for arrays in layer]) for name in layer[0]} for layer in units]
        if self.axes == "d":
            return layers[0] if len(layers) == 1 else layers
        if any(layer[name].shape != array.shape for layer in layers for name, array in layers[0].items()):
            raise ValueError("weights: the format holds layers of the same sizes in one array; the input of these differs")
        return {name: np.stack([layer[name] for layer in layers]) for name in layers[0]}


class Flat(Container):
    """One vector. `passes`: the names that stand one after the other for each layer and direction, and so on."""

    def __init__(self, *passes: tuple[str, ...]) -> None:
        self.passes = passes

    def split(self, weights: Any, cell: Cell, given: Mapping[str, Any]) -> Units:
        missing = [name for name in ("input_size", "hidden_size") if given.get(name) is None]
        if missing:
            raise ValueError(f"{missing[0]}: expected an integer, because a vector of weights does not tell the sizes")
        vector = as_array("weights", weights)
        layers, directions = given.get("num_layers") or 1, 2 if given.get("bidirectional") else 1
        H, slots = given["hidden_size"], {slot.name: slot for slot in cell.slots}
        one, above = (sum(math.prod(slots[name].shape(I, H)) for name in slots) for I in (given["input_size"], directions * H))
        total = directions * (one + (layers - 1) * above)
        if vector.shape != (total,):
            raise ValueError(f"weights: expected a vector ({total},) for these sizes, got {vector.shape}")
        inputs = [given["input_size"]] + [directions * H] * (layers - 1)
        shapes = [
            (layer, direction, name, slots[name].shape(I, H))
            for names in self.passes
            for layer, I in enumerate(inputs)
            for direction in range(directions)
            for name in names
        ]
        units: Units = [[{} for _ in range(directions)] for _ in range(layers)]
        start = 0
        for layer, direction, name, shape in shapes:
            end = start + math.prod(shape)
            units[layer][direction][name] = vector[start:end].reshape(shape)
            start = end
        return units

    def join(self, units: Units, cell: Cell) -> Array:
        every = [arrays for directions in units for arrays in directions]
        return np.concatenate([arrays[name].ravel() for names in self.passes for arrays in every for name in names])


def flattened(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, by their keys with slashes in between."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _nested(arrays: Arrays) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *path, last = name.split("/")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[last] = array
    return tree


def _attribute(value: Any, name: str) -> Any:
    """None where it is not there."""
    for key in name.split("/"):
        value = getattr(value, key, None)
    return value


def _described(value: Any) -> str:
    count = f" of {len(value)}" if isinstance(value, (list, tuple)) else ""
    return f"{type(value).__name__}{count}"
