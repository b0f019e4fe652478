"""What weights may be that do not fit: for errors that are to say it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

_MOST = 64  # arrays that are tried one by one


def transposed(weights: Any) -> Iterator[tuple[str, Any]]:
    """(what is transposed, the same weights with it transposed): each matrix alone, then all of them."""
    paths = list(_matrices(weights))
    for path in paths if len(paths) <= _MOST else ():
        yield _label(path), _changed(weights, {path})
    if len(paths) > 1:
        yield "every matrix", _changed(weights, set(paths))


def _label(path: tuple[Any, ...]) -> str:
    return "/".join(str(key) for key in path) if isinstance(path[-1], str) else f"weights{''.join(f'[{key!r}]' for key in path)}"


def _items(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, Mapping):
        yield from tree.items()
    elif isinstance(tree, (list, tuple)):
        yield from enumerate(tree)


def _matrices(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to the arrays of two axes in mappings, lists and tuples."""
    for key, item in _items(tree):
        if getattr(item, "ndim", 0) == 2:
            yield (*path, key)
        else:
            yield from _matrices(item, (*path, key))


def _changed(tree: Any, paths: set[tuple[Any, ...]], path: tuple[Any, ...] = ()) -> Any:
    """A copy with these arrays transposed."""
    if path in paths:
        return tree.T
    if isinstance(tree, Mapping):
        return {key: _changed(item, paths, (*path, key)) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        kind: Callable[[Any], Any] = type(tree)
        return kind([_changed(item, paths, (*path, key)) for key, item in enumerate(tree)])
    return tree
