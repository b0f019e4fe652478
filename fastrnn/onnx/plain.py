"""One direction of an operator with any attributes, in plain NumPy: a loop over time, all rows of the batch at once. For what the
kernels do not have, clip and input_forget, and for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .activations import Activation, Function
from .attributes import Attributes
from .inputs import Direction, Inputs

Array = NDArray[Any]
State = tuple[Array, ...]  # (h,) or (h, c), each (n, H)
Step = Callable[[Array, State], State]  # X_t W^T + Wb (n, G*H), state -> next state


def run(attributes: Attributes, inputs: Inputs, d: int) -> tuple[Array, State]:
    """Direction d: Y (T, N, H), or (N, T, H) in layout 1, and the final state, each (N, H)."""
    direction, lengths = inputs.directions[d], inputs.lengths
    X = inputs.X.swapaxes(0, 1) if attributes.batch_first else inputs.X
    T, N, H = *X.shape[:2], direction.R.shape[1]
    step = _STEPS[attributes.op_type](attributes, attributes.activations[d], direction)
    starts = (direction.h0, direction.c0) if attributes.op_type == "LSTM" else (direction.h0,)
    state = tuple(np.zeros((N, H), X.dtype) if s is None else s.copy() for s in starts)
    Y = np.zeros((T, N, H), X.dtype)
    # Saturated numbers are no accident here: the compiled path does not warn either.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        XW = X @ direction.W.T + _biases(direction)[0]
        for t in reversed(range(T)) if attributes.reverse[d] else range(T):
            rows = slice(None) if lengths is None else np.flatnonzero(t < lengths)  # those that have a step t
            new = step(XW[t, rows], tuple(s[rows] for s in state))
            for s, s_new in zip(state, new):
                s[rows] = s_new
            Y[t, rows] = new[0]
    return Y.swapaxes(0, 1) if attributes.batch_first else Y, state


def _rnn(attributes: Attributes, activations: tuple[Activation, ...], w: Direction) -> Step:
    (f,), Rb = _clipped(attributes, activations), _biases(w)[1]

    def step(a: Array, state: State) -> State:
        return (f(a + state[0] @ w.R.T + Rb),)

    return step


def _gru(attributes: Attributes, activations: tuple[Activation, ...], w: Direction) -> Step:
    (f, g), H = _clipped(attributes, activations), w.R.shape[1]
    Rzr, Rh = w.R[: 2 * H].T, w.R[2 * H :].T
    bzr, bh = np.split(_biases(w)[1], [2 * H])

    def step(a: Array, state: State) -> State:
        (h,) = state
        z, r = np.split(f(a[:, : 2 * H] + h @ Rzr + bzr), 2, axis=1)
        recurrent = r * (h @ Rh + bh) if attributes.linear_before_reset else (r * h) @ Rh + bh
        n = g(a[:, 2 * H :] + recurrent)
        return ((1 - z) * n + z * h,)

    return step


def _lstm(attributes: Attributes, activations: tuple[Activation, ...], w: Direction) -> Step:
    f, g = _clipped(attributes, activations[:2])
    h_of_c, Rb = activations[2].function(), _biases(w)[1]
    Pi, Po, Pf = (0, 0, 0) if w.P is None else np.split(w.P, 3)

    def step(a: Array, state: State) -> State:
        h, c = state
        ai, ao, af, ac = np.split(a + h @ w.R.T + Rb, 4, axis=1)
        i = f(ai + Pi * c)
        forget = 1 - i if attributes.input_forget else f(af + Pf * c)
        c = forget * c + i * g(ac)
        return f(ao + Po * c) * h_of_c(c), c

    return step


_STEPS = {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}


def _clipped(attributes: Attributes, activations: tuple[Activation, ...]) -> list[Function]:
    """The functions, after the clipping of what they are applied to."""
    clip, functions = attributes.clip, [activation.function() for activation in activations]
    return functions if clip is None else [_after_clip(function, clip) for function in functions]


def _after_clip(function: Function, clip: float) -> Function:
    return lambda a: function(np.clip(a, -clip, clip))


def _biases(w: Direction) -> list[Array]:
    """That of W and that of R, (G*H,); zeros where there are none."""
    return np.split(np.zeros(2 * len(w.W), w.W.dtype) if w.B is None else w.B, 2)
