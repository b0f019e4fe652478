"""Builds the one compiled module, fastrnn._core; everything else about the package is in pyproject.toml.

Each C file gets its own instruction set, and our flags come after those of Python and of the environment, so
that the kernels are the same whatever CFLAGS says. Environment:

CC                 the compiler, GCC >= 10 or Clang >= 12
FASTRNN_WERROR     1: warnings are errors
FASTRNN_SANITIZE   such as address,undefined: instrumented, not stripped, with tests/c/planted.c linked in
"""

import os
import platform
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

try:
    import numpy as np
    from Cython.Build import cythonize
    from setuptools import Extension, setup
    from setuptools.command.build_ext import build_ext
    from setuptools.errors import CompileError
except ModuleNotFoundError as error:
    package = (error.name or "").partition(".")[0]
    sys.exit(
        f"error: the build of fastrnn needs the package {package}, which is not installed. `pip install .` brings it by itself; "
        "with --no-build-isolation, or without pip, first: pip install 'setuptools>=77' 'Cython>=3.1' 'numpy>=2.0'"
    )

X86 = {
    "sse2": [],  # part of every x86-64
    "v3": ["-mavx2", "-mfma"],
    "v4": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}
AMX = [*X86["v4"], "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]  # where the compiler knows it: GCC >= 11, Clang >= 12
ARM = {"neon": []}  # part of every aarch64
MACHINES = {"x86_64": X86, "amd64": X86, "aarch64": ARM, "arm64": ARM}
# Plain C with -O3 is twice the size and half as fast: the compiler puts single sums together to vectors.
ISA = {"scalar": [] if os.environ.get("FASTRNN_SANITIZE") else ["-O2"]} | MACHINES.get(platform.machine().lower(), {})

SANITIZE = os.environ.get("FASTRNN_SANITIZE", "")
WERROR = ["-Werror"] if os.environ.get("FASTRNN_WERROR") == "1" else []

# The promises about bits: nothing is reordered, and the only fused multiply-adds are those we write.
MATH = ["-fno-fast-math", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fno-rounding-math"]
if "sse2" in ISA:
    MATH.append("-mfpmath=sse")
if SANITIZE:
    INSTRUMENT = [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all"]
    OPTIMIZE, STRIP = ["-O1", "-g", "-fno-omit-frame-pointer", *INSTRUMENT], INSTRUMENT
else:
    OPTIMIZE, STRIP = ["-O3", "-g0"], ["-Wl,-x" if sys.platform == "darwin" else "-Wl,-s"]
# Without startup files, of which a shared module in C needs none: for -Ofast, -ffast-math, -funsafe-math-optimizations or
# -mdaz-ftz, in CC or any other variable, the linker adds crtfastmath.o to them: denormals are then 0 in the whole process.
LINK = ["-pthread", *([] if sys.platform == "darwin" else ["-nostartfiles"]), *STRIP]
COMMON = [*OPTIMIZE, "-std=gnu11", *MATH, "-fvisibility=hidden", "-pthread", "-Wall", *WERROR]
# Python's own flags may say -fwrapv, which would also blind UBSan to signed overflow. Vectors are passed
# between inlined functions only, so notes about their ABI are noise.
KERNEL = ["-fno-wrapv", "-Wextra", "-Wno-psabi"]
AMX_PROBE = """
#include <immintrin.h>
void probe(const void *p) { _tile_loadconfig(p); _tile_dpbf16ps(0, 4, 6); }
"""


def flags(source: str) -> list[str]:
    """What one C file is compiled with, after everything that Python and the environment bring."""
    path = Path(source)
    generated = path.stem == "_core"
    return COMMON if generated else [*COMMON, *KERNEL, *(ISA | {"amx": AMX}).get(path.stem.partition("_")[0], [])]


COMPILERS = "GCC >= 10 or Clang >= 12"
# What every one of our files includes first, for a compiler that is new enough.
PROBE = f"""
#include <Python.h>
#include <math.h>
#if defined __clang__ ? __clang_major__ < 12 : __GNUC__ < 10
#error "expected {COMPILERS}"
#endif
"""


def check_compiler(command: list[str], include_dirs: list[str]) -> None:
    """Say what is missing, and how it is had, before the compiler's own words about a file of ours do."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(PROBE)
        try:
            probe = [*command, *(f"-I{path}" for path in include_dirs), "-fsyntax-only", str(source)]
            done = subprocess.run(probe, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
        except OSError as error:
            raise CompileError(
                f"fastrnn needs a C compiler, {COMPILERS}, and {command[0]!r} cannot be run: {error.strerror}. To install one: "
                "apt install gcc libc6-dev (Debian, Ubuntu), dnf install gcc (Fedora), apk add gcc musl-dev (Alpine), "
                "xcode-select --install (macOS). CC=... chooses another one."
            ) from None
    if done.returncode == 0:
        return
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if re.search(r"\b(Python|pyconfig)\.h\W+(No such file|file not found)", done.stderr):
        text = (
            f"fastrnn needs the C headers of Python {python}, and Python.h cannot be included. To install them: apt install "
            f"python{python}-dev (Debian, Ubuntu), dnf install python3-devel (Fedora), apk add python3-dev (Alpine)"
        )
    else:
        text = f"fastrnn needs a C compiler, {COMPILERS}, and the C library's headers (apt install libc6-dev, apk add musl-dev)"
    raise CompileError(f"{text}. {' '.join(command)} says:\n{done.stderr}")


def compiles(command: list[str], options: list[str], text: str) -> bool:
    """Does the compiler, and the assembler behind it, take this?"""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(text)
        probe = [*command, *options, "-c", str(source), "-o", str(Path(folder, "probe.o"))]
        return subprocess.run(probe, capture_output=True).returncode == 0


class BuildExt(build_ext):
    """The usual build_ext, with flags per file and the files compiled side by side."""

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            raise CompileError(f"fastrnn needs {COMPILERS}: the kernels use their vector extensions")
        check_compiler(self.compiler.compiler_so, self.compiler.include_dirs)
        if "v4" in ISA and compiles(self.compiler.compiler_so, AMX, AMX_PROBE):
            for made in self.extensions:
                made.sources.append("csrc/isa/amx_bf16.c")
                made.define_macros.append(("FR_WITH_AMX", None))
        compile_serially = self.compiler.compile

        def compile_all(sources, extra_postargs=None, **keywords):
            def compile_one(source):
                options = (extra_postargs or []) + flags(source)
                return compile_serially([source], extra_postargs=options, **keywords)

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return [obj for objects in pool.map(compile_one, sources) for obj in objects]

        self.compiler.compile = compile_all
        super().build_extensions()


def extension() -> Extension:
    """The module: the Cython source, and the C files that are for this machine."""
    kernels = [f"csrc/isa/{isa}_{table}.c" for isa in ISA for table in ("f32", "f64", "bf16")]
    others = ["csrc/isa/dispatch.c", "csrc/team/pool.c", *sorted(glob("fastrnn/_xla/*.c"))]
    return Extension(
        "fastrnn._core",
        ["fastrnn/_core.pyx", *others, *kernels, *(["tests/c/planted.c"] if SANITIZE else [])],
        include_dirs=["csrc", "fastrnn", np.get_include()],
        # CYTHON_CCOMPLEX 0: complex.h, which Cython would include for NumPy 1, has a macro I, and our structs a member.
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"), ("CYTHON_CCOMPLEX", "0")],
        depends=sorted(glob("csrc/**/*.h", recursive=True) + glob("fastrnn/_xla/*.h")),
        libraries=["m"],
        extra_link_args=LINK,
    )


if __name__ == "__main__":
    if sys.platform == "darwin":  # one architecture: -mavx2 means nothing to the other half of a universal module
        os.environ.setdefault("ARCHFLAGS", f"-arch {platform.machine()}")
    setup(ext_modules=cythonize([extension()], build_dir="build/cython"), cmdclass={"build_ext": BuildExt})
