"""The weights of recurrent networks as other systems store them.

Between a format and the parameters of a layer there are one table (fastrnn.formats.table) and the code that reads it. What a format
cannot hold raises ValueError unless it is zero; nothing is dropped. Writing and reading back gives the same arrays exactly. A
format with one bias where we have two gets their sum.

Examples
--------
>>> import fastrnn, fastrnn.formats
>>> layer = fastrnn.LSTM(3, 4, rng=0)
>>> weights = fastrnn.formats.write(layer.params, "keras", "lstm")  # as keras_layer.get_weights()
>>> params, sizes = fastrnn.formats.read(weights, "keras", "lstm")
>>> params["weight_hh_l0"].shape, sizes["hidden_size"]
((16, 4), 4)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._api import checks
from .._api import model_parts as parts
from .cell import Cell
from .containers import Flat, Named, Stacked, Tree, Units
from .format import Format
from .guesses import transposed
from .slots import GATES
from .table import FORMATS, lookup
from .variants import paddle, textbook, tf1

__all__ = [
    "FORMATS",
    "Cell",
    "Flat",
    "Format",
    "Named",
    "Stacked",
    "Tree",
    "paddle",
    "pull_back",
    "read",
    "textbook",
    "tf1",
    "write",
]

Array = NDArray[Any]
_KNOWN: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("input_size", "hidden_size", "num_layers"), checks.size),
    **dict.fromkeys(("bidirectional", "reset_after", "bias", "peephole"), checks.flag),
}
_OURS = re.compile(r"(weight_[ih]h|bias_[ih]h|weight_ch|weight_hr)_l(\d+)(_reverse)?")
_FAMILY_OF = {"rnn": "rnn", "gru_after": "gru", "gru_before": "gru", "lstm": "lstm"}
_FAMILIES = {"rnn": ("rnn",), "gru": ("gru_after", "gru_before"), "lstm": ("lstm",)}


def read(
    weights: Any, format: str | Format, family: str, given: Mapping[str, Any] | None = None
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Weights in a format as the parameters of a layer, and the arguments of its constructor that they determine.

    Parameters
    ----------
    weights : mapping or list of arrays
        See the format in fastrnn.formats.table; arrays of any library that NumPy takes.
    format : str or Format
        Its name, a key of FORMATS, or a Format of the caller's.
    family : "rnn", "gru" or "lstm"
    given : mapping, optional
        What is known: input_size, hidden_size, num_layers, bidirectional, reset_after, needed where the format does not say it;
        bias, peephole: True says that there are some.

    Returns
    -------
    params : dict of arrays
        {"weight_ih_l0": (G*H, I), ...}.
    sizes : dict
        {"input_size": I, "hidden_size": H, "num_layers": L, ...}.

    Raises
    ------
    KeyError
        Names are missing or unexpected.
    ValueError, TypeError
        Wrong shapes or dtypes, an unknown format or family, or too little is known.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import formats
    >>> W, R = np.ones((1, 4, 3)), np.ones((1, 4, 4))  # inputs of ONNX's operator RNN
    >>> params, sizes = formats.read({"W": W, "R": R}, "onnx", "rnn")
    >>> {name: array.shape for name, array in params.items()}, sizes["bias"]
    ({'weight_ih_l0': (4, 3), 'weight_hh_l0': (4, 4)}, False)
    """
    given = {name: _KNOWN.get(name, _any)(name, value) for name, value in (given or {}).items() if value is not None}
    found = lookup(format)
    forms = _forms(found, family, given.get("reset_after"))
    results, errors = {}, []
    for form in forms:
        try:
            results[form] = _read(weights, found, form, given)
        except (KeyError, ValueError, TypeError) as error:
            errors.append(error)
    for other in found.also if not results else ():
        if any(_is_readable(weights, lookup(other), form, given) for form in forms):
            return read(weights, other, family, given)
    if not results:
        raise _advised(errors[0], weights, found, forms, given)
    if len(results) > 1:
        raise ValueError(f"reset_after: expected True or False, because weights in the format {found.name} do not tell")
    form, units = results.popitem()
    sizes = _sizes(units, form)
    return _named(units), sizes


def write(params: Mapping[str, Array], format: str | Format, family: str, reset_after: bool = True) -> Any:
    """The parameters of a layer, by their names, as weights in a format.

    Parameters
    ----------
    params : mapping of names to arrays
        As layer.params.
    format : str or Format
        Its name, a key of FORMATS, or a Format of the caller's.
    family : "rnn", "gru" or "lstm"
    reset_after : bool, default True
        Of a GRU.

    Returns
    -------
    weights : dict or list of arrays
        As the format has them.

    Raises
    ------
    ValueError
        The format has no place for something, or a shape is wrong.
    KeyError
        Names that are no layer's.

    Examples
    --------
    >>> import fastrnn
    >>> from fastrnn import formats
    >>> layer = fastrnn.LSTM(3, 4, rng=0)
    >>> {name: array.shape for name, array in formats.write(layer.params, "onnx", "lstm").items()}
    {'W': (1, 16, 3), 'R': (1, 16, 4), 'B': (1, 32)}
    """
    found = lookup(format)
    form = _forms(found, family, reset_after)[0]
    cell, units, name = found.cells[form], _units(params, form), f"the format {found.name}"
    written = [
        [cell.write(form, unit, name, f"{{}}_l{layer}{'_reverse' * direction}") for direction, unit in enumerate(both)]
        for layer, both in enumerate(units)
    ]
    return found.container.join(written, cell)


