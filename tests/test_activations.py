"""Activations in place of the cells' own: values and gradients on every way to the kernels, and errors."""

import copy
import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn import _core, config, reference
from fastrnn.gradcheck import gradcheck

T, B, I, H = 6, 5, 4, 19
EVERY = [
    "tanh",
    "sigmoid",
    "relu",
    ("leaky_relu", 0.1),
    ("thresholded_relu", 0.3),
    ("affine", 0.5, 0.1),
    "linear",
    ("scaled_tanh", 1.3, 0.7),
    "hard_sigmoid",
    ("hard_sigmoid", 1 / 6, 0.5),
    ("elu", 0.7),
    "softsign",
    "softplus",
]
CELLS = {
    "rnn": ("rnn", {}),
    "gru-after": ("gru", {"reset_after": True}),
    "gru-before": ("gru", {"reset_after": False}),
    "lstm": ("lstm", {}),
    "lstm-peephole": ("lstm", {"peephole": (3, H)}),
    "lstm-projected": ("lstm", {"w_hr": (7, H)}),
}
each_activation = pytest.mark.parametrize("activation", EVERY, ids=str)
each_cell = pytest.mark.parametrize("cell", CELLS)
LAYERS = {
    "rnn": lambda **more: fastrnn.RNN(I, H, nonlinearity=("leaky_relu", 0.2), rng=0, **more),
    "gru": lambda **more: fastrnn.GRU(I, H, activation="relu", recurrent_activation="hard_sigmoid", rng=0, **more),
    "lstm": lambda **more: fastrnn.LSTM(I, H, activation="softsign", recurrent_activation=("hard_sigmoid", 1 / 6), rng=0, **more),
    "peephole": lambda **more: fastrnn.LSTM(I, H, peephole=True, activation="elu", recurrent_activation="softsign", rng=0, **more),
}
each_layer = pytest.mark.parametrize("kind", LAYERS)


def problem(cell, activation, dtype=np.float64):
    """(the function's name, arrays, options) of weights with which no state grows."""
    name, options = CELLS[cell]
    G, rng, options = {"rnn": 1, "gru": 3, "lstm": 4}[name], np.random.default_rng(0), dict(options)
    P = 7 if cell == "lstm-projected" else H
    shapes = {"x": (T, B, I), "w_ih": (G * H, I), "w_hh": (G * H, P), "b_ih": (G * H,), "b_hh": (G * H,), "h0": (B, P)}
    shapes |= {"c0": (B, H)} if name == "lstm" else {}
    shapes |= {array: options.pop(array) for array in ("peephole", "w_hr") if array in options}
    arrays = {
        array: (rng.uniform(-1, 1, shape) / (2 if array == "x" else np.sqrt(H))).astype(dtype) for array, shape in shapes.items()
    }
    if name == "rnn":
        return name, arrays, {"nonlinearity": activation}
    bounded = "sigmoid" if activation == "hard_sigmoid" else "hard_sigmoid"
    return name, arrays, {**options, "activation": activation, "recurrent_activation": bounded}


def both_ways(module, name, arrays, options, dy):
    y, _, tape = getattr(module, name)(**arrays, **options, record=True)
    grads = tape.backward(dy)
    return {"y": y, **{f"d{array}": getattr(grads, array) for array in arrays}}


@pytest.mark.parametrize("isa", fastrnn.available_isas())
@each_cell
@each_activation
def test_as_the_reference(activation, cell, isa, use):
    use(isa, "own")
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 2e-5)):
        name, arrays, options = problem(cell, activation, dtype)
        dy = np.random.default_rng(1).standard_normal((T, B, arrays["h0"].shape[1])).astype(dtype)
        found = both_ways(fastrnn, name, arrays, options, dy)
        wanted = both_ways(reference, name, {n: a.astype(np.float64) for n, a in arrays.items()}, options, dy)
        for result, a in wanted.items():
            assert np.abs(found[result] - a).max() <= tolerance * (1 + np.abs(a).max()), (dtype, result)
        y, _, _ = getattr(fastrnn, name)(**arrays, **options)
        assert np.array_equal(y, found["y"])


