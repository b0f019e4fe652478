"""fastrnn.compat.numpy_ml against numpy-ml's equations, and step by step against its own cells where it is installed."""

import collections
import collections.abc

import numpy as np
import pytest

from derivatives import assert_gradients, sigmoid
from fastrnn.compat import numpy_ml as ours

n_ex, n_in, n_out, n_t = 4, 3, 5, 6
SEQUENCES = [(ours.RNN, ours.RNNCell), (ours.LSTM, ours.LSTMCell)]


def rnn(X, act=np.tanh, **p):
    A, outs = np.zeros((len(X), p["Waa"].shape[0])), []
    for t in range(X.shape[2]):
        A = act(A @ p["Waa"] + p["ba"].T + X[:, :, t] @ p["Wax"] + p["bx"].T)
        outs.append(A)
    return np.stack(outs, axis=2)


def lstm(X, **p):
    A = C = np.zeros((len(X), p["bf"].shape[1]))
    outs = []
    for t in range(X.shape[2]):
        Z = np.hstack([A, X[:, :, t]])
        Gf, Gu, Go = (sigmoid(Z @ p[f"W{gate}"] + p[f"b{gate}"]) for gate in "fuo")
        C = Gf * C + Gu * np.tanh(Z @ p["Wc"] + p["bc"])
        A = Go * np.tanh(C)
        outs.append(A)
    return np.stack(outs, axis=2)


def relu(a):
    return np.where(a.real > 0, a, 0)


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n_ex, n_in, n_t)), rng.standard_normal((n_ex, n_out, n_t))


@pytest.mark.parametrize(
    "make, plain",
    [
        (lambda: ours.RNN(n_out), rnn),
        (lambda: ours.RNN(n_out, act_fn="relu"), lambda X, **p: rnn(X, relu, **p)),
        (lambda: ours.LSTM(n_out), lstm),
    ],
    ids=["rnn", "relu", "lstm"],
)
def test_sequences(make, plain):
    np.random.seed(0)
    layer, (X, dY) = make(), inputs()
    Y = layer.forward(X)
    layer.set_params({name: array + 0.1 for name, array in layer.parameters.items()})  # biases too
    Y = layer.forward(X)
    p = dict(layer.parameters)
    np.testing.assert_allclose(Y, plain(X, **p), rtol=0, atol=1e-13)
    dX = layer.backward(dY)
    assert set(layer.gradients) == set(p)
    assert_gradients(plain, {"X": X, **p}, (dY,), {"X": dX, **layer.gradients})


@pytest.mark.parametrize("sequence, cell", SEQUENCES, ids=["rnn", "lstm"])
@pytest.mark.parametrize("act_fn", ["Tanh", "ReLU"])
def test_cells_are_the_steps_of_sequences(sequence, cell, act_fn):
    if sequence is ours.LSTM and act_fn == "ReLU":
        with pytest.raises(ValueError, match="act_fn: expected 'Tanh', got 'ReLU'"):
            ours.LSTM(n_out, act_fn="ReLU")
        return
    np.random.seed(1)
    whole, steps, (X, dY) = sequence(n_out, act_fn=act_fn), cell(n_out, act_fn=act_fn), inputs(1)
    Y = whole.forward(X)
    steps.set_params(whole.summary())
    outs = [steps.forward(X[:, :, t]) for t in range(n_t)]
    outs = [A for A, _ in outs] if sequence is ours.LSTM else outs
    np.testing.assert_allclose(np.dstack(outs), Y, rtol=0, atol=1e-13)
    for name in ("A", "C")[: 2 if sequence is ours.LSTM else 1]:
        np.testing.assert_allclose(steps.derived_variables[name], whole.derived_variables[name], rtol=0, atol=1e-13)
    dX = whole.backward(dY)
    backs = [steps.backward(dY[:, :, t]) for t in reversed(range(n_t))]
    np.testing.assert_allclose(np.dstack(backs[::-1]), dX, rtol=0, atol=1e-12)
    for name, gradient in whole.gradients.items():
        np.testing.assert_allclose(steps.gradients[name], gradient, rtol=0, atol=1e-12)
    for name in ("dLdA_accumulator", "dLdC_accumulator")[: 2 if sequence is ours.LSTM else 1]:
        np.testing.assert_allclose(steps.derived_variables[name], whole.derived_variables[name], rtol=0, atol=1e-12)
    for layer in (whole, steps):
        assert (layer.derived_variables["n_timesteps"], layer.derived_variables["current_step"]) == (n_t, 0)
        with pytest.raises(ValueError, match="backward: expected no more calls than of forward"):
            layer.backward(dY if layer is whole else dY[:, :, 0])


