"""Data-parallel training over MPI: several processes, one batch, one Allreduce a step.

    mpiexec -n 2 python examples/data_parallel.py

Every process draws the same batch of the adding problem (see adding.py) and works on its own rows of it; the gradients of
all of them are averaged, and each takes the same step of Adam. At the end process 0 trains once more, by itself, on whole
batches, and says how far the parameters are apart: by rounding alone, since the sums run in another order.

It needs mpi4py and an MPI library: pip install mpi4py mpich, or that of the system.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

os.environ.setdefault("FASTRNN_NUM_THREADS", "1")  # the processes share the cores

import numpy as np
from numpy.typing import NDArray

import fastrnn
from fastrnn.train import Adam, DataParallel, Linear, squared_error

Array = NDArray[Any]
HIDDEN, BATCH = 32, 50


def adding_problem(rng: np.random.Generator, T: int) -> tuple[Array, Array]:
    """x (T, B, 2), numbers and marks, and the answers (B, 1)."""
    x = np.zeros((T, BATCH, 2))
    x[:, :, 0] = rng.random((T, BATCH))
    rows = np.arange(BATCH)
    first, second = rng.integers(0, T // 2, BATCH), rng.integers(T // 2, T, BATCH)
    x[first, rows, 1] = x[second, rows, 1] = 1
    return x, (x[first, rows, 0] + x[second, rows, 0])[:, None]


class Alone:
    """DataParallel for who has no companions."""

    rank, size = 0, 1

    def rows(self, B: int) -> slice:
        return slice(B)

    def average(self, grads: list[Array], weight: float, loss: float) -> float:
        return loss


def train(args: argparse.Namespace, together: bool) -> tuple[Array, list[float]]:
    """The parameters and the losses."""
    rng = np.random.default_rng(args.seed)
    layer = fastrnn.GRU(2, HIDDEN, dtype=np.float64, rng=rng)
    readout = Linear(HIDDEN, 1, dtype=np.float64, rng=rng)
    params = [layer.flat, readout.flat]
    parallel = DataParallel(params) if together else Alone()
    adam = Adam(params, lr=1e-2)
    mine, losses = parallel.rows(BATCH), []
    for _ in range(args.steps):
        x, target = adding_problem(rng, args.T)
        _, h, tape = layer.forward(x[:, mine])
        o, readout_tape = readout.forward(h[-1])
        loss, do = squared_error(o, target[mine])
        readout_grads = readout_tape.backward(do)
        grads = [tape.backward(dstate=readout_grads.x[None]).flat, readout_grads.flat]
        losses.append(parallel.average(grads, len(o), loss))
        adam.clipped_step(grads, max_norm=1.0)
        if parallel.rank == 0 and len(losses) % 50 == 0:
            print(f"{parallel.size} processes, step {len(losses):4}: error {np.mean(losses[-50:]):.4f}", flush=True)
    return np.concatenate(params), losses


def main() -> None:
    parser = argparse.ArgumentParser(description="The adding problem, data-parallel over MPI.")
    parser.add_argument("--T", type=int, default=50, help="length of the input (%(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="iterations (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the data and the weights (%(default)s)")
    args = parser.parse_args()
    if args.T < 2 or args.steps < 1 or args.seed < 0:
        parser.error("expected --T of at least 2, --steps of at least 1, --seed of at least 0")
    params, _ = train(args, together=True)
    from mpi4py import MPI

    all_params = MPI.COMM_WORLD.gather(params)
    if all_params is not None:  # process 0
        alike = all(np.array_equal(params, other) for other in all_params)
        alone, _ = train(args, together=False)
        print(f"the parameters of all {len(all_params)} processes are {'the same bits' if alike else 'DIFFERENT'};")
        print(f"from those of one process they are at most {np.abs(params - alone).max():.1e} away")


if __name__ == "__main__":
    main()
