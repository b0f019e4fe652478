"""Trained networks of other people's packages, whose weights, inputs and results lie in ../shared/cases.

Each test makes layers from a package's own arrays, replays the package's work with them, and compares every result that its file
offers. `meta` in a file states the layout, the equations and where the numbers come from.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import fastrnn
import fastrnn.onnx
from clients import NAGISA, Speaker

FOLDER = Path(__file__).parents[2] / "shared" / "cases"

pytestmark = [
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the folder of the cases, ../shared/cases, is not here"),
    pytest.mark.usefixtures("isa"),
]


class Cases:
    """A file of cases that knows which of its arrays nobody has asked for yet."""

    def __init__(self, name, dtype):
        with np.load(FOLDER / name, allow_pickle=False) as file:
            self.arrays = dict(file)
        self.meta = json.loads(str(self.arrays.pop("meta")))
        self.unread = set(self.arrays)
        self.dtype = dtype

    def given(self, name):
        """An array for a function to take, in the dtype of the test."""
        return self.expected(name).astype(self.dtype)

    def expected(self, name):
        """An array as it is in the file."""
        self.unread.discard(name)
        return self.arrays[name]


def assert_close(name, result, expected, tolerance):
    """tolerance: relative to the largest value of the array."""
    assert result.shape == expected.shape, name
    error = np.abs(result - expected).max() / np.abs(expected).max()
    assert error <= tolerance, f"{name}: off by {error:.1e} of its largest value"


# --- g2p-en: letters to phonemes, by a GRU that reads a word and one that speaks it -----------------------------

PHONEMES = """
    <pad> <unk> <s> </s> AA0 AA1 AA2 AE0 AE1 AE2 AH0 AH1 AH2 AO0 AO1 AO2 AW0 AW1 AW2 AY0 AY1 AY2 B CH D DH EH0 EH1 EH2
    ER0 ER1 ER2 EY0 EY1 EY2 F G HH IH0 IH1 IH2 IY0 IY1 IY2 JH K L M N NG OW0 OW1 OW2 OY0 OY1 OY2 P R S SH T TH
    UH0 UH1 UH2 UW UW0 UW1 UW2 V W Y Z ZH
