"""Packed sequences, without PyTorch: tests/test_torch_sweep.py compares them with its own where it is installed."""

from types import SimpleNamespace

import numpy as np
import pytest

import fastrnn
from stacks import Setup, Stack, assert_same_bits, named

LENGTHS = [3, 5, 1, 3]
CUT = {"reset": True, "mask": True, "hold": True}


def sequences(dtype=np.float32, T=5):
    return np.random.default_rng(0).standard_normal((T, 4, 3)).astype(dtype)


def test_the_order_of_rows_is_that_of_length():
    x = np.arange(5)[:, None] * 10 + np.arange(4)
    packed = fastrnn.pack(x, LENGTHS)
    assert packed.data.tolist() == [1, 0, 3, 2, 11, 10, 13, 21, 20, 23, 31, 41]
    assert packed.batch_sizes.tolist() == [4, 3, 3, 1, 1]
    assert packed.sorted_indices.tolist() == [1, 0, 3, 2] and packed.unsorted_indices.tolist() == [1, 0, 3, 2]


def test_an_order_that_is_not_its_own_inverse():
    packed = fastrnn.pack(np.arange(5)[:, None] * 10 + np.arange(4), [3, 1, 5, 3])
    assert packed.sorted_indices.tolist() == [2, 0, 3, 1] and packed.unsorted_indices.tolist() == [1, 3, 0, 2]
    x, lengths = fastrnn.unpack(packed)
    assert lengths.tolist() == [3, 1, 5, 3] and x[0].tolist() == [0, 1, 2, 3] and x[4].tolist() == [0, 0, 42, 0]


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "?", "U3"])
@pytest.mark.parametrize("more", [(), (3,), (3, 2)], ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
def test_unpack_undoes_pack(dtype, more, batch_first):
    x = np.random.default_rng(0).integers(1, 100, (4, 5, *more) if batch_first else (5, 4, *more)).astype(dtype)
    packed = fastrnn.pack(x, LENGTHS, batch_first)
    assert packed.data.shape == (12, *more) and packed.data.dtype == dtype
    padding = np.arange(5)[:, None] >= LENGTHS
    expected = x.copy()
    expected[padding.T if batch_first else padding] = np.zeros((), dtype)
    for total in (None, 5, 8):
        back, lengths = fastrnn.unpack(packed, batch_first, total)
        time_major = back.swapaxes(0, 1) if batch_first else back
        assert lengths.tolist() == LENGTHS and len(time_major) == (total or 5)
        assert np.array_equal(time_major[:5], expected.swapaxes(0, 1) if batch_first else expected)
        assert not (time_major[5:] != np.zeros((), dtype)).any()


@pytest.mark.parametrize("cell", ["tanh", "gru-before", "lstm-peephole"])
@pytest.mark.parametrize("options", [{}, {"batch_first": True, "L": 1}, CUT, {**CUT, "batch_first": True}], ids=str)
def test_a_packed_call_is_the_call_with_lengths(cell, options):
    setup = Setup(Stack(cell, T=5, **options))
    rows = {n: setup.arguments[n] for n in ("reset", "mask", "masked", "state") if n in setup.arguments}

    def packed(a):
        return fastrnn.pack(a, LENGTHS, setup.stack.batch_first)

    def run(turn, **given):
        inference, _ = setup.layer(**given, **rows)
        y, state, tape = setup.layer.forward(**given, **rows)
        doutputs = {n: turn(d) if "reverse" in n else d for n, d in setup.doutputs.items()}  # padded or packed, as one likes
        grads = tape.backward(turn(setup.dy), setup.dstate, {n: d for n, d in doutputs.items() if n[0] == "h"})
        return inference, y, state, grads

    x = setup.arguments["x"]
    inference, y, state, grads = run(packed, x=packed(x))
    _, expected_y, expected_state, expected = run(lambda a: a, x=x, lengths=LENGTHS)
    for got, array in ((y, expected_y), (inference, expected_y), (grads.x, expected.x)):
        assert isinstance(got, fastrnn.Packed)
        assert_same_bits(got._asdict(), packed(array)._asdict())
    assert_same_bits(named("state", state), named("state", expected_state))
    assert_same_bits(named("dstate", grads.state), named("dstate", expected.state))
    assert grads.flat.tobytes() == expected.flat.tobytes()


def test_whatever_has_the_four_attributes_is_packed():
    layer, packed = fastrnn.GRU(3, 5, rng=0), fastrnn.pack(sequences(), LENGTHS)
    y, _ = layer(packed)
    fields = packed._asdict()
    for one in (
        SimpleNamespace(**fields),
        SimpleNamespace(**{**fields, "unsorted_indices": None}),
        SimpleNamespace(**{**fields, "sorted_indices": None}),
        SimpleNamespace(**{n: a.astype("i4") if "ices" in n else a for n, a in fields.items()}),
        SimpleNamespace(**{**fields, "batch_sizes": [4, 3, 3, 1, 1]}),
    ):
        assert layer(one)[0].data.tobytes() == y.data.tobytes()


def test_without_indices_rows_are_in_the_order_of_length():
    layer, x = fastrnn.LSTM(3, 5, rng=0), sequences()
    packed = fastrnn.pack(x, [5, 3, 3, 1])
    plain = packed._replace(sorted_indices=None, unsorted_indices=None)
    (y, state), (same, other) = layer(packed), layer(plain)
    assert same.sorted_indices is None and same.data.tobytes() == y.data.tobytes()
    assert state[0].tobytes() == other[0].tobytes()


def test_a_packed_gradient_has_an_order_of_its_own():
    """Rows of one length may stand in any order: PyTorch's sort is not stable."""
    layer, x, dy = fastrnn.GRU(3, 5, rng=0), sequences(), np.random.default_rng(1).standard_normal((5, 4, 5)).astype(np.float32)
    assert LENGTHS[0] == LENGTHS[3] and PACKED.sorted_indices.tolist() == [1, 0, 3, 2]
    other = np.array([1, 3, 0, 2])
    rows = [[b for b in other if LENGTHS[b] > t] for t in range(5)]
    turned = PACKED._replace(
        data=np.concatenate([dy[t, rows[t]] for t in range(5)]), sorted_indices=other, unsorted_indices=np.argsort(other)
    )
    results = []
    for given in (fastrnn.pack(dy, LENGTHS), turned):
        _, _, tape = layer.forward(fastrnn.pack(x, LENGTHS))
        grads = tape.backward(given)
        results.append((grads.flat.tobytes(), grads.x.data.tobytes(), grads.x.sorted_indices.tolist()))
    assert results[0] == results[1]


def test_states_are_in_the_order_before_packing():
    layer, x = fastrnn.RNN(3, 5, rng=0), sequences()
    h = np.random.default_rng(1).standard_normal((1, 4, 5)).astype(np.float32)
    _, h_n = layer(fastrnn.pack(x, LENGTHS), h)
    for b, n in enumerate(LENGTHS):
        assert layer(x[:n, b : b + 1], h[:, b : b + 1])[1].tobytes() == h_n[:, b : b + 1].tobytes()


X = sequences()
PACKED = fastrnn.pack(X, LENGTHS)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((X, [3, 5, 0, 3]), ValueError, "lengths: expected the length of all samples to be greater than 0, got 0 at row 2"),
        ((X, [3, 6, 1, 3]), ValueError, "lengths: expected integers from 0 to T = 5, got 6 at row 1"),
        ((X, [3, 5, 1]), ValueError, r"lengths: expected \(B,\) = \(4,\), got \(3,\)"),
        ((X, [1.5] * 4), TypeError, "lengths: expected integers"),
        ((X, None), TypeError, "lengths: expected integers"),
        ((X[:, :0], []), ValueError, "lengths: expected the length of all samples to be greater than 0, got no rows"),
        ((X[0, 0], [1]), ValueError, r"x: expected at least 2 dimensions, got shape \(3,\)"),
        ((np.ma.array(X), LENGTHS), TypeError, "x: expected an array, got MaskedArray"),
    ],
)
def test_what_cannot_be_packed(arguments, error, message):
    with pytest.raises(error, match=f"^{message}"):
        fastrnn.pack(*arguments)


