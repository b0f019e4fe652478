"""Builds the one compiled module, fastrnn._core; everything else about the package is in pyproject.toml.

Each C file gets its own instruction set, and our flags come after those of Python and of the environment, so
that the kernels are the same whatever CFLAGS says. Environment:

CC                 the compiler, GCC >= 10 or Clang >= 12
FASTRNN_WERROR     1: warnings are errors
FASTRNN_SANITIZE   such as address,undefined: instrumented, not stripped, with tests/c/planted.c linked in
"""

import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

X86 = {
    "sse2": [],  # part of every x86-64
    "v3": ["-mavx2", "-mfma"],
    "v4": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}
ARM = {"neon": []}  # part of every aarch64
MACHINES = {"x86_64": X86, "amd64": X86, "aarch64": ARM, "arm64": ARM}
ISA = {"scalar": []} | MACHINES.get(platform.machine().lower(), {})

SANITIZE = os.environ.get("FASTRNN_SANITIZE", "")
WERROR = ["-Werror"] if os.environ.get("FASTRNN_WERROR") == "1" else []

# The promises about bits: nothing is reordered, and the only fused multiply-adds are those we write.
MATH = ["-fno-fast-math", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
if SANITIZE:
    INSTRUMENT = [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all"]
    OPTIMIZE, STRIP = ["-O1", "-g", "-fno-omit-frame-pointer", *INSTRUMENT], INSTRUMENT
else:
    OPTIMIZE, STRIP = ["-O3", "-g0"], ["-Wl,-x" if sys.platform == "darwin" else "-Wl,-s"]
COMMON = [*OPTIMIZE, "-std=gnu11", *MATH, "-fvisibility=hidden", "-pthread", "-Wall", *WERROR]
# Python's own flags may say -fwrapv, which would also blind UBSan to signed overflow. Vectors are passed
# between inlined functions only, so notes about their ABI are noise.
KERNEL = ["-fno-wrapv", "-Wextra", "-Wno-psabi"]


def flags(source: str) -> list[str]:
    """What one C file is compiled with, after everything that Python and the environment bring."""
    path = Path(source)
    generated = path.stem == "_core"
    return COMMON if generated else [*COMMON, *KERNEL, *ISA.get(path.stem.partition("_")[0], [])]


class BuildExt(build_ext):
    """The usual build_ext, with flags per file and the files compiled side by side."""

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            raise RuntimeError("fastrnn needs GCC or Clang: the kernels use their vector extensions")
        compile_serially = self.compiler.compile

        def compile_all(sources, extra_postargs=None, **keywords):
            def compile_one(source):
                options = (extra_postargs or []) + flags(source)
                return compile_serially([source], extra_postargs=options, **keywords)

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return [obj for objects in pool.map(compile_one, sources) for obj in objects]

        self.compiler.compile = compile_all
        super().build_extensions()


if sys.platform == "darwin":  # one architecture: -mavx2 means nothing to the other half of a universal module
    os.environ.setdefault("ARCHFLAGS", f"-arch {platform.machine()}")

# csrc/isa/<instruction set>_<dtype>.c, of those that this machine's compiler knows, and what has none
kernels = ["csrc/isa/dispatch.c", "csrc/team/pool.c", *(f"csrc/isa/{isa}_{dtype}.c" for isa in ISA for dtype in ("f32", "f64"))]
core = Extension(
    "fastrnn._core",
    ["fastrnn/_core.pyx", *kernels, *(["tests/c/planted.c"] if SANITIZE else [])],
    include_dirs=["csrc", np.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    depends=sorted(glob("csrc/**/*.h", recursive=True)),
    libraries=["m"],
    # For -ffast-math in CFLAGS the linker would add crtfastmath.o: denormals are then 0 in the whole process.
    extra_link_args=["-pthread", "-fno-fast-math", *STRIP],
)
setup(ext_modules=cythonize([core], build_dir="build/cython"), cmdclass={"build_ext": BuildExt})
