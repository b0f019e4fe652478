"""The weights of recurrent networks as other systems store them.

Between a format and the parameters of a layer stand one table (fastrnn.formats.table) and the code that reads it. What a format
cannot hold raises ValueError unless it is zero; nothing is dropped. Back and forth gives the same arrays exactly. A format with one
bias where we have two gets their sum.

>>> params, sizes = fastrnn.formats.read(keras_layer.get_weights(), "keras", "lstm")
>>> weights = fastrnn.formats.write(params, "onnx", "lstm")  # {"W": ..., "R": ..., "B": ...}
>>> dweights = fastrnn.formats.pull_back(grads.params, "onnx", "lstm")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cell import Cell
from .containers import Flat, Named, Stacked, Tree, Units
from .table import FORMATS, Format, lookup

__all__ = ["FORMATS", "Cell", "Flat", "Format", "Named", "Stacked", "Tree", "pull_back", "read", "write"]

Array = NDArray[Any]
_FAMILIES = {"rnn": ("rnn",), "gru": ("gru_after", "gru_before"), "lstm": ("lstm",)}


def read(
    weights: Any, format: str | Format, family: str, given: Mapping[str, Any] | None = None
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Weights in a format as the parameters of a layer, and the arguments of its constructor that they tell.

    Args:
        weights: see the format in fastrnn.formats.table; arrays of any library that NumPy takes.
        format: its name, or a Format of the caller's.
        family: "rnn", "gru" or "lstm".
        given: what is known: input_size, hidden_size, num_layers, bidirectional, reset_after. Needed where the format does not
            say it.

    Returns: {"weight_ih_l0": (G*H, I), ...} and {"input_size": I, "hidden_size": H, "num_layers": ..., ...}.

    Raises: KeyError for names that are missing or unexpected; ValueError, TypeError.
    """
    given = dict(given or {})
    found = lookup(format)
    forms = _forms(found, family, given.get("reset_after"))
    results, errors = {}, []
    for form in forms:
        try:
            results[form] = _read(weights, found, form, given)
        except (KeyError, ValueError, TypeError) as error:
            errors.append(error)
    if not results:
        raise errors[0]
    if len(results) > 1:
        raise ValueError(f"reset_after: expected True or False, because weights in the format {found.name} do not tell")
    form, units = results.popitem()
    sizes = _sizes(units, form)
    return _named(units, sizes), sizes


def write(params: Mapping[str, Array], format: str | Format, family: str, reset_after: bool = True) -> Any:
    """The parameters of a layer, by their names, as weights in a format.

    Raises: ValueError where the format has no place for something.
    """
    found = lookup(format)
    form = _forms(found, family, reset_after)[0]
    cell, units, name = found.cells[form], _units(params), f"the format {found.name}"
    written = [
        [cell.write(form, unit, name, f"{{}}_l{layer}{'_reverse' * direction}") for direction, unit in enumerate(both)]
        for layer, both in enumerate(units)
    ]
    return found.container.join(written, cell)


def pull_back(gradients: Mapping[str, Array], format: str | Format, family: str, reset_after: bool = True) -> Any:
    """The gradients of weights in a format, laid out as these, from the gradients of the parameters that read makes of them.

    Where read adds up or scales, this is its transpose; where the format has no place for a parameter, its gradient is dropped.

    Raises: ValueError where the format does not have the cell.

    >>> dweights = fastrnn.formats.pull_back(grads.params, "thinc", "lstm")
    """
    found = lookup(format)
    form = _forms(found, family, reset_after)[0]
    cell = found.cells[form]
    return found.container.join([[cell.pull_back(form, unit) for unit in both] for both in _units(gradients)], cell)


