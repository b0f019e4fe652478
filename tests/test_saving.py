"""Layers and cells in a file and back: every class with every option, and what is no such file."""

import inspect
import io
import json
import os
import re
import zipfile

import numpy as np
import pytest

import fastrnn
import fastrnn.train

LAYERS = [
    fastrnn.RNN(3, 4, 2, "relu", rng=0),
    fastrnn.RNN(3, 4, bias=False, batch_first=True, dtype=np.float64, rng=0),
    fastrnn.IRNN(3, 4, 3, dropout=0.25, recurrent_scale=0.1, input_std=1 / 3, rng=0),
    fastrnn.GRU(3, 4, 2, bidirectional=True, reset_after=False, dropout=1 / 3, rng=0),
    fastrnn.GRU(3, 4, precision="bf16", rng=0),
    fastrnn.LSTM(3, 4, 2, bidirectional=True, proj_size=2, rng=0),
    fastrnn.LSTM(3, 4, peephole=True, dtype=np.float64, rng=0),
    fastrnn.LSTM(3, 4, forget_bias=1.5, rng=0),
    fastrnn.RNN(3, 4, nonlinearity=("leaky_relu", 0.1), rng=0),
    fastrnn.LSTM(3, 4, activation="softsign", recurrent_activation=("hard_sigmoid", 1 / 3), rng=0),
    fastrnn.RNNCell(3, 4, False, "relu", rng=0),
    fastrnn.GRUCell(3, 4, reset_after=False, precision="bf16", rng=0),
    fastrnn.LSTMCell(3, 4, peephole=True, dtype=np.float64, rng=0),
]


WROTE = r"path: expected a file that fastrnn\.save wrote, got "


def arguments(layer):
    return {name: getattr(layer, name) for name in inspect.signature(type(layer)).parameters if name != "rng"}


def test_every_option_is_among_the_cases():
    for kind in {type(layer) for layer in LAYERS}:
        for name, parameter in inspect.signature(kind).parameters.items():
            some = [getattr(layer, name) for layer in LAYERS if hasattr(layer, name)]
            assert name in ("rng", "input_size", "hidden_size") or any(value != parameter.default for value in some), name


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_there_and_back(layer, tmp_path):
    layer.flat[:3] = [-0.0, np.inf, np.finfo(layer.dtype).smallest_subnormal]
    fastrnn.save(tmp_path / "file", self=layer)
    (other,) = fastrnn.load(tmp_path / "file").values()
    assert (type(other), arguments(other)) == (type(layer), arguments(layer))
    assert list(other.params) == list(layer.params)
    assert other.flat.dtype == layer.flat.dtype and other.flat.tobytes() == layer.flat.tobytes()
    assert os.listdir(tmp_path) == ["file"]


def test_names_and_their_order(tmp_path):
    layers = {"path": LAYERS[0], "a/b": LAYERS[1], "ü\0.npy": LAYERS[2], "fastrnn": LAYERS[3]}
    path = str(tmp_path / "many.npz")
    fastrnn.save(path, **layers)
    found = fastrnn.load(path)
    assert list(found) == list(layers)
    assert all(found[name].flat.tobytes() == layer.flat.tobytes() for name, layer in layers.items())


def test_a_precision_that_was_assigned(tmp_path):
    layer = fastrnn.GRU(3, 4, rng=0)
    layer.precision = "bf16"
    fastrnn.save(tmp_path / "file", layer=layer)
    assert fastrnn.load(tmp_path / "file")["layer"].precision == "bf16"


class Mine(fastrnn.GRU):
    pass


@pytest.mark.parametrize(
    "layers, message",
    [
        ({}, "layers: expected at least one layer or cell"),
        ({"a": LAYERS[0], "b": np.zeros(3)}, "b: expected one of fastrnn's RNN, .*, got numpy.ndarray"),
        ({"mine": Mine(3, 4)}, "mine: expected one of fastrnn's RNN, .*, got test_saving.Mine"),
        ({"frozen": LAYERS[0].frozen()}, "frozen: expected one of fastrnn's RNN, .*, got fastrnn.frozen.FrozenLayer"),
        ({"kind": fastrnn.GRU}, "kind: expected one of fastrnn's RNN, .*, got builtins.type"),
    ],
)
def test_what_cannot_be_saved(layers, message, tmp_path):
    (tmp_path / "file").write_text("older")
    with pytest.raises(TypeError, match=message):
        fastrnn.save(tmp_path / "file", **layers)
    assert (tmp_path / "file").read_text() == "older"


