"""run_node: a whole RNN, GRU or LSTM operator on NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._api import checks
from . import attributes as _attributes
from . import fused, plain
from . import inputs as _inputs

Array = NDArray[Any]


def run_node(
    op_type: str, attributes: Mapping[str, Any], inputs: Sequence[Array | None], *, threads: int | None = None
) -> list[Array]:
    """The outputs of an ONNX node, by the equations of the operators RNN, GRU and LSTM (onnx.ai/onnx/operators, opset 22).

    Where the specification leaves something open, or ONNX Runtime reads it otherwise: see help(fastrnn.onnx).

    Parameters
    ----------
    op_type : "RNN", "GRU" or "LSTM"
    attributes : mapping
        The node's by name, in Python's types: direction, activations (names in any case), activation_alpha, activation_beta, clip,
        hidden_size, layout, linear_before_reset (GRU), input_forget (LSTM). output_sequence, of opset 1, has no effect.
    inputs : sequence of arrays or None
        X, W, R, B, sequence_lens, initial_h and, of an LSTM, initial_c, P; None where there is none, and those left out at the end
        are None. X [T, N, I] or, in layout 1, [N, T, I]; W [D, G*H, I], R [D, G*H, H], B [D, 2*G*H], P [D, 3*H] with their gates in
        the operator's order; sequence_lens [N] integers from 0 to T; initial_h, initial_c [D, N, H] or, in layout 1, [N, D, H].
        float32 or float64, and all of one dtype.
    threads : int, optional
        At most so many; None: fastrnn.get_num_threads().

    Returns
    -------
    outputs : list of arrays
        [Y, Y_h], of an LSTM [Y, Y_h, Y_c]: Y [T, D, N, H] or, in layout 1, [N, T, D, H]; the final states in the shape of
        initial_h.

    Raises
    ------
    TypeError, ValueError
        A wrong attribute or input; the message names it.
    MemoryError

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn.onnx
    >>> X, W, R = (np.ones(shape, np.float32) for shape in ((7, 2, 3), (1, 16, 3), (1, 16, 4)))  # T=7 N=2 I=3 H=4
    >>> Y, Y_h, Y_c = fastrnn.onnx.run_node("LSTM", {"hidden_size": 4}, [X, W, R])
    >>> Y.shape, Y_h.shape
    ((7, 1, 2, 4), (1, 2, 4))
    """
    a = _attributes.read(op_type, attributes)
    i = _inputs.read(a, inputs)
    threads = None if threads is None else checks.integer("threads", threads, 1)
    try:
        results = [fused.run(a, i, d, threads) if a.fused else plain.run(a, i, d) for d in range(len(a.reverse))]
        Y = _join([y for y, _ in results], 2 if a.batch_first else 1)
        states = [np.stack(members, 1 if a.batch_first else 0) for members in zip(*(state for _, state in results))]
    except MemoryError as error:
        raise checks.out_of_memory("X", error) from None
    return [Y, *(_zero_where_empty(s, a, i) for s in states)]


def path_of(op_type: str, attributes: Mapping[str, Any]) -> str:
    """How run_node computes these attributes: "fused", the compiled kernels, or "numpy", a loop of NumPy calls over time.

    In NumPy are clip and an LSTM's input_forget; all else is fused, whatever the activations and the inputs are.

    Parameters
    ----------
    op_type, attributes
        As in `run_node`.

    Returns
    -------
    path : "fused" or "numpy"

    Raises
    ------
    TypeError, ValueError
        A wrong attribute; the message names it.

    Examples
    --------
    >>> import fastrnn.onnx
    >>> fastrnn.onnx.path_of("RNN", {"activations": ["Softsign"]}), fastrnn.onnx.path_of("RNN", {"clip": 3.0})
    ('fused', 'numpy')
    """
    return "fused" if _attributes.read(op_type, attributes).fused else "numpy"


def _join(ys: list[Array], axis: int) -> Array:
    """A new axis for the directions; one direction needs no copy."""
    return np.expand_dims(ys[0], axis) if len(ys) == 1 else np.stack(ys, axis)


def _zero_where_empty(state: Array, a: _attributes.Attributes, i: _inputs.Inputs) -> Array:
    """The final state with 0 for the rows that have no step."""
    T = i.X.shape[1 if a.batch_first else 0]
    if T == 0:
        state[...] = 0
    elif i.lengths is not None:
        state[(slice(None),) * (0 if a.batch_first else 1) + (i.lengths == 0,)] = 0
    return state
