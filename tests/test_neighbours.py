"""What others say about the number of threads: affinity, control groups, OMP_NUM_THREADS, joblib and threadpoolctl."""

import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from building import IMPORTED_FROM, ROOT, run_python
from fastrnn import config
from fastrnn._engine import cores

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux's affinity and control groups")


def started(code="", **environment):
    """get_num_threads() and show_config()'s line of a Python that begins with this code."""
    clean = {"FASTRNN_NUM_THREADS": "", "OMP_NUM_THREADS": "", "PYTHON_CPU_COUNT": "default", "PYTHONPATH": IMPORTED_FROM}
    code += "\nimport fastrnn; print(fastrnn.get_num_threads()); fastrnn.show_config()"
    number, *config = run_python("-c", code, cwd=Path(IMPORTED_FROM), **{**clean, **environment}).splitlines()
    return int(number), next(line.removeprefix("threads").strip() for line in config if line.startswith("threads"))


# --- the default -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def bounds(monkeypatch, tmp_path):
    """bounds(affinity=8, quota="150000 100000", openmp="4,2", python=3): what cores.default() is to find."""

    def set_bounds(affinity=8, quota="max 100000", openmp=None, python=0):
        monkeypatch.setattr(cores, "_affinity", lambda: affinity)
        monkeypatch.setattr(cores, "_python", lambda: python)
        monkeypatch.setattr(cores, "_ROOT", str(tmp_path))
        control_groups(tmp_path, "0::/", [V2], {"sys/fs/cgroup/cpu.max": quota})
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if openmp is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", openmp)

    return set_bounds


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, (8, "the cores that this process may use")),
        ({"affinity": 2, "quota": "250000 100000", "openmp": "3"}, (2, "the cores that this process may use")),
        ({"quota": "250000 100000", "openmp": "4", "python": 5}, (3, "the control group's quota")),
        ({"quota": "450000 100000", "openmp": "4", "python": 5}, (4, "OMP_NUM_THREADS")),
        ({"quota": "650000 100000", "openmp": "7", "python": 5}, (5, "PYTHON_CPU_COUNT")),
        ({"openmp": "16", "python": 64, "quota": "1600000 100000"}, (8, "the cores that this process may use")),
    ],
)
def test_the_least_bound_is_the_default(given, expected, bounds):
    bounds(**given)
    assert cores.default() == expected


@pytest.mark.parametrize("text, n", [("4", 4), (" 4 ", 4), ("4,2", 4), ("4 , 2", 4), ("04", 4), ("1", 1)])
def test_openmp_may_say_one_number_or_a_list(text, n, bounds):
    bounds(openmp=text)
    assert cores.default()[0] == n


@pytest.mark.parametrize("text", ["", "0", "-1", "four", ",4", "4x", "1.5", "+", "\u00b2", "9" * 5000])
def test_openmp_is_ignored_where_it_says_no_number(text, bounds):
    bounds(openmp=text)
    assert cores.default() == (8, "the cores that this process may use")


def test_show_config_says_what_bound_the_default(monkeypatch):
    assert started(OMP_NUM_THREADS="1", FASTRNN_NUM_THREADS="7") == (7, "7 (default 7: FASTRNN_NUM_THREADS)")
    monkeypatch.setenv("OMP_NUM_THREADS", "1,4")  # on a machine of one core, that is told
    n, bound = cores.default()
    assert started(OMP_NUM_THREADS="1,4") == (n, f"{n} (default {n}: {bound})") and n == 1


@linux
def test_the_affinity_bounds_the_default():
    one = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])"
    assert started(one, OMP_NUM_THREADS="2") == (1, "1 (default 1: the cores that this process may use)")


@pytest.mark.skipif(not hasattr(os, "process_cpu_count"), reason="from Python 3.13 on")
def test_pythons_own_setting_bounds_the_default():
    assert started(PYTHON_CPU_COUNT="1")[0] == 1
    assert started(PYTHON_CPU_COUNT="200")[0] == cores._affinity()


