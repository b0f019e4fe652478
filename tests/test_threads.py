"""Threads: the GIL is released, calls from many Python threads at once, fork, the limits, and the environment's settings."""

import contextlib
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastrnn
from building import IMPORTED_FROM
from cases import CELLS, Case, problem, results
from fastrnn import _core, config
from fastrnn._engine import blas, cores

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
# Python's own warning that a forked child of a process with threads may hang, and that of JAX, if another test has imported it:
# that ours does not is what is tested.
no_warning = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
ENGINES = ["own", "blas"] if blas.known() else ["own"]


pytestmark = pytest.mark.usefixtures("small_work_is_shared_out")


def bits(p, threads=2):
    return b"".join(a.tobytes() for a in results(fastrnn, p, threads=threads).values())


# --- the GIL ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def clock_ticking():
    """A list that another Python thread fills with the time, as often as it gets the GIL."""
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            time.sleep(0.001)  # without the GIL, waiting for an Event yields its core again and again, and gets it back late
            ticks.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield ticks
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("threads", [1, 2])
def test_other_threads_run_during_a_call(threads, own):
    """Between two ticks of a clock there is never half a call; on a busy machine, not each time."""
    p = problem(Case("lstm", T=20_000, B=8, I=64, H=64), np.float32)  # so long that no time slice is half of it
    gaps = []
    for _ in range(5):
        with clock_ticking() as ticks:
            start = time.perf_counter()
            fastrnn.lstm(**p.arrays, threads=threads)
            end = time.perf_counter()
        during = [start, *(t for t in ticks if start < t < end), end]
        gaps.append(max(np.diff(during)) / (end - start))
        if gaps[-1] < 0.5:
            return
    pytest.fail(f"the longest gap, as a part of the call: {gaps}")


# --- many Python threads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("engine", ENGINES)
def test_calls_from_many_python_threads(engine, threads, use):
    """Different problems, each from several Python threads at once."""
    use(gemm=engine)
    problems = [problem(Case(cell, T=30, B=9, I=5, H=19, lengths=cell in ("lstm", "tanh"))) for cell in CELLS] * 8
    expected = [bits(p, threads) for p in problems]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda p: bits(p, threads), problems))
    if engine == "own":
        assert got == expected
    else:  # the sums of a BLAS may depend on its threads
        for a, b in zip(got, expected):
            np.testing.assert_allclose(np.frombuffer(a), np.frombuffer(b), rtol=1e-9, atol=1e-9)


