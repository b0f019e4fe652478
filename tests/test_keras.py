"""fastrnn.keras against Keras itself: its NumPy backend before install() is the oracle for after."""

import gc
import os

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")
keras = pytest.importorskip("keras", reason="the package keras is not installed")
if keras.backend.backend() != "numpy":
    pytest.skip(f"keras runs on the backend {keras.backend.backend()}, not numpy", allow_module_level=True)

import fastrnn.keras  # noqa: E402
from fastrnn import functional  # noqa: E402

# Keras's own variables, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
layers = keras.layers
TOLERANCE = 2e-6  # in float64, too: much of Keras's NumPy backend computes that in float32
N, T, D, H = 5, 7, 3, 6


@pytest.fixture
def calls(monkeypatch):
    """The calls of the kernels, by name. Keras is itself again after the test."""
    made = []
    for name in ("lstm", "gru"):
        original = getattr(functional, name)

        def counted(*arguments, name=name, original=original, **keywords):
            made.append(name)
            return original(*arguments, **keywords)

        monkeypatch.setattr(functional, name, counted)
    by_frozen = fastrnn.keras._by_frozen

    def counted_frozen(frozen, x, state, options):
        made.append("lstm" if isinstance(state, tuple) else "gru")
        return by_frozen(frozen, x, state, options)

    monkeypatch.setattr(fastrnn.keras, "_by_frozen", counted_frozen)
    yield made
    fastrnn.keras.uninstall()


def flat(outputs):
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def assert_same(model, *inputs, calls, expected_calls, dtype="float32", **keywords):
    """What Keras computes by itself, and what it computes then."""
    before = flat(model(*inputs, **keywords))
    assert calls == []
    fastrnn.keras.install()
    after = flat(model(*inputs, **keywords))
    assert calls == expected_calls
    for y, wanted in zip(after, before, strict=True):
        assert y.dtype == wanted.dtype == dtype
        assert y.shape == wanted.shape
        np.testing.assert_allclose(y, wanted, rtol=0, atol=TOLERANCE)


