"""Each compiler builds the package without a warning; neither it nor the environment's flags change a bit of a result, or what
denormals are in the process; and a build that cannot be says what is missing."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from building import ROOT, Release, compile_module, copy_tree, failing_python, run_python

pytestmark = pytest.mark.skipif(
    os.environ.get("FASTRNN_SANITIZED") == "1", reason="compilers run ten times slower under the sanitizers"
)
linux = pytest.mark.skipif(sys.platform != "linux", reason="how GCC and Clang link for fast math elsewhere is not known here")

# Forward and backward of an LSTM, hashed.
RESULTS = """
import hashlib
import numpy as np
import fastrnn
rng = np.random.default_rng(1)
T, B, I, H = 7, 5, 9, 19
shapes = (T, B, I), (4 * H, I), (4 * H, H), (4 * H,), (4 * H,)
for dtype in np.float32, np.float64:
    y, state, tape = fastrnn.lstm(*(rng.standard_normal(s).astype(dtype) for s in shapes), record=True)
    grads = tape.backward(np.ones_like(y))
    results = y, *state, grads.x, grads.w_ih, grads.w_hh, grads.b_ih, grads.h0, grads.c0
    print(hashlib.sha256(b"".join(a.tobytes() for a in results)).hexdigest())
"""


@pytest.fixture(scope="module", params=["gcc", "clang"])
def compiler(request) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture(scope="module")
def build(compiler, tmp_path_factory):
    """A tree with the module built under flags that would change results, and what the build said."""
    if compiler == Release.COMPILER:
        release = Release(tmp_path_factory)
        return release.tree, release.said
    tree = copy_tree(tmp_path_factory.mktemp("build") / "tree")
    return tree, compile_module(tree, compiler, FASTRNN_WERROR="1")


def test_builds_without_warnings_and_with_the_same_results(build, tmp_path):
    tree, said = build
    assert "warning" not in said.lower()
    here = f"import fastrnn; assert fastrnn.__file__.startswith({str(tree)!r})\n"
    built = run_python("-c", here + RESULTS, cwd=tree, PYTHONPATH=str(tree))
    assert built == run_python("-c", RESULTS, cwd=tmp_path)


# Builds with the objects that are there: the flags of the environment meet the linker alone. One for each of the environments.
LINK = """
import json, os, runpy, sys
from pathlib import Path
import setuptools  # which brings its own distutils
from distutils.ccompiler import CCompiler
CCompiler.compile = lambda self, sources, output_dir=None, **_: self.object_filenames(sources, output_dir=output_dir)
environments, before = json.loads(sys.argv[1]), dict(os.environ)
for target, environment in environments.items():
    os.environ.update(environment)
    sys.argv = ["setup.py", "--quiet", "build_ext", "--inplace", "--force"]
    runpy.run_path("setup.py", run_name="__main__")
    (module,) = Path("fastrnn").glob("_core*.so")
    module.rename(Path(target, module.name))
    os.environ.clear()
    os.environ.update(before)
"""
# Denormals as they are, before the import and after it, in this thread and in one that begins then.
DENORMALS = """
import threading
import numpy as np

def tiny():
    return [float(x * one) for x, one in ((np.float64(5e-324), np.float64(1)), (np.float32(1e-45), np.float32(1)))]