@pytest.mark.parametrize("sequence", [ours.RNN, ours.LSTM], ids=["rnn", "lstm"])
def test_a_second_forward_goes_on(sequence):
    np.random.seed(2)
    whole, parts, (X, dY) = sequence(n_out), sequence(n_out), inputs(2)
    Y = whole.forward(X)
    parts.set_params(whole.summary())
    assert np.array_equal(np.dstack([parts.forward(X[:, :, :2]), parts.forward(X[:, :, 2:])]), Y)
    dX = whole.backward(dY)
    with pytest.raises(ValueError, match=r"dLdA: expected \(n_ex, n_out, n_t\) = \(4, 5, 4\), got \(4, 5, 6\)"):
        parts.backward(dY)
    second = parts.backward(dY[:, :, 2:])
    np.testing.assert_allclose(np.dstack([parts.backward(dY[:, :, :2]), second]), dX, rtol=0, atol=1e-13)
    for name, gradient in whole.gradients.items():
        np.testing.assert_allclose(parts.gradients[name], gradient, rtol=0, atol=1e-13)
    parts.flush_gradients()
    assert np.array_equal(parts.forward(X), Y)


@pytest.mark.parametrize("kind", [ours.RNN, ours.LSTM, ours.RNNCell, ours.LSTMCell])
def test_update_and_freeze(kind):
    class Halver:
        steps = 0

        def step(self):
            self.steps += 1

        def __call__(self, param, gradient, name, cur_loss):
            assert (gradient.shape, cur_loss) == (param.shape, 3.5)
            return param / 2

    X, dY = inputs(3)
    X, dY = (X, dY) if kind in (ours.RNN, ours.LSTM) else (X[:, :, 0], dY[:, :, 0])
    layer = kind(n_out)
    layer.forward(X)
    layer.backward(dY)
    before, gradients = dict(layer.parameters), dict(layer.gradients)
    layer.update()
    for name, array in before.items():
        np.testing.assert_allclose(layer.parameters[name], array - 0.01 * gradients[name], rtol=1e-15)
        assert not layer.gradients[name].any()
    layer.optimizer, before = Halver(), dict(layer.parameters)
    layer.forward(X)
    layer.update(3.5)
    assert layer.optimizer.steps == 1
    assert all(np.array_equal(layer.parameters[name], array / 2) for name, array in before.items())
    layer.freeze()
    layer.forward(X)
    for call in (lambda: layer.backward(dY), layer.update, layer.flush_gradients):
        with pytest.raises(AssertionError, match="Layer is frozen"):
            call()
    layer.unfreeze()
    layer.backward(dY)


def test_what_a_layer_tells():
    layer = ours.LSTM(n_out, init="he_normal")
    assert layer.hyperparameters == {
        "layer": "LSTM", "init": "he_normal", "n_in": None, "n_out": 5, "act_fn": "Tanh", "gate_fn": "Sigmoid", "optimizer": None,
    }  # fmt: skip
    layer.forward(inputs()[0])
    assert layer.hyperparameters["n_in"] == 3
    assert layer.summary()["parameters"] is layer.parameters


