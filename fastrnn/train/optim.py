"""Optimisers: they change flat vectors of parameters in place."""

from __future__ import annotations

import numpy as np

from .vectors import Arrays, vectors, writable


class Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1), with the numbers of torch.optim.Adam.

        m = beta1 m + (1 - beta1) g                  v = beta2 v + (1 - beta2) g^2
        p = p - lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)

    Args:
        params: an array or several, float32 or float64, such as [layer.flat, readout.flat]. They are changed in place.
        lr: at least 0. The attribute `lr` may be set between steps, as a schedule does.
        betas: two numbers, 0 <= beta < 1.
        eps: at least 0.

    Attributes:
        t: the steps so far.
        m, v: the running means of g and g^2, one array for each of params.

    All memory is allocated here: no step allocates.

    Raises: TypeError; ValueError, also for a read-only array.

    >>> adam = Adam([layer.flat, readout.flat], lr=1e-3)
    >>> adam.step([layer_grads.flat, readout_grads.flat])
    """

    def __init__(
        self,
        params: Arrays,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"lr: expected a number of at least 0, got {lr!r}")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas: expected two numbers, 0 <= beta < 1, got {betas!r}")
        if not eps >= 0:
            raise ValueError(f"eps: expected a number of at least 0, got {eps!r}")
        self.lr, self.betas, self.eps = lr, betas, eps
        self.params = writable("params", vectors("params", params))
        self.t = 0
        self.m = [np.zeros_like(p) for p in self.params]
        self.v = [np.zeros_like(p) for p in self.params]
        self._scratch = [np.empty_like(p) for p in self.params]

    def step(self, grads: Arrays) -> None:
        """Change the parameters by one step.

        Args:
            grads: one array for each of params, with its shape and dtype; they are only read.

        Raises: TypeError, ValueError; then nothing was changed.

        >>> adam.step(grads.flat)
        """
        grads = vectors("grads", grads)
        if len(grads) != len(self.params):
            raise ValueError(f"grads: expected {len(self.params)} arrays, one for each of params, got {len(grads)}")
        for k, (p, g) in enumerate(zip(self.params, grads)):
            if g.shape != p.shape:
                raise ValueError(f"grads[{k}]: expected the shape of params[{k}], {p.shape}, got {g.shape}")
            if g.dtype != p.dtype:
                raise TypeError(f"grads[{k}]: expected the dtype of params[{k}], {p.dtype}, got {g.dtype}")
        self.t += 1
        beta1, beta2 = self.betas
        step_size = self.lr / (1 - beta1**self.t)
        v_scale = (1 - beta2**self.t) ** -0.5
        for p, g, m, v, s in zip(self.params, grads, self.m, self.v, self._scratch):
            m *= beta1
            np.multiply(g, 1 - beta1, out=s)
            m += s
            v *= beta2
            np.multiply(g, g, out=s)
            s *= 1 - beta2
            v += s
            np.sqrt(v, out=s)
            s *= v_scale
            s += self.eps
            np.divide(m, s, out=s)
            s *= step_size
            p -= s
