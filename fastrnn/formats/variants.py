"""Formats of which there are several: what the arrays do not tell is an argument."""

from __future__ import annotations

from .._api import checks
from .cell import Cell
from .format import Format, each
from .trees import PADDLE, Gatewise, Rearranged, Scoped

_TEXTBOOK = {"f": "f", "i": "i", "g": "c", "o": "o"}
_COLAH = {"W_C": "Wc", "b_C": "bc"} | {f"{kind}_{gate}": f"{kind}{gate}" for kind in "Wb" for gate in "fico"}


def tf1(forget_bias: float = 1.0) -> Format:
    """The format "tf1": variables of TensorFlow 1's BasicRNNCell, GRUCell, BasicLSTMCell and LSTMCell, by name.

    Kernels are of [x; h], as ``rnn/basic_lstm_cell/kernel`` (I+H, 4*H), gates i, j (the candidate), f, o, or ``gates/kernel``
    (I+H, 2*H), gates r, u, and ``candidate/kernel`` (I+H, H). The LSTMs add forget_bias to f while they compute: it is in no
    variable, and reading adds it, to bias_hh.

    Parameters
    ----------
    forget_bias : float, default 1
        As it was given to the cell, whose default is 1, too.

    Returns
    -------
    format : Format

    Raises
    ------
    TypeError, ValueError
        No finite number.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> variables = {"rnn/lstm_cell/kernel:0": np.ones((7, 16)), "rnn/lstm_cell/bias:0": np.zeros(16)}
    >>> layer = fastrnn.LSTM.from_weights(variables, fastrnn.formats.tf1(forget_bias=0.5))
    >>> layer, layer.params["bias_hh_l0"][4:8]
    (LSTM(3, 4, dtype=float64), array([0.5, 0.5, 0.5, 0.5]))
    """
    peepholes = {f"w_{gate}_diag?": f"u c.{gate}" for gate in "fio"}
    gru = {"gates/kernel": "n(gu) x.rz,h.rz", "gates/bias": "(gu) b.rz"}
    gru |= {"candidate/kernel": "nu x.n,h.n", "candidate/bias": "u b.n"}
    cells = {
        "rnn": Cell("a", {"kernel": "nu x,h", "bias": "u b"}),
        "gru_before": Cell("rzn", gru),
        "lstm": Cell(
            "igfo",
            {"projection/kernel?": "nu p", "kernel": "n(gu) x,h", "bias": "(gu) b", **peepholes},
            offset={"f": checks.real("forget_bias", forget_bias)},
        ),
    }
    return Format("tf1", Scoped(), cells)


def textbook(first: str = "h") -> Format:
    """The format "textbook": an LSTM with one matrix per gate on [h, x] or [x, h].

    Matrices Wf, Wi, Wc, Wo are (H, H+I) or transposed; biases bf, bi, bc, bo are (H,), (H, 1) or (1, H). Also by the names W_f,
    W_i, W_C, W_o, b_f, b_i, b_C, b_o (Olah 2015, "Understanding LSTM Networks").

    Parameters
    ----------
    first : "h" or "x", default "h"
        What stands first in what the matrices are multiplied with: [h, x], as in Olah's text and the Deep Learning Specialization,
        or [x, h]. The arrays do not tell.

    Returns
    -------
    format : Format

    Raises
    ------
    TypeError, ValueError
        Another `first`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> weights = {f"W_{gate}": np.ones((4, 7)) for gate in "fiCo"} | {f"b_{gate}": np.zeros((4, 1)) for gate in "fiCo"}
    >>> fastrnn.LSTM.from_weights(weights, fastrnn.formats.textbook(first="x"))
    LSTM(3, 4, dtype=float64)
    """
    content = {"h": "h,x", "x": "x,h"}[checks.choice("first", first, "h", "x")]
    cells = {"lstm": Cell("figo", each(_TEXTBOOK, {"W{}": f"un {content}", "b{}": "u b"}))}
    return Format("textbook", Gatewise(_COLAH), cells)


def paddle(origin_mode: bool = False) -> Format:
    """The format "paddle": PaddlePaddle's dynamic_gru, together with the fully connected layer before it.

    fc.w_0 (I, 3*H), fc.b_0 (3*H,), gru.w_0 (H, 3*H), gru.b_0 (1, 3*H), gates u, r, c; the memory of gru.w_0 is (H, 2*H) for u and
    r, then (H, H) for c. Names may have their numbers, such as fc_0.w_0 and gru_0.w_0.

    Parameters
    ----------
    origin_mode : bool, default False
        As it was given to dynamic_gru: False for h_t = (1 - u) h + u c, True for h_t = u h + (1 - u) c.

    Returns
    -------
    format : Format

    Raises
    ------
    TypeError
        No bool.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> weights = {"fc_0.w_0": np.ones((3, 12)), "fc_0.b_0": np.ones(12)}
    >>> weights |= {"gru_0.w_0": np.ones((4, 12)), "gru_0.b_0": np.ones((1, 12))}
    >>> fastrnn.GRU.from_weights(weights, fastrnn.formats.paddle(origin_mode=True))
    GRU(3, 4, reset_after=False, dtype=float64)
    """
    arrays = {"fc.w_0": "n(gu) x", "fc.b_0?": "(gu) bx", "gru.w_0": "n(gu) h", "gru.b_0?": "n(gu) bh"}
    scale = {} if checks.flag("origin_mode", origin_mode) else {"z": -1.0}
    return Format("paddle", Rearranged(PADDLE, numbered=r"_\d+(?=\.)"), {"gru_before": Cell("zrn", arrays, scale=scale)})