# --- control groups --------------------------------------------------------------------------------------------------------

V2 = "41 31 0:38 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw,nsdelegate"
V1 = "35 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"
CPUSET = "36 25 0:30 / /sys/fs/cgroup/cpuset rw,nosuid - cgroup cgroup rw,cpuset"
CPU = "sys/fs/cgroup/cpu,cpuacct"


def control_groups(root, groups, mounts, quotas):
    """/proc and /sys of a process in these groups, below root."""
    shutil.rmtree(root / "sys", ignore_errors=True)
    other = "22 28 0:20 / /mnt/caf\u00e9\\040bar rw,relatime shared:2 - tmpfs  rw"
    files = {"proc/self/cgroup": groups, "proc/self/mountinfo": "\n".join([other, *mounts]), **quotas}
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n", encoding="latin-1")  # names of files need not be UTF-8


def v1(folder, quota, period=100000):
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}", f"{folder}/cpu.cfs_period_us": f"{period}"}


def v2(folder, quota):
    return {f"sys/fs/cgroup{folder}/cpu.max": quota}


GROUPS = {
    "none": ("0::/", [V2], {}, 0),
    "max": ("0::/", [V2], v2("", "max 100000"), 0),
    "of a container": ("0::/", [V2], v2("", "200000 100000"), 2),
    "rounded up": ("0::/", [V2], v2("", "210000 100000"), 3),
    "at least one": ("0::/", [V2], v2("", "1000 100000"), 1),
    "another period": ("0::/", [V2], v2("", "20000 10000"), 2),
    "of its own": ("0::/a/b", [V2], {**v2("/a/b", "200000 100000"), **v2("/a", "max 100000")}, 2),
    "of a parent": ("0::/a/b", [V2], {**v2("/a/b", "max 100000"), **v2("/a", "300000 100000")}, 3),
    "the least of all": ("0::/a/b", [V2], {**v2("/a/b", "400000 100000"), **v2("/a", "300000 100000"), **v2("", "9000 1000")}, 3),
    "a sibling's": ("0::/a/b", [V2], v2("/a/c", "100000 100000"), 0),
    "a name with a colon": ("0::/a:b", [V2], v2("/a:b", "200000 100000"), 2),
    "mounted from the group down": ("0::/pod/x", [V2.replace(" / /", " /pod/x /")], v2("", "200000 100000"), 2),
    "mounted from a parent down": ("0::/pod/x", [V2.replace(" / /", " /pod /")], v2("/x", "200000 100000"), 2),
    "another group is mounted": ("0::/pod/x", [V2.replace(" / /", " /po /")], v2("", "200000 100000"), 0),
    "outside of the namespace": ("0::/../x", [V2], {**v2("", "200000 100000"), **v2("/x", "100000 100000")}, 0),
    "v1": ("5:cpuset:/\n4:cpu,cpuacct:/", [V1, CPUSET], v1(CPU, 200000), 2),
    "v1, all": ("4:cpu,cpuacct:/", [V1], v1(CPU, -1), 0),
    "v1, of a parent": ("4:cpu,cpuacct:/a/b", [V1], {**v1(f"{CPU}/a/b", -1), **v1(f"{CPU}/a", 50000, 20000)}, 3),
    "v1, of a container": ("4:cpu,cpuacct:/docker/x", [V1.replace(" / /", " /docker/x /")], v1(CPU, 150000), 2),
    "v1, another controller": ("5:cpuset:/", [V1, CPUSET], v1(CPU, 200000), 0),
    "v1 beside v2": (
        "4:cpu,cpuacct:/\n0::/",
        [V1, V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")],
        {**v1(CPU, 300000), "sys/fs/cgroup/unified/cpu.max": "max 100000"},
        3,
    ),
    "no numbers": ("0::/", [V2], v2("", "many few"), 0),
    "no period": ("0::/", [V2], v2("", "100000 0"), 0),
    "no such line": ("nonsense", [V2], v2("", "200000 100000"), 0),
}


@pytest.mark.parametrize("name", GROUPS)
def test_the_quota_of_control_groups(name, tmp_path, monkeypatch):
    groups, mounts, quotas, expected = GROUPS[name]
    control_groups(tmp_path, groups, mounts, quotas)
    monkeypatch.setattr(cores, "_ROOT", str(tmp_path))
    assert cores._quota() == expected


def test_a_system_without_control_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "_ROOT", str(tmp_path))
    assert cores._quota() == 0


