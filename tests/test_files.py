"""load_model: the recurrent layers of Keras's, ONNX, PyTorch's, safetensors and JSON files, and what is not taken over."""

import json
import os
import struct
import sys

import numpy as np
import pytest

import fastrnn
import fastrnn.onnx

os.environ.setdefault("KERAS_BACKEND", "numpy")  # it is there; any will do


def lstm(**more):
    return fastrnn.LSTM(3, 4, **{"rng": 0, **more})


def reasons(model):
    return {skipped.name: skipped.reason for skipped in model.skipped}


def assert_equal(layers, expected):
    assert {name: repr(layer) for name, layer in layers.items()} == {name: repr(layer) for name, layer in expected.items()}
    for name, layer in layers.items():
        assert layer.flat.tobytes() == expected[name].flat.tobytes(), name


# --- Keras 3, which writes the files ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    """(a model of Keras with one output after each layer, x, the names of the layers that are ours)."""
    pytest.importorskip("h5py", reason="the package h5py is not installed")
    keras = pytest.importorskip("keras", reason="the package keras is not installed")
    layers = keras.layers
    keras.utils.set_random_seed(0)
    bias = {"bias_initializer": "glorot_normal"}
    start = keras.Input((5, 3))
    inner = keras.Sequential([keras.Input((5, 4)), layers.GRU(6, return_sequences=True, name="deep")], name="inner")
    both = layers.Bidirectional(layers.LSTM(3, return_sequences=True, name="bi", use_bias=False), name="both")
    outputs = [start]
    for layer in (
        layers.LSTM(4, return_sequences=True, name="first"),
        inner,
        both,
        layers.RNN(layers.GRUCell(2, reset_after=False), return_sequences=True, name="celled"),
        layers.LSTM(4, return_sequences=True, name="hard", recurrent_activation="hard_sigmoid"),
        layers.LSTM(4, return_sequences=True, name="after_hard"),
        layers.GRU(4, return_sequences=True, name="backwards", go_backwards=True),
        layers.SimpleRNN(5, activation="relu", return_sequences=True, name="last", **bias),
    ):
        outputs.append(layer(outputs[-1]))
    return keras.Model(start, outputs[1:]), np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)


TAKEN = {"first": 0, "inner/deep": 1, "both": 2, "celled": 3, "hard": 4, "after_hard": 5, "last": 7}  # and where their outputs are


@pytest.mark.filterwarnings("ignore")  # of Keras and h5py, about their own code and about .h5
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_keras_layers_with_their_directions_and_activations(ending, trained, tmp_path):
    model, x = trained
    path = str(tmp_path / f"model{ending}")
    model.save(path)
    found = fastrnn.load_model(path)
    assert found.path == path and list(found.layers) == list(TAKEN)
    outputs = [x, *map(np.asarray, model.predict(x, verbose=0))]
    for name, k in TAKEN.items():
        layer = found.layers[name]
        assert layer.batch_first
        np.testing.assert_allclose(layer(outputs[k])[0], outputs[k + 1], rtol=0, atol=2e-6)
    assert reasons(found) == {
        "backwards": "it goes backwards alone; a layer of its weights does that for x[::-1] along the time axis",
    }
    backwards = fastrnn.GRU.from_weights(found.skipped[0].weights, "keras", batch_first=True)
    np.testing.assert_allclose(backwards(outputs[6][:, ::-1].copy())[0], outputs[7], rtol=0, atol=2e-6)
    text = repr(found)
    assert "  both: LSTM(6, 3, bias=False, batch_first=True, bidirectional=True)\n" in text
    assert "not taken over:\n  backwards: it goes backwards" in text
    wide = fastrnn.load_model(path, batch_first=False, dtype=np.float64).layers["last"]
    assert (wide.batch_first, wide.dtype, wide.nonlinearity) == (False, np.float64, "relu")


