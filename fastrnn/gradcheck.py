"""gradcheck: the gradients of a function, a layer or a cell against differences of its own forward."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._api import checks
from ._api.pickling import reduced

__all__ = ["GradcheckEntry", "GradcheckError", "GradcheckResult", "gradcheck"]

Array = NDArray[Any]


class GradcheckError(AssertionError):
    """A gradient does not agree with the differences of the forward; the message names the worst entry. Raised by `gradcheck`."""


class GradcheckEntry(NamedTuple):
    """One entry of an array, the worst of those checked: a named tuple.

    Attributes
    ----------
    name : str
        The array's.
    index : tuple of int
    analytic, numeric : float or complex
        Its gradient from backward, and by differences.
    error : float
        |analytic - numeric|.
    tolerance : float
    checked : int
        How many entries of the array were checked.

    Examples
    --------
    >>> from fastrnn.gradcheck import GradcheckEntry
    >>> entry = GradcheckEntry("w_hh", (1, 2), 0.5, 0.75, 0.25, 0.125)
    >>> print(entry)
    w_hh[1, 2]: analytic 0.5, numeric 0.75, error 0.25 (allowed 0.12)
    >>> entry.ok, entry.badness
    (False, 2.0)
    """

    name: str
    index: tuple[int, ...]  # type: ignore[assignment]  # not the method of a tuple
    analytic: Any
    numeric: Any
    error: float  # |analytic - numeric|
    tolerance: float
    checked: int = 1  # how many entries of the array were

    def __reduce__(self) -> Any:
        return reduced(self)

    @property
    def ok(self) -> bool:
        """Whether the error is within the tolerance; what is not finite never is."""
        return math.isfinite(self.error) and self.error <= self.tolerance

    @property
    def badness(self) -> float:
        """The error in units of the tolerance; 0 for no error, infinite for an error that is not finite."""
        if self.error == 0:
            return 0.0
        return self.error / self.tolerance if math.isfinite(self.error) and self.tolerance else math.inf

    def __str__(self) -> str:
        place = self.name + (str(list(self.index)) if self.index else "")
        return (
            f"{place}: analytic {self.analytic:.10g}, numeric {self.numeric:.10g}, "
            f"error {self.error:.2g} (allowed {self.tolerance:.2g})"
        )


class GradcheckResult(NamedTuple):
    """What gradcheck found: a named tuple that is true when every entry passed, and prints as a table.

    Attributes
    ----------
    ok : bool
    name, index, analytic, numeric, error
        Those of the worst entry of all arrays, by its error in units of its tolerance; name is "" when there was nothing to check.
    table : dict of GradcheckEntry
        Each array's worst entry by name.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> result = fastrnn.gradcheck(fastrnn.GRUCell(3, 4, dtype=np.float64, rng=0), np.ones((2, 3)))
    >>> bool(result), list(result.table)
    (True, ['x', 'weight_ih', 'weight_hh', 'bias_ih', 'bias_hh'])
    """

    ok: bool
    name: str
    index: tuple[int, ...]  # type: ignore[assignment]  # not the method of a tuple
    analytic: Any
    numeric: Any
    error: float
    table: dict[str, GradcheckEntry]

    def __reduce__(self) -> Any:
        return reduced(self)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        lines = [f"gradcheck {'passed' if self.ok else 'FAILED'}; the worst entry of each array:"]
        for entry in self.table.values():
            lines.append(f"  {'ok    ' if entry.ok else 'WRONG '} {entry} of {entry.checked} checked")
        return "\n".join(lines)


def gradcheck(
    target: Any,
    *args: Any,
    eps: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    raise_exception: bool = True,
    max_entries: int | None = None,
    outputs: Collection[str] = (),
    **kwargs: Any,
) -> GradcheckResult:
    """Compare the gradients of a function, layer or cell with differences of its own forward.

    L = sum(y * dy) + sum(state * dstate), with random dy and dstate, depends on every argument. Its gradients by tape.backward are
    compared, entry by entry, with the central difference of fourth order (Abramowitz and Stegun, table 25.2)

        dL/dv = (8 (L(v + h) - L(v - h)) - (L(v + 2h) - L(v - 2h))) / 12h + O(h^4)

    Parameters
    ----------
    target : function, layer or cell
        A function such as fastrnn.lstm, called as target(*args, record=True, **kwargs), or a layer, called as
        target.forward(*args, **kwargs); both return (y, state, tape). Or a cell, whose forward returns (state, tape).
    *args, **kwargs
        Its arguments. All that are float or complex arrays are checked (members of a tuple too), and every array of a layer's
        `params`. What a layer draws from its generator `rng` in forward (dropout) is the same at each call.
    eps : float, optional
        The step h, relative to the entry where that exceeds 1. None: u ** 0.25 with u the machine epsilon of y's dtype, so 1.2e-4
        for float64 and 1.9e-2 for float32.
    rtol, atol : float, optional
        An entry passes if |analytic - numeric| <= atol + rtol * max(|analytic|, |numeric|). rtol None: 10 * u ** 0.5, so 1.5e-7 and
        3.5e-3. atol None: what rounding of y and the state can bring into a difference, 4 * u / eps times the norm of the terms of
        sum(y * dy) + sum(state * dstate).
    seed : int, default 0
        Of dy, dstate and the choice of entries; whatever numpy.random.default_rng takes.
    raise_exception : bool, default True
        Raise when the check fails, else return the failing result.
    max_entries : int, optional
        Check only so many entries of each array, at least 1, chosen at random. None: all of them.
    outputs : collection of str, default ()
        Names in the tape's `outputs` that L depends on too, by random gradients that backward takes as its `doutputs`.

    Returns
    -------
    result : GradcheckResult

    Raises
    ------
    GradcheckError
        An entry failed; the message names the worst by name and index. Also a gradient that is missing or has the wrong shape.
    TypeError, ValueError
        One of the arguments above is not what it should be; the message names it. Also TypeError where target is neither a function
        nor a layer, or takes several arguments as *args or **kwargs; ValueError where its precision is "bf16".

    Notes ----- No argument is modified: arrays are copied, and the entries of a layer's params, which are changed in place, and the
    state of its generator are restored bit for bit, also when the target raises. An entry that fails is tried again with steps h/8
    and h/64 and the same tolerance, since a ReLU has kinks that the first step may have crossed. With many steps and units some
    kink is always near: check a ReLU in float64, where h is small. At a kink itself there is no gradient to check.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> rng = np.random.default_rng(0)
    >>> x, w_ih, w_hh = (rng.standard_normal(shape) for shape in ((5, 2, 3), (12, 3), (12, 4)))  # T=5 B=2 I=3 H=4
    >>> fastrnn.gradcheck(fastrnn.gru, x, w_ih, w_hh, lengths=[5, 3]).ok
    True
    """
    rng = _check_options(eps, rtol, atol, seed, raise_exception, max_entries, outputs)
    with _same_draws(target) as same_draws:
        run, arrays, gradient = _open(target, args, kwargs, same_draws)
        results, tape = run()
        given = [_map(result, lambda a: _cotangent(rng, a)) for result in results]
        more = {name: _cotangent(rng, a) for name, a in _outputs(tape, outputs).items()}
        weights = _flatten(given, more.values())
        grads = tape.backward(*given, **({"doutputs": more} if more else {}))

        def terms() -> Array:
            """The terms of L. They are subtracted before they are summed: those that do not move add no noise."""
            results, tape = run()
            return weights * _flatten(results, _outputs(tape, more).values())

        table = _table(terms, arrays, lambda name: gradient(grads, name), rng, eps, rtol, atol, max_entries, _epsilon(results))
    result = _result(table)
    if raise_exception and not result:
        raise GradcheckError(f"wrong gradient at {table[result.name]}\n{result}")
    return result


def _check_options(
    eps: Any, rtol: Any, atol: Any, seed: Any, raise_exception: Any, max_entries: Any, outputs: Any
) -> np.random.Generator:
    """Raises what is wrong with them; the generator of the seed."""
    if eps is not None:
        checks.positive("eps", eps)
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if tolerance is not None:
            checks.real(name, tolerance, 0)
    checks.flag("raise_exception", raise_exception)
    if max_entries is not None:
        checks.integer("max_entries", max_entries, 1)
    if not isinstance(outputs, Collection) or not all(isinstance(name, str) for name in outputs) or isinstance(outputs, str):
        raise TypeError(f"outputs: expected names, such as ['h_l0'], got {outputs!r:.60}")
    return checks.generator("seed", seed)


def _outputs(tape: Any, names: Iterable[str]) -> dict[str, Array]:
    """Those of the tape's `outputs`."""
    there = getattr(tape, "outputs", {})
    missing = [name for name in names if name not in there]
    if missing:
        raise ValueError(f"outputs: expected names among {list(there)}, those of tape.outputs, got {missing}")
    return {name: there[name] for name in names}