# --- threadpoolctl -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def threadpoolctl():
    before = fastrnn.get_num_threads()
    yield pytest.importorskip("threadpoolctl", reason="the package threadpoolctl is not installed")
    fastrnn.set_num_threads(before)


@pytest.fixture
def asked(monkeypatch):
    """The numbers of threads for which calls were planned."""
    found = []
    for name in ("forward", "backward"):
        choose = getattr(fastrnn._engine.schedule, name)
        plan = lambda *args, choose=choose, **lent: found.append(args[-1]) or choose(*args, **lent)  # noqa: E731
        monkeypatch.setattr(fastrnn._engine.schedule, name, plan)
    return found


LIMITED = """
import fastrnn
fastrnn.set_num_threads(4)
with threadpoolctl.threadpool_limits(1):
    print(fastrnn.get_num_threads())
print(fastrnn.get_num_threads())
"""


@pytest.mark.parametrize("before, after", [("import threadpoolctl", ""), ("", "import threadpoolctl")])
def test_limits_hold_whichever_is_imported_first(before, after, threadpoolctl):
    code = before + LIMITED.replace("import fastrnn", f"import fastrnn\n{after}")
    assert run_python("-c", code, cwd=Path(IMPORTED_FROM), PYTHONPATH=IMPORTED_FROM).split() == ["1", "4"]


def test_limits_hold_in_all_threads_and_end_with_their_blocks(threadpoolctl, asked):
    layer, x = fastrnn.GRU(3, 5, rng=0), np.zeros((4, 2, 3), np.float32)
    limits = threadpoolctl.threadpool_limits
    fastrnn.set_num_threads(4)
    with ThreadPoolExecutor(1) as pool:
        with limits(3):
            pool.submit(layer, x).result()
            with limits(1):
                pool.submit(layer, x).result()
            fastrnn._core.forget_schedules()  # that for three threads is known
            layer(x)
        pool.submit(layer, x).result()
    assert asked == [3, 1, 3, 4]


def test_limits_hold_for_the_backward_of_an_earlier_forward(threadpoolctl, asked):
    layer, x = fastrnn.LSTM(3, 5, rng=0), np.zeros((4, 2, 3), np.float32)
    fastrnn.set_num_threads(4)
    y, _, tape = layer.forward(x)
    with threadpoolctl.threadpool_limits(1):
        tape.backward(y)
    assert asked == [4, 1]


def test_limits_hold_for_the_backward_in_pytorch(threadpoolctl, asked):
    torch = pytest.importorskip("torch", reason="the package torch is not installed")
    import fastrnn.torch

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    fastrnn.set_num_threads(4)
    try:
        outputs = [fastrnn.torch.GRU(3, 5)(torch.zeros(4, 2, 3))[0], fastrnn.torch.GRUCell(3, 5)(torch.zeros(2, 3))]
        for y in outputs:
            with threadpoolctl.threadpool_limits(1, user_api="fastrnn"):
                y.sum().backward()
    finally:
        torch.set_num_threads(before)
    assert asked == [4, 4, 1, 1]


def test_an_argument_goes_before_limits(threadpoolctl, asked):
    weights = [np.zeros(shape, np.float32) for shape in [(5, 3), (5, 5)]]
    with threadpoolctl.threadpool_limits(1):
        y, _, tape = fastrnn.rnn(np.zeros((4, 2, 3), np.float32), *weights, record=True, threads=3)
        tape.backward(y)
    assert asked == [3, 3]


