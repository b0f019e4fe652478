"""Losses over time: each returns the loss and its gradient in one pass, and neither depends on padding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._api import checks
from .padding import valid_steps

Array = NDArray[Any]


def softmax_cross_entropy(
    o: Array, target: Any, *, lengths: Any = None, mask: Any = None, reduction: str = "steps", batch_first: bool = False
) -> tuple[float, Array]:
    """-log softmax(o)[target], in nats, for one class of O at every step; do = softmax(o) - onehot(target).

    Parameters
    ----------
    o : array (T, B, O)
        The outputs of a readout at every step; (B, T, O) with `batch_first`; or (B, O), one answer for each row. float32 or
        float64.
    target : integers
        From 0 to O-1, of o's shape without its last axis.
    lengths : integers (B,), optional
        From 0 to T: the steps of each row. What comes after them, in o or in target, is not read.
    mask : booleans, optional
        Of o's shape without its last axis: the steps that count, also together with `lengths`.
    reduction : "steps", "rows" or "sum", default "steps"
        The mean over the steps that count; their sum divided by the rows B; their sum. The loss of one step is the sum over its O
        outputs. Where nothing counts, or there are no rows, the loss is 0.
    batch_first : bool, default False

    Returns
    -------
    loss : float
        Summed in float64. A NaN in o makes it NaN.
    do : array
        Its gradient, of o's shape and dtype, exactly 0 at steps that do not count.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train import softmax_cross_entropy
    >>> o = np.zeros((3, 1, 4))  # T=3 B=1 O=4
    >>> loss, do = softmax_cross_entropy(o, np.array([[1], [0], [0]]), lengths=[2])
    >>> round(loss, 4)  # log(4)
    1.3863
    >>> do[:, 0]
    array([[ 0.125, -0.375,  0.125,  0.125],
           [-0.375,  0.125,  0.125,  0.125],
           [ 0.   ,  0.   ,  0.   ,  0.   ]])
    """
    steps = _Steps(o, lengths, mask, reduction, batch_first)
    classes = steps.rows_of("target", target, "integers")
    O = steps.o.shape[1]
    if len(wrong := np.flatnonzero((classes < 0) | (classes >= O))):
        raise ValueError(f"target: expected integers from 0 to O-1 = {O - 1}, got {classes[wrong[0]]}")
    each = np.arange(len(classes))
    with np.errstate(all="ignore"):
        d = steps.o - steps.o.max(axis=1, keepdims=True)
        picked = d[each, classes]
        np.exp(d, out=d)
        total = d.sum(axis=1, keepdims=True)
        loss = np.log(total[:, 0]) - picked
        d /= total
        d[each, classes] -= 1
    return steps.finish(loss.sum(dtype=np.float64), d)


def sigmoid_cross_entropy(
    o: Array, target: Any, *, lengths: Any = None, mask: Any = None, reduction: str = "steps", batch_first: bool = False
) -> tuple[float, Array]:
    """-target log sigmoid(o) - (1 - target) log(1 - sigmoid(o)), in nats, for O independent yes-or-no answers at every step.

    It is computed as max(o, 0) - o target + log(1 + exp(-|o|)), which neither overflows nor cancels; do = sigmoid(o) - target.

    Parameters
    ----------
    o : array (T, B, O)
        The outputs of a readout at every step; (B, T, O) with `batch_first`; or (B, O), one answer for each row. float32 or
        float64.
    target : array
        Of o's shape; booleans, integers or floats, from 0 to 1.
    lengths : integers (B,), optional
        From 0 to T: the steps of each row. What comes after them, in o or in target, is not read.
    mask : booleans, optional
        Of o's shape without its last axis: the steps that count, also together with `lengths`.
    reduction : "steps", "rows" or "sum", default "steps"
        The mean over the steps that count; their sum divided by the rows B; their sum. The loss of one step is the sum over its O
        outputs. Where nothing counts, or there are no rows, the loss is 0.
    batch_first : bool, default False

    Returns
    -------
    loss : float
        Summed in float64. A NaN in o makes it NaN.
    do : array
        Its gradient, of o's shape and dtype, exactly 0 at steps that do not count.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train import sigmoid_cross_entropy
    >>> loss, do = sigmoid_cross_entropy(np.array([[0.0, 1000.0]]), np.array([[1, 1]]))  # B=1 O=2
    >>> round(loss, 4), do  # log(2)
    (0.6931, array([[-0.5,  0. ]]))
    """
    steps = _Steps(o, lengths, mask, reduction, batch_first)
    wanted = steps.rows_of("target", target, "numbers")
    if not ((wanted >= 0) & (wanted <= 1)).all():
        value = wanted[~((wanted >= 0) & (wanted <= 1))][0]
        raise ValueError(f"target: expected numbers from 0 to 1, got {value}")
    o = steps.o
    with np.errstate(all="ignore"):
        small = np.exp(-np.abs(o))  # at most 1
        loss = np.maximum(o, 0) - o * wanted + np.log1p(small)
        d = np.where(o >= 0, 1, small) / (1 + small) - wanted
    return steps.finish(loss.sum(dtype=np.float64), d)


def squared_error(
    o: Array, target: Any, *, lengths: Any = None, mask: Any = None, reduction: str = "steps", batch_first: bool = False
) -> tuple[float, Array]:
    """(o - target)^2, summed over the O outputs of a step (divide by O for the mean over them); do = 2 (o - target).

    Parameters
    ----------
    o : array (T, B, O)
        The outputs of a readout at every step; (B, T, O) with `batch_first`; or (B, O), one answer for each row. float32 or
        float64.
    target : array
        Numbers of o's shape.
    lengths : integers (B,), optional
        From 0 to T: the steps of each row. What comes after them, in o or in target, is not read.
    mask : booleans, optional
        Of o's shape without its last axis: the steps that count, also together with `lengths`.
    reduction : "steps", "rows" or "sum", default "steps"
        The mean over the steps that count; their sum divided by the rows B; their sum. The loss of one step is the sum over its O
        outputs. Where nothing counts, or there are no rows, the loss is 0.
    batch_first : bool, default False

    Returns
    -------
    loss : float
        Summed in float64. A NaN in o makes it NaN.
    do : array
        Its gradient, of o's shape and dtype, exactly 0 at steps that do not count.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train import squared_error
    >>> squared_error(np.array([[1.0], [4.0]]), np.array([[0.0], [1.0]]))  # B=2 O=1: the mean squared error
    (5.0, array([[1.],
           [3.]]))
    """
    steps = _Steps(o, lengths, mask, reduction, batch_first)
    with np.errstate(all="ignore"):
        d = steps.o - steps.rows_of("target", target, "numbers")
        loss = np.einsum("ij,ij->", d, d, dtype=np.float64)
        d *= 2
    return steps.finish(loss, d)


class _Steps:
    """The steps that count, as rows: o is (N, O), a view where all of them do."""

    def __init__(self, o: Any, lengths: Any, mask: Any, reduction: str, batch_first: bool) -> None:
        self.reduction = checks.choice("reduction", reduction, "steps", "rows", "sum")
        batch_first = checks.flag("batch_first", batch_first)
        o = checks.floats("o", o, None, (2, 3))
        if o.shape[-1] == 0:
            raise ValueError(f"o: expected at least one output, got shape {o.shape}")
        if o.ndim == 2 and lengths is not None:
            raise ValueError("lengths: expected None, because o has no axis of time")
        self.shape, self.dtype = o.shape, o.dtype
        self.n_rows = o.shape[0 if batch_first else -2]
        self.valid = None if mask is None else checks.booleans("mask", mask, "o's shape without its last axis", o.shape[:-1])
        if lengths is not None:
            T, B = o.shape[1::-1] if batch_first else o.shape[:2]
            within = valid_steps(T, B, lengths)
            within = within.T if batch_first else within
            self.valid = within if self.valid is None else within & self.valid
        self.o = self._rows(o, 1)

    def _rows(self, array: Array, inner: int) -> Array:
        """The steps that count along one axis, before the last `inner` axes."""
        if self.valid is not None:
            return array[self.valid]
        return array.reshape(-1, *array.shape[array.ndim - inner :])

    def rows_of(self, name: str, target: Any, wanted: str) -> Array:
        """The target at the steps that count: "integers" (N,), or "numbers" (N, O) in o's dtype."""
        kinds, shape, symbols = "iu", self.shape[:-1], "o's shape without its last axis"
        if wanted == "numbers":
            kinds, shape, symbols = "biuf", self.shape, "o's shape"
        array = np.asarray(target)
        if isinstance(target, np.ma.MaskedArray) or array.dtype.kind not in kinds:
            raise TypeError(f"{name}: expected {wanted}, got {type(target).__name__} of {array.dtype}")
        if array.shape != shape:
            raise ValueError(f"{name}: expected {symbols}, {shape}, got {array.shape}")
        rows = self._rows(array, 1 if wanted == "numbers" else 0)
        return rows.astype(self.dtype, copy=False) if wanted == "numbers" else rows

    def finish(self, loss: Any, d: Array) -> tuple[float, Array]:
        """Divide, and put the gradients of the rows back where they came from."""
        count = {"sum": 1, "rows": self.n_rows, "steps": len(d)}[self.reduction]
        if count > 1:
            d /= count
        if self.valid is None:
            return float(loss) / max(count, 1), d.reshape(self.shape)
        do = np.zeros(self.shape, self.dtype)
        do[self.valid] = d
        return float(loss) / max(count, 1), do
