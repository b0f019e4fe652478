"""fastrnn.onnx.run_node against the specification, with NumPy alone."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn.onnx
import onnx_spec
from building import IMPORTED_FROM, run_python

SEEDS = st.integers(0, 2**32 - 1)
TOLERANCE = {np.float32: 3e-4, np.float64: 1e-9}


def assert_as_specified(node, dtype):
    expected, margin = onnx_spec.run(node.op, node.attributes, node.inputs)
    outputs = fastrnn.onnx.run_node(node.op, node.attributes, node.inputs)
    assert len(outputs) == len(expected)
    for name, y, wanted in zip(("Y", "Y_h", "Y_c"), outputs, expected, strict=False):
        assert y.dtype == dtype
        assert y.shape == wanted.shape, name
        if margin > 1e-3:  # else rounding may have chosen the other side of a jump
            scale = max(1.0, np.abs(wanted).max(initial=0))
            np.testing.assert_allclose(y, wanted, rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=name)
    return margin > 1e-3


@settings(max_examples=300, deadline=None)
@given(seed=SEEDS, dtype=st.sampled_from([np.float32, np.float64]))
def test_any_node_is_as_specified(seed, dtype):
    assert_as_specified(onnx_spec.random_node(np.random.default_rng(seed), dtype=dtype), dtype)


@settings(max_examples=200, deadline=None)
@given(seed=SEEDS, dtype=st.sampled_from([np.float32, np.float64]))
def test_a_standard_node_is_as_specified_and_fused(seed, dtype):
    node = onnx_spec.random_node(np.random.default_rng(seed), dtype=dtype, standard=True)
    assert fastrnn.onnx.path_of(node.op, node.attributes) == "fused"
    assert assert_as_specified(node, dtype)


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS)
def test_both_paths_agree(seed):
    node = onnx_spec.random_node(np.random.default_rng(seed))
    attributes = {name: value for name, value in node.attributes.items() if name not in ("clip", "input_forget")}
    unbounded = attributes | {"clip": 1e30}
    assert fastrnn.onnx.path_of(node.op, attributes) == "fused" and fastrnn.onnx.path_of(node.op, unbounded) == "numpy"
    fused, plain = (fastrnn.onnx.run_node(node.op, a, node.inputs) for a in (attributes, unbounded))
    if onnx_spec.run(node.op, attributes, node.inputs)[1] > 1e-3:
        for a, b in zip(fused, plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1.0, np.abs(b).max(initial=0)))


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS)
def test_inputs_stay_as_they_are_and_outputs_share_no_memory(seed):
    node = onnx_spec.random_node(np.random.default_rng(seed))
    before = [None if v is None else v.copy() for v in node.inputs]
    for v in node.inputs:
        if v is not None:
            v.flags.writeable = False
    outputs = fastrnn.onnx.run_node(node.op, node.attributes, node.inputs)
    for v in outputs:
        v[...] = 7
        assert not any(np.shares_memory(v, w) for w in outputs if w is not v)
    for v, w in zip(node.inputs, before, strict=True):
        assert (v is None and w is None) or np.array_equal(v, w)


# --- choices --------------------------------------------------------------------------------------------------------


def node_of(op, T=3, N=2, I=2, H=3, D=1, dtype=np.float64, seed=0):
    """X, W, R of a node without attributes."""
    rng, G = np.random.default_rng(seed), onnx_spec.GATES[op]
    shapes = [(T, N, I), (D, G * H, I), (D, G * H, H)]
    return [rng.uniform(-1, 1, shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize(
    "op, attributes, path",
    [
        ("RNN", {}, "fused"),
        ("RNN", {"activations": ["tAnH"], "layout": 1, "hidden_size": 4}, "fused"),
        ("RNN", {"activations": [b"Relu", b"Tanh"], "direction": b"bidirectional"}, "fused"),
        ("RNN", {"activations": ["Sigmoid"]}, "fused"),
        ("RNN", {"clip": 3.0}, "numpy"),
        ("GRU", {"linear_before_reset": 1}, "fused"),
        ("GRU", {"activations": ["HardSigmoid", "Tanh"]}, "fused"),
        ("GRU", {"activations": ["Sigmoid", "Relu"], "clip": 1.0}, "numpy"),
        ("LSTM", {"direction": "reverse", "activations": ["sigmoid", "tanh", "tanh"]}, "fused"),
        ("LSTM", {"input_forget": 1}, "numpy"),
        ("LSTM", {"direction": "bidirectional", "activations": ["Sigmoid", "Tanh", "Tanh", "Sigmoid", "Tanh", "Relu"]}, "fused"),
    ],
)
def test_path_of(op, attributes, path):
    assert fastrnn.onnx.path_of(op, attributes) == path


def test_alpha_and_beta_go_to_those_that_take_them_and_then_come_the_defaults():
    X, W, R = node_of("GRU", D=2)
    short = {
        "direction": "bidirectional",
        "activations": ["HardSigmoid", "Tanh", "leakyrelu", "ScaledTanh"],
        "activation_alpha": [0.3, 0.7],
        "activation_beta": [0.4],
    }
    full = short | {"activation_alpha": [0.3, 0.7, 1.0], "activation_beta": [0.4, 1.0]}
    a, b = (fastrnn.onnx.run_node("GRU", attributes, [X, W, R]) for attributes in (short, full))
    assert np.array_equal(a[0], b[0])
    tanh = short | {"activations": ["HardSigmoid", "Tanh", "LeakyRelu", "Tanh"]}  # a ScaledTanh of 1 and 1 is this
    np.testing.assert_allclose(a[0], fastrnn.onnx.run_node("GRU", tanh, [X, W, R])[0], atol=1e-15)


def test_a_forward_rnn_may_have_the_default_of_two_activations():
    inputs = node_of("RNN")
    one, two = (fastrnn.onnx.run_node("RNN", {"activations": names}, inputs) for names in (["Tanh"], ["Tanh", "Relu"]))
    assert np.array_equal(one[0], two[0])


def test_clip_does_not_bound_the_cell_state():
    X = np.ones((20, 1, 1))
    W, R = np.full((1, 4, 1), 5.0), np.zeros((1, 4, 1))
    _, _, Y_c = fastrnn.onnx.run_node("LSTM", {"clip": 1.0}, [X, W, R])
    s, expected = 1 / (1 + np.exp(-1)), 0.0
    for _ in range(20):
        expected = s * expected + s * np.tanh(1)
    assert expected > 1
    np.testing.assert_allclose(Y_c.item(), expected, rtol=1e-14)
    Y, _, _ = fastrnn.onnx.run_node("LSTM", {"clip": 1.0}, [X, W, R])
    np.testing.assert_allclose(Y[-1].item(), s * np.tanh(expected), rtol=1e-14)


def test_thresholded_relu_keeps_its_threshold():
    X, W, R = np.array([[[0.5], [0.25]]]), np.ones((1, 1, 1)), np.zeros((1, 1, 1))
    attributes = {"activations": ["ThresholdedRelu"], "activation_alpha": [0.5]}
    Y, _ = fastrnn.onnx.run_node("RNN", attributes, [X, W, R])
    assert Y.ravel().tolist() == [0.5, 0.0]


@pytest.mark.parametrize("clip", [None, 1e30])
@pytest.mark.parametrize("layout", [0, 1])
def test_a_row_without_steps_ends_at_zero(clip, layout):
    X, W, R = node_of("LSTM", D=2)
    states = np.ones((2, 2, 3))
    attributes = {"direction": "bidirectional", "layout": layout} | ({} if clip is None else {"clip": clip})
    lengths = np.array([0, 3], np.int32)
    inputs = [X.swapaxes(0, 1) if layout else X, W, R, None, lengths, states, states]
    Y, *final = fastrnn.onnx.run_node("LSTM", attributes, inputs)
    for state in (s if layout else s.swapaxes(0, 1) for s in final):
        assert not state[0].any()
        assert state[1].all()
    assert not (Y[0] if layout else Y[:, :, 0]).any()
    inputs[0], inputs[4] = inputs[0][:, :0] if layout else X[:0], None
    Y, *final = fastrnn.onnx.run_node("LSTM", attributes, inputs)
    assert Y.size == 0
    assert not any(state.any() for state in final)


@pytest.mark.parametrize("clip", [None, 1e30])
def test_padding_is_not_read(clip):
    X, W, R = node_of("GRU", D=2)
    attributes = {"direction": "bidirectional"} | ({} if clip is None else {"clip": clip})
    lengths = np.array([1, 3], np.int64)
    clean = fastrnn.onnx.run_node("GRU", attributes, [X, W, R, None, lengths])
    X[1:, 0] = np.nan
    for a, b in zip(clean, fastrnn.onnx.run_node("GRU", attributes, [X, W, R, None, lengths]), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("name", onnx_spec.NAMES)
def test_huge_numbers_neither_warn_nor_become_nan(name):
    X, W, R = node_of("RNN", dtype=np.float32)
    X[0], X[1] = 1e30, -1e30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Y, _ = fastrnn.onnx.run_node("RNN", {"activations": [name]}, [X, W, 0 * R])
    assert not np.isnan(Y).any()


# --- errors ----------------------------------------------------------------------------------------------------------

ATTRIBUTE_ERRORS = [
    ("GRU", {"direction": "both"}, ValueError, "direction: expected 'forward' or 'reverse' or 'bidirectional', got 'both'"),
    ("GRU", {"direction": 1}, TypeError, "direction: expected a string, got 1"),
    ("GRU", {"clip": 0.0}, ValueError, "clip: expected a number above 0, got 0.0"),
    ("GRU", {"clip": float("nan")}, ValueError, "clip: expected a finite number, got nan"),
    ("GRU", {"layout": 2}, ValueError, "layout: expected an integer from 0 to 1, got 2"),
    ("GRU", {"layout": True}, TypeError, "layout: expected an integer, got True"),
    ("GRU", {"hidden_size": 0}, ValueError, "hidden_size: expected an integer of at least 1, got 0"),
    ("GRU", {"linear_before_reset": "yes"}, TypeError, "linear_before_reset: expected an integer, got 'yes'"),
    ("LSTM", {"linear_before_reset": 1}, ValueError, "attributes: expected names of "),
    ("GRU", {"activations": ["Sigmoid"]}, ValueError, "activations: expected 2 names, 2 per direction, got 1"),
    ("RNN", {"activations": ["Tanh"], "direction": "bidirectional"}, ValueError, "activations: expected 2 names, 1 per direction"),
    ("RNN", {"activations": "Tanh"}, TypeError, "activations: expected a list of strings, got 'Tanh'"),
    ("RNN", {"activations": ["Swish"]}, ValueError, r"activations: expected names of Relu, .*, got \['Swish'\]"),
    ("RNN", {"activation_alpha": [0.1]}, ValueError, "activation_alpha: expected at most 0 values, as no activation takes one"),
    (
        "RNN",
        {"activations": ["Elu"], "activation_alpha": [0.1, 0.2]},
        ValueError,
        "activation_alpha: expected at most 1 values, one for each of Elu, got 2",
    ),
    ("RNN", {"activation_alpha": 0.1}, TypeError, "activation_alpha: expected a list of numbers, got 0.1"),
    ("RNN", {"activations": ["Elu"], "activation_alpha": ["x"]}, TypeError, "activation_alpha: expected a number, got 'x'"),
    ("Conv", {}, ValueError, "op_type: expected 'RNN' or 'GRU' or 'LSTM', got 'Conv'"),
    ("RNN", [], TypeError, "attributes: expected a mapping of names to values, got list"),
]


@pytest.mark.parametrize("op, attributes, error, message", ATTRIBUTE_ERRORS)
def test_attribute_errors_name_the_attribute(op, attributes, error, message):
    with pytest.raises(error, match=f"^{message}"):
        fastrnn.onnx.run_node(op, attributes, node_of("GRU"))
    with pytest.raises(error, match=f"^{message}"):
        fastrnn.onnx.path_of(op, attributes)


def zeros(*shape, dtype=np.float64):
    return np.zeros(shape, dtype)


# X (3, 2, 2), W (1, 12, 2), R (1, 12, 3): which input is replaced, by what
INPUT_ERRORS = [
    (0, zeros(3, 2), ValueError, r"X: expected 3 dimensions, got shape \(3, 2\)"),
    (0, zeros(3, 2, 2, dtype=np.float16), TypeError, "X: expected dtype float32 or float64, got float16"),
    (0, [[1.0]], TypeError, "X: expected a NumPy array of float32 or float64, got list"),
    (0, None, ValueError, "X: expected an array, got None"),
    (1, zeros(1, 12, 4), ValueError, r"W: expected \(num_directions, 4\*hidden_size, input_size\) = \(1, 12, 2\), got"),
    (1, zeros(1, 12, 2, dtype=np.float32), TypeError, "W: expected dtype float64, got float32"),
    (2, zeros(2, 12, 3), ValueError, r"R: expected \(num_directions, 4\*hidden_size, hidden_size\) = \(1, 12, 3\), got"),
    (2, zeros(1, 0, 0), ValueError, r"R: expected \(num_directions, 4\*hidden_size, hidden_size\) = \(1, 4, 1\), got"),
    (3, zeros(1, 12), ValueError, r"B: expected \(num_directions, 8\*hidden_size\) = \(1, 24\), got \(1, 12\)"),
    (4, np.array([1, 4]), ValueError, "sequence_lens: expected integers from 0 to T = 3, got 4 at row 1"),
    (4, np.array([1, 2, 3]), ValueError, r"sequence_lens: expected \(batch_size,\) = \(2,\), got \(3,\)"),
    (4, np.array([1.0, 2.0]), TypeError, "sequence_lens: expected integers, got an array of float64"),
    (5, zeros(2, 1, 3), ValueError, r"initial_h: expected \(num_directions, batch_size, hidden_size\) = \(1, 2, 3\), got"),
    (6, zeros(1, 2, 4), ValueError, r"initial_c: expected \(num_directions, batch_size, hidden_size\) = \(1, 2, 3\), got"),
    (7, zeros(3, 3), ValueError, r"P: expected \(num_directions, 3\*hidden_size\) = \(1, 9\), got \(3, 3\)"),
]


@pytest.mark.parametrize("position, value, error, message", INPUT_ERRORS)
def test_input_errors_name_the_input(position, value, error, message):
    inputs = [*node_of("LSTM"), None, None, None, None, None]
    inputs[position] = value
    with pytest.raises(error, match=f"^{message}"):
        fastrnn.onnx.run_node("LSTM", {}, inputs)


def test_the_number_of_inputs_is_checked():
    X, W, R = node_of("RNN")
    with pytest.raises(ValueError, match=r"^inputs: expected 3 to 6, X, W, R, B, sequence_lens, initial_h, got 7"):
        fastrnn.onnx.run_node("RNN", {}, [X, W, R, None, None, None, None])
    with pytest.raises(ValueError, match=r"^inputs: expected 3 to 6"):
        fastrnn.onnx.run_node("RNN", {}, [X, W])
    with pytest.raises(TypeError, match=r"^inputs: expected a list or tuple of arrays, got ndarray"):
        fastrnn.onnx.run_node("RNN", {}, X)


def test_in_layout_1_the_states_are_batch_first():
    X, W, R = node_of("RNN", D=2)
    attributes = {"layout": 1, "direction": "bidirectional"}
    message = r"^initial_h: expected \(batch_size, num_directions, hidden_size\) = \(3, 2, 3\), got \(2, 3, 3\)"
    with pytest.raises(ValueError, match=message):
        fastrnn.onnx.run_node("RNN", attributes, [X, W, R, None, None, zeros(2, 3, 3)])


def test_hidden_size_must_be_that_of_the_weights():
    with pytest.raises(ValueError, match=r"^R: expected \(num_directions, 3\*hidden_size, hidden_size\) = \(1, 12, 4\), got"):
        fastrnn.onnx.run_node("GRU", {"hidden_size": 4}, node_of("GRU"))


def test_run_node_needs_no_onnx():
    code = """
import sys
sys.modules["onnx"] = None
import numpy as np, fastrnn.onnx
Y, Y_h = fastrnn.onnx.run_node("RNN", {}, [np.ones((2, 1, 1)), np.ones((1, 1, 1)), np.ones((1, 1, 1))])
print(Y.shape, "onnx" in [m for m in sys.modules if sys.modules[m]])
"""
    assert run_python("-c", code, cwd=Path(IMPORTED_FROM)).strip() == "(2, 1, 1, 1) False"


def test_fastrnn_alone_does_not_bring_it_in():
    assert run_python("-c", "import sys, fastrnn; print('fastrnn.onnx' in sys.modules)", cwd=Path(IMPORTED_FROM)).strip() == "False"
