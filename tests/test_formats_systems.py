"""Weights that the other systems made themselves: a layer with these computes what the system does, and gives them back.

Each maker takes (rng, dtype, L, D) and returns a Real: the system's own weights, its own computation, and the arguments that the
weights do not tell. The systems that are not installed are skipped, one by one.
"""

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import fastrnn
from test_formats import assert_same

I, H, T, B = 5, 8, 9, 3
LAYERS = {"rnn": fastrnn.RNN, "gru": fastrnn.GRU, "lstm": fastrnn.LSTM}
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-12}

# Of other people's code: NumPy 2 has its complaints about it.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@dataclass
class Real:
    """weights as the system has them; run(x (T, B, I)) -> y (T, B, D*H) by the system; back: weights -> what is comparable to
    export_weights, where these are not arrays yet."""

    weights: Any
    run: Callable[[Any], Any]
    options: dict[str, Any] = field(default_factory=dict)
    back: Callable[[Any], Any] = lambda weights: weights


@pytest.fixture(autouse=True, scope="module")
def _floating_point_state():
    """DyNet turns denormals off for good where it is imported: put the state back for the tests after these."""
    libm, state = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libm.fegetenv(state)
    yield
    libm.fesetenv(state)


def package(name):
    return pytest.importorskip(name, reason=f"the package {name} is not installed", exc_type=ImportError)


def draw(rng, shape, dtype):
    return (rng.uniform(-1, 1, shape) / np.sqrt(H)).astype(dtype)


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def torch_module(kind, **more):
    def make(rng, dtype, L, D):
        torch = package("torch")
        torch.manual_seed(int(rng.integers(1000)))
        module = getattr(torch.nn, kind)(I, H, L, bidirectional=D == 2, dtype=getattr(torch, np.dtype(dtype).name), **more)
        options = {"nonlinearity": "relu"} if more.get("nonlinearity") == "relu" else {}
        run = lambda x: module(torch.from_numpy(x))[0].detach().numpy()  # noqa: E731
        return Real(module.state_dict(), run, options, lambda w: {name: tensor.numpy() for name, tensor in w.items()})

    return make


# --- Keras ------------------------------------------------------------------------------------------------------------


def keras_layer(kind, **more):
    def make(rng, dtype, L, D):
        os.environ.setdefault("KERAS_BACKEND", "numpy")
        layers, dtype = package("keras").layers, np.dtype(dtype).name

        def layer():
            one = getattr(layers, kind)(H, return_sequences=True, dtype=dtype, **more)
            return layers.Bidirectional(one, dtype=dtype) if D == 2 else one

        stack = [layer() for _ in range(L)]

        def run(x):
            y = x.swapaxes(0, 1)
            for one in stack:
                y = one(y)
            return np.asarray(y).swapaxes(0, 1)

        run(np.zeros((1, 1, I), dtype))
        for one in stack:
            one.set_weights([draw(rng, w.shape, dtype) for w in one.get_weights()])
        weights = [one.get_weights() for one in stack]
        return Real(weights if L > 1 else weights[0], run)

    return make


# --- ONNX Runtime -----------------------------------------------------------------------------------------------------


