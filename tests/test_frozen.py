"""Frozen layers and cells: the bits of the layer that they were made of, whatever becomes of it."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastrnn
from stacks import Setup, table
from test_plain import KINDS, Subclass, not_plain, parts
from test_single_steps import MAKERS

FLOATS = (np.float32, np.float64)


@pytest.fixture
def num_threads():
    before = fastrnn.get_num_threads()
    yield
    fastrnn.set_num_threads(before)


@pytest.mark.parametrize("stack", table(), ids=str)
def test_every_option_of_a_call(stack, own):
    setup = Setup(stack)
    assert parts(setup.layer.frozen()(**setup.arguments)) == parts(setup.layer(**setup.arguments))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", FLOATS)
def test_plain_calls_of_all_lengths(kind, threads, dtype, isa, small_work_is_shared_out, num_threads):
    fastrnn.set_num_threads(threads)
    layer, rng = KINDS[kind](6, 21, dtype=dtype, rng=0), np.random.default_rng(0)
    frozen = layer.frozen()
    for T, B in ((1, 1), (1, 5), (3, 1), (30, 1), (2, 40)):
        x = rng.standard_normal((T, B, 6)).astype(dtype)
        assert parts(frozen(x)) == parts(frozen(not_plain(x))) == parts(layer(x)), (T, B)


def test_a_packed_sequence(own):
    layer = fastrnn.LSTM(3, 5, num_layers=2, bidirectional=True, rng=0)
    packed = fastrnn.pack(np.random.default_rng(0).standard_normal((7, 3, 3), np.float32), [3, 7, 2])
    (y, state), (expected, expected_state) = layer.frozen()(packed), layer(packed)
    assert parts((y.data, state)) == parts((expected.data, expected_state))


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("B", [1, 20])
def test_cells(kind, B, isa):
    cell, rng = MAKERS[kind](6, 21, rng=0), np.random.default_rng(0)
    frozen, state, expected = cell.frozen(), None, None
    for x in rng.standard_normal((4, B, 6), np.float32):
        general = frozen(x.view(Subclass), state)
        state, expected = frozen(x, state), cell(x, expected)
        assert parts(state) == parts(general) == parts(expected)


def test_the_weights_are_a_snapshot_that_nobody_changes(own):
    layer, x = fastrnn.GRU(3, 4, rng=0), np.ones((2, 1, 3), np.float32)
    frozen, before = layer.frozen(), layer(x)
    flat = layer.flat.copy()
    layer.flat[:] = 0
    assert parts(frozen(x)) == parts(frozen(not_plain(x))) == parts(before)
    assert parts(frozen.flat) == parts(flat) and frozen.dtype == np.float32 and list(frozen.params) == list(layer.params)
    for array in (frozen.flat, *frozen.params.values()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_another_instruction_set_does_not_matter(use):
    use(gemm="own")
    layer, x = fastrnn.LSTM(5, 40, dtype=np.float64, rng=0), np.ones((3, 2, 5))
    frozen = layer.frozen()
    expected = parts(frozen(x))
    for isa in fastrnn.available_isas():
        use(isa=isa)
        assert parts(frozen(x)) == parts(frozen(not_plain(x))) == expected, isa


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda frozen: pickle.loads(pickle.dumps(frozen))])
def test_copies_and_pickles(again, own):
    layer, cell = fastrnn.LSTM(3, 4, num_layers=2, bidirectional=True, rng=0), fastrnn.GRUCell(3, 4, rng=0)
    x = np.random.default_rng(0).standard_normal((2, 1, 3), np.float32)
    assert parts(again(layer.frozen())(x)) == parts(layer(x))
    assert parts(again(cell.frozen())(x[0])) == parts(cell(x[0]))
    assert repr(again(layer.frozen())) == f"{layer!r}.frozen()"
    with pytest.raises(ValueError, match="read-only"):
        again(cell.frozen()).flat[0] = 1


def test_many_threads_call_one(own):
    layer = fastrnn.LSTM(5, 19, num_layers=2, rng=0)
    frozen = layer.frozen()
    inputs = [np.random.default_rng(k).standard_normal((9, 4, 5)).astype(np.float32) for k in range(64)]
    expected = [parts(layer(x)) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        assert [parts(result) for result in pool.map(frozen, inputs)] == expected


def test_a_wrong_argument_is_the_layer_s_error(own):
    frozen = fastrnn.GRU(3, 4, rng=0).frozen()
    with pytest.raises(ValueError, match="x: expected the last axis to be equal to input_size = 3"):
        frozen(np.ones((2, 1, 4), np.float32))
    with pytest.raises(TypeError, match="x: expected dtype float32"):
        fastrnn.GRUCell(3, 4, rng=0).frozen()(np.ones((1, 3)))
    with pytest.raises(ValueError, match="bidirectional: expected False"):
        fastrnn.GRU(3, 4, bidirectional=True, rng=0).frozen().stream()


@pytest.mark.parametrize("kind", KINDS)
def test_its_streams(kind, own):
    layer = KINDS[kind](3, 18, num_layers=2, rng=0)
    frozen, x = layer.frozen(), np.random.default_rng(0).standard_normal((6, 2, 3), np.float32)
    expected = parts(layer(x)[0])
    layer.flat[:] = 0
    streams = [frozen.stream(2) for _ in range(2)]
    streams[1].refresh()  # the same weights
    for stream in streams:
        assert parts(np.stack([stream(x_t) for x_t in x])) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_refresh_takes_the_weights_of_now_and_keeps_the_state(kind, own):
    layer, other = (KINDS[kind](3, 18, num_layers=2, rng=seed) for seed in (0, 1))
    x = np.random.default_rng(0).standard_normal((6, 2, 3), np.float32)
    stream = layer.stream(2)
    stream(x[:3])
    layer.flat[:] = other.flat
    unchanged = layer.stream(2)
    unchanged.state = stream.state
    stream.refresh()
    layer.flat[:] = np.nan
    assert parts(stream(x[3:])) == parts(unchanged(x[3:]))
    assert parts(stream.state) == parts(unchanged.state)


def test_a_refresh_while_another_call_is_in_the_stream_changes_nothing(own):
    layer, x = fastrnn.LSTM(3, 18, num_layers=3, rng=0), np.ones((6, 2, 3), np.float32)
    stream, expected = layer.stream(2), parts(layer(x)[0])
    layer.flat[:] = 0
    with stream._in_use, pytest.raises(RuntimeError, match="stream: in use"):
        stream.refresh()
    assert parts(stream(x)) == expected


def test_a_cell_with_a_call_of_its_own(own):
    class Half(fastrnn.GRUCell):
        def __call__(self, x, state=None):
            return super().__call__(x / 2, state)

    cell, x = Half(3, 4, rng=0), np.ones((2, 3), np.float32)
    assert parts(cell.frozen()(x)) == parts(cell(x)) != parts(fastrnn.GRUCell(3, 4, rng=0)(x))