def changed(path, **changes):
    """The same file with entries changed by functions of arrays; None leaves one out."""
    with np.load(path) as file:
        entries = dict(file)
    for name, change in changes.items():
        name = name.replace("__", "/")
        entries[name] = change(entries.get(name))
    with open(path, "wb") as file:
        np.savez(file, **{name: array for name, array in entries.items() if array is not None})


def header(**changes):
    return lambda array: np.array(json.dumps(json.loads(str(array)) | changes))


def sizes(I, H, **more):
    return of_layer(arguments={"input_size": I, "hidden_size": H, **more})


def of_layer(**changes):
    return lambda array: header(layers=[json.loads(str(array))["layers"][0] | changes])(array)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"fastrnn": lambda a: None}, r"which has \['0/bias_hh_l0', .*fastrnn.train.load"),
        ({"fastrnn": lambda a: np.array("{")}, "whose header is damaged"),
        ({"fastrnn": lambda a: np.array("[]")}, "whose header is damaged"),
        ({"fastrnn": header(layers=3)}, "whose header is damaged"),
        ({"fastrnn": header(layers=[3])}, "whose layer 0, 3, cannot be made"),
        ({"fastrnn": header(version=2)}, "which fastrnn .* wrote in version 2 of the layout; this one reads 1"),
        ({"fastrnn": of_layer(**{"class": "QRNN"})}, "cannot be made: 'QRNN'"),
        ({"fastrnn": sizes(3, 4, colour=1)}, "unexpected keyword argument 'colour'"),
        ({"fastrnn": sizes(2, 4)}, r"weight_ih_l0: expected .* \(16, 2\), got \(16, 3\)"),
        ({"fastrnn": sizes(-2, 4)}, "input_size: expected an integer greater than zero"),
        ({"fastrnn": sizes(3, 10**9)}, "input_size, hidden_size: "),
        ({"fastrnn": header(layers=[])}, r"arrays of no layer, \['0/bias_hh_l0'"),
        ({"0__weight_hh_l0": lambda a: None}, r"missing \['weight_hh_l0'\]"),
        ({"0__weight_hh_l0": lambda a: a.astype(np.float64)}, "weight_hh_l0: expected .*float32, got .*float64"),
        ({"0__extra": lambda a: np.zeros(3)}, r"unexpected \['extra'\]"),
        ({"7__extra": lambda a: np.zeros(3)}, r"arrays of no layer, \['7/extra'\]"),
    ],
)
def test_a_file_that_says_something_else(changes, message, tmp_path):
    path = tmp_path / "file"
    fastrnn.save(path, layer=fastrnn.LSTM(3, 4, rng=0))
    changed(path, **changes)
    with pytest.raises(ValueError, match=rf"{WROTE}{re.escape(repr(str(path)))}.*{message}"):
        fastrnn.load(path)


def test_a_damaged_file(tmp_path):
    path = tmp_path / "file"
    fastrnn.save(path, layer=fastrnn.LSTM(3, 4, rng=0))
    whole = path.read_bytes()
    at = [whole.index(np.array([value], np.float32).tobytes()) for value in fastrnn.LSTM(3, 4, rng=0).flat[[5, -1]]]
    flipped = [whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :] for k in at]
    array, other = io.BytesIO(), io.BytesIO()
    np.save(array, np.zeros(3))
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    for content in (*flipped, whole[:-1], whole[: len(whole) // 2], b"", b"text", array.getvalue(), other.getvalue()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=WROTE):
            fastrnn.load(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        fastrnn.load(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        fastrnn.save(tmp_path / "none" / "file", layer=LAYERS[0])


def test_files_of_train_say_what_reads_them(tmp_path):
    fastrnn.train.save(tmp_path / "file", layer=LAYERS[0])
    with pytest.raises(ValueError, match=r"files of fastrnn\.train\.save are for fastrnn\.train\.load"):
        fastrnn.load(tmp_path / "file")
