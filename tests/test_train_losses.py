"""Losses over time and the readout's steps, against plain formulas, differences, and PyTorch where it is installed."""

import math

import numpy as np
import pytest

import fastrnn
from fastrnn.train import Linear, reverse_padded, sigmoid_cross_entropy, softmax_cross_entropy, squared_error
from wrong import names_the_argument

F32, F64 = np.float32, np.float64
T, B, O = 5, 4, 3
LENGTHS = np.array([5, 0, 2, 4])
REDUCTIONS = ["sum", "rows", "steps"]
LOSSES = {"softmax": softmax_cross_entropy, "sigmoid": sigmoid_cross_entropy, "squared": squared_error}


def problem(name, seed=0, lead=(T, B), dtype=F64):
    rng = np.random.default_rng(seed)
    o = (3 * rng.standard_normal((*lead, O))).astype(dtype)
    if name == "softmax":
        return o, rng.integers(0, O, lead)
    return o, rng.random(o.shape).astype(dtype)


def of_one_step(name, o, target):
    """The loss of one step, number by number."""
    if name == "softmax":
        return math.log(sum(math.exp(v) for v in o)) - o[target]
    if name == "sigmoid":
        p = [1 / (1 + math.exp(-v)) for v in o]
        return -sum(t * math.log(q) + (1 - t) * math.log(1 - q) for t, q in zip(target, p, strict=True))
    return sum((v - t) ** 2 for v, t in zip(o, target, strict=True))


def plain(name, o, target, valid, reduction):
    total = sum(of_one_step(name, o[index], target[index]) for index in zip(*np.nonzero(valid), strict=True))
    return total / {"sum": 1, "rows": o.shape[-2], "steps": valid.sum()}[reduction]


def valid_of(lengths, mask):
    valid = np.ones((T, B), bool) if mask is None else mask.copy()
    return valid if lengths is None else valid & (np.arange(T)[:, None] < lengths)


