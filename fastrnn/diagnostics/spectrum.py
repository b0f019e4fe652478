"""The recurrent weights in two numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._api import checks
from .chain import Cell

Array = NDArray[Any]


class Spectrum(NamedTuple):
    """The two numbers of a recurrent matrix; made by `spectrum`: a named tuple.

    Attributes
    ----------
    radius : float
        The largest magnitude of an eigenvalue, NaN for a matrix that is not square.
    norm : float
        The largest singular value.
    """

    radius: float
    norm: float


def spectrum(w: Array) -> Spectrum:
    """The spectral radius and norm of a matrix.

    With a radius above 1 the linear network h_t = W h_{t-1} explodes; with a norm below 1 its gradients vanish at every step, and
    those of tanh and ReLU networks too.

    Parameters
    ----------
    w : array (m, n)
        float32 or float64.

    Returns
    -------
    spectrum : Spectrum

    Raises
    ------
    TypeError, ValueError
        No matrix, or numbers that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.diagnostics import spectrum
    >>> radius, norm = spectrum(np.array([[0.0, 4.0], [1.0, 0.0]]))
    >>> round(radius, 6), round(norm, 6)
    (2.0, 4.0)
    """
    w = checks.floats("w", w, None, (2,)).astype(np.float64)
    if not np.isfinite(w).all():
        raise ValueError("w: expected finite numbers, got NaN or infinity")
    if w.size == 0:
        return Spectrum(0.0, 0.0)
    radius = np.abs(np.linalg.eigvals(w)).max() if w.shape[0] == w.shape[1] else np.nan
    return Spectrum(float(radius), float(np.linalg.norm(w, 2)))


def spectra(layer: Any) -> dict[str, Spectrum]:
    """The spectral radius and norm of a layer's recurrent weights, gate by gate.

    Parameters
    ----------
    layer : RNN, GRU or LSTM

    Returns
    -------
    spectra : dict of Spectrum
        {"weight_hh_l0": ...}; of a GRU or an LSTM {"weight_hh_l0[r]": ..., ...}.

    Raises
    ------
    ValueError
        Numbers that are not finite.

    Examples
    --------
    >>> import fastrnn
    >>> from fastrnn.diagnostics import spectra
    >>> spectra(fastrnn.IRNN(2, 64, rng=0))
    {'weight_hh_l0': Spectrum(radius=1.0, norm=1.0)}
    """
    found = {}
    for suffix in layer._suffixes:
        cell = Cell(layer, suffix)
        for gate, block in zip(cell.gates, np.split(cell.weights["weight_hh"], len(cell.gates))):
            found[f"weight_hh{suffix}" + (f"[{gate}]" if len(cell.gates) > 1 else "")] = spectrum(block)
    return found