@each_activation
def test_gates_have_any_activation_too(activation):
    if activation in ("linear", ("affine", 0.5, 0.1)):
        activation = ("affine", 0.3, 0.2)  # states stay small
    for cell in ("gru-after", "gru-before", "lstm", "lstm-peephole"):
        name, arrays, options = problem(cell, "tanh")
        options["recurrent_activation"] = activation
        dy = np.random.default_rng(1).standard_normal((T, B, H))
        found, wanted = (both_ways(module, name, arrays, options, dy) for module in (fastrnn, reference))
        for result, a in wanted.items():
            assert np.abs(found[result] - a).max() <= 1e-11 * (1 + np.abs(a).max()), (cell, result)


@each_cell
@pytest.mark.parametrize("activation", [one for one in EVERY if one != ("thresholded_relu", 0.3)], ids=str)
def test_gradcheck(activation, cell):
    name, arrays, options = problem(cell, activation)
    assert gradcheck(getattr(fastrnn, name), **arrays, **options, max_entries=20)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_activation
def test_special_values(activation, dtype):
    x = np.array([np.nan, np.inf, -np.inf, 0, 1e30, -1e30, 88, -88, 1e-30], dtype)[None, :, None]
    one = np.ones((1, 1), dtype)
    y, _, _ = fastrnn.rnn(x, one, 0 * one, nonlinearity=activation)
    with np.errstate(invalid="ignore", over="ignore"):
        wanted, _, _ = reference.rnn(x, one, 0 * one, nonlinearity=activation)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-37)  # denormals are zeros


@pytest.mark.parametrize("isa", fastrnn.available_isas())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_are_within_four_ulp(dtype, isa):
    rng = np.random.default_rng(0)
    size = np.exp(rng.uniform(-20, 4.4, 200_000))
    x = np.concatenate([size, -size]).astype(dtype)
    wide = x.astype(np.longdouble)
    equations = {
        "softplus": np.maximum(wide, 0) + np.log1p(np.exp(-np.abs(wide))),
        "softsign": wide / (1 + np.abs(wide)),
        "expm1": np.expm1(np.minimum(wide, 0)),
    }
    for function, wanted in equations.items():
        given = np.minimum(x, 0) if function == "expm1" else x
        error = np.abs(_core.vmath(function, given, isa) - wanted) / np.spacing(np.abs(wanted).astype(dtype))
        normal = np.abs(wanted) > np.finfo(dtype).tiny
        assert error[normal].max() <= 4, function


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@each_layer
def test_every_way_gives_the_same_bits(kind, precision, use):
    layer = LAYERS[kind](precision=precision)
    x = np.random.default_rng(0).standard_normal((T, B, I), np.float32)
    y, _, tape = layer.forward(x)
    flat = tape.backward(y).flat
    assert np.array_equal(layer(x)[0], y) and np.array_equal(layer.frozen()(x)[0], y)
    stream = layer.stream(B)
    assert np.array_equal(np.stack([stream(x_t) for x_t in x]), y)
    for b in range(B):
        assert np.array_equal(layer(x[:, b : b + 1])[0][:, 0], y[:, b])
    head, between = layer(x[:2])
    assert np.array_equal(np.concatenate([head, layer(x[2:], between)[0]]), y)
    for checkpoint in (1, 4):
        assert np.array_equal(layer.forward(x, checkpoint=checkpoint)[2].backward(y).flat, flat)
    threads = fastrnn.get_num_threads()
    try:
        for n in (1, 2):
            fastrnn.set_num_threads(n)
            assert np.array_equal(layer.forward(x)[2].backward(y).flat, flat)
    finally:
        fastrnn.set_num_threads(threads)
    for isa in fastrnn.available_isas():
        if isa not in ("scalar", "sse2"):
            config.use_isa(isa)
            assert np.array_equal(layer.forward(x)[2].backward(y).flat, flat), isa
    use("best", "own")


