"""One layer in one direction, as functions of raw arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import config
from ._api import checks
from ._api.tape import Tape
from ._api.tokens import are_tokens, tokens_of_steps
from ._core import Recorded, call_function
from ._engine.activations import Activation, ActivationLike
from ._engine.cells import Cell, gru_cell, lstm_cell, rnn_cell
from ._engine.plan import make_plan
from ._engine.run import Run
from ._engine.tokens import Tokens
from ._engine.weights import Weights

Array = NDArray[Any]
_MANY = 1 << 30


class _Options(NamedTuple):
    """The keywords that all cells share."""

    lengths: Any
    reset: Any
    mask: Any
    masked: Any
    reverse: Any
    batch_first: Any
    record: Any
    checkpoint: Any
    threads: Any
    precision: Any


def rnn(
    x: Array,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    h0: Array | None = None,
    *,
    nonlinearity: ActivationLike = "tanh",
    lengths: Any = None,
    reset: Any = None,
    mask: Any = None,
    masked: str = "zero",
    reverse: bool = False,
    batch_first: bool = False,
    record: bool = False,
    checkpoint: int | None = None,
    threads: int | None = None,
    precision: str = "float32",
) -> tuple[Array, Array, Tape | None]:
    """The simple recurrent network (Elman 1990): h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), or another `nonlinearity`.

    Parameters
    ----------
    x : array (T, B, I)
        (B, T, I) with `batch_first`; (T, I) without a batch. float32 or float64, and all arrays of one dtype. Or integers from 0 to
        I - 1, (T, B), (B, T) or (T,), that stand for one-hot rows: columns of w_ih are picked, and x has no gradient.
    w_ih, w_hh : array (H, I), (H, H)
        The weights.
    b_ih, b_hh : array (H,), optional
        The biases; None for none.
    h0 : array (B, H), optional
        The initial state, (H,) without a batch; None for zeros.
    nonlinearity : str or tuple, default "tanh"
        "tanh", "sigmoid", "relu", "leaky_relu", "thresholded_relu", "affine", "linear", "scaled_tanh", "hard_sigmoid", "elu",
        "softsign" or "softplus", as ONNX defines them, or a tuple of a name and its parameters, such as ("leaky_relu", 0.1): see
        docs/activations.md.
    lengths : integers (B,), optional
        From 0 to T, in any order: the steps of each row. No time is spent on the padding after them; y is 0 there, the final state
        is that of the row's own end, and a row of length 0 keeps its initial state.
    reset : booleans (T, B), optional
        (B, T) with `batch_first`, (T,) without a batch. Where True, the row is cut before step t: the state starts there from zero.
    mask : booleans (T, B), optional
        (B, T) with `batch_first`, (T,) without a batch. A step where it is False is skipped: the state is carried over it, to the
        next step that is True. A reset before a skipped step cuts the row all the same.
    masked : "zero" or "hold", default "zero"
        What y is at a skipped step: 0, or the state that is carried over it (before a row's first step its initial state), as in
        Keras; the gradient of a held output flows to where it came from. Padding is 0 in both.
    reverse : bool, default False
        Go from each row's end to its start. y stays in the order of x.
    batch_first : bool, default False
        x and y are (B, T, .); no transposed copy is made. States stay (B, H).
    record : bool, default False
        Also return a tape for the gradients. y is then read-only, because the tape reads it; so must x and the weights stay as
        they are until backward.
    checkpoint : int, optional
        k, to keep only y and, every k steps, the state, in place of all gates: for long sequences. The tape recomputes the rest,
        k steps at a time, with the same bits of gradient, for about the time of a forward. k is rounded up to where it does not cut
        a sum of the weights' gradients, which takes 128 items: to a multiple of ceil(128 / B) steps. Without `record`, and for an
        RNN, whose tape needs y alone, it changes nothing.
    threads : int, optional
        At most so many; None: fastrnn.get_num_threads().
    precision : "float32" or "bf16", default "float32"
        Of products: "bf16" rounds their operands to bfloat16 and sums in float32, for float32 arrays alone.

    Returns
    -------
    y : array (T, B, H)
        The output of every step, laid out as x is.
    h_n : array (B, H)
        The final state, (H,) without a batch.
    tape : Tape or None
        None unless `record`; tape.backward(dy, dstate) gives the gradients.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.
    MemoryError
        The results, or what has to be kept, do not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> rng = np.random.default_rng(0)
    >>> x, w_ih, w_hh = (rng.standard_normal(shape) for shape in ((7, 2, 3), (4, 3), (4, 4)))  # T=7 B=2 I=3 H=4
    >>> y, h_n, _ = fastrnn.rnn(x, w_ih, w_hh, nonlinearity="relu", lengths=[7, 5])
    >>> y.shape, h_n.shape
    ((7, 2, 4), (2, 4))
    >>> np.array_equal(y[4, 1], h_n[1])  # the end of the shorter row
    True
    """
    cell = rnn_cell(checks.activation("nonlinearity", nonlinearity))
    options = _Options(lengths, reset, mask, masked, reverse, batch_first, record, checkpoint, threads, precision)
    y, h_n, _, tape = _call(cell, x, (w_ih, w_hh, b_ih, b_hh), h0, None, options)
    return y, h_n, tape


def gru(
    x: Array,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    h0: Array | None = None,
    *,
    reset_after: bool = True,
    activation: ActivationLike = "tanh",
    recurrent_activation: ActivationLike = "sigmoid",
    lengths: Any = None,
    reset: Any = None,
    mask: Any = None,
    masked: str = "zero",
    reverse: bool = False,
    batch_first: bool = False,
    record: bool = False,
    checkpoint: int | None = None,
    threads: int | None = None,
    precision: str = "float32",
) -> tuple[Array, Array, Tape | None]:
    """The gated recurrent unit: h_t = (1 - z) n + z h_{t-1}, with r, z = sigmoid(W_i. x_t + b_i. + W_h. h_{t-1} + b_h.) and

    n = tanh(W_in x_t + b_in + r (W_hn h_{t-1} + b_hn)) if reset_after (PyTorch, cuDNN), else
    n = tanh(W_in x_t + b_in + W_hn (r h_{t-1}) + b_hn) (Cho et al. 2014, arXiv 1406.1078).

    Parameters
    ----------
    x : array (T, B, I)
        (B, T, I) with `batch_first`; (T, I) without a batch. float32 or float64, and all arrays of one dtype. Or integers from 0 to
        I - 1, (T, B), (B, T) or (T,), that stand for one-hot rows: columns of w_ih are picked, and x has no gradient.
    w_ih, w_hh : array (3*H, I), (3*H, H)
        The weights, row blocks r, z, n.
    b_ih, b_hh : array (3*H,), optional
        The biases; None for none.
    h0 : array (B, H), optional
        The initial state, (H,) without a batch; None for zeros.
    reset_after : bool, default True
        Which of the two equations of n.
    activation, recurrent_activation : str or tuple, default "tanh" and "sigmoid"
        In place of tanh and of sigmoid: "tanh", "sigmoid", "relu", "leaky_relu", "thresholded_relu", "affine", "linear",
        "scaled_tanh", "hard_sigmoid", "elu", "softsign" or "softplus", as ONNX defines them, or a tuple of a name and its
        parameters, such as ("hard_sigmoid", 0.2, 0.5): see docs/activations.md.
    lengths : integers (B,), optional
        From 0 to T, in any order: the steps of each row. No time is spent on the padding after them; y is 0 there, the final state
        is that of the row's own end, and a row of length 0 keeps its initial state.
    reset : booleans (T, B), optional
        (B, T) with `batch_first`, (T,) without a batch. Where True, the row is cut before step t: the state starts there from zero.
    mask : booleans (T, B), optional
        (B, T) with `batch_first`, (T,) without a batch. A step where it is False is skipped: the state is carried over it, to the
        next step that is True. A reset before a skipped step cuts the row all the same.
    masked : "zero" or "hold", default "zero"
        What y is at a skipped step: 0, or the state that is carried over it (before a row's first step its initial state), as in
        Keras; the gradient of a held output flows to where it came from. Padding is 0 in both.
    reverse : bool, default False
        Go from each row's end to its start. y stays in the order of x.
    batch_first : bool, default False
        x and y are (B, T, .); no transposed copy is made. States stay (B, H).
    record : bool, default False
        Also return a tape for the gradients. y is then read-only, because the tape reads it; so must x and the weights stay as
        they are until backward.
    checkpoint : int, optional
        k, to keep only y and, every k steps, the state, in place of all gates: for long sequences. The tape recomputes the rest,
        k steps at a time, with the same bits of gradient, for about the time of a forward. k is rounded up to where it does not cut
        a sum of the weights' gradients, which takes 128 items: to a multiple of ceil(128 / B) steps. Without `record`, and for an
        RNN, whose tape needs y alone, it changes nothing.
    threads : int, optional
        At most so many; None: fastrnn.get_num_threads().
    precision : "float32" or "bf16", default "float32"
        Of products: "bf16" rounds their operands to bfloat16 and sums in float32, for float32 arrays alone.

    Returns
    -------
    y : array (T, B, H)
        The output of every step, laid out as x is.
    h_n : array (B, H)
        The final state, (H,) without a batch.
    tape : Tape or None
        None unless `record`; tape.backward(dy, dstate) gives the gradients.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.
    MemoryError
        The results, or what has to be kept, do not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> rng = np.random.default_rng(0)
    >>> x, w_ih, w_hh = (rng.standard_normal(shape) for shape in ((7, 2, 3), (12, 3), (12, 4)))  # T=7 B=2 I=3 H=4
    >>> y, h_n, tape = fastrnn.gru(x, w_ih, w_hh, record=True)
    >>> grads = tape.backward(y - 1)  # of half the sum of (y - 1)**2
    >>> grads.w_hh.shape, grads.x.shape
    ((12, 4), (7, 2, 3))
    """
    cell = gru_cell(checks.flag("reset_after", reset_after), *_activations(activation, recurrent_activation))
    options = _Options(lengths, reset, mask, masked, reverse, batch_first, record, checkpoint, threads, precision)
    y, h_n, _, tape = _call(cell, x, (w_ih, w_hh, b_ih, b_hh), h0, None, options)
    return y, h_n, tape


def lstm(
    x: Array,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    h0: Array | None = None,
    c0: Array | None = None,
    *,
    peephole: Array | None = None,
    w_hr: Array | None = None,
    activation: ActivationLike = "tanh",
    recurrent_activation: ActivationLike = "sigmoid",
    lengths: Any = None,
    reset: Any = None,
    mask: Any = None,
    masked: str = "zero",
    reverse: bool = False,
    batch_first: bool = False,
    record: bool = False,
    checkpoint: int | None = None,
    threads: int | None = None,
    precision: str = "float32",
) -> tuple[Array, tuple[Array, Array], Tape | None]:
    """Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000 for f and the peepholes):

    i, f, o = sigmoid(W_i. x_t + b_i. + W_h. h_{t-1} + b_h.), g = tanh(the same), c_t = f c_{t-1} + i g, h_t = o tanh(c_t),
    or, with a projection (Sak, Senior and Beaufays 2014, arXiv 1402.1128; PyTorch's proj_size), h_t = W_hr (o tanh(c_t)).

    Parameters
    ----------
    x : array (T, B, I)
        (B, T, I) with `batch_first`; (T, I) without a batch. float32 or float64, and all arrays of one dtype. Or integers from 0 to
        I - 1, (T, B), (B, T) or (T,), that stand for one-hot rows: columns of w_ih are picked, and x has no gradient.
    w_ih, w_hh : array (4*H, I), (4*H, H)
        The weights, row blocks i, f, g, o.
    b_ih, b_hh : array (4*H,), optional
        The biases; None for none.
    h0, c0 : array (B, H), optional
        The initial state, (H,) each without a batch; None for zeros.
    peephole : array (3, H), optional
        Rows i, f, o: i and f also see c_{t-1}, and o sees c_t.
    w_hr : array (P, H), P < H, optional
        The projection. With it h has P numbers: `w_hh` is (4*H, P), `h0` and h_n (B, P), y (T, B, P).
    activation, recurrent_activation : str or tuple, default "tanh" and "sigmoid"
        In place of both tanh and of sigmoid: "tanh", "sigmoid", "relu", "leaky_relu", "thresholded_relu", "affine", "linear",
        "scaled_tanh", "hard_sigmoid", "elu", "softsign" or "softplus", as ONNX defines them, or a tuple of a name and its
        parameters, such as ("hard_sigmoid", 0.2, 0.5): see docs/activations.md.
    lengths : integers (B,), optional
        From 0 to T, in any order: the steps of each row. No time is spent on the padding after them; y is 0 there, the final state
        is that of the row's own end, and a row of length 0 keeps its initial state.
    reset : booleans (T, B), optional
        (B, T) with `batch_first`, (T,) without a batch. Where True, the row is cut before step t: the state starts there from zero.
    mask : booleans (T, B), optional
        (B, T) with `batch_first`, (T,) without a batch. A step where it is False is skipped: the state is carried over it, to the
        next step that is True. A reset before a skipped step cuts the row all the same.
    masked : "zero" or "hold", default "zero"
        What y is at a skipped step: 0, or the state that is carried over it (before a row's first step its initial state), as in
        Keras; the gradient of a held output flows to where it came from. Padding is 0 in both.
    reverse : bool, default False
        Go from each row's end to its start. y stays in the order of x.
    batch_first : bool, default False
        x and y are (B, T, .); no transposed copy is made. States stay (B, H).
    record : bool, default False
        Also return a tape for the gradients. y is then read-only, because the tape reads it; so must x and the weights stay as
        they are until backward.
    checkpoint : int, optional
        k, to keep only y and, every k steps, the state, in place of all gates: for long sequences. The tape recomputes the rest,
        k steps at a time, with the same bits of gradient, for about the time of a forward. k is rounded up to where it does not cut
        a sum of the weights' gradients, which takes 128 items: to a multiple of ceil(128 / B) steps. Without `record`, and for an
        RNN, whose tape needs y alone, it changes nothing.
    threads : int, optional
        At most so many; None: fastrnn.get_num_threads().
    precision : "float32" or "bf16", default "float32"
        Of products: "bf16" rounds their operands to bfloat16 and sums in float32, for float32 arrays alone.

    Returns
    -------
    y : array (T, B, H)
        The output of every step, laid out as x is.
    (h_n, c_n) : arrays (B, H)
        The final state, (H,) each without a batch.
    tape : Tape or None
        None unless `record`; tape.backward(dy, dstate) gives the gradients.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.
    MemoryError
        The results, or what has to be kept, do not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> rng = np.random.default_rng(0)
    >>> x, w_ih, w_hh = (rng.standard_normal(shape) for shape in ((7, 2, 3), (16, 3), (16, 4)))  # T=7 B=2 I=3 H=4
    >>> y, (h_n, c_n), tape = fastrnn.lstm(x, w_ih, w_hh, record=True)
    >>> grads = tape.backward(y - 1)  # of half the sum of (y - 1)**2
    >>> grads.w_hh.shape, grads.c0.shape
    ((16, 4), (2, 4))
    """
    cell = lstm_cell(peephole is not None, *_activations(activation, recurrent_activation))
    options = _Options(lengths, reset, mask, masked, reverse, batch_first, record, checkpoint, threads, precision)
    y, h_n, c_n, tape = _call(cell, x, (w_ih, w_hh, b_ih, b_hh, peephole, w_hr), h0, c0, options)
    assert c_n is not None
    return y, (h_n, c_n), tape


def infer(
    cell: Cell,
    x: Any,
    weights: Mapping[str, Any],
    h0: Any,
    c0: Any = None,
    *,
    lengths: Any,
    reverse: bool,
    batch_first: bool,
    threads: int | None,
) -> tuple[Array, tuple[Array, ...]]:
    """y and the final state of a cell with any activations, also such as the functions have no arguments for.

    weights: by the names of lstm's arguments, those that there are."""
    options = _Options(lengths, None, None, "zero", reverse, batch_first, False, None, threads, "float32")
    given = tuple(weights.get(name) for name in (Weights.NAMES if cell.is_lstm else Weights.NAMES[:4]))
    y, h_n, c_n, _ = _call(cell, x, given, h0, c0, options)
    return y, (h_n,) if c_n is None else (h_n, c_n)


def _activations(activation: Any, recurrent_activation: Any) -> tuple[Activation, Activation]:
    return checks.activation("activation", activation), checks.activation("recurrent_activation", recurrent_activation)


def _call(
    cell: Cell,
    x: Any,
    weights: tuple[Any, ...],
    h0: Any,
    c0: Any,
    options: _Options,
) -> tuple[Array, Array, Array | None, Tape | None]:
    if options.record is True:
        cell.check_slopes()
    plain = _plain(cell, x, weights, h0, c0, options)
    if plain is not None:
        return plain
    batch_first = checks.flag("batch_first", options.batch_first)
    x, w, unbatched = _input(cell, x, weights, batch_first)
    w.precision = checks.precision(options.precision, x.dtype)
    reverse, record = checks.flag("reverse", options.reverse), checks.flag("record", options.record)
    batch_first = batch_first and not unbatched
    of_rows = (options.lengths, options.reset, reverse, batch_first, options.threads, options.mask, options.masked)
    run = make_run(cell, x, w, h0, c0, unbatched, *of_rows)
    checkpoint = None if options.checkpoint is None else checks.integer("checkpoint", options.checkpoint, 1)
    forward(run, record, batch_first, checkpoint)
    y = run.y[:, 0] if unbatched else run.y.swapaxes(0, 1) if batch_first else run.y
    h_n, c_n = (run.h_n[0], run.c_n if run.c_n is None else run.c_n[0]) if unbatched else (run.h_n, run.c_n)
    if not record:
        return y, h_n, c_n, None
    y = y.view()
    y.flags.writeable = False
    return y, h_n, c_n, Tape(run, batch_first, unbatched)


def _input(cell: Cell, x: Any, weights: tuple[Any, ...], batch_first: bool) -> tuple[Array | Tokens, Weights, bool]:
    """x as make_run takes it, the weights, and whether there is no batch."""
    if are_tokens(x):
        dtype = checks.floats("w_ih", weights[0], None, (2,)).dtype
        w = check_weights(cell, dtype, *weights)
        tokens, unbatched = tokens_of_steps(x, w.w_ih.shape[1], "I", dtype, batch_first)
        return tokens, w, unbatched
    x = checks.floats("x", x, None, (2, 3))
    return x, check_weights(cell, x.dtype, *weights), x.ndim == 2


def _plain(
    cell: Cell, x: Any, weights: tuple[Any, ...], h0: Any, c0: Any, options: _Options
) -> tuple[Array, Array, Array | None, Tape | None] | None:
    """The result of a plain call, or None."""
    lengths, reset, mask, masked, reverse, batch_first, record, checkpoint, threads, precision = options
    if lengths is not None or reset is not None or mask is not None or checkpoint is not None or reverse is not False:
        return None
    if type(masked) is not str or masked != "zero" or type(batch_first) is not bool or type(record) is not bool:
        return None
    if threads is not None and (type(threads) is not int or not 0 < threads < _MANY):
        return None
    if len(weights) == 4:
        weights = (*weights, None, None)
    done = call_function(cell, cell.form, x, weights, h0, c0, batch_first, record, threads or 0, precision)
    if done is None:
        return None
    y, state, kept = done
    h_n, c_n = state if cell.is_lstm else (state, None)
    if kept is None:
        return y, h_n, c_n, None
    tape = Tape._of_plain(kept, lambda kept: _general(cell, weights, options, kept), batch_first and y.ndim == 3, y.ndim == 2)
    return y, h_n, c_n, tape


def _general(cell: Cell, weights: tuple[Any, ...], options: _Options, kept: Recorded) -> Run:
    """The run of a plain call, as if it had gone the general way."""
    x, state, (y,), cs, gates, rows_first = kept.parts()
    w = check_weights(cell, x.dtype, *weights)
    w.precision = options.precision
    h0, c0 = state if cell.is_lstm else (state, None)
    run = make_run(cell, x, w, h0, c0, x.ndim == 2, None, None, False, rows_first, options.threads)
    y = y[:, None] if y.ndim == 2 else y.swapaxes(0, 1) if rows_first else y
    run.resume(rows_first, y, cs[0] if cs else None, gates[0] if gates else None)
    return run


def check_weights(
    cell: Cell, dtype: np.dtype[Any], w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, peephole: Any = None, w_hr: Any = None
) -> Weights:
    """The weights in one dtype, contiguous, of shapes that fit each other."""
    w_hh = checks.floats("w_hh", w_hh, dtype, (2,))
    G, H = cell.gates, w_hh.shape[1]
    rows = "H" if G == 1 else f"{G}*H"
    if w_hr is not None:
        w_hr = checks.floats("w_hr", w_hr, dtype, (2,))
        P, H = w_hr.shape
        if not 0 < P < H:
            raise ValueError(f"w_hr: expected (P, H) with 1 <= P < H, got {w_hr.shape}")
        w_hr = checks.fitting("w_hr", w_hr, "(P, H)", (P, H))
        w_hh = checks.fitting("w_hh", w_hh, f"({rows}, P)", (G * H, P))
    elif H == 0 or w_hh.shape[0] != G * H:
        raise ValueError(f"w_hh: expected ({rows}, H) = ({G * H}, {H}) with H >= 1, got {w_hh.shape}")
    else:
        w_hh = checks.fitting("w_hh", w_hh, f"({rows}, H)", (G * H, H))
    w_ih = checks.floats("w_ih", w_ih, dtype, (2,))
    w_ih = checks.fitting("w_ih", w_ih, f"({rows}, I)", (G * H, w_ih.shape[1]))
    if b_ih is not None:
        b_ih = checks.shaped("b_ih", b_ih, dtype, f"({rows},)", (G * H,))
    if b_hh is not None:
        b_hh = checks.shaped("b_hh", b_hh, dtype, f"({rows},)", (G * H,))
    if peephole is not None:
        peephole = checks.shaped("peephole", peephole, dtype, "(3, H)", (3, H))
    return Weights(w_ih, w_hh, b_ih, b_hh, peephole, w_hr)


def make_run(
    cell: Cell,
    x: Array | Tokens,
    w: Weights,
    h0: Any,
    c0: Any,
    unbatched: bool,
    lengths: Any,
    reset: Any,
    reverse: bool,
    batch_first: bool,
    threads: Any,
    mask: Any = None,
    masked: Any = "zero",
) -> Run:
    """Check what depends on x, bring it into (T, B, .), plan. x comes from _input."""
    I = w.w_ih.shape[1]
    if x.shape[-1] != I:
        raise ValueError(f"x: expected the last axis to be I = {I}, as w_ih's, got shape {x.shape}")
    threads = config.get_num_threads if threads is None else checks.integer("threads", threads, 1)
    if not isinstance(x, Tokens):
        x = checks.rows_contiguous("x", x)
        x = x[:, None] if unbatched else x.swapaxes(0, 1) if batch_first else x
    T, B, _ = x.shape
    rows = () if unbatched else (B,)
    if h0 is not None:
        name = "H" if w.w_hr is None else "P"
        h0 = checks.shaped("h0", h0, x.dtype, f"({name},)" if unbatched else f"(B, {name})", (*rows, w.P)).reshape(B, w.P)
    if c0 is not None:
        c0 = checks.shaped("c0", c0, x.dtype, "(H,)" if unbatched else "(B, H)", (*rows, w.H)).reshape(B, w.H)
    if lengths is not None:
        lengths = checks.integers("lengths", lengths, "(B,)", B, T)
    hold = checks.choice("masked", masked, "zero", "hold") == "hold"
    if reset is not None:
        reset = checks.flags_of_steps("reset", reset, T, B, unbatched, batch_first)
    if mask is not None:
        mask = checks.flags_of_steps("mask", mask, T, B, unbatched, batch_first)
    try:
        plan = make_plan(T, B, reverse, lengths, reset, mask, hold)
    except (MemoryError, ValueError) as error:  # its lists of up to T*B items; ValueError: not even countable
        name = "lengths" if lengths is not None else "reset" if reset is not None else "mask"
        raise checks.out_of_memory(name, error) from None
    return Run(cell, plan, x, w, h0, c0, threads)


def forward(run: Run, record: bool, batch_first: bool, checkpoint: int | None = None) -> None:
    """run.forward, where a failed allocation names x, whose size asked for it."""
    try:
        run.forward(record, batch_first, checkpoint=checkpoint)
    except MemoryError as error:
        raise checks.out_of_memory("x", error) from None
