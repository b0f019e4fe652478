"""Does the suite notice a fault? Each mutant of mutant_table.py is put into a copy of the sources, and its tests run there.

    python tests/mutants.py [--jobs 2] [--only PATTERN] [--list]

A mutant is caught where a test fails, crashes or hangs with it, and passes without. The exit code is 1 if one survives that is not
known to be equivalent, or cannot be tried. The compiled module has -O1 and two instruction sets, the best of this processor and
plain C; for a mutant only what it changes is compiled. A test that is skipped notices nothing: install what `make systems` does.
"""

import argparse
import json
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import NamedTuple

from mutant_table import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 600  # seconds of a mutant's tests: then it hangs
NO_TESTS_FAILED, TESTS_FAILED, INTERRUPTED = 0, 1, 2  # pytest's exit codes; the second is also that of -x after an error
MODULE = f"fastrnn/_core{sysconfig.get_config_var('EXT_SUFFIX')}"
CYTHON = "fastrnn/_core.pyx"
AMX = "csrc/tile/amx.h"  # of which test_cross.py makes a program of its own; the module is made of it where the processor has AMX


class Unusable(Exception):
    """A mutant that cannot be tried; the message says why."""


class Result(NamedTuple):
    mutant: Mutant
    verdict: str  # caught, survived, equivalent or error
    by: str  # the test, or why
    seconds: float


# --- the sources, and the module -----------------------------------------------------------------------------------------


def run(command: list[str], cwd: Path, env: dict[str, str] | None = None, timeout: float | None = None) -> tuple[int | None, str]:
    """Exit code, None after a timeout, and all that was printed."""
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
        code = None
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if code is None:
                os.killpg(process.pid, signal.SIGKILL)  # with the programs that tests have started
                process.wait()
        said.seek(0)
        return code, said.read()


def best_isa() -> str:
    import fastrnn

    return fastrnn.available_isas()[-1]


class Build:
    """How the module is made: setup.py's own sources and flags, but for the optimisation."""

    def __init__(self) -> None:
        os.chdir(ROOT)  # setup.py looks for its sources there
        spec = spec_from_file_location("setup", "setup.py")
        setup = module_from_spec(spec)
        spec.loader.exec_module(setup)
        self.flags, self.link = setup.flags, setup.LINK
        extension = setup.extension()
        best = best_isa()
        amx = best == "amx"  # which setup.py adds when it has asked the compiler
        self.isas = ("scalar", *(("v4", "amx") if amx else (best,)))
        self.others = [isa for isa in setup.ISA if isa not in self.isas]
        sources = [*extension.sources, *["csrc/isa/amx_bf16.c"] * amx]
        self.sources = [s for s in sources if not s.startswith("csrc/isa/") or s.startswith(self._kept())]
        macros = [f"-D{name}={value}" for name, value in [*extension.define_macros, *[("FR_WITH_AMX", "1")] * amx]]
        includes = [f"-I{path}" for path in (*extension.include_dirs, sysconfig.get_path("include"))]
        self.compiler = [*shlex.split(os.environ.get("CC", "cc")), "-fPIC", "-fno-strict-aliasing", "-w", *macros, *includes]

    def _kept(self) -> tuple[str, ...]:
        return ("csrc/isa/dispatch", *(f"csrc/isa/{isa}_" for isa in self.isas))

    def drop_other_isas(self, tree: Path) -> None:
        """From the table of the instruction sets in a copy: what it does not name need not be compiled."""
        path = tree / "csrc/isa/dispatch.c"
        text, count = re.subn(rf'\{{"(?:{"|".join(self.others)})", FR_ALL\(\w+\), \w+\}}(, )?', "", path.read_text())
        if count != len(self.others):
            sys.exit(f"{path.name} has {count} entries of {', '.join(self.others)}, not one of each")
        path.write_text(text)

    def compile(self, tree: Path, source: str, to: Path) -> None:
        """To an object file, and beside it a list of the files that went in."""
        if source == CYTHON:
            self._done([sys.executable, "-m", "cython", source, "-o", str(to.with_suffix(".c"))], tree)
        given = str(to.with_suffix(".c")) if source == CYTHON else source
        flags = ["-O1" if flag == "-O3" else flag for flag in self.flags(source)]
        self._done([*self.compiler, *flags, "-MMD", "-MF", str(to.with_suffix(".d")), "-c", given, "-o", str(to)], tree)

    def link_module(self, tree: Path, objects: list[Path], to: Path) -> None:
        to.unlink(missing_ok=True)  # not overwritten: a process of an earlier test may still have it
        self._done([self.compiler[0], "-shared", *map(str, objects), *self.link, "-lm", "-o", str(to)], tree)

    def _done(self, command: list[str], tree: Path) -> None:
        code, said = run(command, tree)
        if code != 0:
            raise Unusable(f"does not compile: {said.strip()[:600]}")


