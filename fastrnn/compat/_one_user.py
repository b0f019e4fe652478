"""One thread at a time for objects that keep a state from call to call."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from .._core import InUse

Method = TypeVar("Method", bound=Callable[..., Any])


def layer_in_use() -> InUse:
    """One for each layer, as its `_in_use`."""
    return InUse("layer", "it goes on from its last call, so make one for each thread")


def one_user(method: Method) -> Method:
    """The method, with a RuntimeError for whoever comes while another thread is in one of the same object's."""

    @wraps(method)
    def alone(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._in_use:
            return method(self, *args, **kwargs)

    return cast(Method, alone)