BROKEN = {
    "more data": ({"data": PACKED.data[:-1]}, ValueError, r"\.data: expected \(N, ...\) with N = 12, .*, got \(11, 3\)"),
    "rising": ({"batch_sizes": np.array([3, 4, 3, 1, 1])}, ValueError, r"\.batch_sizes: expected positive numbers that never rise"),
    "empty step": ({"batch_sizes": np.array([4, 4, 4, 0])}, ValueError, r"\.batch_sizes: expected positive numbers"),
    "floats": ({"batch_sizes": np.ones(12)}, TypeError, r"\.batch_sizes: expected \(T,\) integers, got float64"),
    "twice": ({"sorted_indices": np.array([0, 1, 1, 2])}, ValueError, r"\.sorted_indices: expected the numbers from 0 to"),
    "too few": ({"unsorted_indices": np.arange(3), "sorted_indices": None}, ValueError, r"\.unsorted_indices: expected"),
    "two orders": ({"unsorted_indices": np.arange(4)}, ValueError, r"\.unsorted_indices: expected the inverse of sorted_indices"),
    "beyond all numbers": ({"batch_sizes": np.array([2**62] * 4)}, ValueError, r"\.data: expected \(N, ...\) with N = 184467"),
    "no order": ({"sorted_indices": PACKED.sorted_indices.astype(float)}, ValueError, r"\.sorted_indices: expected the numbers"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_packed_sequences(what):
    change, error, message = BROKEN[what]
    broken = PACKED._replace(**change)
    with pytest.raises(error, match=rf"^x{message}"):
        fastrnn.GRU(3, 5)(broken)
    with pytest.raises(error, match=rf"^packed{message}"):
        fastrnn.unpack(broken)


def test_a_packed_sequence_that_does_not_fit():
    layer = fastrnn.GRU(3, 5, rng=0)
    with pytest.raises(TypeError, match=r"^packed: expected a packed sequence with data, batch_sizes, .*, got ndarray"):
        fastrnn.unpack(X)
    with pytest.raises(TypeError, match=r"^x.data: expected dtype float32, got float64"):
        layer(PACKED._replace(data=PACKED.data.astype(float)))
    with pytest.raises(ValueError, match=r"^x.data: expected \(N, I\) = \(12, 3\), got \(12, 2\)"):
        layer(PACKED._replace(data=PACKED.data[:, :2]))
    with pytest.raises(ValueError, match=r"^lengths: expected None for a packed x, which has its own, got list"):
        layer(PACKED, lengths=LENGTHS)
    y, _, tape = layer.forward(PACKED)
    for dy, error, message in (
        (fastrnn.pack(np.zeros((5, 4, 5), np.float32), [5, 3, 2, 2]), ValueError, r"^dy: expected rows of the lengths of x's"),
        (y._replace(data=y.data[:, :4]), ValueError, r"^dy.data: expected \(N, H\) = \(12, 5\), got \(12, 4\)"),
        (y.data, ValueError, r"^dy: expected \(T, B, H\) = \(5, 4, 5\), got \(12, 5\)"),
    ):
        with pytest.raises(error, match=message):
            tape.backward(dy)
    _, _, tape = layer.forward(X)
    with pytest.raises(TypeError, match=r"^dy: expected a NumPy array of float32, got Packed"):
        tape.backward(y)