@each_layer
def test_a_layer_says_and_keeps_what_it_has(kind):
    layer, x = LAYERS[kind](), np.ones((T, B, I), np.float32)
    said = {
        "rnn": "RNN(4, 19, nonlinearity=('leaky_relu', 0.2))",
        "gru": "GRU(4, 19, activation='relu', recurrent_activation='hard_sigmoid')",
        "peephole": "LSTM(4, 19, peephole=True, activation='elu', recurrent_activation='softsign')",
        "lstm": f"LSTM(4, 19, activation='softsign', recurrent_activation=('hard_sigmoid', {1 / 6!r}, 0.5))",
    }
    assert repr(layer) == said[kind] and repr(layer.frozen()) == said[kind] + ".frozen()"
    for other in (
        copy.copy(layer),
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        layer.astype(np.float64).astype(np.float32),
    ):
        assert repr(other) == said[kind] and np.array_equal(other(x)[0], layer(x)[0])
    frozen = pickle.loads(pickle.dumps(layer.frozen()))
    assert np.array_equal(frozen(x)[0], layer(x)[0])
    usual = {} if kind == "rnn" else {"activation": "tanh", "recurrent_activation": ("sigmoid",)}
    assert repr(type(layer)(4, 19, **usual)) == f"{type(layer).__name__}(4, 19)"


def test_cells_and_unrolled_steps():
    x = np.random.default_rng(0).standard_normal((T, B, I), np.float32)
    options = {"activation": ("scaled_tanh", 1.7, 0.6), "recurrent_activation": "hard_sigmoid", "rng": 0}
    cells = [
        fastrnn.RNNCell(I, H, nonlinearity="softplus", rng=0),
        fastrnn.GRUCell(I, H, **options),
        fastrnn.LSTMCell(I, H, **options),
    ]
    layers = [fastrnn.RNN(I, H, nonlinearity="softplus", rng=0), fastrnn.GRU(I, H, **options), fastrnn.LSTM(I, H, **options)]
    for cell, layer in zip(cells, layers, strict=True):
        layer.flat = cell.flat
        y, _, tape = layer.forward(x)
        wanted, state, frozen, tapes = tape.backward(y), None, cell.frozen(), []
        with cell.unrolled() as steps:
            for t in range(T):
                assert np.array_equal(np.array(frozen(x[t], state)), np.array(cell(x[t], state)))
                state, tape = steps.forward(x[t], state)
                assert np.array_equal(state if isinstance(state, np.ndarray) else state[0], y[t])
                tapes.append(tape)
            dstate = None
            for t in reversed(range(T)):
                dh = y[t] if dstate is None else y[t] + (dstate if isinstance(dstate, np.ndarray) else dstate[0])
                dstate = (
                    tapes[t].backward(dh if isinstance(state, np.ndarray) else (dh, None if dstate is None else dstate[1])).state
                )
        np.testing.assert_allclose(steps.grads.flat, wanted.flat, rtol=1e-4, atol=1e-5)


def test_the_activations_of_pytorch():
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    theirs = {("hard_sigmoid", 1 / 6, 0.5): F.hardsigmoid, "softsign": F.softsign, "softplus": F.softplus, ("elu", 1.0): F.elu}
    theirs |= {("leaky_relu", 0.01): F.leaky_relu, "relu": F.relu}
    _, arrays, _ = problem("lstm", "tanh")
    for activation, g in theirs.items():
        of_gates = ("hard_sigmoid", 1 / 6, 0.5)
        y, _, tape = fastrnn.lstm(**arrays, activation=activation, recurrent_activation=of_gates, record=True)
        grads = tape.backward(np.ones_like(y))
        a = {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}
        h, c, ys = a["h0"], a["c0"], []
        for x in a["x"]:
            i, f, n, o = (x @ a["w_ih"].T + a["b_ih"] + h @ a["w_hh"].T + a["b_hh"]).chunk(4, 1)
            c = F.hardsigmoid(f) * c + F.hardsigmoid(i) * g(n)
            h = F.hardsigmoid(o) * g(c)
            ys.append(h)
        torch.stack(ys).sum().backward()
        np.testing.assert_allclose(y, torch.stack(ys).detach().numpy(), rtol=1e-12, atol=1e-14)
        for name, array in a.items():
            theirs_too = array.grad.numpy()  # with a slope of 1 / 6 in float32
            np.testing.assert_allclose(getattr(grads, name), theirs_too, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "given, error, message",
    [
        (
            "sine",
            ValueError,
            r"expected one of 'tanh', 'sigmoid', .*, 'softplus', or a tuple of one and its parameters, got 'sine'",
        ),
        (("elu", 1, 2), ValueError, r"expected at most 1 parameters of 'elu', got \('elu', 1, 2\)"),
        (("relu", 1), ValueError, r"expected at most 0 parameters of 'relu'"),
        (("elu", "1"), TypeError, "expected a number, got '1'"),
        (("elu", np.inf), ValueError, "expected a finite number, got inf"),
        ((), ValueError, r"expected one of .*, got \(\)"),
        (["elu", 1.0], ValueError, "expected one of "),
        (np.tanh, ValueError, "expected one of "),
    ],
    ids=str,
)
def test_a_wrong_activation_is_an_error_that_names_it(given, error, message):
    for make, name in (
        (fastrnn.LSTM, "activation"),
        (fastrnn.GRU, "recurrent_activation"),
        (fastrnn.RNN, "nonlinearity"),
        (fastrnn.GRUCell, "activation"),
        (fastrnn.LSTMCell, "recurrent_activation"),
        (fastrnn.RNNCell, "nonlinearity"),
    ):
        with pytest.raises(error, match=f"^{name}: {message}"):
            make(3, 4, **{name: given})
    x, w_ih, w_hh = np.ones((2, 1, 1)), np.ones((4, 1)), np.ones((4, 1))
    with pytest.raises(error, match=f"^activation: {message}"):
        fastrnn.lstm(x, w_ih, w_hh, activation=given)


