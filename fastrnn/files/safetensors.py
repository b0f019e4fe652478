"""A .safetensors file: the length of its header in 8 bytes, the header in JSON, the numbers."""

from __future__ import annotations

import json
import math
import os
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .model import Model, Wishes
from .state_dicts import add_layers, is_recurrent

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # of integers no layer is made
_DTYPES |= {"I8": "i1", "U8": "u1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}


def read_safetensors(where: str, model: Model, wishes: Wishes) -> None:
    with open(where, "rb") as file:
        try:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            found = {name: _array(file, 8 + length, about) for name, about in header.items() if is_recurrent(name)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"path: expected a .safetensors file, got {where!r}, which is damaged: {error!r}") from error
    add_layers(found, model, wishes)


def _array(file: BinaryIO, start: int, about: dict[str, Any]) -> NDArray[Any]:
    first, last = about["data_offsets"]
    dtype, shape = np.dtype(_DTYPES[about["dtype"]]), tuple(about["shape"])
    size = os.fstat(file.fileno()).st_size
    if last - first != math.prod(shape) * dtype.itemsize or first < 0 or start + last > size:
        raise ValueError(f"{about} in a file of {size} bytes")
    file.seek(start + first)
    array = np.frombuffer(file.read(last - first), dtype).reshape(shape)
    if about["dtype"] == "BF16":  # the upper half of a float32
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array
