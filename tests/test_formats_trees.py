"""Formats whose arrays have several names, scopes or orders: TensorFlow 1, CuDNN's layers of Keras 2, TensorFlow Lite,
PaddlePaddle, textbooks; and what the errors say of weights that are of another format or transposed."""

import re

import numpy as np
import pytest

import fastrnn
from fastrnn import formats
from other_cells import SYSTEMS
from test_formats import assert_same, draw


def lstm(**more):
    return fastrnn.LSTM(3, 4, dtype=np.float64, rng=0, **more)


def named(weights, scope):
    """As a checkpoint has them."""
    return {f"{scope}{name}:0": array for name, array in weights.items()}


# --- TensorFlow 1 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["", "rnn/basic_lstm_cell/", "model/rnn/multi_rnn_cell/cell_0/lstm_cell/"])
def test_tf1_variables_by_their_names(scope):
    layer = lstm()
    weights = layer.export_weights("tf1")
    other = fastrnn.LSTM.from_weights(named(weights, scope), "tf1")
    assert_same(other.export_weights("tf1"), weights)


@pytest.mark.parametrize(
    "scope, layers, directions",
    [
        ("bidirectional_rnn/{way}/gru_cell/", 1, 2),
        ("rnn/multi_rnn_cell/cell_{layer}/gru_cell/", 12, 1),
        ("stack_bidirectional_rnn/cell_{layer}/bidirectional_rnn/{way}/gru_cell/", 3, 2),
    ],
)
def test_tf1_directions_and_layers(scope, layers, directions):
    layer = fastrnn.GRU(3, 4, layers, bidirectional=directions == 2, reset_after=False, dtype=np.float64, rng=0)
    units = layer.export_weights("tf1")
    variables = {}
    for k, both in enumerate(units if isinstance(units, list) else [units]):
        for way, cell in zip(("fw", "bw"), both if directions == 2 else [both]):
            flat = {f"{part}/{kind}": cell[part][kind] for part in ("gates", "candidate") for kind in ("bias", "kernel")}
            variables |= named(flat, scope.format(layer=k, way=way))
    shuffled = dict(sorted(variables.items()))  # as tf.train.list_variables has them: cell_10 before cell_2
    other = fastrnn.GRU.from_weights(shuffled, "tf1")
    assert (other.num_layers, other.bidirectional) == (layers, directions == 2)
    assert_same(other.export_weights("tf1"), units)


def test_tf1_scopes_that_are_no_layer():
    cell = fastrnn.LSTM(4, 4, dtype=np.float64, rng=0).export_weights("tf1")
    two = named(cell, "encoder/lstm_cell/") | named(cell, "decoder/lstm_cell/")
    with pytest.raises(KeyError, match=r"got the scopes \['decoder/lstm_cell/', 'encoder/lstm_cell/'\].*prefix 'encoder/'"):
        fastrnn.LSTM.from_weights(two, "tf1")
    strangers = named(cell, "encoder/fw/lstm_cell/") | named(cell, "decoder/bw/lstm_cell/")
    with pytest.raises(KeyError, match="got the scopes"):
        fastrnn.LSTM.from_weights(strangers, "tf1")
    gap = named(cell, "rnn/cell_0/lstm_cell/") | named(cell, "rnn/cell_2/lstm_cell/")
    with pytest.raises(KeyError, match="got the scopes"):
        fastrnn.LSTM.from_weights(gap, "tf1")
    lonely = named(cell, "bw/cell_0/") | named(cell, "fw/cell_1/")
    with pytest.raises(KeyError, match="got the scopes"):
        fastrnn.LSTM.from_weights(lonely, "tf1")
    stacks = {}
    for way in ("fw", "bw"):
        for k in (0, 1):
            stacks |= named(cell, f"birnn/{way}/multi_rnn_cell/cell_{k}/lstm_cell/")
    with pytest.raises(KeyError, match="MultiRNNCell in each of fw and bw, where each direction reads itself alone"):
        fastrnn.LSTM.from_weights(stacks, "tf1")
    with pytest.raises(KeyError, match=r"unexpected \['rnn/lstm_cell/kernel/Adam'\]"):
        fastrnn.LSTM.from_weights(named(cell, "rnn/lstm_cell/") | {"rnn/lstm_cell/kernel/Adam": cell["kernel"]}, "tf1")


@pytest.mark.parametrize("forget_bias", [1.0, 0.0, 0.25])
def test_tf1_forget_bias_is_added_and_taken_back(forget_bias):
    weights = lstm().export_weights("tf1")
    form = formats.tf1(forget_bias)
    layer = fastrnn.LSTM.from_weights(weights, form)
    biases = layer.params["bias_ih_l0"] + layer.params["bias_hh_l0"]
    i, j, f, o = np.split(weights["bias"], 4)
    np.testing.assert_array_equal(biases, np.concatenate([i, f + forget_bias, j, o]))
    assert_same(layer.export_weights(form), weights)