def onnx_node(kind, **attributes):
    def make(rng, dtype, L, D):
        onnx, runtime = package("onnx"), package("onnxruntime")
        G, helper = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind], onnx.helper
        shapes = {"W": (D, G * H, I), "R": (D, G * H, H), "B": (D, 2 * G * H)} | ({"P": (D, 3 * H)} if kind == "LSTM" else {})
        weights = {name: draw(rng, shape, dtype) for name, shape in shapes.items()}
        inputs = ["X", "W", "R", "B", *(["", "", "", "P"] if kind == "LSTM" else [])]
        direction = "bidirectional" if D == 2 else "forward"
        node = helper.make_node(kind, inputs, ["Y"], hidden_size=H, direction=direction, **attributes)
        X, Y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "XY")
        constants = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
        graph = helper.make_graph([node], "one", [X], [Y], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
        model.ir_version = helper.find_min_ir_version_for(model.opset_import)
        session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        run = lambda x: session.run(None, {"X": x})[0].swapaxes(1, 2).reshape(T, B, D * H)  # noqa: E731
        return Real(weights, run, {"reset_after": bool(attributes.get("linear_before_reset"))} if kind == "GRU" else {})

    return make


# --- Flax and JAX -----------------------------------------------------------------------------------------------------


@pytest.fixture
def both_precisions():
    """JAX computes in float64, too, and forgets it again."""
    try:
        import jax
    except ImportError:
        yield
        return
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def flax_linen(cell):
    def make(rng, dtype, L, D):
        package("flax")
        import flax.linen as nn
        import jax

        class Once(nn.Module):
            @nn.compact
            def __call__(self, x):
                rnn = lambda: nn.RNN(getattr(nn, cell)(H, dtype=dtype, param_dtype=dtype), time_major=True)  # noqa: E731
                return nn.Bidirectional(rnn(), rnn(), time_major=True)(x) if D == 2 else rnn()(x)

        module, x = Once(), np.zeros((T, B, I), dtype)
        tree = jax.tree.map(lambda a: draw(rng, a.shape, dtype), module.init(jax.random.key(0), x))
        cells = [tree["params"][name] for name in sorted(tree["params"])]
        run = lambda x: np.asarray(module.apply(tree, x))  # noqa: E731
        assert len(cells) == D
        return Real(tuple(cells) if D == 2 else cells[0], run)

    return make


def flax_nnx(cell):
    def make(rng, dtype, L, D):
        package("flax")
        from flax import nnx

        cells = [getattr(nnx, cell)(I, H, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0)) for _ in range(D)]
        for one in cells:
            nnx.update(one, nnx.map_state(lambda _, a: draw(rng, a.shape, dtype), nnx.state(one, nnx.Param)))
        pure = [nnx.to_pure_dict(nnx.state(one, nnx.Param)) for one in cells]
        ways = [nnx.RNN(one, time_major=True, reverse=k == 1, keep_order=True) for k, one in enumerate(cells)]
        run = lambda x: np.concatenate([np.asarray(way(x)) for way in ways], axis=2)  # noqa: E731
        return Real(tuple(pure) if D == 2 else pure[0], run, {}, as_arrays)

    return make


def as_arrays(tree):
    if isinstance(tree, dict):
        return {key: as_arrays(item) for key, item in tree.items()}
    return tuple(map(as_arrays, tree)) if isinstance(tree, tuple) else np.asarray(tree)


def jax_lstm(rng, dtype, L, D):
    package("jax")
    import jax
    from jax.experimental import rnn

    size = rnn.get_num_params_in_lstm(I, H, L, D == 2)
    weights, lengths = draw(rng, (size,), dtype), np.full(B, T, np.int32)

    def run(x):
        W_ih, W_hh, b_ih, b_hh = rnn.unpack_lstm_weights(jax.numpy.asarray(weights), I, H, L, D == 2)
        zeros = np.zeros((L * D, B, H), dtype)
        y, *_ = rnn.lstm_ref(
            x.swapaxes(0, 1), zeros, zeros, W_ih, W_hh, b_ih, b_hh, seq_lengths=lengths,
            input_size=I, hidden_size=H, num_layers=L, dropout=0.0, bidirectional=D == 2,
        )  # fmt: skip
        return np.asarray(y).swapaxes(0, 1)

    return Real(weights, run, {"input_size": I, "hidden_size": H, "num_layers": L, "bidirectional": D == 2})


# --- MLX, Chainer, DyNet, Thinc -----------------------------------------------------------------------------------------


def mlx_layer(kind):
    def make(rng, dtype, L, D):
        package("mlx.nn")
        import mlx.core as mx
        import mlx.nn

        layer = getattr(mlx.nn, kind)(I, H)
        layer.update({name: mx.array(draw(rng, a.shape, dtype)) for name, a in layer.parameters().items()})

        def run(x):
            y = layer(mx.array(x.swapaxes(0, 1)))
            return np.array(y[0] if isinstance(y, tuple) else y).swapaxes(0, 1)

        return Real(dict(layer.parameters()), run, {}, lambda w: {name: np.array(a) for name, a in w.items()})

    return make