def inputs_of(dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal((N, T, D)).astype(dtype)


def randomised(layer):
    """The layer, built, with biases that are not what they start as."""
    layer.build((N, T, D))
    rng = np.random.default_rng(1)
    layer.set_weights([rng.uniform(-0.5, 0.5, w.shape) for w in layer.get_weights()])
    return layer


MASKS = {
    "no mask": None,
    "right": np.arange(T) < np.array([7, 3, 1, 0, 5])[:, None],
    "left": np.arange(T) >= np.array([0, 3, 1, 7, 5])[:, None],
    "holes": np.random.default_rng(3).random((N, T)) < 0.6,
}
KINDS = {
    "LSTM": lambda **options: layers.LSTM(H, **options),
    "GRU": lambda **options: layers.GRU(H, **options),
    "GRU before": lambda **options: layers.GRU(H, reset_after=False, **options),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_layers(kind, sequences, backwards, mask, calls):
    layer = randomised(KINDS[kind](return_sequences=sequences, return_state=True, go_backwards=backwards))
    assert_same(layer, inputs_of(), mask=MASKS[mask], calls=calls, expected_calls=[kind.split()[0].lower()])


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_masked_steps_give_what_the_layer_says(kind, sequences, zero, calls):
    layer = randomised(KINDS[kind](return_sequences=sequences, zero_output_for_mask=zero))
    assert_same(layer, inputs_of(), mask=MASKS["holes"], calls=calls, expected_calls=[kind.split()[0].lower()])


@pytest.mark.parametrize("options", [{"use_bias": False}, {"dtype": "float64"}, {"unroll": True}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_options(kind, options, calls):
    layer, dtype = randomised(KINDS[kind](return_sequences=True, **options)), options.get("dtype", "float32")
    assert_same(layer, inputs_of(dtype), dtype=dtype, calls=calls, expected_calls=[kind.split()[0].lower()])


@pytest.mark.parametrize("kind", KINDS)
def test_float64_is_float64_throughout(kind, calls):
    fastrnn.keras.install()
    layer = randomised(KINDS[kind](return_sequences=True, dtype="float64"))
    kernel, recurrent, bias = layer.get_weights()
    x = inputs_of("float64")
    if kind == "LSTM":
        expected, *_ = fastrnn.reference.lstm(x, kernel.T, recurrent.T, bias, batch_first=True)
    else:
        order = np.r_[H : 2 * H, :H, 2 * H : 3 * H]  # z, r, h to r, z, n
        b_ih, b_hh = (bias[:, order]) if kind == "GRU" else (bias[order], None)
        weights = [kernel.T[order], recurrent.T[order], b_ih, b_hh]
        expected, *_ = fastrnn.reference.gru(x, *weights, batch_first=True, reset_after=kind == "GRU")
    assert kernel.dtype == np.float64
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=1e-14)
    assert len(calls) == 1


@pytest.mark.parametrize("kind, states", [("LSTM", 2), ("GRU", 1), ("GRU before", 1)])
def test_initial_states(kind, states, calls):
    layer = randomised(KINDS[kind](return_state=True))
    initial = [s.astype("float32") for s in np.random.default_rng(2).standard_normal((states, N, H))]
    assert_same(layer, inputs_of(), initial_state=initial, calls=calls, expected_calls=[kind.split()[0].lower()])


@pytest.mark.parametrize("mask", ["no mask", "holes", "left"])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_bidirectional(kind, sequences, mask, calls):
    layer = layers.Bidirectional(KINDS[kind](return_sequences=sequences, return_state=True))
    assert_same(randomised(layer), inputs_of(), mask=MASKS[mask], calls=calls, expected_calls=2 * [kind.split()[0].lower()])


def test_stateful_layers_go_on_where_they_were(calls):
    layer = randomised(layers.LSTM(H, stateful=True, return_sequences=True))
    x = inputs_of()
    expected = [np.asarray(layer(chunk)) for chunk in (x[:, :4], x[:, 4:])]
    layer.reset_state()
    fastrnn.keras.install()
    for chunk, wanted in zip((x[:, :4], x[:, 4:]), expected, strict=True):
        np.testing.assert_allclose(layer(chunk), wanted, rtol=0, atol=TOLERANCE)
    assert calls == ["lstm", "lstm"]


def test_a_model_predicts_the_same(calls):
    """Words with padding through an embedding that masks, stacked recurrent layers, and a readout."""
    words = np.random.default_rng(0).integers(1, 20, (9, 12))
    words[np.arange(12) >= np.random.default_rng(1).integers(1, 13, 9)[:, None]] = 0
    model = keras.Sequential(
        [
            layers.Embedding(20, 8, mask_zero=True),
            layers.Bidirectional(layers.LSTM(10, return_sequences=True)),
            layers.GRU(7, return_sequences=True, dropout=0.3),
            layers.LSTM(5),
            layers.Dense(3, activation="softmax"),
        ]
    )
    expected = model.predict(words, verbose=0)
    assert calls == []
    fastrnn.keras.install()
    np.testing.assert_allclose(model.predict(words, verbose=0), expected, rtol=0, atol=1e-6)
    assert calls == ["lstm", "lstm", "gru", "lstm"]


@pytest.mark.parametrize(
    "make, mask",
    [
        (lambda: layers.LSTM(H, activation="relu"), None),
        (lambda: layers.GRU(H, recurrent_activation="hard_sigmoid"), None),
        (lambda: layers.LSTM(H, use_cudnn=False), None),
        (lambda: layers.LSTM(H, recurrent_dropout=0.5), None),
        (lambda: layers.GRU(H, unroll=True), MASKS["holes"]),
        (lambda: layers.SimpleRNN(H), None),
        (lambda: layers.RNN(layers.LSTMCell(H)), None),
    ],
    ids=["relu", "hard_sigmoid", "use_cudnn", "recurrent_dropout", "unroll with mask", "SimpleRNN", "RNN"],
)
def test_what_the_kernels_do_not_compute_is_left_to_keras(make, mask, calls):
    assert_same(randomised(make()), inputs_of(), mask=mask, calls=calls, expected_calls=[])


def test_half_precision_is_left_to_keras(calls):
    layer = randomised(layers.GRU(H, dtype="float16", recurrent_initializer="zeros"))
    expected = layer(inputs_of("float16"))
    fastrnn.keras.install()
    np.testing.assert_array_equal(layer(inputs_of("float16")), expected)
    assert calls == []


def test_install_twice_and_uninstall(calls):
    layer, x = randomised(layers.LSTM(H)), inputs_of()
    before = keras.layers.LSTM.inner_loop
    fastrnn.keras.install()
    fastrnn.keras.install()
    layer(x)
    fastrnn.keras.uninstall()
    assert keras.layers.LSTM.inner_loop is before
    layer(x)
    fastrnn.keras.uninstall()
    assert calls == ["lstm"]


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match=r"^keras: expected the backend 'numpy', got 'jax'; set KERAS_BACKEND=numpy before"):
        fastrnn.keras.install()


@pytest.mark.parametrize("mask", ["no mask", "holes", "left"])
@pytest.mark.parametrize("kind", KINDS)
def test_frozen_weights_give_the_same_bits(kind, mask, calls):
    """From its third call on, a layer has its weights packed."""
    layer, x = layers.Bidirectional(KINDS[kind](return_sequences=True, return_state=True)), inputs_of()
    randomised(layer)
    fastrnn.keras.install()
    first, *later = [flat(layer(x, mask=MASKS[mask])) for _ in range(4)]
    for outputs in later:
        assert all(map(np.array_equal, outputs, first))
    assert sum(known.frozen is not None for known in fastrnn.keras._known.values()) >= 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_weights_that_changed_in_place_are_seen(kind, which, calls):
    layer, x = randomised(KINDS[kind]()), inputs_of()
    fastrnn.keras.install()
    before = [np.asarray(layer(x)) for _ in range(3)]
    for change in (lambda w: w[...].__imul__(-1), lambda w: w[-1:].__iadd__(1)):
        change(layer.weights[which].value)  # the array itself, which Keras does not hear of
        got = np.asarray(layer(x))
        assert not any(np.array_equal(got, y) for y in before)
        before.append(got)
        fastrnn.keras.uninstall()
        np.testing.assert_allclose(got, layer(x), rtol=0, atol=TOLERANCE)
        fastrnn.keras.install()
    layer.set_weights([0 * w for w in layer.get_weights()])
    assert not np.asarray(layer(x)).any()


def test_what_is_kept_of_a_layer_goes_with_it(calls):
    fastrnn.keras.install()
    before = set(fastrnn.keras._known)
    layer = randomised(layers.GRU(H))
    for _ in range(3):
        layer(inputs_of())
    assert set(fastrnn.keras._known) - before
    del layer
    gc.collect()
    assert not set(fastrnn.keras._known) - before