def test_tf1_projections():
    layer = lstm(proj_size=2)
    weights = layer.export_weights("tf1")
    assert weights["projection"]["kernel"].shape == (4, 2) and weights["kernel"].shape == (5, 16)
    other = fastrnn.LSTM.from_weights(weights, "tf1")
    x = np.random.default_rng(1).standard_normal((5, 2, 3))
    np.testing.assert_allclose(other(x)[0], layer(x)[0], rtol=0, atol=1e-12)


# --- CuDNN's layers of Keras 2 ----------------------------------------------------------------------------------------


def keras_converts(weights, gates):
    """Keras 2.3, engine/saving.py, _convert_rnn_weights, from CuDNN: the kernels."""

    def transformed(kernels, function):
        return np.hstack([function(k) for k in np.hsplit(kernels, gates)])

    return transformed(weights[0], lambda k: k.T.reshape(k.shape, order="F")), transformed(weights[1], lambda k: k.T)


@pytest.mark.parametrize("kind, gates, form", [(fastrnn.LSTM, 4, "lstm"), (fastrnn.GRU, 3, "gru_after")])
@pytest.mark.parametrize("I, H", [(3, 5), (4, 4), (6, 2)])
def test_cudnn_weights_as_keras_converts_them(kind, gates, form, I, H):
    weights, _ = SYSTEMS["cudnn-keras", form](draw(np.random.default_rng(0)), I, H)
    back = [a.copy() for a in weights]
    layers = [kind.from_weights(weights, name) for name in ("cudnn-keras", "keras")]
    for kernel, converted in zip(layers[0].export_weights("keras"), keras_converts(weights, gates)):
        assert np.array_equal(kernel, converted)
    assert np.array_equal(layers[0].flat, layers[1].flat)
    layers[1].flat[:] = 0
    layers[1].load_weights(weights, "keras")
    assert np.array_equal(layers[0].flat, layers[1].flat)
    assert_same(layers[0].export_weights("cudnn-keras"), back)


def test_cudnn_weights_in_two_directions_come_as_keras_too():
    layer = lstm(bidirectional=True)
    weights = layer.export_weights("cudnn-keras")
    assert [w.shape for w in weights] == [(3, 16), (4, 16), (32,)] * 2
    assert np.array_equal(fastrnn.LSTM.from_weights(weights, "keras").flat, layer.flat)


def test_a_bias_of_neither_of_keras_layers():
    weights = lstm().export_weights("cudnn-keras")
    weights[2] = weights[2][:-1]
    with pytest.raises(ValueError, match=r"bias: expected \(4\*H,\) with H = 4, I = 3, got \(31,\)"):
        fastrnn.LSTM.from_weights(weights, "keras")
    with pytest.raises(ValueError, match="format: cudnn-keras has no GRU with reset_after=False"):
        fastrnn.GRU(3, 4, reset_after=False).export_weights("cudnn-keras")


# --- TensorFlow Lite, PaddlePaddle ------------------------------------------------------------------------------------


def test_tflite_tensors_by_their_places():
    layer = lstm(peephole=True)
    weights = layer.export_weights("tflite")
    places = [f"input_to_{g}_weights" for g in ("input", "forget", "cell", "output")]
    places += [name.replace("input_to", "recurrent_to") for name in places]
    places += [f"cell_to_{g}_weights" for g in ("input", "forget", "output")]
    places += [f"{g}_gate_bias" for g in ("input", "forget", "cell", "output")]
    numbered = {k: weights[name] for k, name in enumerate(places, 1)}
    assert len(numbered) == len(weights) == 15
    assert_same(fastrnn.LSTM.from_weights(numbered, "tflite").export_weights("tflite"), weights)
    with pytest.raises(KeyError, match=r"unexpected \['input_to_input_weights'\]|unexpected \['1'\]"):
        fastrnn.LSTM.from_weights(numbered | {"input_to_input_weights": weights["input_to_input_weights"]}, "tflite")
    with pytest.raises(KeyError, match=r"missing \['input_to_input_weights'"):  # coupled gates
        fastrnn.LSTM.from_weights({k: array for k, array in numbered.items() if k not in (1, 5, 9, 12)}, "tflite")


def test_tflite_projections():
    layer = lstm(proj_size=2)
    other = fastrnn.LSTM.from_weights(layer.export_weights("tflite"), "tflite")
    x = np.random.default_rng(1).standard_normal((5, 2, 3))
    np.testing.assert_allclose(other(x)[0], layer(x)[0], rtol=0, atol=1e-12)


def test_paddle_update_gates_either_way():
    weights, step = SYSTEMS["paddle", "gru_before"](draw(np.random.default_rng(0)), 3, 5)
    numbered = {re.sub(r"^(fc|gru)", r"\1_7", name): array for name, array in weights.items()}
    one, other = (fastrnn.GRU.from_weights(numbered, formats.paddle(origin_mode=mode)) for mode in (False, True))
    x = np.random.default_rng(1).standard_normal((1, 2, 3))
    h = np.random.default_rng(2).standard_normal((1, 2, 5))
    np.testing.assert_allclose(one(x, h)[0] + other(x, h)[0], h + candidate(weights, x[0], h[0]), rtol=0, atol=1e-12)
    np.testing.assert_allclose(one(x, h)[0][0], step(x[0], h[0]), rtol=0, atol=1e-12)


