"""Builds of the package in a copy of the sources, for the tests of what is shipped and of compilers."""

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# The folder from which fastrnn is imported here, for other processes: the tree, or where the package is installed.
IMPORTED_FROM = str(Path(find_spec("fastrnn").origin).parents[1])
_V4 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]
# What each kernel file is compiled with, as setup.py does.
ISA_FLAGS = {
    "scalar": ["-O2"],
    "sse2": [],
    "neon": [],
    "v3": ["-mavx2", "-mfma"],
    "amx": [*_V4, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
    "v4": _V4,
}


def copy_tree(target: Path) -> Path:
    """The sources as a fresh clone has them: nothing that was built, so nothing stale can help."""
    built = ("build", "dist", "*.egg-info", "*.so", "__pycache__", ".venv", ".*_cache", ".hypothesis", ".git")
    return Path(shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*built)))


def _python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_python(*arguments: str, cwd: Path, **environment: str) -> str:
    """All that Python prints, which is the test's message if it fails."""
    done = _python(*arguments, cwd=cwd, **environment)
    assert done.returncode == 0, done.stdout
    return done.stdout


def failing_python(*arguments: str, cwd: Path, **environment: str) -> str:
    """All that Python prints before it ends with an error, as it must."""
    done = _python(*arguments, cwd=cwd, **environment)
    assert done.returncode != 0, done.stdout
    return done.stdout


def build(kind: str, tree: Path, target: Path) -> Path:
    """Build the "sdist" or "wheel" of a tree as pip asks setuptools for it, with the tools installed here."""
    target.mkdir(exist_ok=True)
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(target)!r})"
    run_python("-c", code, cwd=tree)
    (made,) = target.iterdir()
    return made


def compile_module(tree: Path, compiler: str, **environment: str) -> str:
    """Compile the module in a tree, under flags that would change results if ours did not follow, and put it beside its package.
    What the compiler said."""
    flags = "-O0 -funsafe-math-optimizations"
    if "gcc" in compiler:  # Clang warns that -ffast-math is overridden
        flags += " -ffast-math"
    said = run_python("setup.py", "--quiet", "build_ext", cwd=tree, CC=compiler, CFLAGS=flags, **environment)
    (module,) = tree.glob("build/lib*/fastrnn/_core*.so")
    shutil.copy(module, tree / "fastrnn")
    return said


class Release:
    """The sdist, what it unpacks to, and the wheel that is built there, so that every test of the wheel shows too that the sdist is
    complete. Compiled once in a run, for all of its processes: whoever comes first does it, and the others wait."""

    COMPILER = "gcc" if shutil.which("gcc") else os.environ.get("CC", "cc")

    def __init__(self, tmp_path_factory: Any) -> None:
        home = tmp_path_factory.getbasetemp()
        home = (home.parent if "PYTEST_XDIST_WORKER" in os.environ else home) / "release"
        home.mkdir(exist_ok=True)
        with open(home / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (home / "said").exists():
                self._make(home)
        (self.sdist,) = (home / "sdist").iterdir()
        (self.tree,) = (home / "unpacked").iterdir()
        (self.wheel,) = (home / "wheel").iterdir()
        self.said = (home / "said").read_text()

    def _make(self, home: Path) -> None:
        sdist = build("sdist", copy_tree(home / "tree"), home / "sdist")
        shutil.unpack_archive(sdist, home / "unpacked", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        (tree,) = (home / "unpacked").iterdir()
        said = compile_module(tree, self.COMPILER)
        build("wheel", tree, home / "wheel")
        (home / "said").write_text(said)
