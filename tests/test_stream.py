"""A stream is the layer's call, bit for bit, however the sequence comes."""

import itertools
import pickle
import threading

import numpy as np
import pytest

import fastrnn

LAYERS = {
    "tanh": lambda **k: fastrnn.RNN(5, 19, **k),
    "relu": lambda **k: fastrnn.RNN(5, 19, nonlinearity="relu", **k),
    "lstm": lambda **k: fastrnn.LSTM(5, 19, **k),
    "lstm-peephole": lambda **k: fastrnn.LSTM(5, 19, peephole=True, **k),
    "gru-after": lambda **k: fastrnn.GRU(5, 19, **k),
    "gru-before": lambda **k: fastrnn.GRU(5, 19, reset_after=False, **k),
    "lstm-projected": lambda **k: fastrnn.LSTM(5, 33, proj_size=19, **k),
    "stack of gru": lambda **k: fastrnn.GRU(5, 19, 3, dropout=0.5, **k),
    "stack of lstm": lambda **k: fastrnn.LSTM(5, 19, 2, bias=False, batch_first=True, **k),
    "stack of lstm-projected": lambda **k: fastrnn.LSTM(5, 33, 2, proj_size=19, **k),
}
DTYPES = (np.float32, np.float64)


@pytest.fixture(params=LAYERS)
def cell(request):
    return request.param


def make(cell, dtype=np.float32, B=3, T=150):
    layer = LAYERS[cell](dtype=dtype, rng=7)
    layer.batch_first = False  # of the calls that streams are compared with
    return layer, np.random.default_rng(1).standard_normal((T, B, 5)).astype(dtype)


def members(state):
    return state if isinstance(state, tuple) else (state,)


def bits(*arrays):
    return [a.tobytes() for a in arrays]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("B", [1, 3, 9, 70])
def test_however_it_comes(cell, dtype, B, isa):
    layer, x = make(cell, dtype, B)
    whole, final = layer(x)
    for blocks in [1] * 150, [150], [64, 1, 0, 85], [2] * 75:
        stream, pieces, t = layer.stream(B), [], 0
        for n in blocks:
            pieces.append(stream(x[t])[None] if n == 1 else stream(x[t : t + n]))
            t += n
        assert np.concatenate(pieces).tobytes() == whole.tobytes(), blocks
        assert bits(*members(stream.state)) == bits(*members(final)), blocks


def test_one_row_without_a_batch(cell):
    layer, x = make(cell, B=1)
    stream = layer.stream()
    y = np.stack([stream(x_t) for x_t in x[:, 0]])
    assert y.shape == (150, 19)
    assert y.tobytes() == layer(x)[0].tobytes()


def test_out_is_filled_and_returned(cell):
    layer, x = make(cell)
    stream, out, block = layer.stream(3), np.empty((3, 19), np.float32), np.empty((149, 3, 19), np.float32)
    assert stream(x[0], out=out) is out
    assert stream(x[1:], block) is block
    assert bits(out, block) == bits(layer(x)[0][0], layer(x)[0][1:])


def test_state_is_read_and_written(cell):
    layer, x = make(cell)
    stream = layer.stream(3)
    stream(x[:100])
    kept = stream.state
    y = stream(x[100:])
    stream.state = kept
    assert stream(x[100:]).tobytes() == y.tobytes()
    stream.state = None
    assert stream(x).tobytes() == layer(x)[0].tobytes()


def test_state_is_a_copy(cell):
    layer, x = make(cell)
    stream = layer.stream(3)
    before = stream.state
    stream(x)
    assert not any(member.any() for member in members(before))


@pytest.mark.parametrize("rows", [1, [0, 2], (0, 2), [], slice(1, None), np.array([True, False, True]), None], ids=str)
def test_reset_starts_rows_from_zero(cell, rows):
    layer, x = make(cell)
    stream = layer.stream(3)
    stream(x[:100])
    stream.reset(rows)
    cut = np.zeros((150, 3), bool)
    cut[100, slice(None) if rows is None else list(rows) if isinstance(rows, tuple) else rows] = True
    assert stream(x[100:]).tobytes() == layer(x, reset=cut)[0][100:].tobytes()