def _table(
    terms: Callable[[], Array],
    arrays: dict[str, Array],
    gradient: Callable[[str], Any],
    rng: np.random.Generator,
    eps: float | None,
    rtol: float | None,
    atol: float | None,
    max_entries: int | None,
    u: float,
) -> dict[str, GradcheckEntry]:
    """Each array's worst entry. u: the machine epsilon of the results."""
    eps = u**0.25 if eps is None else eps
    if atol is None:
        atol = 4 * u / eps * float(np.linalg.norm(terms()))
    rtol = 10 * u**0.5 if rtol is None else rtol
    table = {}
    for name, array in arrays.items():
        analytic = _checked_gradient(name, gradient(name), array)
        chosen = _choose(rng, array.shape, max_entries)
        entries = [_compare(terms, name, array, index, analytic[index], eps, rtol, atol) for index in chosen]
        if entries:
            table[name] = max(entries, key=lambda entry: entry.badness)._replace(checked=len(entries))
    return table


def _choose(rng: np.random.Generator, shape: tuple[int, ...], max_entries: int | None) -> Iterable[tuple[int, ...]]:
    """All indices of an array, or so many of them at random, in their order."""
    if max_entries is None or max_entries >= math.prod(shape):
        return np.ndindex(shape)
    flat = np.sort(rng.choice(math.prod(shape), max_entries, replace=False))
    return [tuple(int(i) for i in np.unravel_index(k, shape)) for k in flat]


