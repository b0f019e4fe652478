"""Whole models: their recurrent modules turned into ours, and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.utils import parametrize

from .cells import GRUCell, LSTMCell, RNNCell
from .layers import GRU, LSTM, RNN
from .tensors import misplaced

OURS = {
    torch.nn.RNN: RNN,
    torch.nn.GRU: GRU,
    torch.nn.LSTM: LSTM,
    torch.nn.RNNCell: RNNCell,
    torch.nn.GRUCell: GRUCell,
    torch.nn.LSTMCell: LSTMCell,
}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}
NAMES = {kind.__name__ for kind in THEIRS}


@dataclass(frozen=True)
class Report:
    """What accelerate did, by the modules' names in the model ("" is the model itself). print() shows it.

    replaced: what each module is now. left: why a recurrent module was left alone.
    """

    replaced: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [(_counted(self.replaced, "computes", "compute") + " on fastrnn", self.replaced)]
        parts += [(_counted(self.left, "was", "were") + " left alone", self.left)] if self.left else []
        width = max((len(_shown(name)) for _, part in parts for name in part), default=0)
        lines = []
        for title, part in parts:
            lines.append(title + (":" if part else "."))
            lines += [f"  {_shown(name):{width}}  {text}" for name, text in part.items()]
        return "\n".join(lines)


def accelerate(model: Any) -> Report:
    """Let the recurrent modules of a model compute on fastrnn's kernels, in place.

    model: a torch.nn.Module. Each torch.nn.RNN, GRU, LSTM, RNNCell, GRUCell and LSTMCell in it, and the model itself if it is one,
    becomes fastrnn.torch's. It stays the same object with another class: its parameters, hooks, mode and names in the state_dict
    are what they were, and optimisers and others that hold it or its parameters see no difference.

    Left alone are subclasses (derive those from fastrnn.torch's classes), modules whose forward was replaced, parametrised modules
    (accelerate before), and those whose parameters are not on the CPU or not float32 or float64.

    Returns: a Report of what was replaced, and what was left alone and why.

    Raises: TypeError for what is no torch.nn.Module.

    >>> print(fastrnn.torch.accelerate(model))
    1 module computes on fastrnn:
      encoder.rnn  LSTM(10, 20, num_layers=2)
    """
    report = Report()
    for name, module in _modules(model):
        kind = OURS.get(type(module))
        reason = _why_not(module)
        if kind is not None and reason is None:
            module.__class__ = kind
            report.replaced[name] = repr(module)
        elif reason is not None:
            report.left[name] = reason
    return report


def restore(model: Any) -> None:
    """Undo accelerate: fastrnn.torch's modules become torch.nn's, in place. For what needs those by name, such as torch.jit.script,
    and for pickled models that are to load where fastrnn is not installed (a state_dict loads anyway).

    Raises: TypeError for what is no torch.nn.Module.
    """
    for _, module in _modules(model):
        if type(module) in THEIRS:
            module.__class__ = THEIRS[type(module)]


def _modules(model: Any) -> list[tuple[str, Any]]:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    return list(model.named_modules())


def _why_not(module: Any) -> str | None:
    """Why a recurrent module has to stay what it is; None for one that has not, and for all other modules."""
    kind = type(module)
    if kind not in OURS:
        return _of_another_kind(module)
    if "forward" in vars(module):
        return "its forward was replaced by another"
    return misplaced(module.parameters())


def _of_another_kind(module: Any) -> str | None:
    kind = type(module)
    if kind in THEIRS:
        return "is fastrnn's already"
    if isinstance(module, tuple(OURS)):
        (base,) = (base for base in OURS if isinstance(module, base))
        if parametrize.is_parametrized(module):
            return "is parametrized; accelerate the model before that"
        return f"{kind.__name__} is a subclass of torch.nn.{base.__name__}; derive it from fastrnn.torch.{base.__name__}"
    name = getattr(module, "original_name", kind.__name__)  # what TorchScript has compiled tells its origin by that
    if name in NAMES:
        return f"is a {kind.__module__}.{kind.__name__}, not torch.nn's"
    return None


def _counted(part: dict[str, str], one: str, many: str) -> str:
    return f"{len(part) or 'no'} module{'s' if len(part) != 1 else ''} {one if len(part) == 1 else many}"


def _shown(name: str) -> str:
    return name or "(the model)"
