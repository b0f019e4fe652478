"""Builds of the package in a copy of the sources, for the tests of what is shipped and of compilers."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The folder from which fastrnn is imported here, for other processes: the tree, or where the package is installed.
IMPORTED_FROM = str(Path(find_spec("fastrnn").origin).parents[1])
# What each kernel file is compiled with, as setup.py does.
ISA_FLAGS = {
    "scalar": [],
    "sse2": [],
    "neon": [],
    "v3": ["-mavx2", "-mfma"],
    "v4": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
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
