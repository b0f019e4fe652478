"""JSON files of RTNeural, of layers that Keras made or of a state_dict of PyTorch, and of GuitarML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layers import GRU, LSTM
from .model import Layer, Model, Wishes, skip, take
from .state_dicts import add_layers, flat, is_recurrent

_KINDS: dict[str, type[GRU] | type[LSTM]] = {"gru": GRU, "lstm": LSTM}


def read_json(where: str, model: Model, wishes: Wishes) -> None:
    try:
        with open(where, encoding="utf-8") as file:
            content = json.load(file)
    except ValueError as error:
        raise ValueError(f"path: expected a JSON file, got {where!r}, which is damaged: {error}") from error
    wishes = Wishes(wishes.batch_first, wishes.dtype or np.dtype(np.float32))
    if isinstance(content, Mapping) and isinstance(content.get("layers"), list):
        for k, layer in enumerate(content["layers"]):
            _add_keras(k, layer, model, wishes)
        return
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):  # GuitarML's
        content = content["state_dict"]
    arrays = {name: leaf for name, leaf in flat(content) if is_recurrent(name) and isinstance(leaf, list)}
    if not arrays:
        expected = "RTNeural's or GuitarML's, with layers or a state_dict"
        raise ValueError(f"path: expected a JSON file of {expected}, got {where!r}, which has no such arrays")
    add_layers({name: _array(name, leaf) for name, leaf in arrays.items()}, model, wishes)


def _add_keras(k: int, layer: Any, model: Model, wishes: Wishes) -> None:
    """A layer of RTNeural, whose weights are Keras's get_weights()."""
    kind = str(layer.get("type")) if isinstance(layer, Mapping) else ""
    name = f"{kind}_{k}"
    if kind in _KINDS:
        take(model, name, lambda: _layer(kind, layer, wishes), layer.get("weights"))
    elif re.search("rnn|gru|lstm", kind, re.IGNORECASE):
        skip(model, name, f"the type {kind!r} is not known", layer.get("weights"))


def _layer(kind: str, layer: Mapping[str, Any], wishes: Wishes) -> Layer:
    activation = layer.get("activation") or "tanh"
    if activation != "tanh":  # RTNeural has no other, and its files do not tell the gates' own
        raise ValueError(f"its activation is {activation}, and a layer has tanh")
    weights = [_array("weights", array) for array in layer["weights"]]
    return _KINDS[kind].from_weights(weights, "keras", **wishes.options(False))


def _array(name: str, leaf: Any) -> NDArray[Any]:
    try:
        return np.array(leaf, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers, got what is none: {error}") from None