def candidate(w, x, h):
    """c of the paddle system, for u h + (1 - u) c and its mirror, whose sum is h + c."""
    _, r, c = np.split(x @ w["fc.w_0"] + w["fc.b_0"] + w["gru.b_0"], 3, axis=1)
    W_ur, W_c = w["gru.w_0"].ravel()[:50].reshape(5, 10), w["gru.w_0"].ravel()[50:].reshape(5, 5)
    return np.tanh(c + (h / (1 + np.exp(-(r + h @ W_ur[:, 5:])))) @ W_c)


def test_paddle_two_layers_in_one_mapping_are_not_mixed():
    weights = fastrnn.GRU(3, 4, reset_after=False, dtype=np.float64, rng=0).export_weights("paddle")
    twice = {name.replace(".", f"_{k}."): array for k in (0, 1) for name, array in weights.items()}
    with pytest.raises(KeyError, match=r"unexpected \['fc_1.w_0', 'fc_1.b_0', 'gru_1.w_0', 'gru_1.b_0'\]"):
        fastrnn.GRU.from_weights(twice, "paddle")


# --- textbooks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("H", [1, 5])
@pytest.mark.parametrize("bias", [lambda b: b, lambda b: b[:, None], lambda b: b[None]], ids=["(H,)", "(H, 1)", "(1, H)"])
@pytest.mark.parametrize("turn", [lambda W: W, lambda W: W.T], ids=["(H, H+I)", "(H+I, H)"])
@pytest.mark.parametrize("letters", ["fico", "fiCo"])
def test_textbook_matrices_either_way(letters, turn, bias, H):
    weights, step = SYSTEMS["textbook", "lstm"](draw(np.random.default_rng(0)), 3, H)
    bar = "_" if "C" in letters else ""
    theirs = {f"W{bar}{gate}": turn(weights[f"W{gate.lower()}"]) for gate in letters}
    theirs |= {f"b{bar}{gate}": bias(weights[f"b{gate.lower()}"]) for gate in letters}
    layer = fastrnn.LSTM.from_weights(theirs, "textbook")
    assert_same(layer.export_weights("textbook"), weights)
    x, h, c = (np.random.default_rng(1).standard_normal((2, n)) for n in (3, H, H))
    y, _ = layer(x[None], (h[None], c[None]))
    np.testing.assert_allclose(y[0], step(x, h, c)[0], rtol=0, atol=1e-12)
    inputs_first = {name: np.roll(a, 3, axis=1) if name[0] == "W" else a for name, a in weights.items()}
    other = fastrnn.LSTM.from_weights(inputs_first, formats.textbook(first="x"))
    assert np.array_equal(other.flat, layer.flat)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: formats.textbook("y"), ValueError, "first: expected 'h' or 'x', got 'y'"),
        (lambda: formats.tf1("1"), TypeError, "forget_bias: expected a number, got '1'"),
        (lambda: formats.paddle(1), TypeError, "origin_mode: expected True or False, got 1"),
    ],
)
def test_bad_arguments_of_formats(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- what errors say --------------------------------------------------------------------------------------------------


def turned(weights):
    return {name: array.T for name, array in weights.items()}


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("tf1", lambda w: w | {"kernel": w["kernel"].T}, r"kernel: expected \(I\+H, 4\*H\).*; they fit with kernel transposed$"),
        ("haste", turned, "; they fit with every matrix transposed$"),
        ("keras", lambda w: [w[0], w[1].T, w[2]], r"; they fit with weights\[1\] transposed$"),
        ("pytorch", turned, "; they fit with every matrix transposed$"),
        ("tflite", lambda w: lstm().export_weights("textbook"), "; they fit the format 'textbook'$"),
        ("tf1", lambda w: lstm().export_weights("haste"), "; they fit the format 'haste'$"),
        ("haste", lambda w: lstm().export_weights("tf1"), "; they fit the format 'tf1'$"),
        ("keras", lambda w: lstm().export_weights("dynet"), "; they fit with every matrix transposed or the format 'dynet'$"),
        ("cudnn-keras", lambda w: w[:2] + [w[2][:16]], "; they fit the format 'keras'$"),
        ("pytorch", lambda w: lstm().export_weights("tflite"), "; they fit the format 'tflite'$"),
    ],
)
def test_errors_name_the_transposed_and_the_neighbouring_format(name, change, message):
    with pytest.raises((KeyError, ValueError, TypeError)) as raised:
        fastrnn.LSTM.from_weights(change(lstm().export_weights(name)), name)
    assert re.search(message, str(raised.value.args[0])), raised.value


def test_errors_say_nothing_of_what_fits_nothing():
    with pytest.raises(KeyError, match=r"missing \['bias'\], unexpected \[\]\W*$"):
        fastrnn.LSTM.from_weights({"kernel": np.zeros((7, 16))}, "tf1")
