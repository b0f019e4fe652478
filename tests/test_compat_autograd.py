"""fastrnn.compat.autograd against the equations of the examples rnn.py and lstm.py, which autograd itself differentiates here."""

import numpy as np
import pytest

autograd = pytest.importorskip("autograd", reason="the package autograd is not installed")
pytest.importorskip("scipy", reason="the package scipy, which autograd's logsumexp needs, is not installed")
import autograd.numpy as anp  # noqa: E402
from autograd.test_util import check_grads  # noqa: E402

from fastrnn.compat import autograd as ours  # noqa: E402

T, N, D, H, O = 7, 3, 4, 5, 6
CELLS = ("rnn", "lstm")


def params_of(cell, scale=0.7, dtype=np.float64):
    make = ours.create_rnn_params if cell == "rnn" else ours.init_lstm_params
    params = make(D, H, O, param_scale=scale, rs=np.random.RandomState(1))
    return {name: array.astype(dtype) for name, array in params.items()}


def sequences(dtype=np.float64, steps=T):
    rng = np.random.default_rng(2)
    targets = np.eye(O)[rng.integers(O, size=(steps, N))]
    return rng.standard_normal((steps, N, D)).astype(dtype), targets.astype(dtype)


def predict(params, inputs):
    """The examples' equations, step by step."""
    N = inputs.shape[1]
    with_one = lambda *parts: anp.hstack([*parts, anp.ones((N, 1))])  # noqa: E731
    half = lambda a: 0.5 * (anp.tanh(a) + 1)  # noqa: E731
    h, c = (anp.repeat(params[key], N, axis=0) if key in params else None for key in ("init hiddens", "init cells"))
    outputs = []
    for t in range(len(inputs) + 1):
        scores = anp.dot(with_one(h), params["predict"])
        top = anp.max(scores, axis=1, keepdims=True)
        outputs.append(scores - top - anp.log(anp.sum(anp.exp(scores - top), axis=1, keepdims=True)))
        if t == len(inputs):
            return outputs
        a = with_one(inputs[t], h)
        if c is None:
            h = anp.tanh(anp.dot(a, params["change"]))
            continue
        change = anp.tanh(anp.dot(a, params["change"]))
        forget, ingate, outgate = (half(anp.dot(a, params[gate])) for gate in ("forget", "ingate", "outgate"))
        c = c * forget + ingate * change
        h = outgate * anp.tanh(c)


def log_likelihood(params, inputs, targets):
    outputs = predict(params, inputs)
    return sum(anp.sum(outputs[t] * targets[t]) for t in range(len(inputs))) / (len(inputs) * N)


def function(cell, name):
    return getattr(ours, f"{cell}_{name}")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 2e-6)])
def test_predictions(cell, dtype, tolerance):
    params, (inputs, targets) = params_of(cell, dtype=dtype), sequences(dtype)
    found, expected = function(cell, "predict")(params, inputs), predict(params, inputs)
    assert len(found) == T + 1
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)
    likelihood = function(cell, "log_likelihood")(params, inputs, targets)
    np.testing.assert_allclose(likelihood, log_likelihood(params, inputs, targets), rtol=0, atol=tolerance)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("steps", [1, T])
def test_gradients_of_all_parameters(cell, steps):
    params, (inputs, targets) = params_of(cell), sequences(steps=steps)
    found = autograd.grad(function(cell, "log_likelihood"))(params, inputs, targets)
    expected = autograd.grad(log_likelihood)(params, inputs, targets)
    assert found.keys() == expected.keys() == params.keys()
    for name in params:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_the_inputs_and_of_each_output(cell):
    params, (inputs, targets) = params_of(cell), sequences()
    found = autograd.grad(function(cell, "log_likelihood"), 1)(params, inputs, targets)
    np.testing.assert_allclose(found, autograd.grad(log_likelihood, 1)(params, inputs, targets), rtol=0, atol=1e-13)
    jacobian = autograd.jacobian(lambda x: function(cell, "predict")(params, x)[-1])(inputs)  # many ways back through one pass
    np.testing.assert_allclose(jacobian, autograd.jacobian(lambda x: predict(params, x)[-1])(inputs), rtol=0, atol=1e-13)
    check_grads(lambda p: function(cell, "log_likelihood")(p, inputs, targets), modes=["rev"], order=1)(params)


@pytest.mark.parametrize("cell", CELLS)
def test_two_passes_do_not_mix(cell):
    params, (inputs, targets) = params_of(cell), sequences()

    def twice(f):
        return lambda p: f(p, inputs, targets) + 3 * f(p, inputs[::-1], targets)

    found = autograd.grad(twice(function(cell, "log_likelihood")))(params)
    expected = autograd.grad(twice(log_likelihood))(params)
    for name in params:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-13)


@pytest.mark.parametrize("cell", CELLS)
def test_training_goes_the_same_way(cell):
    inputs, targets = sequences()
    losses = []
    for f in (function(cell, "log_likelihood"), log_likelihood):
        params, gradient = params_of(cell, 0.1), autograd.value_and_grad(f)
        losses.append([])
        for _ in range(20):
            value, grads = gradient(params, inputs, targets)
            params = {name: array + grads[name] for name, array in params.items()}
            losses[-1].append(value)
    assert losses[0][-1] > losses[0][0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0, atol=1e-11)


def test_parameters_are_drawn_as_in_the_examples():
    for make, names in (
        (ours.create_rnn_params, ["init hiddens", "change", "predict"]),
        (ours.init_lstm_params, ["init cells", "init hiddens", "change", "forget", "ingate", "outgate", "predict"]),
    ):
        params, rs = make(D, H, O), np.random.RandomState(0)
        assert list(params) == names
        shapes = {"init hiddens": (1, H), "init cells": (1, H), "predict": (H + 1, O)}
        for name, array in params.items():
            assert np.array_equal(array, rs.randn(*shapes.get(name, (D + H + 1, H))) * 0.01), name


def test_the_texts(tmp_path):
    one_hot = ours.string_to_one_hot("hello", 128)
    assert (one_hot.shape, one_hot.sum()) == ((5, 128), 5)
    assert ours.one_hot_to_string(one_hot) == "hello"
    path = tmp_path / "lines.txt"
    path.write_text("a\nhello\nlonger than that\nlast line\n")
    data = ours.build_dataset(str(path), 8, 128)  # without the last line, and those that are short
    assert (data.shape, data.dtype) == ((8, 2, 128), np.float64)
    assert [ours.one_hot_to_string(data[:, n]) for n in range(2)] == ["hello\n  ", "longer t"]


def test_what_is_not_there():
    params, (inputs, targets) = params_of("lstm"), sequences()
    with pytest.raises(NotImplementedError, match="there is no gradient of a gradient"):
        autograd.hessian_vector_product(ours.lstm_log_likelihood)(params, inputs, targets, params)
    params["forget"] = params["forget"][1:]
    with pytest.raises(ValueError, match=r"forget: expected \(I\+H\+1, H\) with .* got \(9, 5\)"):
        ours.lstm_predict(params, inputs)
    with pytest.raises(ValueError, match=r"inputs: expected \(T, N, D\), got \(7, 3\)"):
        ours.rnn_predict(params_of("rnn"), inputs[:, :, 0])


def test_inputs_stay_as_they_are():
    params, (inputs, targets) = params_of("lstm"), sequences()
    before = {name: array.copy() for name, array in params.items()}, inputs.copy()
    autograd.grad(ours.lstm_log_likelihood)(params, inputs, targets)
    assert all(np.array_equal(params[name], array) for name, array in before[0].items())
    assert np.array_equal(inputs, before[1])
