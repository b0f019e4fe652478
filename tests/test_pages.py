"""README.md, CONTRIBUTING.md and docs/: links lead somewhere, and what the pages show is what the code does."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from building import ISA_FLAGS, ROOT

pytestmark = pytest.mark.skipif(os.environ.get("FASTRNN_SANITIZED") == "1", reason="the copy for the sanitizers has no pages")
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(name: str, language: str) -> list[str]:
    """The fenced blocks of a page in that language."""
    return [code for kind, code in FENCED.findall((ROOT / name).read_text("utf-8")) if kind == language]


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links, by GitHub's rule."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", page.read_text("utf-8")))
    for link in links:
        if re.match(r"https?:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    for name in re.findall(r"`((?:csrc|fastrnn|tests|bench|examples|docs)/[\w/.]+)`", FENCED.sub("", page.read_text("utf-8"))):
        if "ligru" not in name and "/name_" not in name:  # files that a reader would add
            assert (ROOT / name).exists(), name


def test_the_examples_of_the_readme_run():
    names: dict = {}
    for code in blocks("README.md", "python"):
        exec(code, names)
    assert names["grads"].params["weight_hh_l0"].shape == (4 * 32, 32)


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"`make ([a-z-]+)", page.read_text("utf-8")))
        assert named <= targets, page.name


# --- docs/training.md -------------------------------------------------------------------------------------------------------


@pytest.fixture
def curves(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    import curves

    return curves


def test_the_figures_of_bf16_are_of_the_numbers_and_the_commands_that_are_shown(curves):
    page = (ROOT / "docs" / "training.md").read_text("utf-8")
    numbers = json.loads((ROOT / "docs" / "bf16.json").read_text())
    assert list(numbers) == list(curves.RUNS)
    assert curves.table(numbers) in page
    for name, run in curves.RUNS.items():
        assert name.endswith(("seed 1", "seed 2")) or f"python examples/{run.command} " in page


def test_the_curves_of_bf16_are_drawn(curves, tmp_path):
    pytest.importorskip("matplotlib")
    curves.draw(json.loads((ROOT / "docs" / "bf16.json").read_text()), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_curves_of_each_step_are_averaged(curves):
    steps, values = np.arange(1, 251), np.arange(250) / 3
    assert curves.rounded(steps, values, each_step=True) == [[100, 200], [16.5, 49.833]]
    assert curves.rounded(steps[:2], values[:2], each_step=False) == [[1, 2], [0.0, 0.33333]]


# --- docs/speed.md ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def report(monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.syspath_prepend(ROOT / "bench")
    import report

    return report


@pytest.fixture
def measured():
    return json.loads((ROOT / "docs" / "speed.json").read_text())


def test_the_section_of_speed_is_what_was_measured(report, measured):
    page = (ROOT / "docs" / "speed.md").read_text("utf-8")
    assert page.count(f"{report.BEGIN}\n{report.section(measured)}\n{report.END}") == 1


def test_a_section_is_replaced_and_nothing_else(report, measured, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_section(measured, page)
    text = page.read_text("utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    record = {"what": "forward", "threads": 1, "dtype": "float32", "shape": [2, 1, 3, 4]}
    cells = {"lstm": 8.0, "relu": 2.0}
    records = [{**record, "cell": cell, "seconds": {"fastrnn": 1.0, "NumPy": n, "JAX": 9.0}} for cell, n in cells.items()]
    report.write_section({**measured, "records": records}, page)
    assert "| Forward, inference, float32 | 1 | 4.00 | 2.00: ReLU RNN T2 B1 I3 H4, NumPy |" in page.read_text("utf-8")
    page.write_text(f"{report.END}\n{report.BEGIN}\n")
    with pytest.raises(SystemExit, match=r"page.md: expected one line <!-- begin"):
        report.write_section(measured, page)


# --- docs/architecture.md ---------------------------------------------------------------------------------------------------


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path}: expected {old!r} once"
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("isa", ["scalar", "best"])
def test_the_new_cell_of_the_page_is_right(isa, tmp_path):
    """By the lines that the page names, and no others."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"{compiler[0]} is not installed")
    isa = fastrnn.available_isas()[-1] if isa == "best" else isa
    csrc = Path(shutil.copytree(ROOT / "csrc", tmp_path / "csrc"))
    (code,) = blocks("docs/architecture.md", "c")
    (csrc / "cells" / "ligru.h").write_text(code)
    edit(csrc / "fastrnn.h", "FR_GRU_BEFORE }", "FR_GRU_BEFORE, FR_LIGRU }")
    edit(csrc / "cells" / "cells.h", '#include "cells/lstm.h"', '#include "cells/ligru.h"\n#include "cells/lstm.h"')
    edit(csrc / "cells" / "cells.h", "[FR_GRU_BEFORE] = &gru_before,", "[FR_GRU_BEFORE] = &gru_before, [FR_LIGRU] = &ligru,")
    flags = ["-O1", "-std=gnu11", "-ffp-contract=off", "-pthread", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", f"-I{csrc}"]
    sources = [csrc / "isa" / f"{isa}_f64.c", csrc / "team" / "pool.c", ROOT / "tests" / "c" / "new_cell.c"]
    program = tmp_path / "new_cell"
    define = f"-DKERNELS=fr_kernels_{isa}_f64"
    subprocess.run([*compiler, *flags, *ISA_FLAGS[isa], define, *sources, "-o", program, "-lm"], check=True)
    out = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    errors = {name: float(error) for name, error in map(str.split, out.splitlines())}
    assert set(errors) == {"y", "dx", "dw_ih", "dw_hh", "db_ih", "db_hh", "dh0"}
    assert errors.pop("y") < 1e-13
    assert max(errors.values()) < 1e-7  # of central differences