def _result(table: dict[str, GradcheckEntry]) -> GradcheckResult:
    """The worst entry of all, and whether everything passed."""
    if not table:
        return GradcheckResult(True, "", (), 0.0, 0.0, 0.0, table)
    worst = max(table.values(), key=lambda entry: entry.badness)
    ok = all(entry.ok for entry in table.values())
    return GradcheckResult(ok, worst.name, worst.index, worst.analytic, worst.numeric, worst.error, table)


# --- one entry ----------------------------------------------------------------------------------------------


def _compare(
    terms: Callable[[], Array],
    name: str,
    array: Array,
    index: tuple[int, ...],
    analytic: Any,
    eps: float,
    rtol: float,
    atol: float,
) -> GradcheckEntry:
    """One entry, with the best of at most three steps."""
    h = eps * max(1.0, float(abs(array[index])))
    tries = []
    for step in (h, h / 8, h / 64):
        numeric = _difference(terms, array, index, step)
        error, size = float(abs(analytic - numeric)), float(max(abs(analytic), abs(numeric)))
        tries.append(GradcheckEntry(name, index, analytic, numeric, error, atol + rtol * size))
        if tries[-1].ok:
            break
    return min(tries, key=lambda entry: entry.badness)


def _difference(terms: Callable[[], Array], array: Array, index: tuple[int, ...], h: float) -> Any:
    """The difference quotient of fourth order in array[index], which is changed and restored."""
    value = array[index]

    def central(step: float) -> Any:
        array[index] = value + step
        high, plus = array[index], terms()
        array[index] = value - step
        low, minus = array[index], terms()
        return (plus - minus).sum() / (high - low)  # the width that the step became in the array's dtype

    try:
        return (4 * central(h) - central(2 * h)) / 3
    finally:
        array[index] = value


# --- the target: its arrays by name, how to call it, where its gradients are --------------------------------


