"""Which part of a whole model's weights may be meant: for errors that are to say it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Fits = Callable[[Any], bool]
_DEEPEST = 8  # mappings in mappings
_SHOWN = 8


def advice(name: str, weights: Any, fits: Fits, resembles: Fits) -> str:
    """The end of an error's message that says which parts of `weights`, the argument called `name`, do fit or, if none does, which
    resemble what does; empty without either."""
    found = _runs(name, weights, fits) if isinstance(weights, list) else []
    if isinstance(weights, Mapping):
        parts = list(_parts(name, weights, _DEEPEST))
        found = [how for how, part in parts if fits(part)] or [how for how, part in parts if resembles(part)]
    if not found:
        return ""
    return f"; they look like a whole model's: {' or '.join(found[:_SHOWN])}{' or others' if len(found) > _SHOWN else ''}"


def _parts(name: str, weights: Mapping[Any, Any], depth: int) -> Iterator[tuple[str, Any]]:
    """(how to get it, a part): the entries whose names begin alike, and what is nested."""
    names = [key for key in weights if isinstance(key, str)]
    prefixes = {key[: k + 1]: None for key in names for k, letter in enumerate(key) if letter in "./"}
    for prefix in prefixes:
        part = {key[len(prefix) :]: weights[key] for key in names if key.startswith(prefix)}
        yield f"keep those of {name} with the prefix {prefix!r} and cut it", part
    for key, value in weights.items() if depth else ():
        if isinstance(value, Mapping):
            inner = f"{name}[{key!r}]"
            yield f"take {inner}", value
            yield from _parts(inner, value, depth - 1)


def _runs(name: str, weights: list[Any], fits: Fits) -> list[str]:
    """Arrays side by side in a list, such as those of one layer of Keras in model.get_weights()."""
    found, start = [], 0
    while start < len(weights) - 1:
        ends = (start + length for length in (6, 4, 3, 2) if start + length <= len(weights) and length < len(weights))
        end = next((end for end in ends if fits(weights[start:end])), None)
        if end is not None:
            found.append(f"take {name}[{start}:{end}]")
        start = end or start + 1
    return found
