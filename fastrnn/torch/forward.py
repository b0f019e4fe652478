"""What stands in a module of torch.nn for its forward; and PyTorch's own forward, where that is taken after all."""

from __future__ import annotations

import types
import weakref
from typing import Any

import torch

from .tensors import watched


class Forward:
    """The forward of a module of torch.nn, or of a class derived from one, on our kernels: an attribute of the module.

    The module keeps its type, which others ask for (quantisation, say). Who looks at this sees the method of the module's class:
    TorchScript and Dynamo compile that. Who calls it calls our forward, be it through that of a derived class.

    It does not keep its module alive, so that a model is freed as soon as it is let go.
    """

    def __init__(self, module: Any, theirs: Any, ours: Any) -> None:
        """theirs, ours: the class of torch.nn and our class derived from it."""
        self._module, self._theirs, self._ours = weakref.ref(module), theirs, ours
        self._inherited, self._compute = theirs.forward, ours.forward
        self._between: tuple[Any, Any] = (None, None)
        method = type(module).forward
        self.__module__, self.__doc__ = method.__module__, method.__doc__
        if method is not self._inherited:
            self._kind_between(type(module))

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        module = self._module()
        if module is None:
            raise ReferenceError("the module of this forward is gone; hold the module, not its forward alone")
        kind = type(module)
        if kind.forward is self._inherited:
            return self._compute(module, *arguments, **keywords)
        if watched():
            return kind.forward(module, *arguments, **keywords)
        between = self._kind_between(kind)
        twin = object.__new__(between)
        object.__setattr__(twin, "__dict__", vars(module))
        return between.forward(twin, *arguments, **keywords)

    def _kind_between(self, kind: Any) -> Any:
        """A derived class once more, with ours between it and torch.nn's: its super().forward is ours."""
        if self._between[0] is not kind:
            self._between = kind, types.new_class(kind.__name__, (kind, self._ours))
        return self._between[1]

    def __reduce__(self) -> tuple[Any, ...]:
        """For copy.deepcopy too: then of the copy of the module."""
        return Forward, (self._module(), self._theirs, self._ours)

    # To who looks at it:

    def _method(self) -> Any:
        module: Any = self._module()
        return types.MethodType(type(module).forward, module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method(), name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return types.MethodType


def scriptable(module: Any) -> Any:
    """What TorchScript compiles in the place of a module of ours: the same object as a module of torch.nn, accelerated."""
    from .replace import as_torchs  # which imports the modules that use this

    return as_torchs(module)


def left_to_torch(theirs: Any, module: Any, input: Any, hx: Any) -> Any:
    """PyTorch's own forward. Tracing symbolically, fx takes modules of torch.nn as one piece, and so ours."""
    if isinstance(input, torch.fx.Proxy) and type(module).__module__.startswith("fastrnn."):
        arguments = (input,) if hx is None else (input, hx)
        return input.tracer.create_proxy("call_module", input.tracer.path_of_module(module), arguments, {})
    return theirs.forward(module, input, hx)


def bare(kind: Any, attributes: dict[str, Any]) -> Any:
    """A module of which nothing is there but what its forward reads; its weights may be tensors of any kind."""
    module = kind.__new__(kind)
    vars(module).update(attributes)
    return module