@pytest.mark.parametrize("B", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", [int, np.uint8, np.int32, list])
def test_a_0_or_1_for_each_row_is_refused(B, kind):
    """As booleans and as indices they mean other rows."""
    stream = fastrnn.GRU(5, 19, rng=0).stream(B)
    stream(np.ones((B, 5), np.float32))
    before = stream.state
    for flags in itertools.product((0, 1), repeat=B):
        rows = list(flags) if kind is list else np.array(flags, kind)
        with pytest.raises(
            ValueError, match=r"^rows: expected an index of . rows, .*pass np.asarray\(rows, bool\) if they say which"
        ):
            stream.reset(rows)
    assert np.array_equal(stream.state, before)
    stream.reset(np.asarray(rows, bool))
    assert not stream.state.any()


def test_the_weights_are_a_snapshot(cell):
    layer, x = make(cell)
    stream, y = layer.stream(3), layer(x)[0]
    layer.flat[:] = 0
    assert stream(x).tobytes() == y.tobytes()


def test_any_layout_of_x(cell):
    layer, x = make(cell)
    stream, y = layer.stream(3), layer(x)[0]
    wide = np.zeros((150, 3, 10), np.float32)
    wide[:, :, ::2] = x
    unaligned = np.frombuffer(b"-" + x[50:].tobytes(), np.float32, offset=1).reshape(100, 3, 5)
    got = [stream(wide[:50, :, ::2]), stream(unaligned[:50]), stream(x[100:].astype(">f4"))]
    assert np.concatenate(got).tobytes() == y.tobytes()


def test_streams_in_many_threads(cell):
    layer, x = make(cell)
    results = [None] * 8

    def work(i):
        stream = layer.stream(3)
        results[i] = np.stack([stream(x_t) for x_t in x])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert {r.tobytes() for r in results} == {layer(x)[0].tobytes()}


X = np.zeros((2, 3, 5), np.float32)
SHARED = np.zeros(3 * 24, np.float32)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((X[0].tolist(),), TypeError, "x: expected a NumPy array of float32, got list"),
        ((X[0].astype(float),), TypeError, "x: expected dtype float32, got float64"),
        ((X[0, :2],), ValueError, r"x: expected \(B, I\) or \(n, B, I\) with B = 3, I = 5, got \(2, 5\)"),
        ((X[0, 0],), ValueError, r"x: expected \(B, I\) or"),
        ((X[:, :, :4],), ValueError, "x: expected .* I = 5"),
        ((X[None],), ValueError, "x: expected 1 or 2 or 3 dimensions"),
        ((X, np.zeros((2, 3, 18), np.float32)), ValueError, r"out: expected \(2, 3, 19\), got \(2, 3, 18\)"),
        ((X, np.zeros((3, 3, 19), np.float32)), ValueError, r"out: expected \(2, 3, 19\), got \(3, 3, 19\)"),
        ((X[0], np.zeros((1, 3, 19), np.float32)), ValueError, r"out: expected \(3, 19\), got \(1, 3, 19\)"),
        ((X[0], np.zeros((3, 19))), TypeError, "out: expected dtype float32, got float64"),
        ((X[0], [0] * 57), TypeError, "out: expected a NumPy array of float32, got list"),
        ((X[0], np.zeros((19, 3), np.float32).T), ValueError, "out: expected a writable"),
        ((X[0], np.broadcast_to(np.float32(0), (3, 19))), ValueError, "out: expected a writable"),
        ((SHARED[:15].reshape(3, 5), SHARED[14:71].reshape(3, 19)), ValueError, "out: expected memory apart from x"),
    ],
)
def test_bad_input_is_one_error_and_no_step(arguments, error, message):
    stream = fastrnn.LSTM(5, 19, rng=0).stream(3)
    with pytest.raises(error, match=message):
        stream(*arguments)
    assert not any(member.any() for member in stream.state)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True, None, "3"])
