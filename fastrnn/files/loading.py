"""load_model: what a file is, and who reads it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from typing import Any

from numpy.typing import DTypeLike

from .._api import checks
from .model import Model, Wishes

Reader = Callable[[str, Model, Wishes], None]
_KINDS = "a Keras .h5 or .keras, an .onnx, a .safetensors, a PyTorch .pt of a state_dict, or a JSON of RTNeural or GuitarML"


def load_model(path: str | os.PathLike[str], *, batch_first: bool | None = None, dtype: DTypeLike | None = None) -> Model:
    """The recurrent layers of a trained model's file, ready to run, by their names; what is not taken over, with the reason.

    Files of Keras (.h5, .hdf5, .keras: h5py), ONNX (onnx), safetensors, PyTorch state_dicts (.pt, .pth, .bin: torch, which loads
    weights alone), RTNeural and GuitarML (.json). The content says which it is. Dropout is not taken over.

    Parameters
    ----------
    path : path
    batch_first : bool, optional
        Of the layers; None: as in the file's system, True for Keras (unless the layer is time_major), the node's layout for ONNX,
        and else False.
    dtype : dtype, optional
        float32 or float64, rounding if need be; None: that of the weights, float32 for float16 and bfloat16, and for JSON.

    Returns
    -------
    model : Model
        model.layers, a dict of layers and cells; model.skipped, a list with name, reason and weights of what no layer computes,
        such as other activations, or a direction in reverse alone.

    Raises
    ------
    ValueError
        A file of another kind, or a damaged one.
    OSError
        The file cannot be read.
    ImportError
        A package that reads this kind of file is missing; the message names it.

    Examples
    --------
    >>> import json, os, tempfile
    >>> import fastrnn
    >>> state = {f"rec.{name}": array.tolist() for name, array in fastrnn.LSTM(1, 8, rng=0).params.items()}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "amp.json")
    ...     with open(path, "w") as file:
    ...         json.dump({"model_data": {"unit_type": "LSTM"}, "state_dict": state}, file)
    ...     model = fastrnn.load_model(path)
    >>> model.layers, model.skipped
    ({'rec': LSTM(1, 8)}, [])
    """
    where = os.fspath(path)
    batch_first = None if batch_first is None else checks.flag("batch_first", batch_first)
    wishes = Wishes(batch_first, None if dtype is None else checks.float_dtype("dtype", dtype))
    model = Model(where)
    _reader(where)(where, model, wishes)
    return model


def _reader(where: str) -> Reader:
    """Who reads the file, by its first bytes."""
    with open(where, "rb") as file:
        start = file.read(4096)
    if start.startswith(b"\x89HDF"):
        from .keras_files import read_h5

        return read_h5
    if start.startswith(b"PK"):
        return _reader_of_zip(where)
    if start.startswith(b"\x80"):  # a pickle: torch.save before PyTorch 1.6
        from .torch_files import read_torch

        return read_torch
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < os.path.getsize(where):
        from .safetensors import read_safetensors

        return read_safetensors
    if start.lstrip()[:1] in (b"{", b"["):
        from .json_files import read_json

        return read_json
    if where.endswith(".onnx") or start[:1] == b"\x08":  # the first field of a ModelProto, ir_version
        from .onnx_files import read_onnx

        return read_onnx
    raise refusal(where, _what(start))


def _reader_of_zip(where: str) -> Reader:
    try:
        with zipfile.ZipFile(where) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise refusal(where, f"a damaged one: {error}") from error
    if "config.json" in names and "model.weights.h5" in names:
        from .keras_files import read_keras

        return read_keras
    if any(name.endswith("data.pkl") for name in names):
        from .torch_files import read_torch

        return read_torch
    raise refusal(where, "a file of fastrnn.save, for fastrnn.load" if "fastrnn.npy" in names else f"a zip file of {names[:8]}")


def _what(start: bytes) -> str:
    if start[4:8] == b"TFL3":
        return "one of TensorFlow Lite; give its tensors to fastrnn.LSTM.from_weights(tensors, 'tflite')"
    if start.startswith(b"\x93NUMPY"):
        return "one array of NumPy"
    return f"one that begins with {start[:16]!r}"


def refusal(where: str, what: Any) -> ValueError:
    """The error for a file that is not read."""
    return ValueError(f"path: expected a file of a trained model ({_KINDS}), got {where!r}, {what}")