def pull_back(gradients: Mapping[str, Array], format: str | Format, family: str, reset_after: bool = True) -> Any:
    """The gradients of weights in a format, laid out as these, from the gradients of the parameters that `read` makes of them.

    Where `read` adds up or scales, this is its transpose; where the format has no place for a parameter, its gradient is dropped.

    Parameters
    ----------
    gradients : mapping of names to arrays
        As grads.params of a layer's tape.
    format : str or Format
        Its name, a key of FORMATS, or a Format of the caller's.
    family : "rnn", "gru" or "lstm"
    reset_after : bool, default True
        Of a GRU.

    Returns
    -------
    gradients : dict or list of arrays
        As the format has the weights.

    Raises
    ------
    ValueError
        The format does not have the cell.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> from fastrnn import formats
    >>> layer = fastrnn.LSTM(3, 4, rng=0)
    >>> y, state, tape = layer.forward(np.ones((7, 2, 3), np.float32))
    >>> [d.shape for d in formats.pull_back(tape.backward(y).params, "keras", "lstm")]
    [(3, 16), (4, 16), (16,)]
    """
    found = lookup(format)
    form = _forms(found, family, reset_after)[0]
    cell = found.cells[form]
    return found.container.join([[cell.pull_back(form, unit) for unit in both] for both in _units(gradients, form)], cell)


def _any(name: str, value: Any) -> Any:
    """What no format asks for."""
    return value


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
    known = {group for name, group in (("bias", "biases"), ("peephole", "peepholes")) if given.get(name)}
    groups = frozenset(known | {group for both in units for arrays in both for group in cell.groups(arrays)})
    return [
        [cell.read(form, arrays, format.container.label(k, d, len(units), len(both)), groups) for d, arrays in enumerate(both)]
        for k, both in enumerate(units)
    ]


def _is_readable(weights: Any, format: Format, form: str, given: Mapping[str, Any]) -> bool:
    if form not in format.cells:
        return False
    try:
        _sizes(_read(weights, format, form, given), form)
    except (KeyError, ValueError, TypeError):
        return False
    return True


def _advised(error: Exception, weights: Any, format: Format, forms: list[str], given: Mapping[str, Any]) -> Exception:
    """The same error, which also says what to take of a whole model's weights, or what these are."""
    more = parts.advice(
        "weights",
        weights,
        fits=lambda part: any(_is_readable(part, format, form, given) for form in forms),
        resembles=lambda part: any(format.container.has_names(part, format.cells[form]) for form in forms),
    )
    more = more or _what_they_are(weights, format, forms, given)
    return type(error)(f"{error.args[0]}{more}") if more else error


def _what_they_are(weights: Any, format: Format, forms: list[str], given: Mapping[str, Any]) -> str:
    """The end of a message: what to transpose, or which formats weights are of that do not fit this one."""
    turns = (what for what, turned in transposed(weights) if any(_is_readable(turned, format, form, given) for form in forms))
    found = [f"with {what} transposed" for what in turns][:1]
    every = [form for form in _FAMILY_OF if _FAMILY_OF[form] == _FAMILY_OF[forms[0]]]
    others = [name for name, other in FORMATS.items() if any(_is_readable(weights, other, form, given) for form in every)]
    found += [f"the format {name!r}" for name in others if name != format.name]
    return f"; they fit {' or '.join(found)}" if found else ""


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


def _named(units: Units) -> dict[str, Array]:
    """All parameters by their names, of one dtype."""
    dtype = np.result_type(*(array for both in units for unit in both for array in unit.values()))
    dtype = np.dtype(np.float64) if dtype.kind in "iu" else dtype
    params: dict[str, Array] = {}
    for layer, both in enumerate(units):
        for direction, unit in enumerate(both):
            suffix = "_reverse" if direction else ""
            params |= {f"{name}_l{layer}{suffix}": array.astype(dtype, copy=False) for name, array in unit.items()}
    return params


def _units(params: Mapping[str, Array], form: str) -> Units:
    """The inverse of _named. Raises: KeyError, ValueError for what are not the parameters of a layer."""
    units: Units = []
    for name, array in params.items():
        match = _OURS.fullmatch(name)
        if match is None:
            raise KeyError(f"params: expected names such as weight_ih_l0 and bias_hh_l1_reverse, got {name!r}")
        layer = int(match[2])
        if layer > len(params):
            raise KeyError(f"params: expected the layers one after the other, got {name!r}")
        units += [[{}] for _ in range(layer + 1 - len(units))]
        if match[3] and len(units[layer]) == 1:
            units[layer].append({})
        units[layer][bool(match[3])][match[1]] = array
    for k, both in enumerate(units):
        for d, unit in enumerate(both):
            _check_shapes(unit, f"_l{k}{'_reverse' * d}", form)
    return units


def _check_shapes(unit: Mapping[str, Array], suffix: str, form: str) -> None:
    missing = [name + suffix for name in ("weight_ih", "weight_hh") if name not in unit]
    if missing:
        raise KeyError(f"params: missing {missing}")
    G, (I, P) = len(GATES[form]), (np.shape(unit[name])[-1:] or (0,) for name in ("weight_ih", "weight_hh"))
    H = len(unit["weight_hh"]) // G
    shapes = {"weight_ih": (G * H, *I), "weight_hh": (G * H, *P), "weight_ch": (3, H), "weight_hr": (*P, H)}
    for name, array in unit.items():
        expected = shapes.get(name, (G * H,))
        if np.shape(array) != expected:
            raise ValueError(f"{name}{suffix}: expected {expected}, got {np.shape(array)}")