def test_bad_batch_size(batch_size):
    with pytest.raises((TypeError, ValueError), match="batch_size: expected an integer"):
        fastrnn.GRU(5, 19).stream(batch_size)


@pytest.mark.parametrize("state", [np.zeros((1, 3, 19), np.float32), (np.zeros((3, 19), np.float32),) * 2, 3, (None, None)])
def test_bad_state_changes_nothing(state):
    stream = fastrnn.LSTM(5, 19, rng=0).stream(3)
    stream(X + 1)
    before = bits(*stream.state)
    with pytest.raises((TypeError, ValueError), match="state"):
        stream.state = state
    assert bits(*stream.state) == before


BAD_ROWS = [3, "a", 1.5, [True], True, False, ..., (0, None), np.ones((3, 19), bool), np.zeros((1, 3), int)]


@pytest.mark.parametrize("rows", BAD_ROWS, ids=str)
def test_bad_rows(rows):
    stream = fastrnn.GRU(5, 19).stream(3)
    stream.state = np.ones((1, 3, 19), np.float32)
    with pytest.raises((IndexError, TypeError, ValueError), match="rows: expected an index of 3 rows"):
        stream.reset(rows)
    assert stream.state.all()


def test_a_stream_is_not_pickled():
    with pytest.raises(TypeError, match="pickle the layer"):
        pickle.dumps(fastrnn.GRU(5, 19).stream())


# --- stacks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [fastrnn.RNN, fastrnn.IRNN, fastrnn.GRU, fastrnn.LSTM])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_bidirectional_layer_cannot_stream(kind, num_layers):
    with pytest.raises(ValueError, match=r"^bidirectional: expected False, got True; .* reverse direction starts at the end"):
        kind(3, 4, num_layers, bidirectional=True).stream()


def test_the_state_of_a_stack_has_all_layers():
    layer, x = make("stack of lstm-projected")
    stream = layer.stream(3)
    stream(x[:9])
    assert [m.shape for m in stream.state] == [(2, 3, 19), (2, 3, 33)]
    assert bits(*stream.state) == bits(*layer(x[:9])[1])
    stream.state = tuple(2 * m for m in stream.state)
    assert stream(x[9:]).tobytes() == layer(x[9:], tuple(2 * m for m in layer(x[:9])[1]))[0].tobytes()
    with pytest.raises(ValueError, match=r"^state\[1\]: expected \(L, B, H\) = \(2, 3, 33\), got \(1, 3, 33\)"):
        stream.state = tuple(m[:1] if m.shape[2] == 33 else m for m in stream.state)


@pytest.mark.parametrize("x", [X, X[0]], ids=["block", "step"])
@pytest.mark.parametrize("out", [np.zeros(1, np.float32), np.zeros((2, 3, 19)), [0], np.zeros((2, 19, 3), "f4").swapaxes(1, 2)])
def test_no_layer_of_a_stack_steps_where_out_is_refused(x, out):
    layer = fastrnn.GRU(5, 19, 3, rng=0)
    stream = layer.stream(3)
    for given, error in (((x, out), (TypeError, ValueError)), ((x[..., :4],), ValueError), ((x.tolist(),), TypeError)):
        with pytest.raises(error, match=r"^(x|out): expected"):
            stream(*given)
    assert not stream.state.any()
    assert stream(X).tobytes() == layer(X)[0].tobytes()


def test_streams_of_a_stack_are_apart():
    layer, x = make("stack of gru")
    one, other = layer.stream(3), layer.stream(3)
    kept = [one(x_t) for x_t in x]  # what came out stays as it was
    other(x[::-1])
    assert np.stack(kept).tobytes() == layer(x)[0].tobytes()
