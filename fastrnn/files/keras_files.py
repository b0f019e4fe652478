"""Keras's files: .h5 of Keras 1 to 3, and .keras, a zip of config.json and model.weights.h5."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._api.optional import missing
from .keras_layers import Found, add_layer, add_without_config, is_recurrent, walk
from .model import Model, Wishes

Array = NDArray[Any]


def read_h5(where: str, model: Model, wishes: Wishes) -> None:
    """A model, or weights alone."""
    with _opened(where, where) as file, _readable(where):
        root = file.get("model_weights", file)
        config = file.attrs.get("model_config")
        if config is not None:
            version = str(_text(file.attrs.get("keras_version", root.attrs.get("keras_version", "1"))))
            for found in walk(json.loads(_text(config))):
                add_layer(found, _in_groups(root, found), version, model, wishes)
        elif "layer_names" in root.attrs:
            add_without_config(dict(_by_cell(dict(_named(root)))), model, wishes)
        else:
            add_without_config(dict(_by_cell(dict(_numbered(root)))), model, wishes)


def read_keras(where: str, model: Model, wishes: Wishes) -> None:
    """A .keras file."""
    try:
        with zipfile.ZipFile(where) as archive:
            config = json.loads(archive.read("config.json"))
            weights = io.BytesIO(archive.read("model.weights.h5"))
            about = json.loads(archive.read("metadata.json")) if "metadata.json" in archive.namelist() else {}
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise ValueError(f"path: expected a .keras file, got {where!r}, which is damaged: {error}") from error
    with _opened(weights, where) as file, _readable(where):
        for found in walk(config):
            add_layer(found, _in_folders(file, found), str(about.get("keras_version", "3")), model, wishes)


def _opened(source: Any, where: str) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise missing("fastrnn.load_model of a Keras file", "h5py", "h5", error) from error
    try:
        return h5py.File(source, "r")
    except OSError as error:
        raise ValueError(f"path: expected an HDF5 file, got {where!r}, which is damaged: {error}") from error


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """Errors of h5py, and of looking for what is not there, as one that names the file."""
    try:
        yield
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, OSError) as error:
        raise ValueError(f"path: expected a file of Keras, got {where!r}, of a layout that is not known: {error!r}") from error


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# --- where the arrays of a layer are ---------------------------------------------------------------------------------


def _names(group: Any) -> list[str]:
    """The attribute weight_names, which is cut into several where it is long."""
    cut = sorted((key for key in group.attrs if re.fullmatch("weight_names[0-9]+", key)), key=lambda key: int(key[12:]))
    return [_text(name) for key in (cut or ["weight_names"]) for name in group.attrs.get(key, ())]


def _in_groups(root: Any, found: Found) -> list[Array] | None:
    """Of an .h5: all arrays of the group of a layer, in their order; of one inside of a model, those that are named after it."""
    top = found.names[0]
    if top not in root:
        return None
    names = _names(root[top])
    if found.nested:
        inner = {found.names[-1], f"forward_{found.names[-1]}", f"backward_{found.names[-1]}"} | found.directions
        names = [name for name in names if inner & set(name.split("/")[:-1])]
    return [np.asarray(root[top][name]) for name in names] or None


def _in_folders(root: Any, found: Found) -> list[Array] | None:
    """Of a .keras: the numbered variables of the layer's cells, in folders that are named after classes, in their order."""
    group: Any = root
    for step in found.folders:
        names = ("layers", "_layer_checkpoint_dependencies") if step == "layers" else (step,)
        step = next((name for name in names if name in group), "")
        if not step:
            return None
        group = group[step]
    if group["vars"].attrs.get("name", found.names[-1]) != found.names[-1] if "vars" in group else False:
        return None  # in another order than that of the configuration
    cells = [group["forward_layer/cell"], group["backward_layer/cell"]] if "forward_layer" in group else [group.get("cell")]
    return [np.asarray(cell["vars"][str(k)]) for cell in cells if cell is not None for k in range(len(cell["vars"]))] or None


def _named(root: Any) -> Iterator[tuple[str, Array]]:
    """Of weights alone, all arrays by the names that Keras gave them."""
    for layer in map(_text, root.attrs.get("layer_names", list(root))):
        if layer in root and hasattr(root[layer], "keys"):
            yield from ((f"{layer}/{name}", np.asarray(root[layer][name])) for name in _names(root[layer]))


def _numbered(root: Any) -> Iterator[tuple[str, Array]]:
    """Of weights alone as a .keras has them, the arrays of cells, by the names that they have in an .h5."""
    paths: list[str] = []
    root.visit(paths.append)
    if not any(path.endswith("/vars") for path in paths):
        raise ValueError(f"it has neither the attribute layer_names nor groups called vars, but {sorted(root)[:8]}")
    for path in paths:
        if path.endswith("/cell/vars") or re.search("/cells/[^/]*/vars$", path):
            kinds = ("kernel", "recurrent_kernel", "bias")
            yield from ((f"{path[:-5]}/{kind}", np.asarray(root[path][str(k)])) for k, kind in zip(range(len(root[path])), kinds))


def _by_cell(arrays: Mapping[str, Array]) -> Iterator[tuple[str, dict[str, Array]]]:
    """The recurrent ones among arrays by cell: kernel, recurrent_kernel and, where there is one, bias."""
    cells: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():
        cell, _, kind = name.removesuffix(":0").rpartition("/")
        cells.setdefault(cell, {})[kind] = array
    for cell, weights in cells.items():
        if "recurrent_kernel" in weights or is_recurrent(cell):
            yield cell, weights