class Tree:
    """A copy of the sources with the module of the unchanged ones, where one mutant after the other is tried."""

    def __init__(self, folder: Path, build: Build) -> None:
        self.folder, self.build = folder, build
        self.objects = {s: folder / "build/mutants" / (s.replace("/", "-").rpartition(".")[0] + ".o") for s in build.sources}
        self.module, self.cache = folder / "build/mutants/unchanged.so", folder / "build/cache"

    def make(self, jobs: int) -> None:
        """From what git has, or would take."""
        code, listed = run(["git", "ls-files", "-co", "--exclude-standard"], ROOT)
        if code != 0:
            sys.exit(f"git ls-files: {listed}")
        for name in filter(os.path.isfile, listed.splitlines()):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.folder / name)
        self.build.drop_other_isas(self.folder)
        self.module.parent.mkdir(parents=True)
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda item: self.build.compile(self.folder, *item), self.objects.items()))
        self.build.link_module(self.folder, list(self.objects.values()), self.module)
        self._use(self.module)

    def copy(self, folder: Path) -> "Tree":
        shutil.copytree(self.folder, folder)
        return Tree(folder, self.build)

    def _use(self, module: Path) -> None:
        (self.folder / MODULE).unlink(missing_ok=True)
        shutil.copy(module, self.folder / MODULE)

    def _made_of(self, source: str) -> set[str]:
        included = {f"fastrnn/{path.name}" for path in (ROOT / "fastrnn").glob("*.pxi")} if source == CYTHON else set()
        return {source, *included, *self.objects[source].with_suffix(".d").read_text().replace("\\\n", " ").split()}

    def _compile_changed(self, name: str) -> None:
        """The module with this file as it is now."""
        changed = [source for source in self.objects if name in self._made_of(source)]
        if not changed and name == AMX:
            return
        if not changed:
            raise Unusable("the module is not made of this file")
        folder = self.folder / "build/changed"
        folder.mkdir(exist_ok=True)
        objects = dict(self.objects)
        for source in changed:
            objects[source] = folder / self.objects[source].name
            self.build.compile(self.folder, source, objects[source])
        self.build.link_module(self.folder, list(objects.values()), folder / "module.so")
        self._use(folder / "module.so")

    # --- a mutant --------------------------------------------------------------------------------------------------------

    def judge(self, mutant: Mutant) -> tuple[str, str]:
        """Verdict, and the test that has found it, or why."""
        path = self.folder / mutant.file
        text, compiled = path.read_text(), path.suffix != ".py"
        try:
            path.write_text(text.replace(mutant.old, mutant.new))
            if compiled:
                self._compile_changed(mutant.file)
            code = self._test(mutant, anew=True)
        finally:
            path.write_text(text)
            if compiled:
                self._use(self.module)
        if code == NO_TESTS_FAILED:
            return ("equivalent", mutant.equivalent) if mutant.equivalent else ("survived", "")
        if code is None or code < 0:
            return "caught", f"a test that {'hangs' if code is None else f'ends with signal {-code}'}"
        found = self._failed()
        if self._test(mutant, anew=False) != NO_TESTS_FAILED:
            raise Unusable(f"fails without the mutant, too: {found}")
        return "caught", found

    def _failed(self) -> str:
        """The test that has failed, or the file whose tests cannot be collected."""
        path = self.cache / "v/cache/lastfailed"
        return ", ".join(json.loads(path.read_text())) if path.exists() else "(pytest does not say which)"

    def _test(self, mutant: Mutant, anew: bool) -> int | None:
        """pytest's exit code. anew: all tests of the mutant, or those alone that have failed the last time."""
        if anew:
            shutil.rmtree(self.cache, ignore_errors=True)
        chosen = ["-k", mutant.k] if mutant.k else []
        again = [] if anew else ["--last-failed", "--last-failed-no-failures", "none"]
        files = [f"tests/test_{name}.py" for name in mutant.tests.split()]
        pytest = [sys.executable, "-m", "pytest", "-x", "-q", "-o", f"cache_dir={self.cache}", "-m", "not alone", *again, *chosen]
        path = os.pathsep.join([str(self.folder), str(self.folder / "tests")])
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        code, said = run([*pytest, *files], self.folder, environment, TIMEOUT)
        if code is not None and code > INTERRUPTED:
            raise Unusable(f"pytest ends with {code}: {said.strip()[-600:]}")
        return code


