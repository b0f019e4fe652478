"""fastrnn.compat.madmom against madmom's equations, and where madmom is installed against its layers and its trained networks."""

import collections
import collections.abc
import copy
import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastrnn.compat import madmom as ours
from other_cells import SYSTEMS

I, H, T = 3, 5, 7


def draw(dtype):
    rng = np.random.default_rng(0)
    return lambda *shape: (rng.uniform(-1, 1, shape)).astype(dtype)


def layer_and_step(form, dtype=np.float32, **more):
    """A layer of ours with random arrays, and one step of the equations with the same."""
    w, step = SYSTEMS["madmom", form](draw(dtype), I, H)
    if form == "rnn":
        return ours.RecurrentLayer(**w, **more), step
    gates = {name: (ours.Gate if name != "cell" else ours.GRUCell if form == "gru_after" else ours.Cell)(**w[name]) for name in w}
    return (ours.GRULayer if form == "gru_after" else ours.LSTMLayer)(**gates, **more), step


def run(step, form, data, h, c=None):
    outs = []
    for x in data:
        if form == "lstm":
            h, c = (s[0] for s in step(x[None], h[None], c[None]))
        else:
            h = step(x[None], h[None])[0]
        outs.append(h)
    return np.array(outs).reshape(len(data), H)


FORMS = ["rnn", "gru_after", "lstm"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layers(form, dtype):
    layer, step = layer_and_step(form, dtype)
    data = np.random.default_rng(1).standard_normal((T, I)).astype(dtype)
    zero = np.zeros(H)
    out = layer(data)
    assert out.dtype == (dtype if form == "rnn" else np.float32)
    tolerance = 1e-12 if out.dtype == np.float64 else 1e-6
    np.testing.assert_allclose(out, run(step, form, data, zero, zero), rtol=0, atol=tolerance)
    assert np.array_equal(layer.activate(data), out)
    assert np.array_equal(np.concatenate([layer(data[:2]), layer(data[2:3], reset=False), layer(data[3:], reset=False)]), out)
    assert layer(data[:0]).shape == (0, H)


@pytest.mark.parametrize("form", FORMS)
def test_initial_states(form):
    init, cell_init, other = np.random.default_rng(2).standard_normal((3, H)).astype(np.float32)
    more = {"init": init} | ({"cell_init": cell_init} if form == "lstm" else {})
    layer, step = layer_and_step(form, **more)
    data = np.random.default_rng(3).standard_normal((T, I)).astype(np.float32)
    np.testing.assert_allclose(layer(data), run(step, form, data, init, cell_init), rtol=0, atol=1e-6)
    layer.reset(other)
    np.testing.assert_allclose(layer(data, reset=False), run(step, form, data, other, cell_init), rtol=0, atol=1e-6)
    layer.reset()
    np.testing.assert_allclose(layer(data, reset=False), run(step, form, data, init, cell_init), rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_copies_and_wider_data(form):
    layer, step = layer_and_step(form)
    data = np.random.default_rng(4).standard_normal((T, I))
    out = layer(data)
    zero = np.zeros(H)
    np.testing.assert_allclose(out, run(step, form, data, zero, zero), rtol=0, atol=1e-12 if form == "rnn" else 1e-6)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert np.array_equal(twin(data[2:], reset=False), twin(data[2:]))  # a copy starts anew
        assert np.array_equal(twin(data), out)
    assert np.array_equal(layer((10 * data).astype(int)), layer((10 * data).astype(int).astype(float)))


def test_both_directions():
    forward, backward = layer_and_step("lstm")[0], layer_and_step("gru_after")[0]
    data = np.random.default_rng(5).standard_normal((T, I)).astype(np.float32)
    out = ours.BidirectionalLayer(forward, backward)(data)
    assert np.array_equal(out, np.hstack([forward(data), backward(data[::-1])[::-1]]))


def test_relu_and_functions_of_others():
    w, _ = SYSTEMS["madmom", "rnn"](draw(np.float64), I, H)
    layer = ours.RecurrentLayer(**w, activation_fn=lambda x: np.where(x > 0, x, 0))
    data, h = np.random.default_rng(6).standard_normal((T, I)), np.zeros(H)
    for x, y in zip(data, layer(data), strict=True):
        h = np.maximum(x @ w["weights"] + w["bias"] + h @ w["recurrent_weights"], 0)
        np.testing.assert_allclose(y, h, rtol=0, atol=1e-12)
    x = np.linspace(-800, 800, 9)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(ours.sigmoid(x), 1 / (1 + np.exp(-x)), rtol=0, atol=1e-16)
    for function in (ours.sigmoid, ours.tanh, ours.relu):
        out = np.empty_like(x)
        assert function(x, out=out) is out
        assert np.array_equal(out, function(x))


def test_arrays_cannot_be_written_to():
    layer, _ = layer_and_step("lstm")
    with pytest.raises(ValueError, match="read-only"):
        layer.cell.weights[0] = 1
    with pytest.raises(AttributeError):
        layer.cell.weights = np.zeros((I, H))
    with pytest.raises(ValueError, match="read-only"):
        layer_and_step("rnn")[0].weights[0] = 1


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: gate(activation_fn=np.tanh),
            ValueError,
            "activation_fn: expected sigmoid, got 'tanh'; the kernels have no others",
        ),
        (
            lambda: ours.RecurrentLayer(**arrays(), activation_fn=np.sin),
            ValueError,
            "activation_fn: expected tanh or relu, got 'sin'",
        ),
        (lambda: ours.RecurrentLayer(**arrays(), activation_fn=None), ValueError, "activation_fn: expected tanh or relu, got None"),
        (lambda: ours.LSTMLayer(gate(), gate(), cell(), gate(), ours.relu), ValueError, "activation_fn: expected tanh, got 'relu'"),
        (lambda: ours.RecurrentLayer(**arrays(), init=np.zeros(4)), ValueError, r"init: expected \(H,\) = \(5,\), got \(4,\)"),
        (
            lambda: ours.GRULayer(gate(), gate(bias=np.zeros(4)), cell()),
            ValueError,
            r"update_gate/bias: expected \(H,\) with H = 5, I = 3, got",
        ),
        (lambda: layer_and_step("rnn")[0](np.zeros(3)), ValueError, r"data: expected \(T, I\), got \(3,\)"),
        (lambda: layer_and_step("rnn")[0](np.zeros((2, 4))), ValueError, "x: expected the last axis to be equal to input_size = 3"),
        (lambda: layer_and_step("rnn")[0]("abc"), TypeError, "data: expected an array of real numbers"),
        (lambda: layer_and_step("rnn")[0].reset(np.zeros(2)), ValueError, r"init: expected \(H,\) = \(5,\)"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def arrays(**change):
    return {"weights": np.zeros((I, H)), "bias": np.zeros(H), "recurrent_weights": np.zeros((H, H))} | change


def gate(**change):
    return ours.Gate(**arrays(**change))


def cell():
    return ours.Cell(**arrays())


def test_what_is_not_recurrent_stays():
    head, other = SimpleNamespace(weights=1), ours.BidirectionalLayer(1, 2)
    network = SimpleNamespace(layers=[head, other])
    assert ours.accelerate(network) is network
    assert network.layers == [head, other]


# --- beside madmom itself -------------------------------------------------------------------------------------------


@pytest.fixture
def madmom(monkeypatch):
    """madmom.ml.nn; its release asks for names that Python and NumPy have dropped since."""
    for name in ("Callable", "Iterable", "Mapping", "MutableMapping", "MutableSequence", "Sequence"):
        monkeypatch.setattr(collections, name, getattr(collections.abc, name), raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in (float, int, bool, object):
            monkeypatch.setattr(np, kind.__name__, kind, raising=False)
        yield pytest.importorskip("madmom.ml.nn", reason="madmom is not installed")


@pytest.mark.parametrize("form", FORMS)
def test_beside_madmom(madmom, form):
    layers = madmom.layers
    w, _ = SYSTEMS["madmom", form](draw(np.float32), I, H)
    if form == "rnn":
        their = layers.RecurrentLayer(**w, activation_fn=layers.tanh)
    else:
        kinds = {"cell": layers.GRUCell if form == "gru_after" else layers.Cell}
        their = (layers.GRULayer if form == "gru_after" else layers.LSTMLayer)(**{k: kinds.get(k, layers.Gate)(**w[k]) for k in w})
    network = madmom.NeuralNetwork([layers.BidirectionalLayer(their, copy.deepcopy(their)), their])
    data = np.random.default_rng(7).standard_normal((40, I)).astype(np.float32)
    expected = network.layers[0](data)
    assert ours.accelerate(network) is network
    assert all(
        isinstance(layer, ours.Layer) for layer in (network.layers[0].fwd_layer, network.layers[0].bwd_layer, network.layers[1])
    )
    out = network.layers[0](data)
    assert (out.dtype, out.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-6)


NETWORKS = {  # trained networks in madmom's wheel, and the size of their input
    "beats/2015/beats_blstm_1": 266,
    "beats/2016/beats_lstm_1": 162,
    "downbeats/2016/downbeats_bgru_harmonic_0": 24,
    "downbeats/2016/downbeats_bgru_rhythmic_0": 180,
    "downbeats/2016/downbeats_blstm_1": 314,
    "notes/2013/notes_brnn": 482,
    "onsets/2013/onsets_brnn_1": 266,
    "onsets/2013/onsets_rnn_1": 236,
    "onsets/2014/onsets_brnn_pp_1": 1,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_trained_networks_of_madmom(madmom, name):
    path = Path(madmom.__file__).parents[2] / "models" / f"{name}.pkl"
    network, data = madmom.NeuralNetwork.load(str(path)), np.random.default_rng(8).random((200, NETWORKS[name]), dtype=np.float32)
    expected = network(data)
    ours.accelerate(network)
    inner = [part for layer in network.layers for part in (getattr(layer, "fwd_layer", layer), getattr(layer, "bwd_layer", layer))]
    assert sum(isinstance(layer, ours.Layer) for layer in inner) == len(inner) - 2  # all but the last, which is no recurrent one
    np.testing.assert_allclose(network(data), expected, rtol=0, atol=2e-5)
    if ("rnn_1" in name and "brnn" not in name) or ("lstm" in name and "blstm" not in name):  # frame by frame
        frames = [np.atleast_1d(network(frame[None], reset=t == 0)) for t, frame in enumerate(data)]
        np.testing.assert_allclose(np.concatenate(frames), expected, rtol=0, atol=2e-5)
