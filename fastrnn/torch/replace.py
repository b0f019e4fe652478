"""Whole models: their recurrent modules computed by ours, and back."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch

from .._api import checks
from .autocast import PRECISION, WithPrecision, set_precision, shown_precision
from .cells import GRUCell, LSTMCell, RNNCell
from .forward import Forward
from .frozen import FROZEN, Snapshot, cannot_be_frozen, freeze
from .layers import GRU, LSTM, RNN
from .steps import Parameters
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
# The methods that PyTorch's forward asks and ours does not.
EXPECTED = "get_expected_hidden_size", "get_expected_cell_size"
ASKED_BY_FORWARD = "check_input", "check_forward_args", "check_hidden_size", "permute_hidden", *EXPECTED
NAMES = {kind.__name__ for kind in THEIRS}


@dataclass(frozen=True)
class Report:
    """What accelerate did, by the modules' names in the model ("" is the model itself). print() shows it.

    Attributes
    ----------
    replaced : dict of str
        Each module that computes on fastrnn now.
    left : dict of str
        Why a recurrent module was left alone.
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


def accelerate(model: Any, *, frozen: bool = False, precision: str | None = None) -> Report:
    """Let the recurrent modules of a model compute on fastrnn's kernels, in place.

    Each torch.nn.RNN, GRU, LSTM, RNNCell, GRUCell and LSTMCell in it, and the model itself if it is one, gets fastrnn's forward. It
    stays the same object of the same class: its parameters, hooks, mode and names in the state_dict are what they were, and
    optimisers and others that hold it or its parameters see no difference. So do classes derived from these that leave the forward
    as it is, or whose forward calls the inherited one. Left alone are derived classes that compute on their own, modules whose
    forward was replaced, and those whose parameters are not on the CPU or not float32 or float64.

    Parameters
    ----------
    model : torch.nn.Module
    frozen : bool, default False
        For inference alone: each module computes on a snapshot of its parameters, which is packed once, so that short calls take a
        fraction of the time. A call in training mode, one that autograd would record, and one after the parameters have changed
        raise RuntimeError. Called again, it takes another snapshot; accelerate(model) makes the modules trainable again.
    precision : "float32" or "bf16", optional
        Of products: "bf16" rounds their operands to bfloat16 and sums in float32, forward and backward; inputs, outputs, states,
        gradients and parameters stay torch.float32. None: what each module has, "float32" if nothing was said before. Within
        ``torch.autocast("cpu", dtype=torch.bfloat16)`` products of modules in torch.float32 are bfloat16's in any case, and results
        have the dtypes that torch.nn's modules return there.

    Returns
    -------
    report : Report
        The modules that compute on fastrnn, and those that were left alone and why.

    Raises
    ------
    TypeError
        No torch.nn.Module.
    ValueError
        Another `precision`.
    MemoryError

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> model = torch.nn.ModuleDict({"encoder": torch.nn.LSTM(10, 20, num_layers=2), "readout": torch.nn.Linear(20, 1)})
    >>> print(fastrnn.torch.accelerate(model))
    1 module computes on fastrnn:
      encoder  LSTM(10, 20, num_layers=2)
    """
    report = Report()
    modules = _modules(model)
    if precision is not None:
        checks.precision(precision, checks.F32)
    for name, module in modules:
        theirs = _base_of(module)
        wanted = precision or vars(module).get(PRECISION, "float32")
        reason = _why_not(module, theirs, frozen, wanted)
        if theirs is not None and reason is None:
            set_precision(module, wanted)
            _replace(module, theirs, frozen)
            report.replaced[name] = f"{type(module).__name__}({_arguments(module)})"
        elif reason is not None:
            report.left[name] = reason
    return report


def _arguments(module: Any) -> str:
    shown: str = module.extra_repr()
    return shown if isinstance(module, WithPrecision) else shown + shown_precision(module)


def _replace(module: Any, theirs: Any, frozen: bool) -> None:
    own = vars(module)
    own.pop(Snapshot.NAME, None)
    if frozen:
        freeze(module)
        own["forward"] = Forward(module, type(module) if type(module) in THEIRS else theirs, FROZEN[theirs])
    elif type(module) in THEIRS:
        own.pop("forward", None)
    else:
        own["forward"] = Forward(module, theirs, OURS[theirs])