# --- all of them ---------------------------------------------------------------------------------------------------------


def mistake(mutant: Mutant) -> str | None:
    """What is wrong with this row of the table."""
    count = (ROOT / mutant.file).read_text().count(mutant.old)
    if count != 1:
        return f"the text stands {count} times in the file, not once"
    missing = [name for name in mutant.tests.split() if not (ROOT / f"tests/test_{name}.py").exists()]
    return f"there are no tests {missing}" if missing else None


def chosen(pattern: str) -> list[Mutant]:
    """Those that the pattern finds, after a look at all."""
    mistakes = [f"{mutant}: {wrong}" for mutant in MUTANTS if (wrong := mistake(mutant))]
    if mistakes:
        sys.exit("\n".join(mistakes))
    return [mutant for mutant in MUTANTS if re.search(pattern, str(mutant))]


def report(result: Result) -> None:
    print(f"{result.verdict:10} {result.seconds:4.0f} s  {result.mutant}\n{'':18}{result.by}", flush=True)


def try_all(mutants: list[Mutant], jobs: int, folder: Path) -> list[Result]:
    first = Tree(folder / "0", Build())
    first.make(jobs)
    trees: queue.Queue[Tree] = queue.Queue()
    for tree in (first, *(first.copy(folder / str(k)) for k in range(1, jobs))):
        trees.put(tree)

    def try_one(mutant: Mutant) -> Result:
        tree, start = trees.get(), time.monotonic()
        try:
            verdict, by = tree.judge(mutant)
        except Unusable as error:
            verdict, by = "error", str(error)
        finally:
            trees.put(tree)
        result = Result(mutant, verdict, by, time.monotonic() - start)
        report(result)
        return result

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(try_one, mutants))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="mutants side by side")
    parser.add_argument("--only", default="", metavar="PATTERN", help="a regular expression: those that --list shows with a match")
    parser.add_argument("--list", action="store_true", help="check the table and show it; nothing is run")
    options = parser.parse_args()
    mutants = chosen(options.only)
    if options.list:
        print(*mutants, f"{len(mutants)} mutants", sep="\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        results = try_all(mutants, options.jobs, Path(folder))
    left = [result for result in results if result.verdict not in ("caught", "equivalent")]
    if left:
        print("\n--- not caught")
    for result in left:
        report(result)
    counts = Counter(result.verdict for result in results)
    print(f"\n{len(results)} mutants: {', '.join(f'{n} {verdict}' for verdict, n in counts.most_common())}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