def test_one_layer_from_many_python_threads(own):
    """A layer's call keeps nothing in the layer."""
    layer = fastrnn.GRU(5, 19, rng=0)
    inputs = [np.random.default_rng(k).standard_normal((20, 4, 5)).astype(np.float32) for k in range(32)]

    def step(x):
        y, state, tape = layer.forward(x)
        return y.tobytes() + state.tobytes() + tape.backward(np.ones_like(y)).flat.tobytes()

    expected = [step(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(step, inputs)) == expected


# --- cores --------------------------------------------------------------------------------------------------------------

# Both threads have run on one core and are let go: the next call wakes the worker where it was, and the system is in no hurry.
MOVE_OVER = """
import os, time
import numpy as np, fastrnn
fastrnn.set_num_threads(2)
fastrnn._core.always_form_teams(True)  # a team on one core is else no team for some calls
layer, x = fastrnn.LSTM(64, 64, rng=0), np.zeros((400, 16, 64), np.float32)
layer(x)
me, cores = os.getpid(), os.sched_getaffinity(0)
worker, = (int(thread) for thread in os.listdir("/proc/self/task") if int(thread) != me)
together = 0
for k in range(20):
    for thread in (me, worker):
        os.sched_setaffinity(thread, {sorted(cores)[k % 2]})
    layer(x)
    time.sleep(0.003)
    for thread in (me, worker):
        os.sched_setaffinity(thread, cores)
    layer(x)
    on = [open(f"/proc/self/task/{thread}/stat").read().rpartition(")")[2].split()[36] for thread in (me, worker)]
    together += on[0] == on[1]
    assert os.sched_getaffinity(worker) == cores  # as free as before
print(together)
"""


@linux
@pytest.mark.alone  # beside other work there may be no free core to move to
@pytest.mark.skipif(cores._affinity() < 2, reason="this process may use one core")
def test_a_worker_moves_away_from_the_core_of_its_caller():
    environment = {**os.environ, "PYTHONPATH": IMPORTED_FROM, "OPENBLAS_NUM_THREADS": "1"}

    def together():
        return int(subprocess.check_output([sys.executable, "-c", MOVE_OVER], env=environment, text=True))

    assert any(together() <= 10 for _ in range(5))  # of 20; without moving it is 14 to 18, but other processes come and go


# --- fork ---------------------------------------------------------------------------------------------------------------


def in_child(function, seconds=60):
    """The bytes that function returns in a forked child; one that hangs is killed, and the test fails."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(function())
        finally:
            os._exit(0)
    os.close(writer)
    got, end = b"", time.monotonic() + seconds
    try:
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            while select.select([pipe], [], [], max(0, end - time.monotonic()))[0]:
                piece = pipe.read(1 << 16)
                if not piece:
                    return got
                got += piece
        pytest.fail("the child hangs")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@forks
@no_warning
@pytest.mark.parametrize("engine", ENGINES)
def test_a_forked_child_computes_the_same(engine, use):
    use(gemm=engine)
    p = problem(Case("lstm", T=30, B=9, I=5, H=19))
    expected = bits(p, threads=3)
    assert in_child(lambda: bits(p, threads=3)) == expected
    assert in_child(lambda: in_child(lambda: bits(p, threads=2))) == expected  # a child's child
    assert bits(p, threads=3) == expected


@contextlib.contextmanager
def calls_in_another_thread(p):
    stop = threading.Event()

    def calls():
        while not stop.is_set():
            bits(p)

    thread = threading.Thread(target=calls)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@forks
@no_warning
def test_a_fork_while_another_thread_is_in_a_call(own):
    """With the engine "own": OpenBLAS does not survive a fork in the midst of a product on several threads."""
    p = problem(Case("gru-after", T=40, B=9, I=40, H=40))
    expected = bits(p)
    with calls_in_another_thread(p):
        for k in range(10):
            time.sleep(0.0003 * k)
            assert in_child(lambda: bits(p), seconds=30) == expected


@linux
@no_warning
def test_a_forked_child_has_threads_of_its_own(own):
    """They are not those of its parent, which are not there, and it does not matter that the parent was in a call."""
    p = problem(Case("gru-after", T=40, B=9, I=40, H=40))

    def count():
        bits(p, threads=3)
        return str(len(os.listdir("/proc/self/task"))).encode()

    bits(p, threads=3)
    assert in_child(count) == b"3"
    with calls_in_another_thread(p):
        assert [in_child(count) for _ in range(10)] == [b"3"] * 10


def digest_of_case(cell):
    return bits(problem(Case(cell, T=20, B=5)))


@forks
@no_warning
def test_a_pool_of_forked_processes(own):
    expected = [digest_of_case(cell) for cell in CELLS]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(digest_of_case, list(CELLS) * 3).get(timeout=60) == expected * 3


# --- limits -------------------------------------------------------------------------------------------------------------


def python(code, **environment):
    """What it prints, and what it says if it fails."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FASTRNN_", "OMP_", "PYTHON_CPU_"))}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env={**clean, "PYTHONPATH": IMPORTED_FROM, **environment}, capture_output=True, text=True, timeout=120
    )
    return done.stdout.strip(), done.stderr.strip()


STARTED = """
import os
import numpy as np
import fastrnn
count = lambda: len(os.listdir("/proc/self/task"))
x, w_ih, w_hh = np.zeros((50, 16, 32)), np.zeros((256, 32)), np.zeros((256, 64))
before = count()
for threads in 1, 3, 2, 3:
    y, _, tape = fastrnn.lstm(x, w_ih, w_hh, record=True, threads=threads)
    tape.backward(y)
    print(count() - before)
"""


@linux
@pytest.mark.parametrize("engine", ENGINES)
def test_a_call_starts_no_more_threads_than_it_may_use(engine):
    out, err = python(STARTED, FASTRNN_GEMM=engine, OPENBLAS_NUM_THREADS="1")
    assert out.split() == ["0", "2", "2", "2"], err


def test_a_blas_with_more_threads_than_a_call_may_use_is_left_alone(monkeypatch):
    monkeypatch.setattr(blas, "_get_num_threads", lambda: lambda: 4)
    assert [blas.within(n) for n in (1, 3, 4, 64)] == [False, False, True, True]


@pytest.fixture
def num_threads():
    before = fastrnn.get_num_threads()
    yield
    fastrnn.set_num_threads(before)