def chainer_link(kind):
    def make(rng, dtype, L, D):
        chainer = package("chainer")
        with chainer.using_config("dtype", dtype):
            link = getattr(chainer.links, kind.replace("NStep", "NStepBi" if D == 2 else "NStep"))(L, I, H, 0.0)
        for parameter in link.params():
            parameter.array = draw(rng, parameter.shape, dtype)
        weights = {path.lstrip("/"): parameter.array for path, parameter in link.namedparams()}

        def run(x):
            ys = link(*([None] * (2 if "LSTM" in kind else 1)), list(x.swapaxes(0, 1)))[-1]
            return np.stack([y.array for y in ys], axis=1)

        return Real(weights, run, {"bidirectional": D == 2})

    return make


def chainer_lstm(rng, dtype, L, D):
    chainer = package("chainer")
    with chainer.using_config("dtype", dtype):
        link = chainer.links.LSTM(I, H)
    for parameter in link.params():
        parameter.array = draw(rng, parameter.shape, dtype)

    def run(x):
        link.reset_state()
        return np.stack([link(x_t).array for x_t in x])

    parts = ("upward", "lateral")
    return Real({part: {path[1:]: p.array for path, p in getattr(link, part).namedparams()} for part in parts}, run)


def dynet_builder(kind):
    def make(rng, dtype, L, D):
        dynet = package("dynet")
        collection = dynet.ParameterCollection()
        builder = getattr(dynet, kind)(L, I, H, collection)
        for layer in builder.get_parameters():
            for parameter in layer:
                parameter.set_value(draw(rng, parameter.shape(), dtype))
        weights = [[parameter.as_array() for parameter in layer] for layer in builder.get_parameters()]

        def run(x):
            assert collection  # the builder does not keep it alive, and needs it
            dynet.renew_cg()
            rows = []
            for b in range(x.shape[1]):
                state = builder.initial_state()
                rows.append([out.npvalue() for out in state.transduce([dynet.inputVector(v) for v in x[:, b]])])
            return np.stack(rows, axis=1)

        # They are float64 arrays of float32 numbers.
        return Real(weights if L > 1 else weights[0], run, {"dtype": dtype}, rounded)

    return make


def rounded(tree):
    return [rounded(item) for item in tree] if isinstance(tree, list) else tree.astype(np.float32)


def thinc_lstm(rng, dtype, L, D):
    api = package("thinc.api")
    from thinc.types import Padded

    model = api.LSTM(nO=D * H, nI=I, bi=D == 2, depth=L)
    model.initialize()
    model.set_param("LSTM", draw(rng, model.get_param("LSTM").shape, dtype))

    def run(x):
        sizes, indices = np.full(T, B, np.int32), np.arange(B, dtype=np.int32)
        return model.predict(Padded(x, sizes, np.full(B, T, np.int32), indices)).data

    options = {"input_size": I, "hidden_size": H, "num_layers": L, "bidirectional": D == 2}
    return Real(model.get_param("LSTM").copy(), run, options)


# --- all of them ------------------------------------------------------------------------------------------------------

