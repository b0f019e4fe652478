"""The recurrent layers in a Keras model's configuration, and the layers that they are here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layers import GRU, LSTM, RNN
from .activations import Activation, activations_supported
from .model import Layer, Model, Wishes, skip, take

Array = NDArray[Any]
_FAMILIES = {"SimpleRNN": "rnn", "GRU": "gru", "LSTM": "lstm", "CuDNNGRU": "gru", "CuDNNLSTM": "lstm"}
_FAMILIES |= {"SimpleRNNCell": "rnn", "GRUCell": "gru", "LSTMCell": "lstm"}
_LAYERS: dict[str, type[RNN] | type[GRU] | type[LSTM]] = {"rnn": RNN, "gru": GRU, "lstm": LSTM}
_MODELS = ("Sequential", "Functional", "Model")


@dataclass(frozen=True)
class Found:
    """A recurrent layer in a configuration.

    kind, config: its class and what Keras says of it; the layer inside of Bidirectional, whose own configuration is `both`.
    names: its own name and those of the models and wrappers around it, from the outside. folders: its place in a .keras file.
    nested: is it in a model within the model?
    """

    kind: str
    config: Mapping[str, Any]
    names: tuple[str, ...]
    folders: tuple[str, ...]
    nested: bool
    both: Mapping[str, Any] | None = None

    @property
    def directions(self) -> set[str]:
        """The names of the two layers inside of Bidirectional."""
        inner = [(self.both or {}).get(key) or {} for key in ("layer", "backward_layer")]
        names = [str(layer.get("config", {}).get("name")) for layer in inner]
        return {f"{way}{name}" for name in names for way in ("forward_", "backward_", "")} if self.both else set()


def is_recurrent(name: str) -> bool:
    return re.search("rnn|gru|lstm", name, re.IGNORECASE) is not None


def walk(model: Mapping[str, Any]) -> Iterator[Found]:
    """The recurrent layers of a model."""
    yield from _layers(model, (), (), 0)


def _layers(model: Mapping[str, Any], names: tuple[str, ...], folders: tuple[str, ...], depth: int) -> Iterator[Found]:
    config = model["config"]
    used: dict[str, int] = {}
    for layer in config if isinstance(config, list) else config.get("layers", []):  # a list: Keras before 2.2.3
        snake = _snake(layer["class_name"])
        used[snake] = used.get(snake, -1) + 1
        name = str(layer.get("config", {}).get("name", layer.get("name", "")) if isinstance(layer["config"], Mapping) else snake)
        place = (*folders, "layers", f"{snake}_{used[snake]}" if used[snake] else snake)
        yield from _layer(layer, (*names, name), place, depth)


def _layer(layer: Mapping[str, Any], names: tuple[str, ...], folders: tuple[str, ...], depth: int) -> Iterator[Found]:
    kind, config = layer["class_name"], layer["config"]
    inner = config.get("layer") if isinstance(config, Mapping) else None
    if kind in _MODELS or isinstance(config, list):
        yield from _layers(layer, names, folders, depth + 1)
    elif kind == "Bidirectional" and isinstance(inner, Mapping):
        yield Found(_kind(inner), inner["config"], names, folders, depth > 0, config)
    elif isinstance(inner, Mapping):  # TimeDistributed and the like
        yield from _layer(inner, (*names, str(inner["config"].get("name", ""))), (*folders, "layer"), depth)
    elif is_recurrent(_kind(layer)):
        yield Found(_kind(layer), config, names, folders, depth > 0)


def _kind(layer: Mapping[str, Any]) -> str:
    """The class; with its package where it is not Keras's."""
    registered = layer.get("registered_name")
    return str(registered if registered and ">" in str(registered) else layer["class_name"])


def _snake(name: str) -> str:
    """Keras's to_snake_case."""
    return re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))).lower()


# --- a layer ----------------------------------------------------------------------------------------------------------


def add_layer(found: Found, weights: Sequence[Array] | None, version: str, model: Model, wishes: Wishes) -> None:
    """Add the layer, or the reason why there is none, to the model."""
    take(model, "/".join(found.names), lambda: _made(found, weights, version, wishes), weights)