@pytest.mark.parametrize("given", [("leaky_relu", -0.1), ("elu", -1.0)], ids=str)
def test_a_negative_alpha_is_for_inference(given):
    message = f"expected alpha >= 0 of '{given[0]}' for training, got {given[1]}: "
    x = np.linspace(-2, 2, T * I).reshape(T, 1, I).astype(np.float32)
    layer, cell = fastrnn.GRU(I, H, activation=given, rng=0), fastrnn.LSTMCell(I, H, recurrent_activation=given, rng=0)
    w = layer.params
    arrays = [w["weight_ih_l0"], w["weight_hh_l0"], w["bias_ih_l0"], w["bias_hh_l0"]]
    wanted, _, _ = reference.gru(x, *arrays, activation=given)
    np.testing.assert_allclose(layer(x)[0], wanted, rtol=1e-4, atol=1e-5)
    cell(x[0])
    with pytest.raises(ValueError, match="^activation: " + message):
        layer.forward(x)
    with pytest.raises(ValueError, match="^activation: " + message):
        fastrnn.gru(x, *arrays, activation=given, record=True)
    for train in (lambda: cell.forward(x[0]), lambda: cell.unrolled().__enter__()):
        with pytest.raises(ValueError, match="^recurrent_activation: " + message):
            train()


def test_a_format_without_activations_is_an_error_that_names_it():
    layer = LAYERS["gru"]()
    for format in ("pytorch", "haste", "onednn"):
        with pytest.raises(
            ValueError, match=rf"^recurrent_activation: expected the usual one for the format {format}, .*GRU.*'hard_sigmoid'"
        ):
            layer.export_weights(format)
    with pytest.raises(ValueError, match=r"^activation: expected the usual one for the format pytorch"):
        fastrnn.LSTM(3, 4, activation="relu").export_weights()
    same = fastrnn.GRU.from_weights(layer.export_weights("keras"), "keras", activation="relu", recurrent_activation="hard_sigmoid")
    assert repr(same) == repr(layer) and np.array_equal(
        same(np.ones((T, B, I), np.float32))[0], layer(np.ones((T, B, I), np.float32))[0]
    )


def test_jax_refuses_what_it_has_not():
    pytest.importorskip("jax")
    import fastrnn.jax

    one = np.ones((1, 1), np.float32)
    with pytest.raises(ValueError, match=r"^nonlinearity: expected what fastrnn\.jax has, .*, got 'softplus'"):
        fastrnn.jax.rnn(one[None], one, one, nonlinearity="softplus")
    with pytest.raises(ValueError, match=r"^activation: expected what fastrnn\.jax has, .*, got 'relu'"):
        fastrnn.jax.gru(one[None], np.ones((3, 1), np.float32), np.ones((3, 1), np.float32), activation="relu")
