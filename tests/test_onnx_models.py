"""fastrnn.onnx against the onnx package, its official node tests, and ONNX Runtime."""

import pickle
import re
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fastrnn.onnx
import onnx_spec

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
helper = onnx.helper

SEEDS = st.integers(0, 2**32 - 1)
RUNTIME_MISSING = "the package onnxruntime is not installed"


def run_model(model, feeds):
    """The outputs of a model in ONNX Runtime."""
    runtime = pytest.importorskip("onnxruntime", reason=RUNTIME_MISSING)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"]).run(None, feeds)


def one_node(op, attributes, inputs, dtype=np.float32, *, feed=("X",), name="node"):
    """A model of one node, in which the inputs that are not fed are constants."""
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"][: len(inputs)]
    names = [n if v is not None else "" for n, v in zip(names, inputs, strict=True)]
    outputs = ["Y", "Y_h", "Y_c"] if op == "LSTM" else ["Y", "Y_h"]
    node = helper.make_node(op, names, outputs, name=name, **attributes)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    arrays = {n: v for n, v in zip(names, inputs, strict=True) if n}
    fed = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in arrays.items() if n in feed
    ]
    constants = [onnx.numpy_helper.from_array(v, n) for n, v in arrays.items() if n not in feed]
    results = [helper.make_tensor_value_info(n, kind, None) for n in outputs]
    graph = helper.make_graph([node], "graph", fed, results, constants)
    opsets = [helper.make_opsetid("", 14)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


# --- the official tests ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official():
    """Name -> (node, inputs by position, expected outputs) of the node tests that onnx has for these operators."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tests of other operators compute with NaN
        cases = [case for case in collect_testcases() if case.model is not None]
    found = {}
    for case in cases:
        nodes = case.model.graph.node
        if [node.op_type for node in nodes] in (["RNN"], ["GRU"], ["LSTM"]):
            ((inputs, outputs),) = case.data_sets
            given = iter(inputs)
            found[case.name] = (nodes[0], [next(given) if name else None for name in nodes[0].input], outputs)
    return found


OFFICIAL = [
    *(f"test_simple_rnn_{what}" for what in ("defaults", "with_initial_bias", "batchwise", "reverse", "bidirectional")),
    *(f"test_gru_{what}" for what in ("defaults", "with_initial_bias", "batchwise", "reverse", "bidirectional", "seq_length")),
    *(f"test_lstm_{what}" for what in ("defaults", "with_initial_bias", "batchwise", "reverse", "bidirectional", "with_peepholes")),
    "test_rnn_seq_length",
]
# Added to onnx in 2026; older versions do not have them.
NEWER = [name for name in OFFICIAL if name.endswith(("_reverse", "_bidirectional"))]


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_node_test(official, name):
    if name in NEWER and name not in official:
        pytest.skip(f"onnx {onnx.__version__} does not have this test yet")
    node, inputs, expected = official[name]
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    outputs = fastrnn.onnx.run_node(node.op_type, attributes, inputs)
    outputs = [y for y, asked in zip(outputs, node.output, strict=False) if asked]
    for y, wanted in zip(outputs, expected, strict=True):
        assert y.dtype == wanted.dtype
        assert y.shape == wanted.shape
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)


def test_no_official_node_test_is_new_to_us(official):
    assert set(official) <= set(OFFICIAL)


# --- ONNX Runtime ----------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(seed=SEEDS)
def test_onnx_runtime_agrees_where_it_supports_the_node(seed):
    """It has no layout 1 and no float64, and T = 0 or N = 0 may end the process."""
    rng = np.random.default_rng(seed)
    node = onnx_spec.random_node(rng, dtype=np.float32, least=1)
    if node.attributes.pop("layout", 0) == 1:
        node.inputs[0] = node.inputs[0].swapaxes(0, 1).copy()
        node.inputs[5:7] = [None if v is None else v.swapaxes(0, 1).copy() for v in node.inputs[5:7]]
    spell_out(node, rng)
    assume(onnx_spec.run(node.op, node.attributes, node.inputs)[1] > 1e-3)  # no jump that rounding decides
    feeds = dict(zip(["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"], node.inputs, strict=False))
    feeds = {name: v for name, v in feeds.items() if v is not None}
    attributes = node.attributes | {"hidden_size": node.inputs[2].shape[2]}
    expected = run_model(one_node(node.op, attributes, node.inputs, feed=feeds), feeds)
    assume(all(np.abs(wanted).max() < 1e30 for wanted in expected))  # rounding decides where a state that grows ends in infinity
    outputs = fastrnn.onnx.run_node(node.op, node.attributes, node.inputs)
    for y, wanted in zip(outputs, expected, strict=True):
        assert y.shape == wanted.shape
        np.testing.assert_allclose(y, wanted, rtol=0, atol=5e-4 * max(1.0, np.abs(wanted).max()))


def spell_out(node, rng):
    """Give every alpha and beta a value: the defaults of ONNX Runtime are others than ours."""
    names = node.attributes.get("activations", [])
    for parameter, takers in (("activation_alpha", onnx_spec.ALPHA), ("activation_beta", onnx_spec.BETA)):
        node.attributes.pop(parameter, None)
        if any(name in takers for name in names):
            node.attributes[parameter] = [float(np.float32(rng.uniform(-0.5, 1))) for name in names if name in takers]


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_onnx_runtime_ends_a_row_without_steps_at_zero_too(op):
    rng, G = np.random.default_rng(0), onnx_spec.GATES[op]
    X, W, R = (rng.uniform(-1, 1, shape).astype(np.float32) for shape in [(3, 2, 2), (1, G * 3, 2), (1, G * 3, 3)])
    states = [np.ones((1, 2, 3), np.float32)] * (2 if op == "LSTM" else 1)
    inputs = [X, W, R, None, np.array([0, 2], np.int32), *states]
    expected = run_model(one_node(op, {"hidden_size": 3}, inputs), {"X": X})
    for y, wanted in zip(fastrnn.onnx.run_node(op, {}, inputs), expected, strict=True):
        np.testing.assert_allclose(y, wanted, atol=1e-6)


# --- layers as models, and back ----------------------------------------------------------------------------------------

LAYERS = {
    "lstm": lambda **options: fastrnn.LSTM(5, 7, **options),
    "peephole": lambda **options: fastrnn.LSTM(5, 7, peephole=True, **options),
    "gru": lambda **options: fastrnn.GRU(5, 7, **options),
    "gru-before": lambda **options: fastrnn.GRU(5, 7, reset_after=False, **options),
    "tanh": lambda **options: fastrnn.RNN(5, 7, **options),
    "relu": lambda **options: fastrnn.RNN(5, 7, nonlinearity="relu", **options),
    "irnn": lambda **options: fastrnn.IRNN(5, 7, input_std=0.3, **options),
    "lstm-activated": lambda **options: fastrnn.LSTM(5, 7, activation="softsign", recurrent_activation="hard_sigmoid", **options),
    "gru-activated": lambda **options: fastrnn.GRU(
        5, 7, activation=("leaky_relu", 0.2), recurrent_activation=("hard_sigmoid", 0.25, 0.4), **options
    ),
    "elu": lambda **options: fastrnn.RNN(5, 7, nonlinearity=("elu", 0.5), **options),
    "linear": lambda **options: fastrnn.RNN(5, 7, nonlinearity="linear", **options),
}
layers = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
OPTIONS = [
    {},
    {"batch_first": True},
    {"bias": False},
    {"num_layers": 3},
    {"num_layers": 2, "bidirectional": True},
    {"bidirectional": True, "batch_first": True, "bias": False},
]


def members(state):
    return state if isinstance(state, tuple) else (state,)


@layers
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("given", [(), ("state",), ("lengths",), ("state", "lengths")], ids=str)
def test_onnx_runtime_computes_what_a_saved_layer_does(make, options, given, tmp_path):
    layer, rng = make(rng=1, **options), np.random.default_rng(2)
    path = tmp_path / "layer.onnx"
    fastrnn.onnx.save(layer, path, **dict.fromkeys(given, True))
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    T, B = 4, 6
    x = rng.standard_normal((B, T, 5) if layer.batch_first else (T, B, 5), dtype=np.float32)
    parallel = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    h, c = rng.standard_normal((2, parallel, B, 7), dtype=np.float32)
    feeds, state, lengths = {"x": x}, None, None
    if "state" in given:
        state = (h, c) if isinstance(layer, fastrnn.LSTM) else h
        feeds |= dict(zip(("h0", "c0"), members(state), strict=False))
    if "lengths" in given:
        lengths = feeds["lengths"] = rng.integers(1, T + 1, B).astype(np.int32)
    y, final = layer(x, state, lengths)
    names = [value.name for value in model.graph.output]
    assert names == ["y", "h_n", "c_n"][: len(names)]
    for name, wanted, came in zip(names, (y, *members(final)), run_model(model, feeds), strict=True):
        assert came.shape == wanted.shape, name
        np.testing.assert_allclose(came, wanted, rtol=0, atol=1e-5, err_msg=name)


@layers
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_saved_layer_comes_back_bit_for_bit(make, options, dtype, tmp_path):
    layer = make(rng=1, dtype=dtype, **options)
    fastrnn.onnx.save(layer, str(tmp_path / "layer.onnx"))
    loaded = fastrnn.onnx.load(str(tmp_path / "layer.onnx"))
    assert len(loaded) == options.get("num_layers", 1)
    for name, array in layer.params.items():
        stem, k, end = re.fullmatch(r"(\w+)_l(\d+)(_reverse)?", name).groups(default="")
        assert np.array_equal(loaded[int(k)].params[f"{stem}_l0{end}"], array), name
    assert sum(array.size for back in loaded for array in back.params.values()) == layer.flat.size
    activations = [function.numbers for function in layer._cell.activations]
    assert all([function.numbers for function in back._cell.activations] == activations for back in loaded)


def test_activations_that_no_layer_has_are_of_the_kernels_all_the_same():
    X, W, R, B = weights_of("LSTM", 2)
    names = ["Sigmoid", "Tanh", "Relu", "HardSigmoid", "Softsign", "Softplus"]
    attributes = {"hidden_size": 3, "direction": "bidirectional", "activations": names}
    for refused, why in (
        (attributes, "its two directions have different activations"),
        (attributes | {"activations": names[:3] * 2}, "g and h"),
    ):
        (node,) = fastrnn.onnx.nodes(one_node("LSTM", refused, [X, W, R, B]))
        assert node.path == "fused"
        with pytest.raises(ValueError, match=why):
            node.layer()
        wanted = fastrnn.onnx.run_node("LSTM", refused | {"clip": 1e30}, [X, W, R, B])
        for found, a in zip(node.run(X), wanted, strict=True):
            np.testing.assert_allclose(found, a, rtol=0, atol=1e-6)


def test_what_no_model_holds_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^layer: expected proj_size = 0, as ONNX has no projection"):
        fastrnn.onnx.to_model(fastrnn.LSTM(3, 5, proj_size=2))
    with pytest.raises(TypeError, match=r"^layer: expected an RNN, GRU or LSTM of fastrnn, got dict"):
        fastrnn.onnx.save({}, tmp_path / "layer.onnx")
    with pytest.raises(TypeError, match=r"^state: expected True or False, got 1"):
        fastrnn.onnx.to_model(fastrnn.LSTM(3, 5), state=1)


# --- other people's models ----------------------------------------------------------------------------------------------


def weights_of(op, D=1, dtype=np.float32, I=2, H=3):
    rng, G = np.random.default_rng(0), onnx_spec.GATES[op]
    return [rng.uniform(-1, 1, shape).astype(dtype) for shape in [(4, 2, I), (D, G * H, I), (D, G * H, H), (D, 2 * G * H)]]


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_a_node_becomes_a_layer(op, direction, layout):
    inputs = weights_of(op, 2 if direction == "bidirectional" else 1)
    attributes = {"hidden_size": 3, "direction": direction, "layout": layout}
    model = one_node(op, attributes, inputs)
    (node,) = fastrnn.onnx.nodes(model)
    assert (node.name, node.op_type, node.path, node.inputs) == ("node", op, "fused", ("X", "W", "R", "B"))
    assert dict(node.attributes) == attributes
    (layer,) = fastrnn.onnx.load(model)
    Y, *final = node.run(inputs[0])
    y, state = layer(inputs[0])
    np.testing.assert_array_equal(y, Y.reshape(y.shape) if layout else Y.swapaxes(1, 2).reshape(y.shape))
    for ours, theirs in zip(members(state), final, strict=True):
        np.testing.assert_array_equal(ours, theirs.swapaxes(0, 1) if layout else theirs)


def test_weights_behind_folded_nodes_and_in_subgraphs_are_found():
    """Wt -> Transpose -> Unsqueeze -> W in the outer graph; the node in both branches of an If, R as a Constant inside."""
    X, W, R, B = weights_of("RNN")
    outer = [
        helper.make_node("Transpose", ["Wt"], ["W2"]),
        helper.make_node("Unsqueeze", ["W2", "zero"], ["W"]),
        helper.make_node("Not", ["flag"], ["flip"]),
    ]

    def branch(name):
        R_node = helper.make_node("Constant", [], ["R"], value=onnx.numpy_helper.from_array(R))
        node = helper.make_node("RNN", ["X", "W", "R", "B"], [f"Y_{name}"], name=name, hidden_size=3)
        result = helper.make_tensor_value_info(f"Y_{name}", onnx.TensorProto.FLOAT, None)
        return helper.make_graph([R_node, node], name, [], [result])

    choose = helper.make_node("If", ["flip"], ["Y"], then_branch=branch("then"), else_branch=branch("else"))
    kind = onnx.TensorProto.FLOAT
    given = [helper.make_tensor_value_info("X", kind, X.shape), helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, [])]
    stored = {"Wt": W[0].T.copy(), "zero": np.array([0]), "B": B}
    constants = [onnx.numpy_helper.from_array(v, n) for n, v in stored.items()]
    results = [helper.make_tensor_value_info("Y", kind, (4, 1, 2, 3))]
    graph = helper.make_graph([*outer, choose], "graph", given, results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    found = fastrnn.onnx.nodes(model)
    assert sorted(node.name for node in found) == ["else", "then"]
    (expected,) = run_model(model, {"X": X, "flag": np.array(True)})
    for layer in fastrnn.onnx.load(model):
        np.testing.assert_array_equal(layer.params["weight_ih_l0"], W[0])
        np.testing.assert_array_equal(layer.params["weight_hh_l0"], R[0])
        np.testing.assert_allclose(layer(X)[0], expected[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    "op, attributes, message",
    [
        ("RNN", {"direction": "reverse"}, "a layer goes forward or both ways, not in reverse alone"),
        ("GRU", {"clip": 1.0}, r"no layer has its attributes, \{'clip': 1.0\}"),
        ("LSTM", {"input_forget": 1}, "no layer has its attributes"),
        ("RNN", {"direction": "bidirectional", "activations": ["Tanh", "Relu"]}, "its two directions have different activations"),
    ],
)
def test_a_node_that_no_layer_can_be_says_so_and_runs(op, attributes, message):
    inputs = weights_of(op, 2 if attributes.get("direction") == "bidirectional" else 1)
    model = one_node(op, attributes, inputs)
    with pytest.raises(ValueError, match=f"^{op} node 'node': {message}"):
        fastrnn.onnx.load(model)
    (node,) = fastrnn.onnx.nodes(model)
    expected = fastrnn.onnx.run_node(op, attributes, inputs)
    for y, wanted in zip(node.run(inputs[0]), expected, strict=True):
        np.testing.assert_array_equal(y, wanted)


def test_constant_initial_states_are_not_lost():
    inputs = [*weights_of("GRU"), None, np.ones((1, 2, 3), np.float32)]
    model = one_node("GRU", {}, inputs)
    with pytest.raises(ValueError, match=r"^GRU node 'node': initial_h is a constant that is not 0"):
        fastrnn.onnx.load(model)
    (node,) = fastrnn.onnx.nodes(model)
    np.testing.assert_array_equal(node.constants["initial_h"], inputs[5])
    np.testing.assert_array_equal(node.run(inputs[0])[0], fastrnn.onnx.run_node("GRU", {}, inputs)[0])
    inputs[5] = 0 * inputs[5]
    np.testing.assert_array_equal(node.run(inputs[0], initial_h=None)[0], fastrnn.onnx.run_node("GRU", {}, inputs)[0])
    assert len(fastrnn.onnx.load(one_node("GRU", {}, inputs))) == 1
    with pytest.raises(TypeError, match=r"^inputs: expected names of X, .*, got \['P'\]"):
        node.run(inputs[0], P=None)


def test_weights_that_are_inputs_are_refused():
    model = one_node("RNN", {}, weights_of("RNN"), feed=("X", "R"))
    with pytest.raises(ValueError, match=r"^RNN node 'node': R \('R'\) is not a constant of the model"):
        fastrnn.onnx.load(model)


def test_weights_of_other_kinds_are_refused():
    model = one_node("RNN", {}, weights_of("RNN", dtype=np.int32), np.int32)
    with pytest.raises(TypeError, match="expected dtype float32 or float64, got int32"):
        fastrnn.onnx.load(model)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"^path_or_model: expected a path or an onnx\.ModelProto, got list"):
        fastrnn.onnx.load([])


# --- nodes whose weights are packed once -------------------------------------------------------------------------------


def initial(op, D, N, H, layout, rng, dtype):
    names = ["initial_h", "initial_c"] if op == "LSTM" else ["initial_h"]
    return {name: rng.standard_normal((N, D, H) if layout else (D, N, H)).astype(dtype) for name in names}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_a_node_gives_the_bits_of_run_node(op, direction, layout, dtype):
    D, T, N, I, H, G = 1 + (direction == "bidirectional"), 6, 5, 3, 4, onnx_spec.GATES[op]
    rng = np.random.default_rng(0)
    shapes = [(N, T, I) if layout else (T, N, I), (D, G * H, I), (D, G * H, H), (D, 2 * G * H), None, None, None, (D, 3 * H)]
    inputs = [None if shape is None else rng.standard_normal(shape).astype(dtype) for shape in shapes[: 8 if op == "LSTM" else 4]]
    attributes = {"direction": direction, "layout": layout, "hidden_size": H}
    (node,) = fastrnn.onnx.nodes(one_node(op, attributes, inputs, dtype))
    states = initial(op, D, N, H, layout, rng, dtype)
    lengths = np.array([6, 0, 3, 1, 6], np.int32)
    some = dict(list(states.items())[:1])
    for others in ({}, states, some, {"sequence_lens": lengths}, states | {"sequence_lens": lengths}, {}):
        named = dict(zip(["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"], inputs)) | others
        positional = [named.get(name) for name in ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]]
        expected = fastrnn.onnx.run_node(op, attributes, positional[: 8 if op == "LSTM" else 6])
        for y, wanted in zip(node.run(inputs[0], **others), expected, strict=True):
            np.testing.assert_array_equal(y, wanted)
            assert y.flags.writeable
    assert (node._snapshots[np.dtype(dtype)].frozen is None) == (direction == "reverse")  # of which there is no layer
    copied = pickle.loads(pickle.dumps(node))
    np.testing.assert_array_equal(copied.run(inputs[0])[0], node.run(inputs[0])[0])
    assert list(copied._snapshots) == [np.dtype(dtype)]


def test_what_nodes_reads_cannot_be_written_to():
    (node,) = fastrnn.onnx.nodes(one_node("GRU", {}, weights_of("GRU")))
    for array in node.constants.values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
            array.flags.writeable = True


def test_weights_that_changed_in_place_are_seen():
    """Of a node that somebody makes from arrays of their own, and those that are locked for a time."""
    X, W, R, _ = weights_of("GRU")
    node = fastrnn.onnx.Node("node", "GRU", {}, ("X", "W", "R"), ("Y", "Y_h"), {"W": W, "R": R})
    for lock in (False, True, True, False):
        W.flags.writeable = R.flags.writeable = True
        R *= -1
        W.flags.writeable = R.flags.writeable = not lock
        np.testing.assert_array_equal(node.run(X)[0], fastrnn.onnx.run_node("GRU", {}, [X, W, R])[0])


def test_attributes_that_changed_in_place_are_seen():
    inputs = weights_of("RNN")
    (node,) = fastrnn.onnx.nodes(one_node("RNN", {"activations": ["Tanh"]}, inputs))
    for activation in ("Tanh", "Relu", "Softsign", "Tanh"):
        node.attributes["activations"][0] = activation
        expected = fastrnn.onnx.run_node("RNN", {"activations": [activation]}, inputs)
        for y, wanted in zip(node.run(inputs[0]), expected, strict=True):
            np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("wrong", [{"initial_h": np.zeros((1, 3, 3), np.float32)}, {"sequence_lens": [9, 9]}, {"W": None}])
def test_a_node_refuses_what_run_node_refuses(wrong):
    inputs = weights_of("GRU")
    (node,) = fastrnn.onnx.nodes(one_node("GRU", {}, inputs))
    node.run(inputs[0])
    named = dict(zip("XWR", inputs)) | wrong
    with pytest.raises((TypeError, ValueError)) as refused:
        fastrnn.onnx.run_node("GRU", {}, [named.get(name) for name in ("X", "W", "R", "B", "sequence_lens", "initial_h")])
    with pytest.raises(refused.type, match=f"^{re.escape(str(refused.value))}$"):
        node.run(inputs[0], **wrong)