@pytest.mark.parametrize("mode", ["glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "std_normal", "trunc_normal"])
def test_initial_values(mode):
    np.random.seed(4)
    layer = ours.RNN(400, init=mode)
    layer.forward(np.zeros((1, 200, 1)))
    W = layer.parameters["Wax"]
    spread = {"glorot": 5 / 3 * (2 / 600) ** 0.5, "he": 0.1}.get(mode.split("_")[0], 1.0)
    cut = {"glorot_normal", "he_normal", "trunc_normal"} & {mode}
    expected = spread * (0.8796 if cut else 1)  # the deviation of a normal law that is cut off at 2
    assert abs(W.std() / expected - 1) < 0.01
    assert np.abs(W).max() <= spread * (2 if cut else 3**0.5 if mode.endswith("uniform") else 7)
    assert not layer.parameters["ba"].any()


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: ours.RNN(n_out, act_fn="ELU(alpha=1.0)"), ValueError, "act_fn: expected 'Tanh' or 'ReLU', got 'ELU"),
        (lambda: ours.LSTM(n_out, gate_fn="HardSigmoid"), ValueError, "gate_fn: expected 'Sigmoid', got 'HardSigmoid'"),
        (lambda: ours.RNN(n_out, init="orthogonal"), ValueError, "init: expected 'glorot_uniform' or .*, got 'orthogonal'"),
        (lambda: ours.RNN(0), ValueError, "n_out: expected an integer of at least 1, got 0"),
        (
            lambda: ours.RNN(n_out, optimizer="sgd"),
            TypeError,
            "optimizer: expected None or an optimizer object of numpy-ml, got 'sgd'",
        ),
        (lambda: ours.RNN(n_out).forward(np.zeros((4, 3))), ValueError, r"X: expected \(n_ex, n_in, n_t\), got \(4, 3\)"),
        (
            lambda: ours.RNN(n_out).set_params({"Wax": np.zeros((3, 5))}),
            ValueError,
            r"expected the parameters \['Wax', 'Waa', 'ba', 'bx'\]",
        ),
        (lambda: initialised().set_params({"bx": np.zeros(5)}), ValueError, r"expected \{'bx': \(5, 1\)\}, got \{'bx': \(5,\)\}"),
        (lambda: initialised().set_params({"Wf": np.zeros(5)}), ValueError, r"expected the parameters .* got \['Wf'\]"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def initialised():
    layer = ours.RNN(n_out)
    layer.forward(inputs()[0])
    return layer


# --- beside numpy-ml itself -------------------------------------------------------------------------------------------


@pytest.fixture
def theirs(monkeypatch):
    """numpy_ml.neural_nets.layers; it asks for a name that collections lost in Python 3.10."""
    monkeypatch.setattr(collections, "Hashable", collections.abc.Hashable, raising=False)
    return pytest.importorskip("numpy_ml.neural_nets.layers", reason="numpy-ml is not installed")


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell"])
@pytest.mark.parametrize("act_fn", ["Tanh", "ReLU"])
@pytest.mark.parametrize("init", ["glorot_uniform", "he_normal"])
def test_beside_numpy_ml(theirs, name, act_fn, init):
    if (name, act_fn) == ("LSTMCell", "ReLU"):
        return  # refused: see above
    X, dY = inputs(5)
    cells = []
    for module in (theirs, ours):
        np.random.seed(6)
        cells.append(getattr(module, name)(n_out, act_fn=act_fn, init=init))
        outs = [cells[-1].forward(X[:, :, t]) for t in range(n_t)]
        backs = [cells[-1].backward(dY[:, :, t]) for t in reversed(range(n_t))]
        cells[-1].seen = outs, backs
    their, our = cells
    for one, other in zip(their.seen, our.seen, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-12)
    for part in ("parameters", "gradients"):
        assert set(getattr(their, part)) == set(getattr(our, part))
        for key, array in getattr(their, part).items():
            np.testing.assert_allclose(getattr(our, part)[key], array, rtol=0, atol=1e-12)
    for key in ("A", "C")[: 2 if name == "LSTMCell" else 1]:
        np.testing.assert_allclose(our.derived_variables[key], their.derived_variables[key], rtol=0, atol=1e-12)
    their.update()
    our.update()
    for key, array in their.parameters.items():
        np.testing.assert_allclose(our.parameters[key], array, rtol=0, atol=1e-12)


def test_optimizers_of_numpy_ml(theirs):
    from numpy_ml.neural_nets.optimizers import Adam

    X, dY = inputs(7)
    cells = []
    for module in (theirs, ours):
        np.random.seed(8)
        cells.append(module.LSTMCell(n_out, optimizer=Adam(lr=0.1)))
        cells[-1].forward(X[:, :, 0])
        cells[-1].backward(dY[:, :, 0])
        cells[-1].update()
    for key, array in cells[0].parameters.items():
        np.testing.assert_allclose(cells[1].parameters[key], array, rtol=0, atol=1e-8)  # the first step of Adam is a quotient
    whole = ours.LSTM(n_out, act_fn=cells[0].act_fn, gate_fn=cells[0].gate_fn)
    assert (whole.act_fn, whole.gate_fn) == ("Tanh", "Sigmoid")
    whole.set_params(cells[0].summary())
    assert np.array_equal(whole.parameters["Wf"], cells[0].parameters["Wf"])
