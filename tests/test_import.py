"""Importing: on every way to start Python, without a compiled module, without what is optional."""

import importlib.machinery
import json
import re
import sys
from pathlib import Path

import pytest

import fastrnn
from building import failing_python, run_python

PACKAGE = Path(fastrnn.__file__).parent
# Those that need a package beside NumPy: what is called after the import, the package, the extra that brings it.
OPTIONAL = {
    "fastrnn.torch": ("", "torch", "torch"),
    "fastrnn.jax": ("", "jax", "jax"),
    "fastrnn.keras": ("", "keras", "keras"),
    "fastrnn.autograd": ("", "autograd", "autograd"),
    "fastrnn.compat.autograd": ("", "autograd", "autograd"),
    "fastrnn.onnx": ("to_model({})", "onnx", "onnx"),
    "fastrnn.train": ("DataParallel([])", "mpi4py", "mpi"),
    "fastrnn.diagnostics": ("plot({})", "matplotlib", "plot"),
}

# All modules that need NumPy alone, then forward and backward with padding, resets, a projection and peepholes.
EVERYTHING = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    sys.modules[name] = None
import numpy as np
import fastrnn
for _, name, _ in pkgutil.walk_packages(fastrnn.__path__, "fastrnn.", onerror=lambda name: None):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        assert error.name in sys.argv, error
x = np.random.default_rng(0).standard_normal((5, 3, 2), np.float32)
for layer in fastrnn.LSTM(2, 4, proj_size=3, rng=0), fastrnn.LSTM(2, 4, peephole=True, rng=0), fastrnn.GRU(2, 4, 2, rng=0):
    y, state, tape = layer.forward(x, lengths=[5, 3, 0], reset=np.eye(5, 3, dtype=bool), checkpoint=2)
    assert np.isfinite(tape.backward(np.ones_like(y)).flat).all()
fastrnn.show_config()
"""


@pytest.mark.parametrize("options", [[], ["-OO"], ["-W", "error"], ["-OO", "-W", "error", "-bb", "-X", "dev"]], ids=" ".join)
def test_everything_is_imported_and_runs(options, tmp_path):
    packages = {package for _, package, _ in OPTIONAL.values()}
    out = run_python(*options, "-c", EVERYTHING, *packages, cwd=tmp_path, PYTHONPATH=str(PACKAGE.parent))
    assert f"fastrnn {fastrnn.__version__}" in out
    assert "Warning" not in out


def test_what_is_optional_is_imported_when_it_is_asked_for(tmp_path):
    code = "import sys, fastrnn; print(*(name.partition('.')[0] if 'fastrnn' not in name else name for name in sys.modules))"
    loaded = set(run_python("-c", code, cwd=tmp_path, PYTHONPATH=str(PACKAGE.parent)).split())
    assert "fastrnn.functional" in loaded
    assert not loaded & {name for user, (_, package, _) in OPTIONAL.items() for name in (user, package)}


# --- without a compiled module

# An editable install finds the module of its own folder for any other.
IMPORT = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]; import fastrnn.train"


def copied(folder: Path, *files: str) -> Path:
    """The package's Python files in a folder, and other, empty, files."""
    for path in PACKAGE.rglob("*.py"):
        copy = folder / "fastrnn" / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    for name in files:
        (folder / name).touch()
    return folder


def test_the_source_folder_says_that_it_is_not_compiled(tmp_path):
    folder = copied(tmp_path, "setup.py")
    said = failing_python("-c", IMPORT, cwd=folder)
    assert f"ImportError: fastrnn is imported from {folder / 'fastrnn'}, where its compiled module" in said
    assert "This is the source folder" in said and f"pip install --editable {folder}" in said
    assert "circular" not in said


def test_an_installed_package_without_its_module_says_so(tmp_path):
    said = failing_python("-c", IMPORT, cwd=copied(tmp_path))
    assert "where its compiled module fastrnn._core is missing. To install it anew:" in said
    assert "source folder" not in said