def _made(found: Found, weights: Sequence[Array] | None, version: str, wishes: Wishes) -> Layer:
    kind, config = found.kind, found.config
    if kind == "RNN" and isinstance(config.get("cell"), Mapping):
        kind, config = _kind(config["cell"]), {**config, **config["cell"]["config"]}
    if kind not in _FAMILIES:
        raise ValueError(f"it is a {kind}, and layers are of {', '.join(list(_FAMILIES)[:5])}")
    _check_directions(found, config)
    family, is_cudnn = _FAMILIES[kind], kind.startswith("CuDNN")
    options = {} if is_cudnn else activations_supported(family, *_activations(family, config, version))
    if weights is None:
        raise ValueError("its arrays are not where Keras 2 and 3 put them")
    if family == "gru":  # Keras before 2.1 had one form, and no name for it
        options["reset_after"] = is_cudnn or bool(config.get("reset_after", False))
    wanted = {**wishes.options(not config.get("time_major", False)), **options, "bidirectional": found.both is not None}
    return _LAYERS[family].from_weights(list(weights), "cudnn-keras" if is_cudnn else "keras", **wanted)


def _check_directions(found: Found, config: Mapping[str, Any]) -> None:
    if config.get("go_backwards"):
        raise ValueError("it goes backwards alone; a layer of its weights does that for x[::-1] along the time axis")
    if found.both is None:
        return
    mode = found.both.get("merge_mode", "concat")
    if mode != "concat":
        raise ValueError(f"its merge_mode is {mode!r}, and the y of a layer is both directions side by side")
    other = found.both.get("backward_layer")
    ours = ("activation", "recurrent_activation", "reset_after", "use_bias", "time_major")
    if other and (_kind(other) != found.kind or any(other["config"].get(key) != found.config.get(key) for key in ours)):
        raise ValueError("its backward_layer is of another kind than the forward one")


def _activations(family: str, config: Mapping[str, Any], version: str) -> tuple[Activation, ...]:
    names = {"activation": "tanh"}
    if family != "rnn":
        names["recurrent_activation"] = config.get("inner_activation", "hard_sigmoid")  # its name in Keras 1
    return tuple(_activation(config.get(name, otherwise), version) for name, otherwise in names.items())


def _activation(value: Any, version: str) -> Activation:
    """A name. Keras 3 and those before it have two functions hard_sigmoid."""
    while isinstance(value, Mapping):
        is_function = value.get("class_name") == "function"
        value = value.get("config" if is_function else "class_name", "none")
    if value is None:
        return "linear"
    if value == "hard_sigmoid":
        return ("hard_sigmoid", 1 / 6 if version.startswith("3") else 0.2, 0.5)
    return str(value)


# --- weights without a configuration ----------------------------------------------------------------------------------


def add_without_config(cells: Mapping[str, Mapping[str, Array]], model: Model, wishes: Wishes) -> None:
    """CuDNN's layers, which have one kind of activations; of the others, whose activations nobody knows, the reason."""
    partners = {name: other for name in cells if (other := _backward(name)) in cells and other != name}
    for name in cells:
        if name in partners.values():
            continue
        both = [cells[each] for each in (name, partners.get(name)) if each]
        weights = [cell[kind] for cell in both for kind in ("kernel", "recurrent_kernel", "bias") if kind in cell]
        add = _cudnn(cells[name], weights, wishes)
        short = _short(name)
        if add is not None:
            take(model, short, add, weights)
        else:
            text = "the file has weights without a configuration, which do not tell activations; if they are tanh and sigmoid, "
            skip(model, short, f"{text}from_weights(weights, 'keras') of a layer's class takes them", weights)


def _cudnn(cell: Mapping[str, Array], weights: list[Array], wishes: Wishes) -> Any:
    """What makes the layer if its bias is that of cuDNN; else None."""
    shapes = [np.shape(cell.get(kind, 0)) for kind in ("kernel", "recurrent_kernel", "bias")]
    for family, gates in (("lstm", 4), ("gru", 3)):
        if len(shapes[1]) == 2 and shapes[1][1] == gates * shapes[1][0] and shapes[2] == (2 * shapes[1][1],):
            return lambda: _LAYERS[family].from_weights(weights, "cudnn-keras", **wishes.options(True))
    return None


def _backward(name: str) -> str:
    """The cell of the other direction in Bidirectional."""
    return re.sub(r"/forward_layer(?=/|$)", "/backward_layer", re.sub(r"/forward_([^/]*)$", r"/backward_\1", name))


def _short(name: str) -> str:
    """lstm_1 of lstm_1/lstm_1, and of lstm_1/lstm_1/lstm_cell."""
    first, *rest = name.split("/")
    return first if rest and rest[0] == first else name
