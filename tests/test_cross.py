"""The kernels by their C interface alone: natively, and cross-compiled for aarch64 under qemu; the same bits.

tests/c/selftest_kernels.c compares them with plain loops and prints a hash of all results for each
instruction set; tests/c/selftest_optim.c does so for the rules of a training. The kernels of AMX are among them with
its instructions in C, tests/c/amx_in_c.c, and with AMX itself where the processor has it.
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
from building import ISA_FLAGS, ROOT

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
SELFTEST_MATH = [ROOT / "tests" / "c" / name for name in ("selftest_math.c", "selftest_math_f32.c")]
SHARED = ["isa/dispatch", "team/pool"]
ISAS = {
    machine: [f"isa/{isa}_{table}" for isa in isas for table in ("f32", "f64", "bf16")]
    for machine, isas in {"x86_64": ("scalar", "sse2", "v3", "v4"), "aarch64": ("scalar", "neon"), "": ("scalar",)}.items()
}


def need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def run(*command: str | Path) -> str:
    """All that the program prints, which is the test's message if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}"
    return done.stdout


def objects(folder: Path, compiler: list[str], names: list[str], *flags: str) -> list[Path]:
    """Compile these files of csrc, side by side."""

    def compile_one(name: str) -> Path:
        target = folder / f"{Path(name).name}.o"
        machine = ISA_FLAGS.get(Path(name).name.partition("_")[0], [])
        run(*compiler, *FLAGS, *flags, *machine, "-c", ROOT / "csrc" / f"{name}.c", "-o", target)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, names))


def amx_in_c(folder: Path, compiler: list[str], *flags: str) -> Path:
    """The kernels of AMX with its instructions in C, and the widest vectors of this machine."""
    isa = fastrnn.available_isas()[-1].replace("amx", "v4")
    target = folder / "amx_in_c.o"
    source = ROOT / "tests" / "c" / "amx_in_c.c"
    run(*compiler, *FLAGS, *flags, *ISA_FLAGS[isa], f"-DFR_{isa.upper()}=1", "-c", source, "-o", target)
    return target


def selftest(folder: Path, compiler: list[str], kernels: list[Path], name: str = "selftest_kernels") -> Path:
    """Compile this file of tests/c, and link it with these objects."""
    program = folder / name
    source = ROOT / "tests" / "c" / f"{name}.c"
    in_c = ["-DAMX_IN_C"] if any(path.name == "amx_in_c.o" for path in kernels) else []
    run(*compiler, *FLAGS, *in_c, source, *kernels, "-o", program, "-lm")
    return program