def test_a_module_for_another_python_is_named(tmp_path):
    said = failing_python("-c", IMPORT, cwd=copied(tmp_path, "fastrnn/_core.cpython-37m-other.so"))
    assert f"is missing for this Python, {sys.implementation.cache_tag} on" in said
    assert "(there is _core.cpython-37m-other.so)" in said


def test_a_module_that_does_not_load_keeps_its_own_error(tmp_path):
    (module,) = PACKAGE.glob(f"_core*{importlib.machinery.EXTENSION_SUFFIXES[0]}")
    said = failing_python("-c", IMPORT, cwd=copied(tmp_path, f"fastrnn/{module.name}"))
    assert "missing" not in said and module.name in said.splitlines()[-1]


# --- without what is optional

ASK = """
import importlib, json, sys
sys.path.insert(0, "fakes")
calls, absent = json.loads(sys.argv[1]), sys.argv[2:]
sys.modules.update(dict.fromkeys(absent))
errors = {}
for user, call in calls.items():
    try:
        module = importlib.import_module(user)
        if call:
            eval("module." + call)
    except ImportError as error:
        errors[user] = [type(error).__name__, error.name, str(error)]
print(json.dumps(errors))
"""


def asked(cwd: Path, *absent: str) -> dict[str, list[str]]:
    """The error of each of OPTIONAL, in a process where these packages are not to be had."""
    calls = json.dumps({user: call for user, (call, _, _) in OPTIONAL.items()})
    return json.loads(run_python("-c", ASK, calls, *absent, cwd=cwd, PYTHONPATH=str(PACKAGE.parent)))


@pytest.fixture(scope="module")
def without(tmp_path_factory) -> dict[str, list[str]]:
    return asked(tmp_path_factory.mktemp("without"), *(package for _, package, _ in OPTIONAL.values()))


@pytest.mark.parametrize("user", OPTIONAL)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(user, without):
    _, package, extra = OPTIONAL[user]
    kind, name, text = without[user]
    assert (kind, name) == ("ModuleNotFoundError", package)
    assert re.match(rf"{user}(\.\w+)? needs the package {package}, which is not installed: pip install 'fastrnn\[{extra}\]'$", text)
    assert f'"{package}' in _extras()[extra]


def _extras() -> dict[str, str]:
    """The extras of pyproject.toml, as text: tomllib is younger than Python 3.10."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    table = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    return dict(re.findall(r"^(\w+) = (\[[^\]]*\])", table, re.MULTILINE))


BROKEN = "raise ImportError('libx.so.1: cannot open')"
FAKES = {
    "torch.py": BROKEN,
    "onnx.py": BROKEN,
    "keras.py": "import no_such_backend",
    "mpi4py/__init__.py": "",
    "mpi4py/MPI.py": "raise RuntimeError('cannot load MPI library')",
    "autograd/__init__.py": "",
    "autograd/numpy.py": "import no_such_part",
}
REASONS = {
    "fastrnn.torch": "torch, which does not load (libx.so.1: cannot open); to install it anew: pip",
    "fastrnn.onnx": "onnx, which does not load (libx.so.1: cannot open); to install it anew: pip",
    "fastrnn.keras": (
        "keras, which does not load (No module named 'no_such_backend'); it needs one of its backends: fastrnn.keras is for"
    ),
    "fastrnn.train": "mpi4py, which does not load (cannot load MPI library); it needs an MPI library",
    "fastrnn.compat.autograd": "the package no_such_part, which is not installed: pip install 'fastrnn[autograd]'",
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("broken")
    for name, text in FAKES.items():
        path = folder / "fakes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return asked(folder, "jax", "matplotlib")


@pytest.mark.parametrize("user", REASONS)
def test_a_package_that_does_not_load_gives_its_reason(user, broken):
    _, _, text = broken[user]
    assert REASONS[user] in text