def restore(model: Any) -> None:
    """Undo accelerate, in place: the modules compute on PyTorch again; and fastrnn.torch's own modules become torch.nn's.

    For pickled models that are to load where fastrnn is not installed (a state_dict loads anyway).

    Parameters
    ----------
    model : torch.nn.Module

    Raises
    ------
    TypeError
        No torch.nn.Module.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> model = fastrnn.torch.GRU(3, 4)
    >>> fastrnn.torch.restore(model)
    >>> type(model) is torch.nn.GRU
    True
    """
    for _, module in _modules(model):
        if is_accelerated(module):
            del vars(module)["forward"]
        for name in (Parameters.NAME, Snapshot.NAME, PRECISION):
            vars(module).pop(name, None)
        if type(module) in THEIRS:
            module.__class__ = THEIRS[type(module)]


def as_torchs(module: Any) -> Any:
    """The same object: of fastrnn.torch's classes made one of torch.nn's, and accelerated."""
    theirs = THEIRS.get(type(module))
    if theirs is not None:
        module.__class__ = theirs
        vars(module)["forward"] = Forward(module, theirs, OURS[theirs])
    return module


def is_accelerated(module: Any) -> bool:
    return type(vars(module).get("forward")) is Forward


def _modules(model: Any) -> list[tuple[str, Any]]:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    return list(model.named_modules())


def _base_of(module: Any) -> Any:
    """The class of torch.nn that it is or that its class is derived from."""
    return next((base for base in OURS if isinstance(module, base)), None)


def _is_frozen(module: Any) -> bool:
    return is_accelerated(module) and Snapshot.NAME in vars(module)


def _why_not(module: Any, theirs: Any, frozen: bool, precision: str) -> str | None:
    """Why a recurrent module has to stay what it is; None for one that has not, and for all other modules."""
    if theirs is None:
        return _of_another_kind(module)
    ours = is_accelerated(module) or isinstance(module, OURS[theirs])
    if ours and not frozen and not _is_frozen(module) and precision == vars(module).get(PRECISION, "float32"):
        return "is fastrnn's already"
    if "forward" in vars(module) and not is_accelerated(module):
        return "its forward was replaced by another"
    if type(module) not in THEIRS:
        reason = _of_its_own(type(module), theirs)
        if reason is not None:
            return reason
    return misplaced(module.parameters(), precision) or (cannot_be_frozen(module) if frozen else None)


def _of_its_own(kind: Any, theirs: Any) -> str | None:
    """What a derived class does that the inherited forward does not."""
    derived = f"{kind.__name__} is derived from torch.nn.{theirs.__name__}"
    for between in kind.__mro__[: kind.__mro__.index(theirs)]:
        if "forward" in vars(between) and not _calls_inherited(vars(between)["forward"]):
            return f"{derived}, and its forward does not just call super().forward"
    own = [name for name in ASKED_BY_FORWARD if getattr(kind, name, None) is not getattr(theirs, name, None)]
    return f"{derived}, and has a {own[0]} of its own" if own else None


def _calls_inherited(forward: Any) -> bool:
    """By super(), and not by super(type(self), self): we call the forward with an object of a class derived further."""
    code = getattr(inspect.unwrap(forward), "__code__", None)
    names = set() if code is None else set(code.co_names)
    return names >= {"super", "forward"} and not names & {"type", "__class__"}


def _of_another_kind(module: Any) -> str | None:
    """A module that is called like a recurrent one, and computes: it does not just contain one."""
    kind = type(module)
    name = getattr(module, "original_name", kind.__name__)  # what TorchScript has compiled tells its origin by that
    inner = (m for m in module.modules() if m is not module)
    if name in NAMES and not any(_base_of(m) is not None for m in inner):
        return f"is a {kind.__module__}.{kind.__name__}, not torch.nn's"
    return None


def _counted(part: dict[str, str], one: str, many: str) -> str:
    return f"{len(part) or 'no'} module{'s' if len(part) != 1 else ''} {one if len(part) == 1 else many}"


def _shown(name: str) -> str:
    return name or "(the model)"
