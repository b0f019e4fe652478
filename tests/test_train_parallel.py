"""Data-parallel training: the averages, with a stand-in for MPI; and two processes against one, where there is MPI."""

import os
import re
import shutil
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from building import ROOT
from fastrnn.train import DataParallel

F32 = np.float32


class Threads:
    """Communicators of so many threads, with what DataParallel needs of mpi4py's."""

    def __init__(self, size):
        self.barrier, self.vectors = threading.Barrier(size), [None] * size
        self.comms = [self.Comm(self, rank) for rank in range(size)]

    class Comm:
        def __init__(self, world, rank):
            self.world, self.rank = world, rank

        def Get_rank(self):
            return self.rank

        def Get_size(self):
            return len(self.world.vectors)

        def _meet(self, vector):
            self.world.vectors[self.rank] = vector.copy()
            self.world.barrier.wait(60)
            found = list(self.world.vectors)
            self.world.barrier.wait(60)
            return found

        def Bcast(self, vector, root):
            vector[...] = self._meet(vector)[root]

        def Allreduce(self, sent, received):
            received[...] = sum(self._meet(sent))


def together(size, work):
    """work(comm) on every process."""
    results, world = [None] * size, Threads(size)

    def run(rank):
        results[rank] = work(world.comms[rank])

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return results


def test_the_parameters_of_process_0_are_everyones():
    def work(comm):
        params = [np.full(3, comm.rank + 1.0), np.full((2, 2), 10.0 * comm.rank, F32)]
        DataParallel(params, comm)
        return params

    for a, b in together(3, work):
        assert (a == 1).all()
        assert not b.any()


def test_gradients_and_losses_are_averaged_by_weight():
    def work(comm):
        params = [np.zeros(3), np.zeros((2, 2), F32)]
        parallel = DataParallel(params, comm)
        grads = [np.full(3, [1.0, 4.0][comm.rank]), np.full((2, 2), [0.0, 8.0][comm.rank], F32)]
        loss = parallel.average(grads, [3, 1][comm.rank], [0.5, 2.5][comm.rank])
        nothing = [np.ones(3), np.ones((2, 2), F32)]
        assert parallel.average(nothing, 0.0, 7.0) == 0
        return grads, loss, nothing, (parallel.rank, parallel.size)

    for rank, (grads, loss, nothing, place) in enumerate(together(2, work)):
        assert np.array_equal(grads[0], np.full(3, 1.75))
        assert np.array_equal(grads[1], np.full((2, 2), 2, F32))
        assert loss == 1.0
        assert not any(g.any() for g in nothing)
        assert place == (rank, 2)


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("B", [0, 2, 4, 11])
def test_every_row_is_somebodys(size, B):
    parts = together(size, lambda comm: list(range(B))[DataParallel(np.zeros(1), comm).rows(B)])
    assert [row for part in parts for row in part] == list(range(B))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_step_allocates_nothing():
    class Comm(Threads.Comm):
        def Allreduce(self, sent, received):
            received[...] = sent

    parallel = DataParallel(np.zeros(100_000), Comm(Threads(1), 0))
    grads = np.ones(100_000)
    parallel.average(grads, 1.0)
    tracemalloc.start()
    parallel.average(grads, 1.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000


def test_what_is_wrong_is_named_before_anything_is_sent():
    parallel = DataParallel(np.zeros(3), Threads(1).comms[0])
    parallel.comm = None
    with pytest.raises(ValueError, match=r"grads\[0\]: expected the shape of params\[0\], \(3,\), got \(4,\)"):
        parallel.average(np.zeros(4), 1)
    with pytest.raises(ValueError, match="weight: expected a finite number of at least 0, got -1"):
        parallel.average(np.zeros(3), -1)
    with pytest.raises(ValueError, match="B: expected an integer of at least 0, got -1"):
        parallel.rows(-1)


@pytest.mark.skipif(os.environ.get("FASTRNN_SANITIZED") == "1", reason="MPI's libraries are not built for sanitizers")
def test_two_processes_are_one():
    """The example, which compares itself with one process on the joined batch."""
    pytest.importorskip("mpi4py", reason="mpi4py is not installed (pip install mpi4py mpich)")
    beside = Path(sys.executable).parent / "mpiexec"
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        pytest.skip("there is no mpiexec (pip install mpich, or the system's)")
    package = str(Path(fastrnn.__file__).parents[1])
    as_root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # Open MPI asks for it in containers
    done = subprocess.run(
        [mpiexec, "-n", "2", sys.executable, str(ROOT / "examples" / "data_parallel.py"), "--T", "20", "--steps", "50"],
        env={**os.environ, **as_root, "PYTHONPATH": package},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    assert "2 processes, step   50" in done.stdout
    assert "the parameters of all 2 processes are the same bits" in done.stdout
    (away,) = re.findall(r"at most (\S+) away", done.stdout)
    assert float(away) < 1e-10
