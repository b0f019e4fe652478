"""The layers against PyTorch's results and gradients, which tests/golden/generate.py has written down."""

from pathlib import Path

import numpy as np
import pytest

import fastrnn

GOLDEN = np.load(Path(__file__).parent / "golden" / "torch.npz")
TOLERANCE = {"float32": 2e-6, "float64": 1e-14}  # relative to the largest value of an array
LAYERS = {
    "tanh": fastrnn.RNN,
    "relu": lambda *size, **options: fastrnn.RNN(*size, nonlinearity="relu", **options),
    "gru": fastrnn.GRU,
    "lstm": fastrnn.LSTM,
}


def layer_of(case, inputs, dtype):
    """The layer of a case, with the case's parameters."""
    cell, _, _, I, H, *nobias = case.split("-")
    layer = LAYERS[cell](int(I), int(H), bias=not nobias, dtype=dtype)
    layer.load_state_dict({name: inputs[name] for name in layer.params})
    return layer


def run(layer, inputs):
    """The results and gradients of a layer, by the names that the file has for them."""
    if isinstance(layer, fastrnn.LSTM):
        y, (h_n, c_n), tape = layer.forward(inputs["x"], (inputs["h0"], inputs["c0"]))
        grads = tape.backward(inputs["dy"], (inputs["dh_n"], inputs["dc_n"]))
        states = {"h_n": h_n, "c_n": c_n, "dh0": grads.state[0], "dc0": grads.state[1]}
    else:
        y, h_n, tape = layer.forward(inputs["x"], inputs["h0"])
        grads = tape.backward(inputs["dy"], inputs["dh_n"])
        states = {"h_n": h_n, "dh0": grads.state}
    return {"y": y, "dx": grads.x, **states} | {f"d{name}": grad for name, grad in grads.params.items()}


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", GOLDEN.files)
def test_a_layer_computes_what_torch_does(case, dtype):
    record = GOLDEN[case]
    given, expected = record["inputs"], record[dtype]
    inputs = {field: given[field].astype(dtype) for field in given.dtype.names}
    results = run(layer_of(case, inputs, dtype), inputs)
    assert sorted(results) == sorted(expected.dtype.names)
    for field, result in results.items():
        assert (result.shape, result.dtype) == (expected[field].shape, dtype), field
        error = np.abs(result - expected[field]).max() / np.abs(expected[field]).max()
        assert error <= TOLERANCE[dtype], f"{field}: off by {error:.1e} of its largest value"
