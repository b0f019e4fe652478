"""The package on every Python that pyproject.toml claims and that is found here: `make pythons`.

Each of them, on the path or under pyenv, gets a virtual environment in build/pythons, where pip builds and installs the package
as for anyone. There the imports (plain, -OO, warnings as errors: test_import.py) and the quick files of the suite are run, the
latter with half of each test's cases, with the newest NumPy that this Python has. The oldest Python has the oldest NumPy
that is supported; it and the newest run all of the suite but the C code's own tests and the longest trainings. A table says what
ran where, and which Python was not found.

    python tests/pythons.py [--only 3.12] [pytest's arguments]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "build" / "pythons"
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}  # the installed package, nothing else
# Each kind of call, option and error once or more, in a minute or two.
QUICK = [
    "package", "bad_input", "cells", "docs", "engine", "formats", "golden", "layers", "memory", "onnx", "packed",
    "parameters", "single_steps", "stream", "train", "train_losses", "train_sampling", "compat_karpathy",
]  # fmt: skip
# The C code by itself, compilers, what needs a sanitized module, and trainings that take minutes.
LEFT_OUT = ["cross", "build", "sanitizers", "example_programs"]


def claimed_versions() -> list[str]:
    """Those among the classifiers, the oldest first."""
    return re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())


def oldest_numpy() -> str:
    (version,) = re.findall(r'^dependencies = \["numpy>=([\d.]+)"\]', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    return f"numpy=={version}.*"


def interpreter(version: str) -> Path | None:
    """A CPython of this version, with the GIL, that can make environments."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    under_pyenv = sorted(pyenv.glob(f"{version}.*/bin/python{version}"), key=lambda p: [int(n) for n in re.findall(r"\d+", str(p))])
    on_path = shutil.which(f"python{version}")
    probe = "import ensurepip, sys, sysconfig, venv; print(*sys.version_info[:2], sysconfig.get_config_var('Py_GIL_DISABLED') or 0)"
    for path in [*([Path(on_path)] if on_path else []), *reversed(under_pyenv)]:
        done = subprocess.run([path, "-c", probe], capture_output=True, text=True)
        if done.stdout.split() == [*version.split("."), "0"]:
            return path
    return None


def files(*names: str) -> list[Path]:
    return [ROOT / "tests" / f"test_{name}.py" for name in names]


class Environment:
    """One Python with its packages, and what was done with it: the cells of its line in the table."""

    def __init__(self, version: str, numpy: str) -> None:
        self.version, self.numpy, self.folder = version, numpy, HOME / version
        self.cells: dict[str, str] = {}
        self.failed = False

    def step(self, name: str, *commands: list[str | Path]) -> None:
        """Run the commands as long as they succeed, and note the seconds and the counts in pytest's last line."""
        if self.failed:
            return
        start, last = time.monotonic(), ""
        for command in commands:
            print(f"--- {self.version}: {' '.join(map(str, command))}", flush=True)
            with subprocess.Popen(
                command, cwd=HOME, env=CLEAN, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            ) as process:
                for line in process.stdout or ():
                    print(line, end="", flush=True)
                    last = line.strip() or last
            self.failed = process.returncode != 0
            if self.failed:
                break
        counts = ", ".join(re.findall(r"\d+ (?:passed|failed|skipped|errors?)", last))
        self.cells[name] = f"{'FAILED ' if self.failed else ''}{counts or 'ok'} ({time.monotonic() - start:.0f} s)"

    def run(self, python: Path, whole: bool, arguments: list[str]) -> None:
        bin = self.folder / "bin"
        pip = [bin / "python", "-m", "pip", "--disable-pip-version-check", "--quiet", "install", f"{ROOT}[test]", self.numpy]
        self.step("build", [python, "-m", "venv", "--clear", self.folder], pip)
        pytest = [bin / "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", "-c", ROOT / "pyproject.toml"]
        pytest += ["-n", "auto", "--dist", "loadfile", "-m", "not alone", *arguments]
        self.step("import", [*pytest, *files("import")])
        if whole:
            others = (f"--ignore={path}" for path in files("import", *LEFT_OUT))
            self.step("whole suite", [*pytest, *others, ROOT / "tests"])
        else:
            self.step("quick half", [*pytest, "--share", "2", *files(*QUICK)])
        self.cells["NumPy"] = self.said("import numpy; print(numpy.__version__)")
        self.cells["Python"] = self.said("import platform; print(platform.python_version())")

    def said(self, code: str) -> str:
        done = subprocess.run([self.folder / "bin" / "python", "-c", code], capture_output=True, text=True)
        return done.stdout.strip() or "-"


def table(environments: list[Environment], missing: list[str]) -> str:
    columns = ["Python", "NumPy", "build", "import", "quick half", "whole suite"]
    rows = [columns, *([e.cells.get(c, "-") for c in columns] for e in environments), *([v, "not found here"] for v in missing)]
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="one of the versions, such as 3.12; may be repeated")
    options, arguments = parser.parse_known_args()
    versions = claimed_versions()
    chosen = [v for v in versions if not options.only or v in options.only]
    found = {v: python for v in chosen if (python := interpreter(v))}
    if not found:
        print(f"none of Python {', '.join(chosen)} is found here", file=sys.stderr)
        return 1
    HOME.mkdir(parents=True, exist_ok=True)
    environments = []
    for version, python in found.items():
        oldest = version == versions[0]
        environments.append(Environment(version, oldest_numpy() if oldest else "numpy"))
        environments[-1].run(python, oldest or version == max(found, key=versions.index), arguments)
    print(f"\n{table(environments, [v for v in chosen if v not in found])}\n")
    print(f"whole suite: all files but {', '.join(f'test_{n}.py' for n in LEFT_OUT)} (the C code alone, and minutes of training)")
    return int(any(e.failed for e in environments))


if __name__ == "__main__":
    sys.exit(main())
