"""Clipping, which keeps one exploding gradient from undoing the training so far.

By the global norm, all numbers keep their proportions, so the step keeps its direction; by value, each number is cut by itself,
which is quick and turns the direction. Both are in the literature: the norm in Pascanu, Mikolov and Bengio 2013 and most work
since, the value in Mikolov 2012, char-rnn (within 5) and uRNN. Clipping "by value" and "elementwise" are the same.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from .. import _core
from .vectors import Array, Arrays, Rule, apply, plain, spread, vectors, writable

SMALLEST = 1e-140  # norms below it are of numbers whose squares may be denormal, which the kernels take for 0


def global_norm(grads: Arrays) -> float:
    """The Euclidean norm of all numbers of all arrays together.

    It is accumulated in float64: the gradients of a recurrent network reach 1e30 in trainings that succeed, and the square of that
    is beyond float32.

    Parameters
    ----------
    grads : array or list of arrays
        float32 or float64, of any shapes; none have the norm 0.

    Returns
    -------
    norm : float
        NaN or infinity if there is one among the numbers.

    Raises
    ------
    TypeError
        Something that is no array, or of another dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train import global_norm
    >>> global_norm([np.array([3e30]), np.array([4e30])])
    5e+30
    """
    return _norm(vectors("grads", grads))


def clip_global_norm(grads: Arrays, max_norm: float) -> float:
    """Scale all gradients by one factor, in place, so that their global norm is at most max_norm.

    The factor is min(1, max_norm / (norm + 1e-6)): the rule of Pascanu, Mikolov and Bengio 2013 (arXiv 1211.5063, algorithm 1) in
    the form of torch.nn.utils.clip_grad_norm_.

    Parameters
    ----------
    grads : array or list of arrays
        float32 or float64, such as [layer_grads.flat, readout_grads.flat].
    max_norm : float
        Above 0; math.inf only measures.

    Returns
    -------
    norm : float
        Before clipping. If it is NaN or infinite, there is no direction to keep: the gradients are left as they are, and the caller
        should skip the step.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; also ValueError for a read-only array, or arrays that overlap.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train import clip_global_norm
    >>> grads = [np.array([3.0]), np.array([4.0])]
    >>> clip_global_norm(grads, max_norm=1.0)
    5.0
    >>> np.round(grads, 3)
    array([[0.6],
           [0.8]])
    """
    max_norm = _above_0("max_norm", max_norm)
    grads = writable("grads", vectors("grads", grads))
    norm = _norm(grads)
    factor = max_norm / (norm + 1e-6)
    if math.isfinite(norm) and factor < 1:
        apply(Rule.SCALE, (factor,), (grads,))
    return norm


def clip_value(grads: Arrays, limit: float) -> float:
    """Clip every number into [-limit, limit] by itself, in place, as torch.nn.utils.clip_grad_value_ does.

    Parameters
    ----------
    grads : array or list of arrays
        float32 or float64.
    limit : float
        Above 0; math.inf only measures.

    Returns
    -------
    largest : float
        The largest magnitude before clipping. If it is NaN or infinite, the gradients are left as they are, and the caller should
        skip the step.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; also ValueError for a read-only array, or arrays that overlap.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train import clip_value
    >>> grad = np.array([1.0, -7.0])
    >>> clip_value(grad, limit=5.0)
    7.0
    >>> grad
    array([ 1., -5.])
    """
    limit = _above_0("limit", limit)
    grads = writable("grads", vectors("grads", grads))
    # By the ends, so that no array of magnitudes is made; a NaN is both of them.
    ends = [float(end(grad)) for grad in grads if grad.size for end in (np.min, np.max)]
    largest = math.nan if any(map(math.isnan, ends)) else max(map(abs, ends), default=0.0)
    if math.isfinite(largest) and largest > limit:
        for grad in grads:
            np.clip(grad, -limit, limit, out=grad)
    return largest


def _above_0(name: str, value: Any) -> float:
    """Infinity is allowed: it clips nothing."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number above 0, got {value!r:.60}")
    number = float(value)
    if not number > 0:
        raise ValueError(f"{name}: expected a number above 0, got {value!r}")
    return number


def _norm(grads: list[Array]) -> float:
    norm = math.sqrt(_sum_of_squares(grads))
    if norm < SMALLEST or math.isinf(norm):  # perhaps only the squares were beyond float64
        largest = max([float(np.abs(grad).max(initial=0)) for grad in grads], default=0.0)
        if 0 < largest < math.inf:
            norm = largest * math.sqrt(_sum_of_squares([grad.astype(np.float64) / largest for grad in grads]))
    return norm


def _sum_of_squares(grads: list[Array]) -> float:
    """In float64, piece by piece, so that it depends neither on threads nor on the instruction set."""
    how = spread(grads)
    total = _core.sum_of_squares(grads, how)
    if total is None:  # some are not contiguous
        total = _core.sum_of_squares([plain(grad) for grad in grads], how)
    assert total is not None
    return total
