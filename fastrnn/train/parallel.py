"""Data-parallel training over MPI: each process has its part of the batch, and a step is one Allreduce."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._api import checks
from .._api.optional import missing
from .._core import InUse
from .vectors import Arrays, matching, vectors, writable


class DataParallel:
    """Keeps the parameters of several processes the same, and averages their gradients.

    Gradients are flat vectors already, so those of all parts of a model, the loss and the weights of the average travel as one
    vector in one Allreduce. The result is the gradient of the joined batch, up to rounding: the sum over its rows is taken in
    another order. All processes get the same bits (MPI's libraries see to that), so their parameters stay the same.

    Args:
        params: an array or several, such as [layer.flat, readout.flat]; those of process 0 are copied into all others.
        comm: an mpi4py communicator; None: MPI.COMM_WORLD, from mpi4py (pip install 'fastrnn[mpi]').

    Attributes: comm; rank and size, which process this is and how many there are.

    All memory is allocated here: no step allocates.

    Raises: ImportError where mpi4py or an MPI library is missing; TypeError, ValueError. average: RuntimeError where another thread
    is in it.

    >>> parallel = DataParallel([layer.flat, readout.flat])
    >>> mine = parallel.rows(B)                               # of a batch of B
    >>> loss, do = squared_error(o, target[mine])             # the mean over its rows
    >>> grads = [layer_grads.flat, readout_grads.flat]
    >>> loss = parallel.average(grads, len(target[mine]), loss)
    >>> adam.step(grads)
    """

    def __init__(self, params: Arrays, comm: Any = None) -> None:
        if comm is None:
            try:
                from mpi4py import MPI
            except (ImportError, RuntimeError) as error:  # RuntimeError: without an MPI library
                raise missing("fastrnn.train.DataParallel", "mpi4py", "mpi", error) from error
            comm = MPI.COMM_WORLD
        self.params = writable("params", vectors("params", params))
        self.comm, self.rank, self.size = comm, comm.Get_rank(), comm.Get_size()
        dtype = np.result_type(np.float32, *self.params)
        n = sum(p.size for p in self.params)
        self._sent, self._received = np.empty(n + 2, dtype), np.empty(n + 2, dtype)
        self._in_use = InUse("DataParallel", "average in one thread of each process")
        self._parts, end = [], 0
        for p in self.params:
            start, end = end, end + p.size
            self._parts.append((self._sent[start:end].reshape(p.shape), self._received[start:end].reshape(p.shape)))
        for p, (sent, _) in zip(self.params, self._parts):
            sent[...] = p
        self.comm.Bcast(self._sent, root=0)
        for p, (sent, _) in zip(self.params, self._parts):
            p[...] = sent

    def rows(self, B: int) -> slice:
        """This process's part of B rows; the parts differ by one row at most. Raises: TypeError, ValueError."""
        B = checks.integer("B", B, 0)
        return slice(B * self.rank // self.size, B * (self.rank + 1) // self.size)

    def average(self, grads: Arrays, weight: float, loss: float = 0.0) -> float:
        """Replace the gradients by their weighted mean over all processes, in place. All of them have to call it.

        Args:
            grads: one array for each of params, of its shape and dtype: the gradient of a mean over some rows or steps.
            weight: how many these are, at least 0; for losses that are sums, weight 1 on every process gives the sum divided by
                the processes. If nobody has any, the gradients become 0.
            loss: a number to average beside them.

        Returns: the mean loss, in the dtype of the parameters.

        Raises: TypeError, ValueError, before anything is sent.
        """
        grads = writable("grads", matching("grads", grads, self.params))
        weight = checks.real("weight", weight, 0)
        with self._in_use:
            for g, (sent, _) in zip(grads, self._parts):
                np.multiply(g, weight, out=sent)
            self._sent[-2:] = loss * weight, weight
            self.comm.Allreduce(self._sent, self._received)
            total = float(self._received[-1])
            self._received[:-1] *= 1 / total if total else 0.0
            for g, (_, received) in zip(grads, self._parts):
                g[...] = received
            return float(self._received[-2])