def hashes(said: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """{isa: {dtype: the hash of the results, and of those with options where there are some}}"""
    lines = re.findall(r"^(\w+) +(\w+ [0-9a-f]{16}.*)$", said, re.MULTILINE)
    found = {isa: re.findall(r"(\w+) ([0-9a-f]{16})", rest) for isa, rest in lines}
    return {isa: {dtype: tuple(h for d, h in pairs if d == dtype) for dtype, _ in pairs} for isa, pairs in found.items()}


@pytest.fixture(scope="module")
def native_objects(tmp_path_factory) -> list[Path]:
    """Compiled in less time than the module: no optimisation may change a bit."""
    need(NATIVE_CC[0])
    amx = "amx" in fastrnn.available_isas()
    names = SHARED + ISAS.get(platform.machine(), ISAS[""]) + ["isa/amx_bf16"] * amx
    folder = tmp_path_factory.mktemp("objects")
    made = objects(folder, NATIVE_CC, names, "-O1", *["-DFR_WITH_AMX"] * amx)
    return [*made, amx_in_c(folder, NATIVE_CC, "-O1")]


@pytest.fixture(scope="module")
def aarch64_objects(tmp_path_factory) -> list[Path]:
    """NEON as it is shipped; plain C, which only has to be there, in less time."""
    need(CROSS_CC[0], QEMU)
    plain = objects(tmp_path_factory.mktemp("aarch64"), CROSS_CC, SHARED + ISAS[""], "-O1")
    neon = [name for name in ISAS["aarch64"] if name not in ISAS[""]]
    return [*plain, *objects(tmp_path_factory.mktemp("neon"), CROSS_CC, neon)]


@pytest.fixture(scope="module")
def native(native_objects, tmp_path_factory) -> dict[str, dict[str, tuple[str, ...]]]:
    """The hashes of this machine. Teams are watched with the widest vectors and with none: threads are slow where they have to wait
    for each other beside other tests, and what they do is the same on all instruction sets."""
    program = selftest(tmp_path_factory.mktemp("native"), NATIVE_CC, native_objects)
    isas = [*fastrnn.available_isas(), "amx_in_c"]
    alone = {isa: ["all", "1"] for isa in isas if isa not in ("scalar", isas[-2])}
    return hashes("".join(run(program, isa, *alone.get(isa, [])) for isa in isas))


def test_kernels_natively(native):
    assert list(native) == [*fastrnn.available_isas(), "amx_in_c"]
    fused = [isa for isa in native if isa not in ("scalar", "sse2")]
    for isas in ("scalar", "sse2"), fused:
        for dtype in "float32", "float64", "bfloat16":
            assert len({native[isa][dtype] for isa in isas if dtype in native.get(isa, {})}) < 2, dtype
    assert native["amx_in_c"]["bfloat16"]


@pytest.fixture(scope="module")
def watched_objects(native_objects, tmp_path_factory) -> list[Path]:
    """The same, the team and the kernels in plain C under ThreadSanitizer."""
    watched = objects(tmp_path_factory.mktemp("watched"), NATIVE_CC, ["team/pool", *ISAS[""]], "-O1", "-g", "-fsanitize=thread")
    return watched + [path for path in native_objects if path.name not in [w.name for w in watched]]


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("selftest_kernels", ["scalar", "gru before", "2"]),
        ("selftest_kernels", ["scalar", "lstm", "2"]),
        ("selftest_optim", ["scalar"]),
        ("selftest_pool", []),
    ],
)
def test_threads_do_not_race(name, arguments, watched_objects, tmp_path):
    """ThreadSanitizer watches the team and the kernels in plain C, which differ from others in arithmetic, at work in twos
    on the cell with the most stages, on that which may project, and on the rules of a training."""
    program = selftest(tmp_path, [*NATIVE_CC, "-fsanitize=thread"], watched_objects, name)
    options = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
    done = subprocess.run([program, *arguments], env=options, capture_output=True, text=True)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer does not run with this system's address randomisation")
    assert done.returncode == 0, done.stdout + done.stderr


def test_kernels_of_aarch64_give_the_same_bits(native, aarch64_objects, tmp_path):
    """On one thread: what threads do is the same on all processors, and slow under qemu."""
    program = selftest(tmp_path, CROSS_CC, aarch64_objects)
    neon = hashes(run(QEMU, program, "neon", "all", "1"))["neon"]
    fused = [isa for isa in ("v3", "v4", "neon") if isa in native]
    if not fused:
        pytest.skip("agrees with the loops; there is no fused multiply-add here to compare its bits with")
    assert {isa: native[isa] for isa in fused} == dict.fromkeys(fused, neon)
    assert neon["bfloat16"]


def test_the_rules_of_a_training_have_the_same_bits_everywhere(native_objects, aarch64_objects, tmp_path):
    """On every instruction set, since they fuse no multiply-adds."""
    said = run(selftest(tmp_path, NATIVE_CC, native_objects, "selftest_optim"))
    on_aarch64 = run(QEMU, selftest(tmp_path, CROSS_CC, aarch64_objects, "selftest_optim"))
    assert list(hashes(said)) == fastrnn.available_isas()
    first, *others = [*hashes(said).values(), *hashes(on_aarch64).values()]
    assert first and all(other == first for other in others)


def test_functions_on_aarch64(tmp_path):
    need(CROSS_CC[0], QEMU)
    program = tmp_path / "selftest_math"
    run(*CROSS_CC, *FLAGS, "-DFR_NEON=1", *SELFTEST_MATH, "-o", program, "-lm")
    run(QEMU, program, "brief")