@contextmanager
def _same_draws(target: Any) -> Iterator[Callable[[], None]]:
    """What puts the target's generator, if it has one, where it stands now; that is done at the end, too."""
    rng = getattr(target, "rng", None)
    bits = rng.bit_generator if isinstance(rng, np.random.Generator) else None
    state: Any = bits.state if bits else None

    def restore() -> None:
        if bits:
            bits.state = state

    try:
        yield restore
    finally:
        restore()


def _open(
    target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], before: Callable[[], None]
) -> tuple[Callable[[], Any], dict[str, Array], Callable[[Any, str], Any]]:
    """run() calls before() and then the target on arrays that may be changed in place, and returns its results and
    the tape; those arrays by name; gradient(grads, name)."""
    is_layer = hasattr(target, "forward") and hasattr(target, "params")
    if not is_layer and not callable(target):
        raise TypeError(f"target: expected a function or a layer, got {type(target).__name__}")
    call = target.forward if is_layer else target
    bound = inspect.signature(call).bind(*args, **kwargs, **({} if is_layer else {"record": True}))
    arrays: dict[str, Array] = {}
    for argument, value in bound.arguments.items():
        bound.arguments[argument] = _copies(argument, value, arrays)
        kind = bound.signature.parameters[argument].kind
        if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise TypeError(f"target: expected arguments with names, got several in {argument!r}")
    _refuse_rounding(target if is_layer else None, bound)
    params = dict(target.params) if is_layer else {}

    def run() -> Any:
        before()
        *results, tape = call(*bound.args, **bound.kwargs)
        return results, tape

    def gradient(grads: Any, name: str) -> Any:
        if name in params:
            return grads.params.get(name)
        argument, _, member = name.partition("[")
        grad = getattr(grads, argument, None)
        return grad if not member or grad is None else grad[int(member[:-1])]

    return run, {**arrays, **params}, gradient


def _refuse_rounding(layer: Any, bound: inspect.BoundArguments) -> None:
    """The differences of a forward that rounds are steps of the rounding."""
    bound.apply_defaults()
    precision = bound.arguments.get("precision") if layer is None else getattr(layer, "precision", None)
    if isinstance(precision, str) and precision == "bf16":
        raise ValueError(
            "target: expected precision='float32', got 'bf16', which rounds the operands of products: the differences of such a "
            "forward are steps of the rounding, not its gradient; check the same weights with precision='float32'"
        )


def _copies(name: str, value: Any, arrays: dict[str, Array]) -> Any:
    """value with its float arrays copied. The copies go into arrays, a tuple's as name[0] and name[1]."""
    if isinstance(value, tuple):
        return tuple(_copies(f"{name}[{k}]", member, arrays) for k, member in enumerate(value))
    if isinstance(value, np.ndarray | list) and np.issubdtype(np.asarray(value).dtype, np.inexact):
        value = arrays[name] = np.array(value)
    return value


def _checked_gradient(name: str, grad: Any, array: Array) -> Array:
    if grad is None or np.shape(grad) != array.shape:
        came = "none" if grad is None else f"one of shape {np.shape(grad)}"
        raise GradcheckError(f"{name}: expected a gradient of shape {array.shape}, got {came}")
    return np.asarray(grad)


# --- results: y and the state, or the state alone --------------------------------------------------------------


def _map(state: Any, function: Callable[[Array], Array]) -> Any:
    return tuple(function(s) for s in state) if isinstance(state, tuple | list) else function(state)


def _cotangent(rng: np.random.Generator, a: Array) -> Array:
    return rng.standard_normal(a.shape).astype(a.dtype)


def _members(results: Iterable[Any]) -> list[Array]:
    """All arrays, also those that stand in a tuple."""
    return [a for result in results for a in (result if isinstance(result, tuple | list) else (result,))]


def _flatten(results: Iterable[Any], more: Iterable[Array]) -> Array:
    """All arrays as one vector, in float64 or wider."""
    vector = np.concatenate([np.ravel(a) for a in (*_members(results), *more)])
    return vector.astype(np.result_type(vector.dtype, np.float64))


def _epsilon(results: Iterable[Any]) -> float:
    return float(np.finfo(_members(results)[0].dtype).eps)