""".split()  # noqa: SIM905 -- as a list it would fill a page
START, END = PHONEMES.index("<s>"), PHONEMES.index("</s>")


# The recorded float32 states are up to 3e-6 off themselves: these networks amplify rounding from step to step.
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-5), (np.float64, 4e-6)])
def test_g2p_en_speaks_its_words(dtype, tolerance):
    cases = Cases("g2p_en.npz", dtype)
    arrays = {name.removeprefix("w/"): cases.given(name) for name in cases.arrays if name.startswith("w/")}
    grus = [{name: arrays[f"{part}_{name}"] for name in ("w_ih", "w_hh", "b_ih", "b_hh")} for part in ("enc", "dec")]
    speaker = Speaker(*grus, arrays["dec_emb"], arrays["fc_w"], arrays["fc_b"])
    words = [name.removeprefix("enc") for name in cases.meta["cases"] if name.startswith("enc")]
    assert len(words) == 24
    for enc, dec in ((f"enc{word}", f"dec{word}") for word in words):
        y, h_n = speaker.encoder(cases.given(f"{enc}/x"))
        assert_close(f"{enc}/y", y, cases.expected(f"{enc}/y"), tolerance)
        assert_close(f"{dec}/h0", h_n[0], cases.expected(f"{dec}/h0"), tolerance)
        xs, hs, spoken = speaker.speak(h_n, START, END)
        assert np.array_equal(xs, cases.given(f"{dec}/x"))  # the same choice at each step
        assert_close(f"{dec}/y", hs, cases.expected(f"{dec}/y"), tolerance)
        assert np.array_equal(hs, speaker.decoder(xs, h_n)[0])
        assert [PHONEMES[i] for i in spoken] == cases.meta["cases"][enc]["pron"]
    assert not cases.unread


# --- nagisa: Japanese words and their classes, by a bidirectional LSTM --------------------------------------------

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nagisa_reads_both_ways(dtype):
    cases = Cases("nagisa.npz", dtype)
    assert len(cases.meta["cases"]) == 8
    for name, case in cases.meta["cases"].items():
        w = f"w/{case['weights']}"
        weights = tuple({key: cases.given(f"{w}/{key}_{direction}") for key in ("WxT", "WhT", "b")} for direction in "fb")
        layer = fastrnn.LSTM.from_weights(weights, NAGISA)
        y, (h_n, _) = layer(cases.given(f"{name}/x"))
        assert_close(f"{name}/y", y, cases.expected(f"{name}/y"), 4e-6)
        assert np.array_equal(h_n.ravel(), np.concatenate([y[-1, :50], y[0, 50:]]))
    assert not cases.unread


# --- thinc: ragged batches through LSTMs of one and two layers and directions, and their gradients ----------------


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-13)])
def test_thinc_layers_and_gradients(dtype, tolerance):
    cases = Cases("thinc.npz", dtype)
    assert list(cases.meta["cases"]) == ["uni", "bi", "bi2"]
    for name in cases.meta["cases"]:
        sizes = cases.expected(f"{name}/size_at_t")
        packed = np.arange(sizes[0]) < sizes[:, None]  # (T, B): a packed array has its rows in this order
        X, dY, params, h0, c0 = (cases.given(f"{name}/{field}") for field in ("X", "dY", "params", "H0", "C0"))
        layers, directions, H = h0.shape
        layer = fastrnn.LSTM.from_weights(
            params, "thinc", input_size=X.shape[1], hidden_size=H, num_layers=layers, bidirectional=directions == 2
        )
        state = tuple(np.repeat(a.reshape(-1, 1, H), sizes[0], axis=1) for a in (h0, c0))  # the same for each row
        y, _, tape = layer.forward(padded(X, packed), state, lengths=packed.sum(axis=0))
        grads = tape.backward(padded(dY, packed))
        assert not y[~packed].any()
        assert not grads.x[~packed].any()
        # The package computed Y in float32; the gradients come from a float64 oracle.
        assert_close(f"{name}/Y", y[packed], cases.expected(f"{name}/Y"), 2e-6)
        assert_close(f"{name}/dX", grads.x[packed], cases.expected(f"{name}/dX"), tolerance)
        dparams = layer.export_gradients(grads.params, "thinc")
        assert_close(f"{name}/dparams", dparams, cases.expected(f"{name}/dparams"), tolerance)
        assert np.array_equal(layer.export_weights("thinc"), params)
    assert not cases.unread


def padded(rows, packed):
    """(T, B, .) from packed rows."""
    full = np.zeros((*packed.shape, rows.shape[1]), rows.dtype)
    full[packed] = rows
    return full


# --- other people's files: the arrays as their files have them, read in one call each, and their systems' outputs -----


def file_case(name):
    with np.load(FOLDER / "files" / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def test_an_unrolled_lstm_of_an_onnx_file():
    case = file_case("captcha_whisperer_unrolled")
    weights = {f"{name}_l0": case[name] for name in ("weight_hh", "bias_ih", "bias_hh")}
    layer = fastrnn.LSTM.from_weights({"weight_ih_l0": np.eye(400, dtype=np.float32)} | weights)
    np.testing.assert_allclose(layer(case["x1"])[0], case["y"], rtol=0, atol=1e-5)


def test_a_gru_of_tensorflow_1():
    case = file_case("cutkum_tf1_gru")
    weights = {f"gru/{part}/{kind}:0": case[f"{part}_{kind}"] for part in ("gates", "candidate") for kind in ("kernel", "bias")}
    layer = fastrnn.GRU.from_weights(weights, "tf1")
    np.testing.assert_allclose(layer(case["x"])[0], case["y"], rtol=0, atol=1e-5)


def test_two_directions_of_paddle():
    case = file_case("jieba_lac_small_bigru")
    names = {"fc_{}.w_0": "fw", "fc_{}.b_0": "fb", "gru_{}.w_0": "gw", "gru_{}.b_0": "gb"}
    both = tuple({name.format(k): case[f"{theirs}_{d}"] for name, theirs in names.items()} for k, d in enumerate("fb"))
    layer = fastrnn.GRU.from_weights(both, "paddle")
    np.testing.assert_allclose(layer(case["x"])[0], case["y"], rtol=0, atol=1e-5)
    for exported, direction in zip(layer.export_weights("paddle"), "fb"):
        assert np.array_equal(exported["gru.w_0"], case[f"gw_{direction}"])


def test_rtneural_layers_of_pytorch():
    case = file_case("rtneural_lstm_torch")
    h = case["x"][:, None]
    for stack in "ab":
        weights = {name[2:]: array for name, array in case.items() if name.startswith(f"{stack}_")}
        h = fastrnn.LSTM.from_weights(weights)(h)[0]
    y = h @ case["dense_weight"].T + case["dense_bias"]
    np.testing.assert_allclose(y[:, 0], case["y"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["keras", "cudnn-keras"])
def test_a_cudnn_layer_of_keras(name):
    case = file_case("textgenrnn_cudnnlstm")
    layer = fastrnn.LSTM.from_weights([case["kernel"], case["recurrent"], case["bias"]], name, batch_first=True)
    np.testing.assert_allclose(layer(case["x"])[0], case["y"], rtol=0, atol=5e-5)  # y is 2e-5 off the float64 result itself
    kernel, recurrent, bias = layer.export_weights("keras")
    assert np.array_equal(kernel, case["keras_kernel"]) and np.array_equal(recurrent, case["keras_recurrent"])
    np.testing.assert_allclose(bias, case["keras_bias"], rtol=0, atol=1e-6)


def test_a_layer_of_tensorflow_lite():
    case = file_case("tflite_mnist_lstm")
    tensors = {int(name[1:]): array for name, array in case.items() if name.startswith("t")}
    layer = fastrnn.LSTM.from_weights(tensors, "tflite", batch_first=True)
    np.testing.assert_allclose(layer(case["x"])[0], case["y"], rtol=0, atol=1e-5)


def test_a_gru_whose_candidate_is_a_relu():
    """No layer has this activation; run_node computes it."""
    case = file_case("rnnoise01_noise_gru_relu")
    bias = np.concatenate([case["bias"], np.zeros(144, np.float32)])
    inputs = [case["x"], case["kernel"].T[None], case["recurrent"].T[None], bias[None]]  # both have the gates z, r, n
    Y, _ = fastrnn.onnx.run_node("GRU", {"hidden_size": 48, "activations": ["Sigmoid", "Relu"]}, inputs)
    np.testing.assert_allclose(Y[:, 0, 0], case["y_exact"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(Y[:, 0, 0], case["y"], rtol=0, atol=1e-2)
