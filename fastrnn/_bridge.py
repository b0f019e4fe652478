"""The functions as a framework's automatic differentiation wants them: arrays by name, flat outputs, gradients by name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import functional
from ._api.tape import Tape

Array = NDArray[Any]
Arrays = dict[str, Any]  # of the framework or of NumPy, by the names of the arguments, those that are not None

FLOATS = ("x", "w_ih", "w_hh", "b_ih", "b_hh", "h0", "c0", "peephole", "w_hr")  # the arguments that have gradients
OF_ROWS = ("lengths", "reset", "mask")  # those that are arrays and have none


class Call(NamedTuple):
    """A function and its options, the keywords that are no arrays; hashable, and equal to a call of the same."""

    function: str
    options: tuple[tuple[str, Any], ...]

    def forward(self, arrays: Mapping[str, Any], record: bool = False) -> tuple[tuple[Array, ...], Tape | None]:
        """(y, h_n) or, of an LSTM, (y, h_n, c_n); and the tape if it was asked for."""
        function = getattr(functional, self.function)
        y, state, tape = function(**arrays, **dict(self.options), record=record)
        return (y, *state) if self.function == "lstm" else (y, state), tape

    def backward(self, tape: Tape, cotangents: tuple[Any, ...]) -> Arrays:
        """The gradients by the names of the arguments, from those of the outputs."""
        dy, *dstate = (np.asarray(d) for d in cotangents)
        grads = tape.backward(dy, tuple(dstate) if self.function == "lstm" else dstate[0])
        return {name: getattr(grads, name, None) for name in FLOATS}


_Function = Callable[..., tuple[Any, Any]]


def function(run: Callable[[Call, Arrays, Arrays], Any]) -> Callable[[Callable[..., Any]], _Function]:
    """Decorates an empty function with the name and documentation of ours for a framework: see _complete."""
    return functools.partial(_complete, run)


def _complete(run: Callable[[Call, Arrays, Arrays], Any], named: Callable[..., Any]) -> _Function:
    """fastrnn.<name> for a framework: its signature without `record`, computed by run(call, floats, of_rows) -> flat outputs."""
    name, where = named.__name__, f"{named.__module__}.{named.__name__}"
    given = inspect.signature(getattr(functional, name)).parameters.values()
    signature = inspect.Signature([p.replace(annotation=Any) for p in given if p.name != "record"])

    @functools.wraps(named)
    def function(*arguments: Any, **keywords: Any) -> tuple[Any, Any]:
        try:
            bound = {n: v for n, v in signature.bind(*arguments, **keywords).arguments.items() if v is not None}
        except TypeError as error:
            raise TypeError(f"{where}: {error}") from None
        for n, value in bound.items():
            if isinstance(value, np.ma.MaskedArray):  # a framework would take what the mask hides
                raise TypeError(f"{n}: expected an array, got {type(value).__name__}")
        floats, of_rows = ({n: v for n, v in bound.items() if n in names} for names in (FLOATS, OF_ROWS))
        options = tuple((n, v) for n, v in bound.items() if n not in FLOATS + OF_ROWS)
        y, *state = run(Call(name, options), floats, of_rows)
        return y, state[0] if len(state) == 1 else tuple(state)

    function.__signature__ = signature  # type: ignore[attr-defined]
    return function