MASK = np.random.default_rng(9).random((T, B)) < 0.6
WAYS = {"all": {}, "lengths": {"lengths": LENGTHS}, "mask": {"mask": MASK}, "both": {"lengths": LENGTHS, "mask": MASK}}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_and_its_gradient(name, way, reduction):
    o, target = problem(name)
    options = WAYS[way] | {"reduction": reduction}
    valid = valid_of(WAYS[way].get("lengths"), WAYS[way].get("mask"))
    before = o.copy(), target.copy()
    loss, do = LOSSES[name](o, target, **options)
    assert type(loss) is float
    assert loss == pytest.approx(plain(name, o, target, valid, reduction), rel=1e-12)
    assert np.array_equal(o, before[0])
    assert np.array_equal(target, before[1])
    assert (do[~valid] == 0).all()
    numeric = np.zeros_like(o)
    for index in np.ndindex(o.shape):
        shifted, h = o.copy(), 1e-4
        values = []
        for step in (h, -h, 2 * h, -2 * h):
            shifted[index] = o[index] + step
            values.append(LOSSES[name](shifted, target, **options)[0])
        numeric[index] = (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * h)
    np.testing.assert_allclose(do, numeric, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_what_stands_in_the_padding_is_not_looked_at(name):
    o, target = problem(name, dtype=F32)
    loss, do = LOSSES[name](o, target, lengths=LENGTHS)
    padding = ~valid_of(LENGTHS, None)
    o[padding] = math.nan
    target[padding] = -100 if name == "softmax" else math.nan
    other_loss, other_do = LOSSES[name](o, target, lengths=LENGTHS)
    assert other_loss == loss
    assert np.array_equal(other_do, do)
    assert do.dtype == F32


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_batch_first_is_the_same_transposed(name, reduction):
    o, target = problem(name)
    loss, do = LOSSES[name](o, target, lengths=LENGTHS, reduction=reduction)
    turned = LOSSES[name](o.swapaxes(0, 1), target.swapaxes(0, 1), lengths=LENGTHS, reduction=reduction, batch_first=True)
    assert turned[0] == pytest.approx(loss, rel=1e-14)
    np.testing.assert_allclose(turned[1].swapaxes(0, 1), do, rtol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_one_answer_for_each_row(name):
    o, target = problem(name, lead=(B,))
    ones = np.ones(B, bool)
    for reduction in REDUCTIONS:
        loss, do = LOSSES[name](o, target, reduction=reduction)
        assert loss == pytest.approx(plain(name, o, target, ones, reduction), rel=1e-12)
        as_step = LOSSES[name](o[None], target[None], reduction=reduction)
        assert as_step[0] == loss
        assert np.array_equal(as_step[1][0], do)
    masked, _ = LOSSES[name](o, target, mask=np.array([True, False, False, True]), reduction="rows")
    assert masked == pytest.approx(plain(name, o, target, np.array([True, False, False, True]), "rows"), rel=1e-12)


@pytest.mark.parametrize("lead", [(0, 3), (3, 0), (0,), (2, 2)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_nothing_that_counts_is_a_loss_of_0(name, reduction, lead):
    o, target = problem(name, lead=lead)
    loss, do = LOSSES[name](o, target, mask=np.zeros(lead, bool), reduction=reduction)
    assert loss == 0
    assert do.shape == o.shape
    assert not do.any()


def test_large_outputs_lose_no_digits_and_overflow_nothing():
    o = np.array([[1000.0, 0.0], [-1000.0, 0.0]], F32)
    loss, do = softmax_cross_entropy(o, np.array([1, 0]), reduction="sum")
    assert loss == 2000
    assert np.array_equal(do, [[1, -1], [-1, 1]])
    loss, do = sigmoid_cross_entropy(o, np.array([[0, 0], [1, 1]]), reduction="sum")
    assert loss == pytest.approx(2000 + 2 * math.log(2), rel=1e-7)
    assert np.array_equal(do, np.array([[1, 0.5], [-1, -0.5]], F32))
    small, _ = sigmoid_cross_entropy(np.array([[30.0]]), np.array([[1]]))
    assert small == pytest.approx(math.log1p(math.exp(-30)), rel=1e-12)
    huge, _ = squared_error(np.array([[1e30]], F32), np.array([[0.0]], F32))
    assert huge == pytest.approx(1e60, rel=1e-6)  # beyond float32, not beyond the loss


def test_the_loss_of_many_steps_is_summed_in_float64():
    o = np.full((1000, 1000, 1), 1e-4, F32)
    o[0, 0] = 1
    loss, _ = squared_error(o, np.zeros_like(o), reduction="sum")
    assert loss == pytest.approx(1 + 999_999 * float(F32(1e-4)) ** 2, rel=1e-9)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_not_finite_warn_of_nothing(name, bad):
    o, target = problem(name)
    o[1, 1] = bad
    loss, do = LOSSES[name](o, target)
    assert not math.isfinite(loss)
    assert np.isfinite(do[0]).all()
    if math.isnan(bad):
        assert math.isnan(loss)
        assert np.isnan(do[1, 1]).all()


@pytest.mark.parametrize("name", LOSSES)
def test_torch_agrees(name):
    torch = pytest.importorskip("torch")
    functions = torch.nn.functional
    o, target = problem(name)
    loss, do = LOSSES[name](o, target, lengths=LENGTHS, reduction="sum")
    leaf = torch.tensor(o, requires_grad=True)
    valid = torch.tensor(valid_of(LENGTHS, None))
    wanted = torch.tensor(target)
    if name == "softmax":
        theirs = functions.cross_entropy(leaf[valid], wanted[valid], reduction="sum")
    elif name == "sigmoid":
        theirs = functions.binary_cross_entropy_with_logits(leaf[valid], wanted[valid], reduction="sum")
    else:
        theirs = functions.mse_loss(leaf[valid], wanted[valid], reduction="sum")
    theirs.backward()
    assert loss == pytest.approx(theirs.item(), rel=1e-12)
    np.testing.assert_allclose(do, leaf.grad.numpy(), rtol=1e-11, atol=1e-14)


def softmax(o=None, target=None, **options):
    o = np.zeros((T, B, O)) if o is None else o
    return softmax_cross_entropy(o, np.zeros((T, B), int) if target is None else target, **options)


BAD = {
    "o's dtype": (lambda: softmax(np.zeros((T, B, O), int)), TypeError, "o: expected dtype float32 or float64, got int64"),
    "o's shape": (lambda: softmax(np.zeros(O)), ValueError, "o: expected 2 or 3 dimensions, got shape (3,)"),
    "no outputs": (lambda: softmax(np.zeros((T, B, 0))), ValueError, "o: expected at least one output, got shape (5, 4, 0)"),
    "float classes": (lambda: softmax(target=np.zeros((T, B))), TypeError, "target: expected integers, got ndarray of float64"),
    "masked classes": (
        lambda: softmax(target=np.ma.zeros((T, B), int)),
        TypeError,
        "target: expected integers, got MaskedArray of int64",
    ),
    "classes' shape": (
        lambda: softmax(target=np.zeros((T, B, O), int)),
        ValueError,
        "target: expected o's shape without its last axis, (5, 4), got (5, 4, 3)",
    ),
    "class too high": (
        lambda: softmax(target=3 + np.zeros((T, B), int)),
        ValueError,
        "target: expected integers from 0 to O-1 = 2, got 3",
    ),
    "class below 0": (
        lambda: softmax(target=np.full((T, B), -1)),
        ValueError,
        "target: expected integers from 0 to O-1 = 2, got -1",
    ),
    "reduction": (lambda: softmax(reduction="mean"), ValueError, "reduction: expected 'steps' or 'rows' or 'sum', got 'mean'"),
    "lengths": (lambda: softmax(lengths=[6, 0, 0, 0]), ValueError, "lengths: expected integers from 0 to T = 5, got 6 at row 0"),
    "lengths without time": (
        lambda: softmax(np.zeros((B, O)), np.zeros(B, int), lengths=LENGTHS),
        ValueError,
        "lengths: expected None, because o has no axis of time",
    ),
    "mask of numbers": (lambda: softmax(mask=np.ones((T, B))), TypeError, "mask: expected booleans, got an array of float64"),
    "mask's shape": (
        lambda: softmax(mask=np.ones((B, T), bool)),
        ValueError,
        "mask: expected o's shape without its last axis = (5, 4), got (4, 5)",
    ),
    "probability": (
        lambda: sigmoid_cross_entropy(np.zeros((2, 1)), np.array([[0.5], [1.5]])),
        ValueError,
        "target: expected numbers from 0 to 1, got 1.5",
    ),
    "probability nan": (
        lambda: sigmoid_cross_entropy(np.zeros((2, 1)), np.array([[0.5], [math.nan]])),
        ValueError,
        "target: expected numbers from 0 to 1, got nan",
    ),
    "complex": (
        lambda: squared_error(np.zeros((2, 1)), np.zeros((2, 1), complex)),
        TypeError,
        "target: expected numbers, got ndarray of complex128",
    ),
    "broadcast": (
        lambda: squared_error(np.zeros((2, 1)), np.zeros(2)),
        ValueError,
        "target: expected o's shape, (2, 1), got (2,)",
    ),
}


test_a_loss_names_the_argument_that_is_wrong = names_the_argument(BAD)


# --- which steps the readout reads --------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_the_readout_of_each_rows_last_step(lengths, batch_first):
    rng = np.random.default_rng(0)
    readout, h = Linear(6, 2, dtype=F64, rng=0), rng.standard_normal((T, B, 6))
    do = rng.standard_normal((B, 2))
    given = np.ascontiguousarray(h.swapaxes(0, 1)) if batch_first else h
    o, tape = readout.forward(given, "last", lengths, batch_first=batch_first)
    grads = tape.backward(do)
    wanted_h, wanted_dh = np.zeros((B, 6)), np.zeros_like(h)
    for b in range(B):
        end = T if lengths is None else lengths[b]
        if end:
            wanted_h[b] = h[end - 1, b]
            wanted_dh[end - 1, b] = do[b] @ readout.params["weight"]
    np.testing.assert_allclose(o, wanted_h @ readout.params["weight"].T + readout.params["bias"], rtol=1e-13)
    assert np.array_equal(o, readout(given, "last", lengths, batch_first=batch_first))
    np.testing.assert_allclose(grads.x.swapaxes(0, 1) if batch_first else grads.x, wanted_dh, rtol=1e-13)
    np.testing.assert_allclose(grads.params["weight"], do.T @ wanted_h, rtol=1e-12)
    np.testing.assert_allclose(grads.params["bias"], do.sum(axis=0), rtol=1e-12)


def test_the_last_steps_of_y_train_as_the_final_state_does():
    layer, readout = fastrnn.GRU(3, 6, dtype=F64, rng=0), Linear(6, 2, dtype=F64, rng=1)
    x = np.random.default_rng(2).standard_normal((T, B, 3))
    y, h_n, tape = layer.forward(x, lengths=LENGTHS)
    o, readout_tape = readout.forward(y, "last", LENGTHS)
    grads = tape.backward(readout_tape.backward(np.ones_like(o)).x)
    _, _, tape = layer.forward(x, lengths=LENGTHS)
    o_state, readout_tape = readout.forward(h_n[-1])
    other = tape.backward(dstate=readout_tape.backward(np.ones_like(o)).x[None])
    np.testing.assert_allclose(o, o_state, rtol=1e-14)
    np.testing.assert_allclose(grads.flat, other.flat, rtol=1e-12, atol=1e-15)


def test_a_model_with_ragged_rows_is_differentiated_as_a_whole():
    """Layer, readout at all steps, loss with lengths: the way of a language model."""
    layer, readout = fastrnn.LSTM(3, 5, dtype=F64, rng=0), Linear(5, O, dtype=F64, rng=1)
    rng = np.random.default_rng(2)
    x, target = rng.standard_normal((T, B, 3)), rng.integers(0, O, (T, B))
    y, _, tape = layer.forward(x, lengths=LENGTHS)
    o, readout_tape = readout.forward(y)
    _, do = softmax_cross_entropy(o, target, lengths=LENGTHS)
    readout_grads = readout_tape.backward(do)
    grads = tape.backward(readout_grads.x)
    for part, flat in ((layer, grads.flat), (readout, readout_grads.flat)):
        for k in rng.choice(flat.size, min(flat.size, 20), replace=False):
            value, step, losses = part.flat[k], 1e-5, []
            for shifted in (value + step, value - step):
                part.flat[k] = shifted
                losses.append(softmax_cross_entropy(readout(layer(x, lengths=LENGTHS)[0]), target, lengths=LENGTHS)[0])
            part.flat[k] = value
            assert flat[k] == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-6, abs=1e-9)


def test_the_state_of_a_readout():
    a, b = Linear(3, 2, rng=0), Linear(3, 2, rng=1)
    state = a.state_dict()
    b.load_state_dict(state)
    assert np.array_equal(a.flat, b.flat)
    state["weight"][:] = 0  # copies
    assert a.flat.any()
    before = b.flat.copy()
    with pytest.raises(KeyError, match="missing \\['bias'\\], unexpected \\['c'\\]"):
        b.load_state_dict({"weight": state["weight"], "c": state["bias"]})
    with pytest.raises(ValueError, match=r"bias: expected its shape = \(2,\), got \(3,\)"):
        b.load_state_dict({"weight": state["weight"], "bias": np.zeros(3, F32)})
    with pytest.raises(TypeError, match="bias: expected dtype float32, got float64"):
        b.load_state_dict({"weight": state["weight"], "bias": np.zeros(2)})
    with pytest.raises(TypeError, match="mapping: expected a mapping"):
        b.load_state_dict([state])
    assert np.array_equal(b.flat, before)


def test_the_vector_of_a_readout_may_be_changed_in_place_or_assigned():
    readout = Linear(3, 2, rng=0)
    flat = readout.flat
    before = flat.copy()
    readout.flat -= 1
    assert np.array_equal(readout.params["bias"], before[6:] - 1)
    readout.flat = before
    assert readout.flat is flat
    assert np.array_equal(flat, before)
    with pytest.raises(ValueError, match=r"flat: expected its shape = \(8,\), got \(3,\)"):
        readout.flat = np.zeros(3, F32)


BAD_STEPS = {
    "steps": (lambda r, h: r(h, "first"), ValueError, "steps: expected 'all' or 'last', got 'first'"),
    "lengths with all": (lambda r, h: r(h, lengths=LENGTHS), ValueError, "lengths: expected None with steps"),
    "a state": (lambda r, h: r(h[0], "last"), ValueError, 'h: expected (T, B, H) with steps="last", got shape (4, 6)'),
    "lengths": (lambda r, h: r(h, "last", [1, 2]), ValueError, "lengths: expected (B,) = (4,), got (2,)"),
    "batch_first": (lambda r, h: r(h, batch_first=1), TypeError, "batch_first: expected True or False, got 1"),
}


@pytest.mark.parametrize("case", BAD_STEPS)
def test_the_readouts_steps_name_the_argument_that_is_wrong(case):
    call, error, message = BAD_STEPS[case]
    with pytest.raises(error) as caught:
        call(Linear(6, 2), np.zeros((T, B, 6), F32))
    assert str(caught.value).startswith(message)


# --- reversing padded rows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("shape, dtype", [((T, B), np.int8), ((T, B, 3), F32), ((T, B, 2, 2), F64)])
def test_rows_are_reversed_within_their_own_length(shape, dtype, batch_first):
    x = (100 * np.random.default_rng(0).random(shape)).astype(dtype)
    wanted = x.copy()
    for b, n in enumerate(LENGTHS):
        wanted[:n, b] = x[:n, b][::-1]
    given = x.swapaxes(0, 1) if batch_first else x
    result = reverse_padded(given, LENGTHS, batch_first=batch_first)
    assert result.dtype == dtype
    assert result.flags.c_contiguous
    assert np.array_equal(result.swapaxes(0, 1) if batch_first else result, wanted)
    assert np.array_equal(reverse_padded(result, LENGTHS, batch_first=batch_first), given)
    whole = reverse_padded(given, batch_first=batch_first)
    assert np.array_equal(whole, given[:, ::-1] if batch_first else given[::-1])
    assert not np.shares_memory(whole, x)


def test_reversing_is_what_a_reverse_layer_does():
    layer = fastrnn.GRU(3, 4, rng=0)
    x = np.random.default_rng(1).standard_normal((T, B, 3)).astype(F32)
    w = [layer.params[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    backwards, h_n, _ = fastrnn.gru(x, *w, lengths=LENGTHS, reverse=True)
    y, (h,) = layer(reverse_padded(x, LENGTHS), lengths=LENGTHS)
    assert np.array_equal(reverse_padded(y, LENGTHS), backwards)
    assert np.array_equal(h, h_n)


BAD_REVERSE = {
    "list": (([[1, 2]],), TypeError, "x: expected a NumPy array, got list"),
    "vector": ((np.zeros(3),), ValueError, "x: expected at least 2 dimensions, got shape (3,)"),
    "lengths": ((np.zeros((2, 3)), [1, 2]), ValueError, "lengths: expected (B,) = (3,), got (2,)"),
    "too long": ((np.zeros((2, 3)), [1, 2, 3]), ValueError, "lengths: expected integers from 0 to T = 2, got 3 at row 2"),
}


@pytest.mark.parametrize("case", BAD_REVERSE)
def test_reversing_names_the_argument_that_is_wrong(case):
    arguments, error, message = BAD_REVERSE[case]
    with pytest.raises(error) as caught:
        reverse_padded(*arguments)
    assert str(caught.value).startswith(message)