BOTH, SINGLE = (np.float32, np.float64), (np.float32,)
ONE, SIDES, ALL = [(1, 1)], [(1, 1), (1, 2)], [(1, 1), (1, 2), (2, 1), (2, 2)]
SYSTEMS = [  # format, family, name, maker, dtypes, (layers, directions) that the system has
    ("pytorch", "rnn", "RNN", torch_module("RNN"), BOTH, ALL),
    ("pytorch", "rnn", "RNN-relu", torch_module("RNN", nonlinearity="relu"), BOTH, ONE),
    ("pytorch", "gru", "GRU", torch_module("GRU"), BOTH, ALL),
    ("pytorch", "gru", "GRU-no-bias", torch_module("GRU", bias=False), BOTH, ONE),
    ("pytorch", "lstm", "LSTM", torch_module("LSTM"), BOTH, ALL),
    ("keras", "rnn", "SimpleRNN", keras_layer("SimpleRNN"), SINGLE, ALL),
    ("keras", "gru", "GRU", keras_layer("GRU"), SINGLE, ALL),
    ("keras", "gru", "GRU-before", keras_layer("GRU", reset_after=False), SINGLE, ALL),
    ("keras", "lstm", "LSTM", keras_layer("LSTM"), SINGLE, ALL),
    ("keras", "lstm", "LSTM-no-bias", keras_layer("LSTM", use_bias=False), SINGLE, ONE),
    ("onnx", "rnn", "RNN", onnx_node("RNN"), SINGLE, SIDES),
    ("onnx", "gru", "GRU-before", onnx_node("GRU"), SINGLE, SIDES),
    ("onnx", "gru", "GRU", onnx_node("GRU", linear_before_reset=1), SINGLE, SIDES),
    ("onnx", "lstm", "LSTM", onnx_node("LSTM"), SINGLE, SIDES),
    ("flax-linen", "rnn", "SimpleCell", flax_linen("SimpleCell"), BOTH, SIDES),
    ("flax-linen", "gru", "GRUCell", flax_linen("GRUCell"), BOTH, SIDES),
    ("flax-linen", "lstm", "LSTMCell", flax_linen("LSTMCell"), BOTH, SIDES),
    ("flax-linen", "lstm", "OptimizedLSTMCell", flax_linen("OptimizedLSTMCell"), BOTH, SIDES),
    ("flax-nnx", "rnn", "SimpleCell", flax_nnx("SimpleCell"), BOTH, SIDES),
    ("flax-nnx", "gru", "GRUCell", flax_nnx("GRUCell"), BOTH, SIDES),
    ("flax-nnx", "lstm", "OptimizedLSTMCell", flax_nnx("OptimizedLSTMCell"), BOTH, SIDES),
    ("jax", "lstm", "lstm", jax_lstm, BOTH, ALL),
    ("mlx", "rnn", "RNN", mlx_layer("RNN"), SINGLE, ONE),
    ("mlx", "gru", "GRU", mlx_layer("GRU"), SINGLE, ONE),
    ("mlx", "lstm", "LSTM", mlx_layer("LSTM"), SINGLE, ONE),
    ("chainer", "rnn", "NStepRNNTanh", chainer_link("NStepRNNTanh"), BOTH, ALL),
    ("chainer", "gru", "NStepGRU", chainer_link("NStepGRU"), BOTH, ALL),
    ("chainer", "lstm", "NStepLSTM", chainer_link("NStepLSTM"), BOTH, ALL),
    ("chainer-lstm", "lstm", "LSTM", chainer_lstm, BOTH, ONE),
    ("dynet", "rnn", "SimpleRNNBuilder", dynet_builder("SimpleRNNBuilder"), SINGLE, [(1, 1), (2, 1)]),
    ("dynet", "gru", "GRUBuilder", dynet_builder("GRUBuilder"), SINGLE, [(1, 1), (2, 1)]),
    ("dynet", "lstm", "VanillaLSTMBuilder", dynet_builder("VanillaLSTMBuilder"), SINGLE, [(1, 1), (2, 1)]),
    ("thinc", "lstm", "LSTM", thinc_lstm, SINGLE, ALL),
]
EVERY = [
    pytest.param(format, family, make, dtype, L, D, id=f"{format}-{name}-{np.dtype(dtype).name}-{L}-{D}")
    for format, family, name, make, dtypes, sizes in SYSTEMS
    for dtype in dtypes
    for L, D in sizes
]


@pytest.mark.usefixtures("both_precisions")
@pytest.mark.parametrize("format, family, make, dtype, L, D", EVERY)
def test_a_layer_with_the_weights_of_a_system_is_that_system(format, family, make, dtype, L, D):
    rng = np.random.default_rng(L + 2 * D)
    real = make(rng, dtype, L, D)
    layer = LAYERS[family].from_weights(real.weights, format, **real.options)
    assert (layer.input_size, layer.hidden_size, layer.num_layers, layer.bidirectional) == (I, H, L, D == 2)
    assert layer.dtype == dtype
    x = rng.standard_normal((T, B, I)).astype(dtype)
    np.testing.assert_allclose(layer(x)[0], real.run(x.copy()), rtol=0, atol=TOLERANCE[dtype])
    assert_same(layer.export_weights(format), real.back(real.weights))
