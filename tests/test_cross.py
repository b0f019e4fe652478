"""The kernels by their C interface alone: natively, and cross-compiled for aarch64 under qemu; the same bits.

tests/c/selftest_kernels.c compares them with plain loops and prints a hash of all results for each
instruction set.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import fastrnn
from building import ROOT
from test_math import ISA_FLAGS

pytestmark = pytest.mark.skipif(
    os.environ.get("FASTRNN_SANITIZED") == "1", reason="compilers run ten times slower under the sanitizers"
)

FLAGS = [
    *("-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    *("-fvisibility=hidden", "-pthread", "-Wall", "-Wextra", "-Wno-psabi", "-Werror", f"-I{ROOT / 'csrc'}"),
]
NATIVE_CC = shlex.split(os.environ.get("CC", "cc"))
CROSS_CC = ["aarch64-linux-gnu-gcc", "-static"]
QEMU = "qemu-aarch64"
ISAS = {"x86_64": ["scalar", "sse2", "v3", "v4"], "aarch64": ["scalar", "neon"]}


def need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def run(*command: str | Path) -> str:
    """All that the program prints, which is the test's message if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}"
    return done.stdout


def selftest_kernels(folder: Path, compiler: list[str], isas: list[str], *flags: str) -> Path:
    """Compile tests/c/selftest_kernels.c with the kernels of these instruction sets."""
    sources = {f"isa_{isa}": ISA_FLAGS[isa] for isa in isas} | {"dispatch": [], "pool": []}
    paths = {ROOT / "csrc" / f"{name}.c": flags for name, flags in sources.items()}
    paths[ROOT / "tests" / "c" / "selftest_kernels.c"] = []

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        run(*compiler, *FLAGS, *flags, *paths[source], "-c", source, "-o", target)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, paths))
    program = folder / "selftest_kernels"
    run(*compiler, "-pthread", *objects, "-o", program, "-lm")
    return program


def hashes(said: str) -> dict[str, tuple[str, str]]:
    """{isa: (hash of the float32 results, of the float64 results)}"""
    lines = re.findall(r"^(\w+) +float32 ([0-9a-f]{16}) float64 ([0-9a-f]{16})$", said, re.MULTILINE)
    return {isa: (single, double) for isa, single, double in lines}


@pytest.fixture(scope="module")
def native(tmp_path_factory) -> dict[str, tuple[str, str]]:
    """The hashes of this machine. Compiled in less time than the module: no optimisation may change a bit."""
    need(NATIVE_CC[0])
    isas = ISAS.get(platform.machine(), ["scalar"])
    program = selftest_kernels(tmp_path_factory.mktemp("native"), NATIVE_CC, isas, "-O1")
    return hashes(run(program))


def test_kernels_natively(native):
    assert list(native) == fastrnn.available_isas()


def test_kernels_of_aarch64_give_the_same_bits(native, tmp_path):
    need(CROSS_CC[0], QEMU)
    program = selftest_kernels(tmp_path, CROSS_CC, ISAS["aarch64"])
    neon = hashes(run(QEMU, program, "neon"))["neon"]
    fused = [isa for isa in ("v3", "v4", "neon") if isa in native]
    if not fused:
        pytest.skip("agrees with the loops; there is no fused multiply-add here to compare its bits with")
    assert {isa: native[isa] for isa in fused} == dict.fromkeys(fused, neon)


def test_functions_on_aarch64(tmp_path):
    need(CROSS_CC[0], QEMU)
    program = tmp_path / "selftest_math"
    run(*CROSS_CC, *FLAGS, "-DFR_NEON=1", ROOT / "tests" / "c" / "selftest_math.c", "-o", program, "-lm")
    run(QEMU, program, "brief")