@pytest.mark.filterwarnings("ignore")
def test_keras_weights_alone_tell_no_activations(trained, tmp_path):
    model, _ = trained
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    found = fastrnn.load_model(path)
    assert not found.layers
    assert all("which do not tell activations" in reason for reason in reasons(found).values())
    by_name = {skipped.name: skipped.weights for skipped in found.skipped}
    assert len(by_name) == 8
    both = fastrnn.LSTM.from_weights(by_name["layers/bidirectional/forward_layer/cell"], "keras", batch_first=True)
    assert both.bidirectional and not both.bias


# --- Keras 2, as its files are ----------------------------------------------------------------------------------------


def keras_config(kind, name, **config):
    return {"class_name": kind, "config": {"name": name, "activation": "tanh", "recurrent_activation": "sigmoid", **config}}


def both_ways(layer, **config):
    return {"class_name": "Bidirectional", "config": {"name": f"both_{layer['config']['name']}", "layer": layer, **config}}


def write_h5(path, layers, weights, version="2.2.4", with_config=True):
    """weights: by layer, a dict of arrays by the names in its group."""
    h5py = pytest.importorskip("h5py", reason="the package h5py is not installed")
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if with_config else file
        root.attrs["layer_names"] = [name.encode() for name in weights]
        for name, arrays in weights.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [key.encode() for key in arrays]
            for key, array in arrays.items():
                group.create_dataset(key, data=array)
        if with_config:
            file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": layers}).encode()
            file.attrs["keras_version"] = version.encode()


def named(scope, arrays):
    kinds = ("kernel:0", "recurrent_kernel:0", "bias:0")
    return {f"{scope}/{kind}": array for kind, array in zip(kinds, arrays)}


def test_keras_2_with_its_own_layers_and_defaults(tmp_path):
    pytest.importorskip("h5py", reason="the package h5py is not installed")
    options = {"batch_first": True}
    cudnn, gru = lstm(**options), fastrnn.GRU(3, 4, reset_after=False, rng=1, **options)
    pair, after = fastrnn.GRU(3, 4, bidirectional=True, rng=2, **options), fastrnn.GRU(3, 4, rng=3, **options)
    pair_weights = pair.export_weights("cudnn-keras")
    layers = [
        {"class_name": "Embedding", "config": {"name": "embedding"}},
        keras_config("CuDNNLSTM", "cudnn"),
        keras_config("GRU", "old"),  # no reset_after: there was none
        both_ways(keras_config("CuDNNGRU", "pair")),
        keras_config("GRU", "after", reset_after=True),
        keras_config("LSTM", "hard", recurrent_activation="hard_sigmoid"),
        {"class_name": "LSTM", "config": {"name": "first_keras", "activation": "tanh", "inner_activation": "hard_sigmoid"}},
        keras_config("LSTM", "relu", activation="relu"),
        keras_config("LSTM", "selu", activation="selu"),
        both_ways(keras_config("LSTM", "added"), merge_mode="sum"),
        both_ways(keras_config("LSTM", "torn")),
        keras_config("ConvLSTM2D", "images"),
        keras_config("LSTM", "lost"),
        keras_config("LSTM", "cut"),
        {**keras_config("LSTM", "theirs"), "registered_name": "mine>LSTM"},
    ]
    one = lstm().export_weights("keras")
    weights = {
        "cudnn": named("cudnn", cudnn.export_weights("cudnn-keras")),
        "old": named("old", gru.export_weights("keras")),
        "both_pair": named("both_pair/forward_pair", pair_weights[:3]) | named("both_pair/backward_pair", pair_weights[3:]),
        "after": named("after", after.export_weights("keras")),
        "torn": named("torn", one),
        "both_torn": named("both_torn/forward_torn", one),
        "cut": named("cut", one[:1]),
        **{name: named(name, one) for name in ("hard", "first_keras", "relu", "selu", "added", "images", "theirs")},
    }
    write_h5(tmp_path / "model.h5", layers, weights)
    model = fastrnn.load_model(tmp_path / "model.h5")
    one_bias = fastrnn.GRU.from_weights(gru.export_weights("keras"), "keras", **options)
    hard = fastrnn.LSTM.from_weights(one, "keras", recurrent_activation="hard_sigmoid", **options)
    relu = fastrnn.LSTM.from_weights(one, "keras", activation="relu", **options)
    taken = {"cudnn": cudnn, "old": one_bias, "both_pair": pair, "after": after, "hard": hard, "first_keras": hard, "relu": relu}
    assert_equal(model.layers, taken)
    assert all(repr(model.layers[name]) == repr(layer) for name, layer in taken.items())
    found = reasons(model)
    assert list(found) == ["selu", "both_added", "both_torn", "images", "lost", "cut", "theirs"]
    assert found["selu"].startswith("its activation is selu, and a layer has tanh, sigmoid, relu")
    assert "merge_mode is 'sum'" in found["both_added"]
    assert found["both_torn"] == "bidirectional: expected False, as the weights tell, got True"
    assert found["images"].startswith("it is a ConvLSTM2D, and layers are of SimpleRNN, GRU, LSTM")
    assert found["lost"] == "its arrays are not where Keras 2 and 3 put them"
    assert "expected a list of 2 or 3 arrays" in found["cut"]
    assert found["theirs"].startswith("it is a mine>LSTM")
    assert np.array_equal(model.skipped[0].weights[0], one[0])


