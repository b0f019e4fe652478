"""Data-parallel training over MPI: each process has its part of the batch, and a step is one Allreduce."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._api import checks
from .._api.optional import missing
from .._core import InUse
from .vectors import Arrays, matching, vectors, writable


class DataParallel:
    """Keeps the parameters of several processes the same, and averages their gradients, over MPI.

    Gradients are flat vectors already, so those of all parts of a model, the loss and the weights of the average travel as one
    vector in one Allreduce. The result is the gradient of the joined batch, up to rounding: the sum over its rows is taken in
    another order. All processes get the same bits (MPI's libraries see to that), so their parameters stay the same. All memory is
    allocated by the constructor.

    Parameters
    ----------
    params : array or list of arrays
        Such as [layer.flat, readout.flat]; those of process 0 are copied into all others.
    comm : mpi4py communicator, optional
        None: MPI.COMM_WORLD, from mpi4py (pip install 'fastrnn[mpi]').

    Attributes
    ----------
    comm : mpi4py communicator
    rank, size : int
        Which process this is, and how many there are.

    Raises
    ------
    ImportError
        mpi4py or an MPI library is missing.
    TypeError, ValueError
        A wrong `params`; also ValueError for a read-only array, or arrays that overlap.

    Examples
    --------
    To be run as ``mpiexec -n 2 python train.py``::

        parallel = DataParallel([layer.flat, readout.flat])
        mine = parallel.rows(B)  # of a batch of B rows
        loss, do = squared_error(o, target[mine])  # the mean over these rows
        grads = [layer_grads.flat, readout_grads.flat]
        loss = parallel.average(grads, len(target[mine]), loss)
        adam.step(grads)
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
        """This process's part of B rows; the parts differ by one row at most.

        Parameters
        ----------
        B : int
            At least 0.

        Returns
        -------
        rows : slice

        Raises
        ------
        TypeError, ValueError
            A wrong `B`.
        """
        B = checks.integer("B", B, 0)
        return slice(B * self.rank // self.size, B * (self.rank + 1) // self.size)

    def average(self, grads: Arrays, weight: float, loss: float = 0.0) -> float:
        """Replace the gradients by their weighted mean over all processes, in place. All processes have to call it.

        Parameters
        ----------
        grads : array or list of arrays
            One for each of params, of its shape and dtype: the gradient of a mean over some rows or steps.
        weight : float
            How many these are, at least 0; for losses that are sums, weight 1 on every process gives the sum divided by the
            processes. If the weights of all processes are 0, the gradients become 0.
        loss : float, default 0
            A number to average in the same way.

        Returns
        -------
        loss : float
            The mean, in the dtype of the parameters.

        Raises
        ------
        TypeError, ValueError
            A wrong argument, before anything is sent.
        RuntimeError
            Another thread is in this method.
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