seen = [tiny()]
import fastrnn
seen.append(tiny())
thread = threading.Thread(target=lambda: seen.append(tiny()))
thread.start()
thread.join()
assert all(seen[0]) and seen[1:] == seen[:1] * 2, seen
"""
FAST = ["-Ofast", "-ffast-math", "-funsafe-math-optimizations", "-mdaz-ftz"]
PLACES = [("CFLAGS", "{}"), ("LDFLAGS", "{}"), ("CPPFLAGS", "{}"), ("CC", "{compiler} {}"), ("LDSHARED", "{compiler} -shared {}")]


def knows(compiler: str, flag: str) -> bool:
    command = [compiler, "-Werror", *flag.split(), "-fsyntax-only", "-x", "c", os.devnull]
    return subprocess.run(command, capture_output=True).returncode == 0


LINKS = [(*PLACES[0], flag) for flag in FAST] + [(*place, FAST[0]) for place in PLACES[1:]]


@pytest.fixture(scope="module")
def linked(build, compiler, tmp_path_factory) -> dict[tuple[str, str, str], Path]:
    """The folder of the module that each of LINKS gives, where the compiler knows its flag."""
    tree, _ = build
    folders = {link: tmp_path_factory.mktemp("linked") for link in LINKS if knows(compiler, link[2])}
    environments = {
        str(folder): {"CC": compiler, variable: value.format(flag, compiler=compiler)}
        for (variable, value, flag), folder in folders.items()
    }
    run_python("-c", LINK, json.dumps(environments), cwd=tree)
    return folders


@linux
@pytest.mark.parametrize("link", LINKS, ids="{0[0]} {0[2]}".format)
def test_the_module_leaves_denormals_alone(build, compiler, linked, link):
    """crtfastmath.o, which these flags bring into the link, makes them 0 in the whole process."""
    if link not in linked:
        pytest.skip(f"{compiler} does not know {link[2]}")
    (module,) = linked[link].iterdir()
    tree, _ = build
    shutil.copy(module, tree / "fastrnn")
    run_python("-c", DENORMALS, cwd=tree, PYTHONPATH=str(tree))


# Sums, products, divisions and constants that each of these flags would have computed otherwise.
SENSITIVE = """
#include <math.h>
#include "fastrnn.h"
double sum(const double *x, int n) { double s = 0; for (int i = 0; i < n; i++) s += x[i]; return s + 1e30 - 1e30; }
void divide(float *x, int n, float d) { for (int i = 0; i < n; i++) x[i] = x[i] / d + 0.0f; }
double tenth(double x, double y) { return isnan(x) ? y : x * 0.1 + y; }
float root(float x) { return 1 / sqrtf(x); }
"""
UNFAITHFUL = [
    *FAST[:3], "-fassociative-math -fno-signed-zeros -fno-trapping-math", "-freciprocal-math", "-ffinite-math-only",
    "-fno-signed-zeros", "-fsingle-precision-constant", "-ffp-contract=fast -mfma", "-mrecip", "-mfpmath=387",
]  # fmt: skip


@pytest.mark.parametrize("flag", UNFAITHFUL)
def test_flags_that_change_results_are_overruled_or_refused(compiler, flag, tmp_path):
    if not knows(compiler, flag):
        pytest.skip(f"{compiler} does not know {flag}")
    source = tmp_path / "sensitive.c"
    source.write_text(SENSITIVE)
    ours = runpy.run_path(str(ROOT / "setup.py"))["flags"](str(ROOT / "csrc" / "isa" / "v3_f32.c"))

    def compiled(*flags: str) -> tuple[int, str]:
        command = [compiler, "-O2", *flags, f"-I{ROOT / 'csrc'}", "-S", "-o", "-", str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout if done.returncode == 0 else done.stderr

    expected, (status, found) = compiled(*ours), compiled(*flag.split(), *ours)
    assert expected[0] == 0
    assert (status, found) == expected or "fastrnn cannot be compiled with" in found


@linux
def test_a_compiler_that_adds_fast_math_by_itself_is_refused(build, compiler, tmp_path):
    wrapper = tmp_path / "cc"
    wrapper.write_text(f'#!/bin/sh\nexec {compiler} "$@" -ffast-math\n')
    wrapper.chmod(0o755)
    tree, _ = build
    build_elsewhere = ("setup.py", "--quiet", "build_ext", "--force", "--build-temp", str(tmp_path), "--build-lib", str(tmp_path))
    assert "fastrnn cannot be compiled with -Ofast" in failing_python(*build_elsewhere, cwd=tree, CC=str(wrapper))


def test_without_a_compiler_the_build_says_what_to_install(tmp_path):
    tree = copy_tree(tmp_path / "tree")
    said = failing_python("setup.py", "--quiet", "build_ext", cwd=tree, CC="no-such-cc")
    last = said.splitlines()[-1]
    assert last.startswith("error: fastrnn needs a C compiler, GCC >= 10 or Clang >= 12, and 'no-such-cc' cannot be run: No such")
    assert "apt install gcc libc6-dev" in last and "CC=" in last


CHECK = "import runpy, sys; runpy.run_path('setup.py')['check_compiler'](sys.argv[1].split(), sys.argv[2:])"


def test_without_header_files_the_build_says_what_to_install(compiler):
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    include = run_python("-c", "import sysconfig; print(sysconfig.get_path('include'))", cwd=ROOT).strip()
    run_python("-c", CHECK, compiler, include, cwd=ROOT)
    without_python = failing_python("-c", CHECK, compiler, cwd=ROOT)
    assert f"needs the C headers of Python {python}" in without_python and f"python{python}-dev" in without_python
    without_libc = failing_python("-c", CHECK, f"{compiler} -nostdinc", include, cwd=ROOT)
    assert "needs a C compiler, GCC >= 10 or Clang >= 12, and the C library's headers (apt install libc6-dev" in without_libc


@pytest.mark.parametrize("compiler, version", [("gcc", "__GNUC__=9"), ("clang", "__clang_major__=11")])
def test_a_compiler_that_is_too_old_is_named(compiler, version):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    include = run_python("-c", "import sysconfig; print(sysconfig.get_path('include'))", cwd=ROOT).strip()
    said = failing_python("-c", CHECK, f"{compiler} -w -U{version.partition('=')[0]} -D{version}", include, cwd=ROOT)
    assert "expected GCC >= 10 or Clang >= 12" in said


@pytest.mark.parametrize("package", ["Cython", "numpy"])
def test_without_a_package_the_build_says_what_to_install(package):
    code = f"import runpy, sys; sys.modules[{package!r}] = None; runpy.run_path('setup.py', run_name='__main__')"
    said = failing_python("-c", code, cwd=ROOT)
    assert said.startswith(f"error: the build of fastrnn needs the package {package}, which is not installed.")
    assert "pip install 'setuptools>=77' 'Cython>=3.1' 'numpy>=2.0'" in said
