"""What holds for the whole process, set for one test and put back after it."""

import random
from collections import defaultdict

import pytest

from fastrnn import _core, config
from fastrnn._engine import schedule


def pytest_addoption(parser):
    parser.addoption("--all-installed", action="store_true", help="fail if a test was skipped because a package is not installed")
    parser.addoption("--slow", action="store_true", help="also run the tests that are marked slow, which take minutes")
    parser.addoption(
        "--share", type=int, default=1, metavar="N", help="of a test's cases, run one in N but at least 100, drawn once and for all"
    )


# Files that take long by themselves, the longest first: of a parallel run's processes none is then left with one at the end.
LONGEST = [
    "cross", "build", "package", "example_programs", "cells", "promises", "stacks", "bad_input", "threads", "sessions", "import",
]  # fmt: skip


def pytest_configure(config):
    config.option.loadscopereorder = False  # pytest-xdist would begin with the files of many tests


def _place(item):
    name = item.path.stem.removeprefix("test_")
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


def pytest_collection_modifyitems(config, items):
    items.sort(key=_place)
    left_out = {item for item in items if "slow" in item.keywords and not config.getoption("--slow")}
    left_out |= _not_drawn([item for item in items if item not in left_out], config.getoption("--share"))
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


def _not_drawn(items, share):
    """--share: no test is left out, and of its cases those that a seed of its own does not draw."""
    tests = defaultdict(list)
    for item in items:
        tests[item.nodeid.partition("[")[0]].append(item)
    drawn = set()
    for name, cases in tests.items():
        drawn.update(cases if share == 1 else random.Random(name).sample(cases, min(len(cases), max(100, len(cases) // share))))
    return set(items) - drawn


def pytest_sessionfinish(session):
    """A package that was meant to be there, and is not, must not go unnoticed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")  # None in a worker of pytest-xdist
    if reporter is None or not session.config.getoption("--all-installed"):
        return
    skipped = [report.longrepr[2] for report in reporter.stats.get("skipped", ()) if "not installed" in str(report.longrepr)]
    if skipped:
        reporter.write_line(f"\n--all-installed: {len(skipped)} tests were skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _schedules_of_one_test():
    """What a test changed about schedules is not remembered after it."""
    yield
    _core.forget_schedules()


@pytest.fixture
def use():
    """use(isa="v3", gemm="own") for the rest of the test; isa="best" is that of this processor."""
    isa, engine = _core.isa_in_use(), _core.gemm_in_use()

    def use(isa: str | None = None, gemm: str | None = None) -> None:
        if isa is not None:
            config.use_isa(config.available_isas()[-1] if isa == "best" else isa)
        if gemm is not None:
            config.set_gemm(gemm)

    yield use
    config.use_isa(isa)
    _core.use_gemm(engine)


@pytest.fixture
def small_work_is_shared_out(monkeypatch):
    """To as many threads as are allowed, as only large work is otherwise, and whatever that brings."""
    remembered = (schedule.forward, schedule.recompute, schedule.backward, schedule.side_by_side)
    monkeypatch.setattr(schedule, "_WORK_PER_THREAD", 1)
    for choose in remembered:
        choose.cache_clear()
    _core.forget_schedules()
    _core.always_form_teams(True)
    yield
    _core.always_form_teams(False)
    for choose in remembered:
        choose.cache_clear()
    _core.forget_schedules()


@pytest.fixture
def own(use):
    """The engine for which the promises about bits are made."""
    use(gemm="own")


@pytest.fixture(params=["best", "scalar"])
def isa(request, use, own):
    """The widest vectors with fused multiply-adds, and plain C without, with the engine "own".

    The others are made of the same kernels, and have the bits of one of these two: test_promises.py says so over the whole table
    of cases, test_cross.py for other schedules too.
    """
    use(isa=request.param)
    return request.param


@pytest.fixture(params=config.available_isas())
def every_isa(request, use, own):
    """Each instruction set in turn, for what is written once for each of them."""
    use(isa=request.param)
    return request.param
