"""The recurrent weights in two numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._api import checks
from .chain import Cell

Array = NDArray[Any]


class Spectrum(NamedTuple):
    """radius: the largest magnitude of an eigenvalue, NaN for a matrix that is not square. norm: the largest singular value."""

    radius: float
    norm: float


def spectrum(w: Array) -> Spectrum:
    """Of a matrix. Raises: TypeError; ValueError, also for numbers that are not finite.

    With a radius above 1 the linear network h_t = W h_{t-1} explodes; with a norm below 1 its gradients vanish at every step, and
    those of tanh and ReLU networks too.

    >>> spectrum(np.array([[0.0, 4.0], [1.0, 0.0]]))
    Spectrum(radius=2.0, norm=4.0)
    """
    w = checks.floats("w", w, None, (2,)).astype(np.float64)
    if not np.isfinite(w).all():
        raise ValueError("w: expected finite numbers, got NaN or infinity")
    if w.size == 0:
        return Spectrum(0.0, 0.0)
    radius = np.abs(np.linalg.eigvals(w)).max() if w.shape[0] == w.shape[1] else np.nan
    return Spectrum(float(radius), float(np.linalg.norm(w, 2)))


def spectra(layer: Any) -> dict[str, Spectrum]:
    """Of the recurrent weights of a layer, gate by gate: {"weight_hh_l0": ...}, or {"weight_hh_l0[i]": ..., ...} for an LSTM.

    Raises: ValueError.

    >>> spectra(fastrnn.IRNN(2, 64))
    {'weight_hh_l0': Spectrum(radius=1.0, norm=1.0)}
    """
    found = {}
    for suffix in layer._suffixes:
        cell = Cell(layer, suffix)
        for gate, block in zip(cell.gates, np.split(cell.weights["weight_hh"], len(cell.gates))):
            found[f"weight_hh{suffix}" + (f"[{gate}]" if len(cell.gates) > 1 else "")] = spectrum(block)
    return found