def _forms(format: Format, family: str, reset_after: bool | None) -> list[str]:
    """The forms of a cell that a format has, of those that may be meant."""
    if family not in _FAMILIES:
        raise ValueError(f"family: expected one of {', '.join(_FAMILIES)}, got {family!r}")
    wanted = list(_FAMILIES[family])
    if family == "gru" and reset_after is not None:
        wanted = ["gru_after" if reset_after else "gru_before"]
    forms = [form for form in wanted if form in format.cells]
    if not forms:
        what = family.upper() if len(wanted) > 1 or family != "gru" else f"GRU with reset_after={bool(reset_after)}"
        raise ValueError(f"format: {format.name} has no {what}; it has {', '.join(format.cells)}")
    return forms


def _read(weights: Any, format: Format, form: str, given: Mapping[str, Any]) -> Units:
    cell = format.cells[form]
    units = format.container.split(weights, cell, given)
    return [
        [cell.read(form, arrays, format.container.label(k, d, len(units), len(both))) for d, arrays in enumerate(both)]
        for k, both in enumerate(units)
    ]


def _sizes(units: Units, form: str) -> dict[str, Any]:
    """The arguments of the constructor; the units must agree on them."""
    first, directions = units[0][0], len(units[0])
    output = first["weight_hh"].shape[1]
    hidden = first["weight_ch"].shape[1] if "weight_ch" in first else _hidden(first, form)
    for layer, both in enumerate(units):
        inputs = first["weight_ih"].shape[1] if layer == 0 else directions * output
        for direction, unit in enumerate(both):
            shapes = unit["weight_ih"].shape[1], unit["weight_hh"].shape[1], _hidden(unit, form)
            if len(both) != directions or shapes != (inputs, output, hidden):
                expected = f"(input, output, hidden) sizes {(inputs, output, hidden)} in {directions} directions"
                where = f"layer {layer}{', reverse' if direction else ''}"
                raise ValueError(f"weights of {where}: expected {expected}, got {shapes} in {len(both)}")
    every = {name for both in units for unit in both for name in unit}
    sizes: dict[str, Any] = {"input_size": first["weight_ih"].shape[1], "hidden_size": hidden, "num_layers": len(units)}
    sizes |= {"bias": "bias_ih" in every, "bidirectional": directions == 2}
    if form == "lstm":
        sizes |= {"proj_size": output if "weight_hr" in every else 0, "peephole": "weight_ch" in every}
    if form.startswith("gru"):
        sizes["reset_after"] = form == "gru_after"
    return sizes


def _hidden(unit: Mapping[str, Array], form: str) -> int:
    return unit["weight_hh"].shape[0] // {"rnn": 1, "lstm": 4}.get(form, 3)


def _named(units: Units, sizes: Mapping[str, Any]) -> dict[str, Array]:
    """All parameters by their names, of one dtype; zeros for a bias or peephole that only some units have."""
    dtype = np.result_type(*(array for both in units for unit in both for array in unit.values()))
    dtype = np.dtype(np.float64) if dtype.kind in "iu" else dtype
    params: dict[str, Array] = {}
    for layer, both in enumerate(units):
        for direction, unit in enumerate(both):
            rows = unit["weight_hh"].shape[0]
            shapes: dict[str, tuple[int, ...]] = {"bias_ih": (rows,), "bias_hh": (rows,)} if sizes["bias"] else {}
            shapes |= {"weight_ch": (3, sizes["hidden_size"])} if sizes.get("peephole") else {}
            unit = {name: unit.get(name, np.zeros(shapes.get(name, ()), dtype)) for name in dict.fromkeys([*unit, *shapes])}
            suffix = "_reverse" if direction else ""
            params |= {f"{name}_l{layer}{suffix}": array.astype(dtype, copy=False) for name, array in unit.items()}
    return params


def _units(params: Mapping[str, Array]) -> Units:
    """The inverse of _named."""
    units: Units = []
    for name, array in params.items():
        kind, _, place = name.rpartition("_l")
        layer, _, reverse = place.partition("_")
        while len(units) <= int(layer):
            units.append([{}])
        if reverse and len(units[int(layer)]) == 1:
            units[int(layer)].append({})
        units[int(layer)][bool(reverse)][kind] = array
    return units