def test_limits_by_kind_of_library(threadpoolctl):
    fastrnn.set_num_threads(4)
    for keywords, n in [
        ({"limits": 2, "user_api": "fastrnn"}, 2),
        ({"limits": 2, "user_api": "blas"}, 4),
        ({"limits": {"fastrnn": 3}}, 3),
        ({"limits": 1000}, 256),
        ({"limits": 0, "user_api": "fastrnn"}, 1),
    ]:
        with threadpoolctl.threadpool_limits(**keywords):
            assert fastrnn.get_num_threads() == n
        assert fastrnn.get_num_threads() == 4


def test_threadpool_info_lists_this_package_once(threadpoolctl, tmp_path):
    (ours,) = [info for info in threadpoolctl.threadpool_info() if info["user_api"] == "fastrnn"]
    assert ours["num_threads"] == fastrnn.get_num_threads()
    assert ours["version"] == fastrnn.__version__
    assert Path(ours["filepath"]).samefile(config._core.__file__)


def test_the_core_of_another_package_is_not_taken_for_ours(threadpoolctl, tmp_path):
    ctypes = pytest.importorskip("ctypes")
    another = shutil.copy(sys.modules["_ctypes"].__file__, tmp_path / "_core.so")
    ctypes.CDLL(str(another))
    assert len([info for info in threadpoolctl.threadpool_info() if info["user_api"] == "fastrnn"]) == 1


@pytest.mark.parametrize("text", ["raise ImportError", "register = None"], ids=["absent", "old"])
def test_without_threadpoolctl(text, tmp_path):
    (tmp_path / "threadpoolctl.py").write_text(text)
    run_python("-c", "import fastrnn", cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{IMPORTED_FROM}")


# --- joblib ------------------------------------------------------------------------------------------------------------------


def threads_of(layer, x):
    return os.getpid(), fastrnn.get_num_threads(), layer(x)[0].tobytes()


@pytest.mark.parametrize("backend, limit", [("loky", None), ("loky", 1), ("loky", 2), ("threading", None)])
def test_joblibs_workers(backend, limit, threadpoolctl, monkeypatch):
    """A process has its part of the cores, or as many threads as its user says; threads share the limit of their process."""
    joblib = pytest.importorskip("joblib", reason="the package joblib is not installed")
    for name in ("FASTRNN_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([IMPORTED_FROM, str(ROOT / "tests")]))
    layer, x = fastrnn.LSTM(3, 5, rng=0), np.ones((4, 2, 3), np.float32)
    more = {} if limit is None else {"inner_max_num_threads": limit}
    with joblib.parallel_config(backend=backend, n_jobs=2, **more), threadpoolctl.threadpool_limits(1):
        found = joblib.Parallel()(joblib.delayed(threads_of)(layer, x) for _ in range(4))
    of_a_process = min(limit or max(joblib.cpu_count() // 2, 1), cores.default()[0])
    assert {n for _, n, _ in found} == {1 if backend == "threading" else of_a_process}
    assert {y for _, _, y in found} == {layer(x)[0].tobytes()}
    assert (backend == "threading") == ({pid for pid, _, _ in found} == {os.getpid()})
    if backend == "loky":
        joblib.externals.loky.get_reusable_executor().shutdown(wait=True)


# --- the page ----------------------------------------------------------------------------------------------------------------

PROGRAMS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "threads.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_the_programs_of_the_page(program, tmp_path):
    for package in re.findall(r"^(?:import|from) (joblib|threadpoolctl|torch)", program, re.MULTILINE):
        pytest.importorskip(package, reason=f"the package {package} is not installed")
    (tmp_path / "program.py").write_text(program)
    run_python("program.py", cwd=tmp_path, PYTHONPATH=IMPORTED_FROM)