@pytest.mark.parametrize("config", [b"{", b"[]", b'{"class_name": "Sequential", "config": [{"name": "lstm"}]}'])
def test_keras_configurations_that_are_none(config, tmp_path):
    h5py = pytest.importorskip("h5py", reason="the package h5py is not installed")
    write_h5(tmp_path / "model.h5", [], {"lstm": {}})
    with h5py.File(tmp_path / "model.h5", "a") as file:
        file.attrs["model_config"] = config
    with pytest.raises(ValueError, match=r"expected a file of Keras, got '.*', of a layout that is not known: "):
        fastrnn.load_model(tmp_path / "model.h5")


def test_hdf5_files_that_are_not_of_keras(tmp_path):
    h5py = pytest.importorskip("h5py", reason="the package h5py is not installed")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["lstm"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"of a layout that is not known: .*it has neither .* but \['lstm'\]"):
        fastrnn.load_model(tmp_path / "data.h5")


def test_keras_2_weights_alone_of_cudnn_are_taken_over(tmp_path):
    layer, pair = lstm(batch_first=True), fastrnn.GRU(3, 4, bidirectional=True, batch_first=True, rng=1)
    halves = pair.export_weights("cudnn-keras")
    weights = {
        "dense": {"dense/kernel:0": np.ones((3, 3))},
        "rnn_1": named("rnn_1/rnn_1", layer.export_weights("cudnn-keras")),
        "both": named("both/forward_gru", halves[:3]) | named("both/backward_gru", halves[3:]),
        "lstm_2": named("lstm_2/lstm_2", layer.export_weights("keras")),
    }
    write_h5(tmp_path / "weights.hdf5", None, weights, with_config=False)
    model = fastrnn.load_model(tmp_path / "weights.hdf5")
    assert_equal(model.layers, {"rnn_1": layer, "both": pair})
    (skipped,) = model.skipped
    assert skipped.name == "lstm_2" and "do not tell activations" in skipped.reason
    assert np.array_equal(fastrnn.LSTM.from_weights(skipped.weights, "keras").params["weight_ih_l0"], layer.params["weight_ih_l0"])


# --- state_dicts: of PyTorch, in safetensors and in JSON --------------------------------------------------------------


def state():
    """(arrays by name, the layers that they are)."""
    layers = {"enc.rnn": fastrnn.LSTM(3, 4, 2, bidirectional=True, proj_size=2, rng=0), "dec": fastrnn.GRU(3, 4, bias=False, rng=1)}
    layers |= {"cell": fastrnn.LSTMCell(3, 4, rng=2), "gates": fastrnn.GRUCell(3, 4, bias=False, rng=3)}
    arrays = {f"{name}.{key}": array for name, layer in layers.items() for key, array in layer.params.items()}
    arrays |= {f"plain.{key}": array for key, array in fastrnn.RNN(3, 4, rng=4).params.items()}
    arrays |= {"awd.weight_hh_l0_raw": np.ones((16, 4), np.float32), "awd.weight_ih_l0": np.ones((16, 3), np.float32)}
    return arrays | {"mlx_lstm.Wx": np.ones((16, 3), np.float32), "out.weight": np.ones((2, 4), np.float32)}, layers


