"""Layers and cells among arrays by PyTorch's names, as a state_dict has them, with any prefixes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..cells import GRUCell, LSTMCell
from ..formats import read
from ..layers import GRU, LSTM
from .model import Layer, Model, Wishes, skip, take

_NAME = re.compile(r"(?P<prefix>.*[./])?(?P<name>weight_ih|weight_hh|bias_ih|bias_hh|weight_hr)(?P<layer>(_l\d+)(_reverse)?)?")
_RECURRENT = re.compile("rnn|gru|lstm|recurrent|weight_[ih]h", re.IGNORECASE)
_FAMILIES = {1: "rnn", 3: "gru", 4: "lstm"}


def is_recurrent(name: str) -> bool:
    """May an array of this name belong to a recurrent layer?"""
    return _NAME.fullmatch(name) is not None or _RECURRENT.search(name) is not None


def add_layers(arrays: Mapping[str, Any], model: Model, wishes: Wishes) -> None:
    """What the arrays are layers and cells of."""
    groups = grouped(arrays)
    others: dict[str, list[str]] = {}
    for name in arrays:
        if _NAME.fullmatch(name) is None and _RECURRENT.search(name):
            others.setdefault(re.split("[./](?=[^./]*$)", name)[0], []).append(name)
    for (prefix, is_cell), weights in groups.items():
        family = family_of(weights, "" if is_cell else "_l0")
        make = _cell if is_cell else _layer
        take(model, prefix.rstrip("./") or family, lambda: make(family, weights, wishes), weights)  # noqa: B023 -- called at once
    for name, names in others.items():
        if not any(prefix.startswith(f"{name}.") or prefix.rstrip("./") == name for prefix, _ in groups):
            skip(model, name, f"its arrays, {', '.join(names[:4])}, are not named as PyTorch names those of recurrent layers")


def grouped(arrays: Mapping[str, Any]) -> dict[tuple[str, bool], dict[str, Any]]:
    """The arrays of each layer or cell, by the prefix of their names and whether it is a cell."""
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, array in arrays.items():
        match = _NAME.fullmatch(name)
        if match is not None:
            key = match["prefix"] or "", match["layer"] is None
            groups.setdefault(key, {})[name[len(key[0]) :]] = array
    return groups


def flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of mappings in mappings, by names with dots in between."""
    for key, item in tree.items() if isinstance(tree, Mapping) else ():
        if isinstance(item, Mapping):
            yield from flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def family_of(weights: Mapping[str, Any], suffix: str) -> str:
    """What the shapes say; "" if they are none."""
    shapes = [np.shape(weights.get(f"{name}{suffix}", 0)) for name in ("weight_ih", "weight_hh", "weight_hr")]
    H = (shapes[2] or shapes[1] or (0,))[-1]
    return _FAMILIES.get(shapes[0][0] / H, "") if shapes[0] and H else ""


def _layer(family: str, weights: Mapping[str, Any], wishes: Wishes) -> Layer:
    _check(family, "RNN.from_weights(weights, nonlinearity=...)")
    kind: type[GRU] | type[LSTM] = GRU if family == "gru" else LSTM
    return kind.from_weights(weights, **wishes.options(False))


def _cell(family: str, weights: Mapping[str, Any], wishes: Wishes) -> Layer:
    _check(family, "RNNCell(..., nonlinearity=...).load_state_dict(weights)")
    params, sizes = read({f"{name}_l0": array for name, array in weights.items()}, "pytorch", family)
    dtype = wishes.dtype or ("float64" if params["weight_hh_l0"].dtype.itemsize > 4 else "float32")
    kind: type[GRUCell] | type[LSTMCell] = GRUCell if family == "gru" else LSTMCell
    cell = kind(sizes["input_size"], sizes["hidden_size"], sizes["bias"], dtype=dtype)
    cell.load_state_dict({name.removesuffix("_l0"): array.astype(dtype) for name, array in params.items()})
    return cell


def _check(family: str, how: str) -> None:
    if not family:
        raise ValueError("weight_ih and weight_hh are missing, or their shapes are those of no RNN, GRU or LSTM")
    if family == "rnn":
        raise ValueError(f"a state_dict does not tell its nonlinearity, tanh or relu; fastrnn.{how} takes its weights")
