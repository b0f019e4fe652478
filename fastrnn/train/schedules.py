"""Schedules: functions of the number of steps so far, for an optimiser's lr or for whatever else changes over a training.

A schedule is any function of one integer, so `lambda t: 1e-3 / (1 + t)` will do as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .._api import checks

__all__ = ["constant", "cosine", "exponential", "inverse_sigmoid", "linear", "step", "warmup"]

Schedule = Callable[[int], float]


def constant(value: float) -> Schedule:
    """value, at every step.

    Parameters
    ----------
    value : float

    Returns
    -------
    schedule : function
        (t) -> float.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> from fastrnn.train.schedules import constant
    >>> constant(0.1)(1000)
    0.1
    """
    value = checks.real("value", value)
    return lambda t: value


def step(value: float, every: int, factor: float = 0.1) -> Schedule:
    """value factor^(t // every): torch's StepLR.

    Parameters
    ----------
    value : float
    every : int
        At least 1.
    factor : float, default 0.1
        At least 0.

    Returns
    -------
    schedule : function
        (t) -> float.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> from fastrnn.train.schedules import step
    >>> [step(1.0, every=2, factor=0.5)(t) for t in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    value, every, factor = checks.real("value", value), checks.integer("every", every, 1), checks.real("factor", factor, 0)
    return lambda t: value * factor ** (t // every)


def exponential(value: float, factor: float) -> Schedule:
    """value factor^t: torch's ExponentialLR.

    Parameters
    ----------
    value : float
    factor : float
        At least 0.

    Returns
    -------
    schedule : function
        (t) -> float.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> from fastrnn.train.schedules import exponential
    >>> exponential(1.0, 0.5)(3)
    0.125
    """
    return step(value, 1, factor)


def linear(value: float, steps: int, end: float = 0.0) -> Schedule:
    """In a straight line from value to `end`, which is reached after `steps` steps and kept.

    Parameters
    ----------
    value : float
    steps : int
        At least 1.
    end : float, default 0

    Returns
    -------
    schedule : function
        (t) -> float.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> from fastrnn.train.schedules import linear
    >>> [linear(1.0, 4)(t) for t in (0, 1, 4, 9)]
    [1.0, 0.75, 0.0, 0.0]
    """
    value, steps, end = checks.real("value", value), checks.integer("steps", steps, 1), checks.real("end", end)
    return lambda t: value + (end - value) * min(t / steps, 1)


def cosine(value: float, steps: int, end: float = 0.0) -> Schedule:
    """end + (value - end) (1 + cos(pi t / steps)) / 2, and `end` after `steps` steps (Loshchilov and Hutter 2017, arXiv 1608.03983,
    without restarts; torch's CosineAnnealingLR).

    Parameters
    ----------
    value : float
    steps : int
        At least 1.
    end : float, default 0

    Returns
    -------
    schedule : function
        (t) -> float.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> from fastrnn.train.schedules import cosine
    >>> round(cosine(1.0, 100)(50), 6)
    0.5
    """
    value, steps, end = checks.real("value", value), checks.integer("steps", steps, 1), checks.real("end", end)
    return lambda t: end + (value - end) * (1 + math.cos(math.pi * min(t / steps, 1))) / 2


def inverse_sigmoid(k: float) -> Schedule:
    """k / (k + exp(t / k)): slowly, then quickly from about 1 to 0, as the probability of the teacher in scheduled sampling.

    Source: Bengio et al. 2015, arXiv 1506.03099, section 2.4.

    Parameters
    ----------
    k : float
        At least 1.

    Returns
    -------
    schedule : function
        (t) -> float.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> from fastrnn.train.schedules import inverse_sigmoid
    >>> round(inverse_sigmoid(100.0)(461), 2)
    0.5
    """
    k = checks.real("k", k, 1)
    return lambda t: 1 / (1 + math.exp(min(t / k - math.log(k), 700.0)))


def warmup(steps: int, schedule: Schedule) -> Schedule:
    """Up to the schedule's first value in `steps` equal steps, then the schedule from its start.

    Parameters
    ----------
    steps : int
        At least 1.
    schedule : function
        (t) -> float.

    Returns
    -------
    schedule : function
        (t) -> float.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> from fastrnn.train.schedules import constant, warmup
    >>> [warmup(4, constant(1.0))(t) for t in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    steps = checks.integer("steps", steps, 1)
    if not callable(schedule):
        raise TypeError(f"schedule: expected a function of the steps so far, got {type(schedule).__name__}")
    return lambda t: schedule(0) * (t + 1) / steps if t < steps else schedule(t - steps)