def check_state(model, layers, prefix=""):
    assert_equal(model.layers, {f"{prefix}{name}": layer for name, layer in layers.items()})
    found = reasons(model)
    assert list(found) == [f"{prefix}{name}" for name in ("plain", "awd", "mlx_lstm")]
    assert "does not tell its nonlinearity, tanh or relu" in found[f"{prefix}plain"]
    assert found[f"{prefix}awd"] == "weight_ih and weight_hh are missing, or their shapes are those of no RNN, GRU or LSTM"
    assert found[f"{prefix}mlx_lstm"].startswith(f"its arrays, {prefix}mlx_lstm.Wx, are not named as PyTorch names those")


@pytest.mark.parametrize("wrap, prefix", [(lambda s: s, ""), (lambda s: {"epoch": 3, "model": s, "names": ["a"]}, "model.")])
@pytest.mark.parametrize("new", [True, False])
def test_pytorch_state_dicts(wrap, prefix, new, tmp_path):
    torch = pytest.importorskip("torch", reason="the package torch is not installed")
    arrays, layers = state()
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    torch.save(wrap(tensors), tmp_path / "model.pt", _use_new_zipfile_serialization=new)
    check_state(fastrnn.load_model(tmp_path / "model.pt"), layers, prefix)


def test_pytorch_modules_are_refused_as_code(tmp_path):
    torch = pytest.importorskip("torch", reason="the package torch is not installed")
    torch.save(torch.nn.LSTM(3, 4), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"expected a file of a state_dict, got '.*weights_only=True; save model\.state_dict\(\)"):
        fastrnn.load_model(tmp_path / "model.pt")


