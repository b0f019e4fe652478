"""What is shipped: small, complete, one dependency, one exported name, and quick to import."""

import email
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from building import IMPORTED_FROM, ROOT, Release, run_python

pytestmark = pytest.mark.skipif(
    os.environ.get("FASTRNN_SANITIZED") == "1", reason="a sanitized module is not what is shipped"
)
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files and /proc")


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Release:
    return Release(tmp_path_factory)


@pytest.fixture(scope="module")
def sdist(release) -> Path:
    return release.sdist


@pytest.fixture(scope="module")
def wheel(release) -> Path:
    return release.wheel


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """The wheel unpacked, as it is once installed, with its bytecode compiled."""
    site = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(site)
    run_python("-m", "compileall", "-q", str(site), cwd=site)
    return site


@pytest.fixture(scope="module")
def module(site) -> Path:
    (module,) = (site / "fastrnn").glob("_core*.so")
    return module


def tool(name: str, *arguments: str | Path) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    return subprocess.run([name, *arguments], capture_output=True, text=True, check=True).stdout


def test_the_sdist_holds_every_source_and_nothing_built(sdist):
    with tarfile.open(sdist) as archive:
        shipped = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    folders = ["csrc", "fastrnn", "tests", "bench", "examples", "docs"]
    files = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    wanted = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    wanted = {name for name in wanted if not name.endswith((".so", ".o"))}
    wanted |= {"setup.py", "pyproject.toml", "MANIFEST.in", "Makefile", "README.md", "CONTRIBUTING.md", "LICENSE"}
    assert wanted <= shipped
    assert not [name for name in shipped if name.endswith((".so", ".o", ".pyc")) or name.startswith("build")]


def test_the_wheel_is_small(wheel):
    assert wheel.stat().st_size <= 1_500_000


def test_the_wheel_holds_the_package_with_its_types_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fastrnn"}
    assert {"fastrnn/py.typed", "fastrnn/_core.pyi"} <= set(names)
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "fastrnn").rglob("*.py")} <= set(names)
    assert not [name for name in names if name.endswith((".c", ".h", ".pyx"))]


def test_the_metadata_names_one_dependency_the_licence_and_the_version(site):
    (info,) = site.glob("*.dist-info")
    metadata = email.message_from_string((info / "METADATA").read_text("utf-8"))
    assert [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r] == ["numpy>=1.26"]
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert (info / "licenses" / "LICENSE").exists()
    version = run_python("-c", "import fastrnn; print(fastrnn.__version__)", cwd=site, PYTHONPATH=str(site))
    assert metadata["Version"] == version.strip()


@linux
def test_the_module_carries_no_debug_information(module):
    sections = tool("readelf", "--section-headers", "--wide", module)
    assert ".text" in sections
    assert ".debug" not in sections
    assert ".symtab" not in sections


@linux
def test_the_module_exports_its_init_function_and_its_mark_alone(module):
    symbols = tool("nm", "--dynamic", "--defined-only", "--format=posix", module)
    assert sorted(line.split()[0] for line in symbols.splitlines()) == ["PyInit__core", "fastrnn_threads"]


def test_the_reference_is_loaded_when_it_is_asked_for(site):
    code = """
import sys, fastrnn
assert "reference" in dir(fastrnn) and "fastrnn.reference" not in sys.modules
assert fastrnn.reference is sys.modules["fastrnn.reference"]
print(getattr(fastrnn, "nothing", "no such name"))
"""
    assert run_python("-c", code, cwd=site, PYTHONPATH=str(site)).strip() == "no such name"


@pytest.mark.alone
def test_import_takes_at_most_30_ms_after_numpy(tmp_path):
    """As it is imported here, copied and with its bytecode: so that nothing is built for this test, which runs by itself."""
    site = tmp_path / "site"
    shutil.copytree(Path(IMPORTED_FROM) / "fastrnn", site / "fastrnn", ignore=shutil.ignore_patterns("__pycache__"))
    run_python("-m", "compileall", "-q", str(site), cwd=site)
    code = "import time, numpy; t = time.perf_counter(); import fastrnn; print(time.perf_counter() - t)"
    times = [float(run_python("-c", code, cwd=site, PYTHONPATH=str(site))) for _ in range(9)]
    assert statistics.median(times) <= 0.030, times


IMPORT_COST = """
import os, re
import numpy

def threads():
    return len(os.listdir("/proc/self/task"))

def private_bytes():
    return 1024 * int(re.search(r"^Anonymous: *([0-9]+) kB", open("/proc/self/smaps_rollup").read(), re.M)[1])

before = threads(), private_bytes()
import fastrnn
print(threads() - before[0], private_bytes() - before[1])
"""


@linux
def test_import_starts_no_thread_and_allocates_next_to_nothing(site):
    out = run_python("-c", IMPORT_COST, cwd=site, PYTHONPATH=str(site), OPENBLAS_NUM_THREADS="1")
    threads, private_bytes = map(int, out.split())
    assert threads == 0
    assert private_bytes <= 4e6  # the bytecode of the package and the modules it imports, no buffers
