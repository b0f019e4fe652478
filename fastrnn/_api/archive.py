"""Files of arrays by name, .npz, without pickle."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_npz(path: str | os.PathLike[str], entries: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz file; no ending is added. An older file stays whole until the new one is."""
    beside = Path(path).with_name(Path(path).name + ".part")
    try:
        with zipfile.ZipFile(beside, "w") as archive:  # np.savez has arguments that an array may be called as
            for key, value in entries.items():
                with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, value, allow_pickle=False)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