def safetensors(arrays, kind="F32"):
    """The bytes of such a file."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        upper_halves = (array.view(np.uint32) >> 16).astype("<u2")
        raw = upper_halves if kind == "BF16" else array.astype({"F16": "<f2", "F64": "<f8", "F32": "<f4"}[kind])
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [len(data), len(data) + raw.nbytes]}
        data += raw.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_safetensors(tmp_path):
    arrays, layers = state()
    (tmp_path / "model.safetensors").write_bytes(safetensors(arrays))
    check_state(fastrnn.load_model(tmp_path / "model.safetensors"), layers)


@pytest.mark.parametrize("kind", ["F16", "BF16", "F64"])
def test_safetensors_of_other_precisions(kind, tmp_path):
    layer = lstm()
    layer.flat[:] = (layer.flat.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    layer.flat[:] = layer.flat.astype(np.float16) if kind == "F16" else layer.flat
    (tmp_path / "model").write_bytes(safetensors(layer.params, kind))
    found = fastrnn.load_model(tmp_path / "model").layers["lstm"]
    assert found.dtype == (np.float64 if kind == "F64" else np.float32)
    assert np.array_equal(found.flat, layer.flat)


def test_rtneural_files_of_pytorch_and_guitarml(tmp_path):
    arrays, layers = state()
    lists = {name: array.tolist() for name, array in arrays.items()}
    for content in (lists, {"model_data": {"unit_type": "LSTM", "skip": 1}, "state_dict": lists}):
        (tmp_path / "model.json").write_text(json.dumps(content))
        check_state(fastrnn.load_model(tmp_path / "model.json"), layers)
    wide = fastrnn.load_model(tmp_path / "model.json", dtype=np.float64).layers["dec"]
    assert wide.dtype == np.float64 and np.array_equal(wide.flat, layers["dec"].flat)


def test_rtneural_files_of_keras(tmp_path):
    first, second = lstm(), fastrnn.GRU(4, 5, rng=1)
    second.params["bias_hh_l0"][:] = 0
    weights = [[array.tolist() for array in layer.export_weights("keras")] for layer in (first, second)]
    layers = [
        {"type": "lstm", "activation": "", "shape": [None, None, 4], "weights": weights[0]},
        {"type": "gru", "activation": "tanh", "weights": weights[1]},
        {"type": "dense", "activation": "", "weights": [[[1.0]], [0.0]]},
        {"type": "gru", "activation": "relu", "weights": []},
        {"type": "lstm", "activation": "", "weights": [[[1.0], [1.0, 2.0]]]},
        {"type": "lstm"},
        {"type": "simple_rnn"},
    ]
    (tmp_path / "model.json").write_text(json.dumps({"in_shape": [None, None, 3], "layers": layers}))
    model = fastrnn.load_model(tmp_path / "model.json")
    assert_equal(model.layers, {"lstm_0": fastrnn.LSTM.from_weights(first.export_weights("keras"), "keras"), "gru_1": second})
    found = reasons(model)
    assert list(found) == ["gru_3", "lstm_4", "lstm_5", "simple_rnn_6"]
    assert found["gru_3"] == "its activation is relu, and a layer has tanh"
    assert found["lstm_4"].startswith("weights: expected numbers, got what is none")
    assert found["simple_rnn_6"] == "the type 'simple_rnn' is not known"


# --- ONNX -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def onnx():
    return pytest.importorskip("onnx", reason="the package onnx is not installed")


def test_onnx_nodes_and_those_that_no_layer_computes(onnx, tmp_path):
    layers = fastrnn.onnx.to_model(fastrnn.LSTM(3, 4, 2, bidirectional=True, rng=0))
    for node in layers.graph.node:
        node.name = node.name and ("same" if node.op_type == "LSTM" else node.name)
    path = tmp_path / "model.onnx"
    onnx.save(layers, path)
    model = fastrnn.load_model(path)
    assert [repr(layer) for layer in model.layers.values()] == ["LSTM(3, 4, bidirectional=True)", "LSTM(8, 4, bidirectional=True)"]
    assert list(model.layers) == ["same", "same_2"] and not model.skipped
    for layer, expected in zip(model.layers.values(), fastrnn.onnx.load(layers)):
        assert layer.flat.tobytes() == expected.flat.tobytes()
    assert fastrnn.load_model(path, batch_first=True).layers["same"].batch_first
    for node in layers.graph.node:
        if node.op_type == "LSTM":
            node.attribute.append(onnx.helper.make_attribute("activations", ["HardSigmoid", "Tanh", "Relu"] * 2))
    onnx.save(layers, path)
    model = fastrnn.load_model(path)
    assert not model.layers and list(reasons(model)) == ["same", "same_2"]
    assert "its g and h are different activations" in model.skipped[0].reason
    assert model.skipped[0].weights["W"].shape == (2, 16, 3)


def test_onnx_of_16_bits(onnx, tmp_path):
    layer = lstm()
    layer.flat[:] = layer.flat.astype(np.float16)
    model = fastrnn.onnx.to_model(layer)
    for k, tensor in enumerate(list(model.graph.initializer)):
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            model.graph.initializer[k].CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float16), tensor.name))
    onnx.save(model, tmp_path / "model.onnx")
    (found,) = fastrnn.load_model(tmp_path / "model.onnx").layers.values()
    assert found.dtype == np.float32
    assert np.array_equal(found.params["weight_hh_l0"], layer.params["weight_hh_l0"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_onnx_quantised(onnx, tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization", reason="the package onnxruntime is not installed")
    layer = fastrnn.LSTM(8, 16, rng=0)
    fastrnn.onnx.save(layer, tmp_path / "float.onnx")
    quantization.quantize_dynamic(tmp_path / "float.onnx", tmp_path / "int8.onnx", op_types_to_quantize=["LSTM"])
    with pytest.warns(UserWarning, match="becomes an LSTM of real numbers; in ONNX Runtime x and h have 8 bits"):
        model = fastrnn.load_model(tmp_path / "int8.onnx")
    (found,) = model.layers.values()
    np.testing.assert_allclose(found.params["weight_hh_l0"], layer.params["weight_hh_l0"], rtol=0, atol=2e-3)
    assert not model.skipped


def test_onnx_cells_that_were_unrolled_are_named(onnx, tmp_path):
    helper = onnx.helper
    weights = onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "W")
    steps = [helper.make_node("MatMul", [f"h{t}", "W"], [f"h{t + 1}"], name=f"step{t}") for t in range(3)]
    cell = {f"enc.cell.{name}": array for name, array in fastrnn.LSTMCell(3, 4, rng=0).params.items()}
    cell = [onnx.numpy_helper.from_array(array, name) for name, array in cell.items()]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 4)) for name in ("h0", "h3")]
    graph = helper.make_graph(steps, "g", ends[:1], ends[1:], [weights, *cell])
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    model = fastrnn.load_model(tmp_path / "model.onnx")
    skipped, named = model.skipped
    assert named.name == "enc.cell" and "named as those of PyTorch's LSTMCell" in named.reason
    assert np.array_equal(fastrnn.LSTM.from_weights(named.weights).flat, lstm().flat)
    assert "it looks recurrent, but is no node that fastrnn reads: MatMul nodes 'step0' to 'step2'" in skipped.reason
    assert repr(model).startswith("recurrent layers of '") and ": none\nnot taken over:\n  unread_0: it looks" in repr(model)


# --- what is no such file ---------------------------------------------------------------------------------------------


WHOLE = safetensors(lstm().params)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "one that begins with b''"),
        (b"abc", "one that begins with b'abc'"),
        (b"\x1c\0\0\0TFL3", "one of TensorFlow Lite; give its tensors to fastrnn.LSTM.from_weights"),
        (b"\x93NUMPY", "one array of NumPy"),
        (b"PK\3\4", "a damaged one"),
        (b"{", "which is damaged"),
        (b"{}", "which has no such arrays"),
        (b'{"a": [1]}', "which has no such arrays"),
        (b"[1]", "which has no such arrays"),
        (b'{"a.weight_hh_l0": ["x"]}', "a.weight_hh_l0: expected numbers"),
        (WHOLE[:-1], r"expected a \.safetensors file, .* which is damaged"),
        (WHOLE.replace(b"[0, ", b"[4, "), r"expected a \.safetensors file, .* which is damaged"),
        (WHOLE.replace(b'"F32"', b'"F31"'), r"expected a \.safetensors file, .* which is damaged"),
        (struct.pack("<Q", 10) + b'{"a": [1] ' + b"0" * 10, r"expected a \.safetensors file, .* which is damaged"),
    ],
)
def test_files_of_other_kinds_and_damaged_ones(content, message, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        fastrnn.load_model(path)


def test_damaged_files_of_optional_packages(tmp_path):
    path = tmp_path / "file"
    for package, content, message in (
        ("h5py", b"\x89HDF\r\n\x1a\n" + b"0" * 100, "expected an HDF5 file, got '.*', which is damaged"),
        ("onnx", b"\x08\x0a\xff\xff\xff", "expected an ONNX model, got '.*', which cannot be read"),
        ("torch", b"\x80\x02junk", "expected a file of a state_dict"),
    ):
        pytest.importorskip(package, reason=f"the package {package} is not installed")
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            fastrnn.load_model(path)


def test_files_of_fastrnn_say_what_reads_them(tmp_path):
    fastrnn.save(tmp_path / "file", layer=lstm())
    with pytest.raises(ValueError, match=r"a file of fastrnn\.save, for fastrnn\.load"):
        fastrnn.load_model(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        fastrnn.load_model(tmp_path / "none")
    with pytest.raises(TypeError, match="batch_first: expected True or False, got 1"):
        fastrnn.load_model(tmp_path / "file", batch_first=1)


@pytest.mark.parametrize(
    "package, extra, content",
    [("h5py", "h5", b"\x89HDF\r\n\x1a\n"), ("onnx", "onnx", b"\x08\x0a"), ("torch", "torch", b"\x80\x02")],
)
def test_a_missing_package_is_named(package, extra, content, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(content)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"load_model of .* needs the package {package}, .*\[{extra}\]'") as raised:
        fastrnn.load_model(tmp_path / "file")
    assert raised.value.name == package
