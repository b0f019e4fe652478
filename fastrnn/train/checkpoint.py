"""The whole state of a training in one file: a training that is loaded continues, bit for bit, as if it had never stopped."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from .._api.archive import write_npz

Array = NDArray[Any]


def save(path: str | os.PathLike[str], /, **parts: Any) -> None:
    """Write the parts, by their names, to an .npz file, without pickle. An older file stays whole until the new one is.

    Parameters
    ----------
    path : path
        The file; no ending is added.
    **parts
        What has a state_dict (layers, readouts, optimisers, averages); numpy.random.Generators; numbers, strings and arrays.

    Raises
    ------
    TypeError
        A part that cannot be saved.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import fastrnn
    >>> from fastrnn.train import Adam, load, save
    >>> layer, rng = fastrnn.GRU(3, 4, rng=0), np.random.default_rng(1)
    >>> adam = Adam(layer.flat)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "training.npz")
    ...     save(path, layer=layer, adam=adam, rng=rng, step=1000)
    ...     load(path, layer=layer, adam=adam, rng=rng)
    {'step': 1000}
    """
    entries: dict[str, Array] = {}
    for name, part in parts.items():
        if "/" in name:
            raise TypeError(f"{name}: expected a name without a slash")
        state = _state(part)
        entries |= {f"{name}/{key}": np.asarray(value) for key, value in state.items()} if state else {name: _value(name, part)}
    write_npz(path, entries)


def load(path: str | os.PathLike[str], /, **parts: Any) -> dict[str, Any]:
    """Put saved states back into the objects they came from, or others like them.

    Parameters
    ----------
    path : path
        The file.
    **parts
        Objects by the names that they were saved under. Some may be left out, such as the optimiser for inference.

    Returns
    -------
    values : dict
        The saved numbers, strings and arrays by name, a number as Python's.

    Raises
    ------
    KeyError
        A name that the file does not have.
    KeyError, TypeError, ValueError
        What load_state_dict raises; then no object was changed.
    ValueError
        A file of another kind.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import fastrnn
    >>> from fastrnn.train import load, save
    >>> layer, other = fastrnn.GRU(3, 4, rng=0), fastrnn.GRU(3, 4, rng=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "layer.npz")
    ...     save(path, layer=layer)
    ...     values = load(path, layer=other)
    >>> np.array_equal(layer.flat, other.flat), values
    (True, {})
    """
    states: dict[str, dict[str, Array]] = {}
    values: dict[str, Any] = {}
    opened = np.load(path, allow_pickle=False)
    if not isinstance(opened, NpzFile):
        raise ValueError(f"path: expected an .npz file, got an .npy file, {os.fspath(path)}")
    with opened as file:
        for key in file.files:
            name, slash, rest = key.partition("/")
            if slash:
                states.setdefault(name, {})[rest] = file[key]
            else:
                values[key] = file[key].item() if file[key].ndim == 0 else file[key]
    missing = [name for name in parts if name not in states]
    if missing:
        raise KeyError(f"{missing[0]}: expected one of the saved states {sorted(states)}")
    for name, part in parts.items():
        if not isinstance(part, np.random.Generator) and not hasattr(part, "load_state_dict"):
            raise TypeError(f"{name}: expected an object with a state_dict or a Generator, got {type(part).__name__}")
    before = {name: _state(part) for name, part in parts.items()}
    try:
        for name, part in parts.items():
            _restore(name, part, states[name])
    except Exception:
        for name, part in parts.items():
            _restore(name, part, before[name])
        raise
    return values


def _state(part: Any) -> dict[str, Any]:
    """Of an object; empty if it is none."""
    if isinstance(part, np.random.Generator):
        return {"generator": np.array(json.dumps(part.bit_generator.state, default=lambda array: array.tolist()))}
    return dict(part.state_dict()) if hasattr(part, "state_dict") else {}


def _value(name: str, part: Any) -> Array:
    value = np.asarray(part)
    if value.dtype.kind not in "biufcU":
        raise TypeError(
            f"{name}: expected an object with a state_dict, a Generator, a number, a string or an array, got {part!r:.60}"
        )
    return value


def _restore(name: str, part: Any, state: dict[str, Any]) -> None:
    if not isinstance(part, np.random.Generator):
        part.load_state_dict(state)
    elif set(state) != {"generator"}:
        raise TypeError(f"{name}: expected what was saved under this name, got a Generator")
    else:
        saved, kind = json.loads(str(state["generator"])), type(part.bit_generator).__name__
        if saved["bit_generator"] != kind:
            raise ValueError(f"{name}: expected the state of a {kind}, got that of a {saved['bit_generator']}")
        part.bit_generator.state = saved
