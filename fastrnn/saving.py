"""Layers and cells in a file: what they are and their weights, so that nothing need be typed again."""

from __future__ import annotations

import inspect
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from ._api.archive import write_npz
from .cells import GRUCell, LSTMCell, RNNCell
from .config import __version__
from .layers import GRU, IRNN, LSTM, RNN

Array = NDArray[Any]
Saved = RNN | GRU | LSTM | RNNCell | GRUCell | LSTMCell
VERSION = 1  # of the file's layout
_HEADER = "fastrnn"
_CLASSES: dict[str, type[Saved]] = {kind.__name__: kind for kind in (RNN, IRNN, GRU, LSTM, RNNCell, GRUCell, LSTMCell)}
_DAMAGE = (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def save(path: str | os.PathLike[str], /, **layers: Saved) -> None:
    """Write layers and cells to one file: class, sizes, options, precision, dtype and weights.

    The file is an .npz without pickle. An older file stays whole until the new one is. The generators of dropout's masks are not
    in it; fastrnn.train.save saves these, and all that a training needs besides.

    Parameters
    ----------
    path : path
        The file; no ending is added.
    **layers
        RNN, IRNN, GRU, LSTM, RNNCell, GRUCell, LSTMCell, by the names to load them by.

    Raises
    ------
    TypeError
        Something else, a subclass included; or nothing to save.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> import fastrnn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.fastrnn")
    ...     fastrnn.save(path, encoder=fastrnn.GRU(3, 4, bidirectional=True), decoder=fastrnn.LSTMCell(8, 4, peephole=True))
    ...     fastrnn.load(path)
    {'encoder': GRU(3, 4, bidirectional=True), 'decoder': LSTMCell(8, 4, peephole=True)}
    """
    if not layers:
        raise TypeError("layers: expected at least one layer or cell, by its name, as in save(path, encoder=layer)")
    for name, layer in layers.items():
        if _CLASSES.get(type(layer).__name__) is not type(layer):
            kind = f"{type(layer).__module__}.{type(layer).__qualname__}"
            raise TypeError(f"{name}: expected one of fastrnn's {', '.join(_CLASSES)}, got {kind}")
    described = [{"name": name, "class": type(layer).__name__, "arguments": _arguments(layer)} for name, layer in layers.items()]
    header = {"version": VERSION, "written by": f"fastrnn {__version__}", "layers": described}
    entries: dict[str, Array] = {_HEADER: np.array(json.dumps(header))}
    for k, layer in enumerate(layers.values()):
        entries |= {f"{k}/{name}": array for name, array in layer.params.items()}
    write_npz(path, entries)


def load(path: str | os.PathLike[str], /) -> dict[str, Saved]:
    """The layers and cells of a file that `save` wrote, by their names, with the same weights bit for bit.

    Their generators, for dropout's masks, are new ones; assign layer.rng where masks are to be reproduced.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    layers : dict of layers and cells
        In the order in which they were saved.

    Raises
    ------
    ValueError
        The file is damaged, of another kind, or of a later version of fastrnn that knows other classes or options.
    OSError
        The file cannot be opened.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import fastrnn
    >>> layer = fastrnn.LSTM(3, 4, num_layers=2, precision="bf16", rng=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fastrnn.save(os.path.join(folder, "layer"), layer=layer)
    ...     other = fastrnn.load(os.path.join(folder, "layer"))["layer"]
    >>> other, np.array_equal(other.flat, layer.flat)
    (LSTM(3, 4, num_layers=2, precision='bf16'), True)
    """
    where = os.fspath(path)
    entries = _entries(where)
    header = _header(where, entries)
    layers: dict[str, Saved] = {}
    for k, described in enumerate(header):
        try:
            name, kind, arguments = described["name"], _CLASSES[described["class"]], described["arguments"]
            layer = kind(**{argument: _plain(value) for argument, value in arguments.items()})
            layer.load_state_dict({key.partition("/")[2]: entries.pop(key) for key in list(entries) if key.startswith(f"{k}/")})
        except (KeyError, TypeError, ValueError, AttributeError, MemoryError) as error:
            raise _refusal(where, f"whose layer {k}, {described!r:.300}, cannot be made: {error!s:.300}") from error
        layers[name] = layer
    if entries or len(layers) < len(header):
        raise _refusal(where, f"which has arrays of no layer, {sorted(entries)}, or layers of the same name")
    return layers


def _arguments(layer: Saved) -> dict[str, Any]:
    """Those of its constructor, but the generator."""
    names = [name for name in inspect.signature(type(layer)).parameters if name != "rng"]
    return {name: layer.dtype.name if name == "dtype" else getattr(layer, name) for name in names}


def _plain(value: Any) -> Any:
    """JSON has lists alone."""
    return tuple(map(_plain, value)) if isinstance(value, list) else value


def _entries(where: str) -> dict[str, Array]:
    """All arrays of the file; an OSError where it cannot be opened."""
    with open(where, "rb") as file:
        try:
            opened = np.load(file, allow_pickle=False)
            if not isinstance(opened, NpzFile):
                raise ValueError("it holds one array")
            return {name: opened[name] for name in opened.files}
        except _DAMAGE as error:
            raise _refusal(where, f"which is damaged or of another kind: {error}") from error


def _header(where: str, entries: dict[str, Array]) -> list[Mapping[str, Any]]:
    """What the file says of each layer."""
    if _HEADER not in entries:
        raise _refusal(where, f"which has {sorted(entries)[:8]}; files of fastrnn.train.save are for fastrnn.train.load")
    try:
        header = json.loads(str(entries.pop(_HEADER)))
        version, layers = header["version"], header["layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise _refusal(where, f"whose header is damaged: {error!r}") from error
    if version != VERSION:
        by = header.get("written by")
        raise _refusal(where, f"which {by} wrote in version {version!r} of the layout; this one reads {VERSION}")
    if not isinstance(layers, list):
        raise _refusal(where, "whose header is damaged: it has no list of layers")
    return layers


def _refusal(where: str, what: str) -> ValueError:
    return ValueError(f"path: expected a file that fastrnn.save wrote, got {where!r}, {what}")
