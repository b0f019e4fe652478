"""The attributes of a node, checked and put in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .._api import checks
from .activations import ACTIVATIONS, Activation

OPERATORS = ("RNN", "GRU", "LSTM")
_DEFAULTS = {"RNN": ("tanh",), "GRU": ("sigmoid", "tanh"), "LSTM": ("sigmoid", "tanh", "tanh")}
_COMMON = ("activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "layout", "output_sequence")
_NAMES = {"RNN": _COMMON, "GRU": (*_COMMON, "linear_before_reset"), "LSTM": (*_COMMON, "input_forget")}
_REVERSE = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


@dataclass(frozen=True)
class Attributes:
    """What the attributes say. reverse and activations have one item per direction."""

    op_type: str
    reverse: tuple[bool, ...]
    activations: tuple[tuple[Activation, ...], ...]
    clip: float | None
    hidden_size: int | None
    batch_first: bool
    linear_before_reset: bool
    input_forget: bool

    @property
    def form(self) -> str:
        """The cell's key in fastrnn.formats.FORMATS["onnx"].cells."""
        return {"GRU": "gru_after" if self.linear_before_reset else "gru_before"}.get(self.op_type, self.op_type.lower())

    @property
    def fused(self) -> bool:
        """Whether the compiled kernels compute this."""
        return self.clip is None and not self.input_forget


def read(op_type: str, attributes: Mapping[str, Any]) -> Attributes:
    """Raises: TypeError, ValueError (the message names the attribute)."""
    checks.choice("op_type", op_type, *OPERATORS)
    if not isinstance(attributes, Mapping):
        raise TypeError(f"attributes: expected a mapping of names to values, got {type(attributes).__name__}")
    unknown = [name for name in attributes if name not in _NAMES[op_type]]
    if unknown:
        raise ValueError(f"attributes: expected names of {', '.join(_NAMES[op_type])}, got {unknown}")
    given = dict(attributes)
    reverse = _REVERSE[checks.choice("direction", _text("direction", given.get("direction", "forward")), *_REVERSE)]
    hidden_size, clip = given.get("hidden_size"), given.get("clip")
    return Attributes(
        op_type,
        reverse,
        _activations(op_type, len(reverse), given),
        None if clip is None else _positive("clip", clip),
        None if hidden_size is None else checks.integer("hidden_size", hidden_size, 1),
        checks.integer("layout", given.get("layout", 0), 0, 1) == 1,
        checks.integer("linear_before_reset", given.get("linear_before_reset", 0), 0, 1) == 1,
        checks.integer("input_forget", given.get("input_forget", 0), 0, 1) == 1,
    )


def _activations(op_type: str, directions: int, given: Mapping[str, Any]) -> tuple[tuple[Activation, ...], ...]:
    """The functions of each direction, with alpha and beta handed out in order to those that have them."""
    defaults = _DEFAULTS[op_type]
    count, each = directions * len(defaults), len(defaults)
    names = _texts("activations", given.get("activations", defaults * directions))
    if op_type == "RNN" and directions == 1 and len(names) == 2:
        names = names[:1]  # the specification's own default is ["Tanh", "Tanh"], whatever the direction
    if len(names) != count:
        raise ValueError(f"activations: expected {count} names, {each} per direction, got {len(names)}")
    wrong = [name for name in names if name.lower() not in ACTIVATIONS]
    if wrong:
        known = ", ".join(activation.name for activation in ACTIVATIONS.values())
        raise ValueError(f"activations: expected names of {known}, got {wrong}")
    functions = [ACTIVATIONS[name.lower()] for name in names]
    for parameter in ("alpha", "beta"):
        functions = _parametrise(functions, parameter, given.get(f"activation_{parameter}", ()))
    return tuple(tuple(functions[start : start + each]) for start in range(0, count, each))


def _parametrise(functions: list[Activation], parameter: str, given: Any) -> list[Activation]:
    """One parameter of all functions: the given values in order, then the defaults."""
    name = f"activation_{parameter}"
    values = [checks.real(name, value) for value in _list(name, given, "numbers")]
    takers = [f for f in functions if getattr(f, parameter) is not None]
    if len(values) > len(takers):
        whom = f"one for each of {', '.join(f.name for f in takers)}" if takers else "as no activation takes one"
        raise ValueError(f"{name}: expected at most {len(takers)} values, {whom}, got {len(values)}")
    rest = iter(values)

    def parametrised(f: Activation) -> Activation:
        default = getattr(f, parameter)
        value = None if default is None else next(rest, default)
        return f._replace(alpha=value) if parameter == "alpha" else f._replace(beta=value)

    return [parametrised(f) for f in functions]


def _positive(name: str, value: Any) -> float:
    number = checks.real(name, value)
    if number <= 0:
        raise ValueError(f"{name}: expected a number above 0, got {number!r}")
    return number


def _text(name: str, value: Any) -> str:
    """A string; ONNX's own are bytes."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a string, got {value!r:.60}")
    return value


def _texts(name: str, value: Any) -> list[str]:
    return [_text(name, item) for item in _list(name, value, "strings")]


def _list(name: str, value: Any, wanted: str) -> list[Any]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: expected a list of {wanted}, got {value!r:.60}")
    return list(value)
