"""Norms over time, drawn."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._api.optional import missing

Array = NDArray[Any]


def plot(
    norms: Mapping[str, Array],
    path: str | os.PathLike[str] | None = None,
    *,
    bounds: Mapping[str, Array | None] | None = None,
    title: str = "Gradients through time",
    label: str = "norm",
) -> Any:
    """Plot norms at every step, on a logarithmic axis: straight lines that fall are gradients that vanish.

    Parameters
    ----------
    norms : mapping of names to arrays
        A curve (n,), or (n, B), which is drawn as its median and the span from 10 to 90 % of the rows.
    path : path, optional
        Where to save the picture; the ending says the format.
    bounds : mapping of names to arrays, optional
        Dashed curves (n,), by the same names; None where there is none.
    title, label : str
        Of the picture and its vertical axis.

    Returns
    -------
    figure : matplotlib.figure.Figure

    Raises
    ------
    ImportError
        matplotlib is missing (pip install 'fastrnn[plot]').
    ValueError
        A wrong shape.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.diagnostics import plot
    >>> figure = plot({"tanh": 0.5 ** np.arange(20)}, title="Gradients that vanish")
    >>> figure.axes[0].get_title()
    'Gradients that vanish'
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing("fastrnn.diagnostics.plot", "matplotlib", "plot", error) from error
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for k, (name, values) in enumerate(norms.items()):
        values, colour = np.asarray(values, np.float64), f"C{k}"
        if values.ndim not in (1, 2):
            raise ValueError(f"norms[{name!r}]: expected (n,) or (n, B), got {values.shape}")
        if values.ndim == 2:
            low, values, high = np.quantile(values, [0.1, 0.5, 0.9], axis=1)
            axes.fill_between(np.arange(len(values)), _seen(low), _seen(high), color=colour, alpha=0.2, lw=0)
        axes.plot(_seen(values), color=colour, lw=1.8, label=name)
        bound = None if bounds is None else bounds.get(name)
        if bound is not None:
            axes.plot(_seen(np.asarray(bound)), color=colour, lw=1.2, ls="--", label=f"{name}: bound")
    axes.set(yscale="log", xlabel="step", ylabel=label, title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    if path is not None:
        figure.savefig(path)
    return figure


def _seen(values: Array) -> Array:
    """Without what a logarithmic axis cannot show."""
    return np.where((values > 0) & np.isfinite(values), values, np.nan)