def test_set_num_threads_is_what_calls_get(num_threads, monkeypatch, own):
    asked = []
    forward = fastrnn._engine.schedule.forward
    monkeypatch.setattr("fastrnn._engine.schedule.forward", lambda *args: asked.append(args[-1]) or forward(*args))
    p = problem(Case("tanh"))
    for n in (1, 3, 256):
        fastrnn.set_num_threads(n)
        assert fastrnn.get_num_threads() == n
        _core.forget_schedules()
        fastrnn.rnn(**p.arrays)
        fastrnn.rnn(**p.arrays, threads=2)
    assert asked == [1, 2, 3, 2, 256, 2]


@pytest.mark.parametrize(
    "n, error", [(0, ValueError), (-1, ValueError), (1.0, TypeError), ("2", TypeError), (True, TypeError), ([], TypeError)]
)
def test_wrong_numbers_of_threads(n, error, num_threads):
    before = fastrnn.get_num_threads()
    with pytest.raises(error, match=r"^threads: expected an integer"):
        fastrnn.rnn(**problem(Case("tanh")).arrays, threads=n)
    with pytest.raises(error, match=r"^n: expected an integer"):
        fastrnn.set_num_threads(n)
    assert fastrnn.get_num_threads() == before


def test_set_num_threads_has_a_limit(num_threads):
    with pytest.raises(ValueError, match="from 1 to 256, got 257"):
        fastrnn.set_num_threads(257)


def test_more_threads_than_rows_or_the_machine_has(own):
    p = problem(Case("lstm", B=3))
    assert bits(p, threads=10**9) == bits(p, threads=1)


# --- the environment -------------------------------------------------------------------------------------------------------


def test_the_environment_sets_the_threads():
    code = "import fastrnn; print(fastrnn.get_num_threads())"
    assert python(code, FASTRNN_NUM_THREADS="7") == ("7", "")
    assert python(code, FASTRNN_NUM_THREADS="7", OMP_NUM_THREADS="3") == ("7", "")
    assert python(code, FASTRNN_NUM_THREADS="", OMP_NUM_THREADS="1") == ("1", "")


def test_the_environment_sets_the_instruction_set():
    code = "import fastrnn; fastrnn.show_config()"
    for isa in fastrnn.available_isas():
        out, err = python(code, FASTRNN_ISA=isa)
        assert f"instruction set   {isa} (available: " in out, err
    out, _ = python(code, FASTRNN_ISA="")
    assert f"instruction set   {fastrnn.available_isas()[-1]} " in out


def test_the_environment_sets_the_engine():
    code = "import fastrnn; print(fastrnn.config.gemm())"
    for engine in ENGINES:
        assert python(code, FASTRNN_GEMM=engine) == (engine, "")
    assert python(code, FASTRNN_GEMM="") == ("own", "")
    assert python(code, FASTRNN_ISA="scalar") == (ENGINES[-1], "")
    assert python(code, FASTRNN_ISA="scalar", FASTRNN_GEMM="own") == ("own", "")


NAMES = ", ".join(fastrnn.available_isas())


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("FASTRNN_ISA", "avx9", f"FASTRNN_ISA: expected one of {NAMES}, got 'avx9'"),
        ("FASTRNN_ISA", "SSE2", f"FASTRNN_ISA: expected one of {NAMES}, got 'SSE2'"),
        ("FASTRNN_NUM_THREADS", "0", "FASTRNN_NUM_THREADS: expected an integer from 1 to 256, got '0'"),
        ("FASTRNN_NUM_THREADS", "two", "FASTRNN_NUM_THREADS: expected an integer from 1 to 256, got 'two'"),
        ("FASTRNN_NUM_THREADS", "257", "FASTRNN_NUM_THREADS: expected an integer from 1 to 256, got '257'"),
        ("FASTRNN_NUM_THREADS", "-1", "FASTRNN_NUM_THREADS: expected an integer from 1 to 256, got '-1'"),
        ("FASTRNN_NUM_THREADS", "9" * 5000, f"FASTRNN_NUM_THREADS: expected an integer from 1 to 256, got '{'9' * 59}"),
        ("FASTRNN_GEMM", "mkl", "FASTRNN_GEMM: engine: expected 'own' or 'blas', got 'mkl'"),
    ],
)
def test_an_invalid_setting_stops_the_import(name, value, message):
    out, err = python("import fastrnn", **{name: value})
    assert (out, err.splitlines()[-1]) == ("", f"ImportError: {message}")


def test_use_isa_lists_the_names():
    with pytest.raises(ValueError, match=f"^isa: expected one of {NAMES}, got 'avx9'$"):
        config.use_isa("avx9")
