"""Models as they come: what stands for recurrences without being one of the three operators, and weights in other forms."""

import warnings

import numpy as np
import pytest

import fastrnn.onnx

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT
T, B, I, H = 3, 2, 4, 4
RNG = np.random.default_rng(0)
WEIGHTS = {"W": RNG.standard_normal((I, H)), "R": RNG.standard_normal((H, H)), "h0": np.zeros((B, H))}
WEIGHTS = {name: a.astype(np.float32) for name, a in WEIGHTS.items()}


def info(name, *shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape or None)


def model_of(nodes, stored=WEIGHTS, *, x="x", domains=(), functions=()):
    constants = [onnx.numpy_helper.from_array(a, n) for n, a in stored.items()]
    graph = helper.make_graph(nodes, "graph", [info(x)], [info("y")], constants)
    opsets = [helper.make_opsetid(domain, 14 if domain == "" else 1) for domain in ("", *domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)


def step(x, h, out, weights="R", **names):
    """The nodes of out = tanh(x + h R)."""
    return [
        helper.make_node("MatMul", [h, weights], [f"{out}_product"], **names),
        helper.make_node("Add", [x, f"{out}_product"], [f"{out}_sum"]),
        helper.make_node("Tanh", [f"{out}_sum"], [out]),
    ]


def unrolled(weights=("R", "R", "R"), out="y"):
    nodes = [helper.make_node("MatMul", ["x", "W"], ["xW"])]
    ends = [f"{out}_{t}" for t in range(len(weights) - 1)] + [out]
    for t, (R, end) in enumerate(zip(weights, ends)):
        nodes += step("xW", ends[t - 1] if t else "h0", end, R, name=f"step{t}")
    return nodes


def loop(name="loop", kind=FLOAT, body=None):
    """h = tanh(x + h R), three times."""
    nodes = body or step("x", "h", "h_next")
    nodes = [*nodes, helper.make_node("Identity", ["going"], ["goes_on"])]
    given = [info("t", kind=onnx.TensorProto.INT64), info("going", kind=onnx.TensorProto.BOOL), info("h", kind=kind)]
    body = helper.make_graph(nodes, "body", given, [info("goes_on", kind=onnx.TensorProto.BOOL), info("h_next", kind=kind)])
    return [
        helper.make_node("Constant", [], ["n"], value=onnx.numpy_helper.from_array(np.array(T))),
        helper.make_node("Loop", ["n", "", "h0"], ["y"], name=name, body=body),
    ]


def scan():
    nodes = [*step("x_t", "h", "h_next"), helper.make_node("Identity", ["h_next"], ["y_t"])]
    body = helper.make_graph(nodes, "body", [info("h"), info("x_t")], [info("h_next"), info("y_t")])
    return [helper.make_node("Scan", ["h0", "x"], ["h_n", "y"], name="scan", body=body, num_scan_inputs=1)]


def branches(nodes):
    """`nodes`, which make y, in a branch of an If."""
    other = helper.make_graph([helper.make_node("Identity", ["h0"], ["y"])], "else", [], [info("y")])
    flag = helper.make_node("Constant", [], ["flag"], value=onnx.numpy_helper.from_array(np.array(True)))
    then = helper.make_graph(nodes, "then", [], [info("y")])
    return [flag, helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=other)]


def in_function(nodes):
    opsets = [helper.make_opsetid("", 14)]
    function = helper.make_function("local", "Block", ["x", "W", "R", "h0"], ["y"], nodes, opsets)
    call = helper.make_node("Block", ["x", "W", "R", "h0"], ["y"], domain="local")
    return model_of([call], domains=["local"], functions=[function])


EQUAL = {"R0": WEIGHTS["R"], "R1": WEIGHTS["R"]}  # the same weights, stored twice
TURNED = [helper.make_node("Transpose", ["R"], [f"turned{t}"], perm=[1, 0]) for t in range(T)]
CUSTOM = helper.make_node("FancyLSTM", ["x"], ["y"], name="fancy", domain="my.own")
ATEN = helper.make_node("ATen", ["x"], ["y"], name="fallback", domain="org.pytorch.aten", operator="lstm")
UNROLLED = "MatMul nodes 'step0' to 'step2', which multiply by the same weights again"
UNREAD = {
    "Loop": (lambda: model_of(loop()), "Loop node 'loop', which carries 'h' from step to step"),
    "Scan": (lambda: model_of(scan()), "Scan node 'scan', which carries 'h' from step to step"),
    "an unrolled cell": (lambda: model_of(unrolled()), UNROLLED),
    "weights stored twice": (lambda: model_of(unrolled(("R0", "R1")), WEIGHTS | EQUAL), "'step0' to 'step1'"),
    "weights turned at each step": (lambda: model_of([*TURNED, *unrolled(("turned0", "turned1", "turned2"))]), UNROLLED),
    "Loop in an If": (lambda: model_of(branches(loop())), "Loop node 'loop'"),
    "an unrolled cell in an If": (lambda: model_of(branches(unrolled())), UNROLLED),
    "steps of which each is an If": (
        lambda: model_of([*branches(step("x", "h0", "y"))[:1], *chained_branches()]),
        "MatMul nodes 'first' to 'last'",
    ),
    "Loop in a function": (lambda: in_function(loop()), "Loop node"),
    "an unrolled cell in a function": (lambda: in_function(unrolled()), "an unrolled cell"),
    "an operator of another domain": (
        lambda: model_of([CUSTOM], domains=["my.own"]),
        "FancyLSTM node 'fancy' of the domain 'my.own'",
    ),
    "PyTorch's own operator": (lambda: model_of([ATEN], domains=["org.pytorch.aten"]), "ATen node 'fallback'"),
}


def chained_branches():
    """h R, an If that only reads it, and (the result) R."""
    inner = helper.make_graph([helper.make_node("Tanh", ["h1"], ["h2"])], "inner", [], [info("h2")])
    return [
        helper.make_node("MatMul", ["h0", "R"], ["h1"], name="first"),
        helper.make_node("If", ["flag"], ["h3"], then_branch=inner, else_branch=inner),
        helper.make_node("MatMul", ["h3", "R"], ["y"], name="last"),
    ]


@pytest.mark.parametrize("what", UNREAD)
@pytest.mark.parametrize("function", [fastrnn.onnx.nodes, fastrnn.onnx.load])
def test_what_cannot_be_read_is_named(what, function):
    make, says = UNREAD[what]
    with pytest.warns(UserWarning, match="^looks recurrent, but is not among the nodes that fastrnn reads: ") as caught:
        assert function(make()) == []
    (warning,) = caught
    assert says in str(warning.message)
    assert warning.filename == __file__


def lstm_node(name="lstm", x="x", out="y"):
    return helper.make_node("LSTM", [x, "W1", "R1"], [out], name=name, hidden_size=H)


LSTM_WEIGHTS = {"W1": np.ones((1, 4 * H, I), np.float32), "R1": np.ones((1, 4 * H, H), np.float32)}
SIAMESE = [
    helper.make_node("MatMul", ["x", "W"], ["a"]),
    helper.make_node("MatMul", ["h0", "W"], ["b"]),
    helper.make_node("Add", ["a", "b"], ["y"]),
]
OTHERS = {"U": WEIGHTS["R"] + 1, "V": WEIGHTS["R"] + 2}
COUNTER = [helper.make_node("Add", ["h", "t"], ["h_next"])]
UNCHANGED = [helper.make_node("Identity", ["h"], ["h_next"])]
NOTHING = {
    "the same weights side by side": (lambda: model_of(SIAMESE), 0),
    "other weights at each depth": (lambda: model_of(unrolled(("R", "U", "V")), WEIGHTS | OTHERS), 0),
    "a loop that counts": (lambda: model_of(loop(kind=onnx.TensorProto.INT64, body=COUNTER)), 0),
    "a loop that changes nothing": (lambda: model_of(loop(body=UNCHANGED)), 0),
    "an LSTM in a loop": (lambda: model_of(loop(body=[lstm_node(x="h", out="h_next")]), WEIGHTS | LSTM_WEIGHTS), 1),
    "an LSTM twice": (lambda: model_of([lstm_node("a", out="h"), lstm_node("b", "h")], LSTM_WEIGHTS), 2),
    "a layer of ours": (lambda: fastrnn.onnx.to_model(fastrnn.GRU(3, 4, 3, bidirectional=True), state=True), 3),
}


@pytest.mark.parametrize("what", NOTHING)
def test_nothing_is_said_of_what_is_not_recurrent_or_is_read(what):
    make, nodes = NOTHING[what]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(fastrnn.onnx.nodes(make())) == nodes


def test_nodes_of_functions_are_read():
    function = helper.make_function("local", "Encoder", ["x", "W1", "R1"], ["y"], [lstm_node()], [helper.make_opsetid("", 14)])
    call = helper.make_node("Encoder", ["x", "W1", "R1"], ["y"], domain="local")
    (layer,) = fastrnn.onnx.load(model_of([call], LSTM_WEIGHTS, domains=["local"], functions=[function]))
    assert (layer.flat == 1).all() and not layer.bias


# --- weights of 8 and 16 bits, and in other places -----------------------------------------------------------------------


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_layers": 2}], ids=str)
@pytest.mark.parametrize("kind", ["QInt8", "QUInt8"])
def test_a_dynamically_quantised_lstm_becomes_a_layer(per_channel, options, kind, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
    quantization = pytest.importorskip("onnxruntime.quantization")
    layer = fastrnn.LSTM(5, 7, rng=0, **options)
    fastrnn.onnx.save(layer, tmp_path / "real.onnx")
    quantization.quantize_dynamic(
        tmp_path / "real.onnx", tmp_path / "small.onnx", weight_type=getattr(quantization.QuantType, kind), per_channel=per_channel
    )
    with pytest.warns(
        UserWarning, match=r"DynamicQuantizeLSTM node 'LSTM_l.*' becomes an LSTM of real numbers; .* 8 bits"
    ) as caught:
        found = fastrnn.onnx.load(tmp_path / "small.onnx")
    assert len(found) == len(caught) == layer.num_layers
    x = np.random.default_rng(1).standard_normal((6, 3, 5)).astype(np.float32)
    y, limit = x, np.abs(layer.flat).max() / 127  # of the error of a weight, at a scale for each array
    for k, one in enumerate(found):
        assert (one.input_size, one.hidden_size, one.bidirectional) == (y.shape[2], 7, layer.bidirectional)
        for name, array in one.params.items():
            np.testing.assert_allclose(array, layer.params[name.replace("l0", f"l{k}")], rtol=0, atol=limit)
        y, _ = one(y)
    theirs = runtime.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    np.testing.assert_allclose(y, layer(x)[0], rtol=0, atol=0.02)
    np.testing.assert_allclose(y, theirs, rtol=0, atol=0.05)


def test_zero_points_are_taken_off():
    W, R = np.random.default_rng(1).integers(0, 256, (2, 1, I, 4 * H), np.uint8)
    stored = {"W": W, "R": R, "W_zero": np.array([3], np.uint8), "R_zero": np.array([200], np.uint8)}
    stored |= {"W_scale": np.array([0.5], np.float32), "R_scale": np.array([0.25], np.float32)}
    names = ["x", "W", "R", *[""] * 5, "W_scale", "W_zero", "R_scale", "R_zero"]
    node = helper.make_node("DynamicQuantizeLSTM", names, ["y"], domain="com.microsoft", hidden_size=H)
    with pytest.warns(UserWarning, match="8 bits"):
        (found,) = fastrnn.onnx.nodes(model_of([node], stored, domains=["com.microsoft"]))
    assert np.array_equal(found.constants["W"], 0.5 * (W.swapaxes(1, 2) - 3.0))
    assert np.array_equal(found.constants["R"], 0.25 * (R.swapaxes(1, 2) - 200.0))


def with_weights_of(kind, layer, state=False):
    """The layer as a model, with its float tensors in another kind, its input too."""
    model = fastrnn.onnx.to_model(layer, state=state)
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype.kind == "f":
            tensor.CopyFrom(helper.make_tensor(tensor.name, kind, array.shape, array.ravel().tolist()))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    return model


@pytest.mark.parametrize("dtype", [None, np.float32, np.float64])
@pytest.mark.parametrize("kind", ["FLOAT16", "BFLOAT16"])
@pytest.mark.parametrize("make", [fastrnn.LSTM, fastrnn.GRU])
def test_weights_of_16_bits(make, kind, dtype):
    layer = make(3, 4, 2, rng=0)
    model = with_weights_of(getattr(onnx.TensorProto, kind), layer)
    found = fastrnn.onnx.load(model, dtype=dtype)
    assert [one.dtype for one in found] == [dtype or np.float32] * 2
    for k, one in enumerate(found):
        for name, array in one.params.items():
            np.testing.assert_allclose(array, layer.params[name.replace("l0", f"l{k}")], rtol=2**-8, atol=1e-6)
    x = np.random.default_rng(1).standard_normal((5, 2, 3)).astype(dtype or np.float32)
    node = fastrnn.onnx.nodes(model)[0]
    np.testing.assert_array_equal(node.run(x)[0][:, 0], node.layer(dtype)(x)[0])


def test_weights_of_64_bits_are_rounded_if_asked_for():
    layer = fastrnn.RNN(3, 4, dtype=np.float64, rng=0)
    (same,), (rounded,) = (fastrnn.onnx.load(fastrnn.onnx.to_model(layer), dtype=dtype) for dtype in (None, np.float32))
    assert same.flat.tobytes() == layer.flat.tobytes()
    assert rounded.flat.tobytes() == layer.flat.astype(np.float32).tobytes()
    with pytest.raises(TypeError, match=r"^dtype: expected float32 or float64, got 'float16'"):
        fastrnn.onnx.load(fastrnn.onnx.to_model(layer), dtype="float16")


def sparse_of(name, array, flat):
    places = np.nonzero(array)
    indices = np.ravel_multi_index(places, array.shape) if flat else np.stack(places, 1)
    values = onnx.numpy_helper.from_array(array[places], name)
    return helper.make_sparse_tensor(values, onnx.numpy_helper.from_array(indices.astype(np.int64), f"{name}_at"), array.shape)


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("constant", [True, False])
def test_sparse_weights_are_read(flat, constant):
    layer = fastrnn.GRU(3, 4, bias=False, rng=0)
    layer.flat[np.random.default_rng(0).random(layer.flat.shape) < 0.5] = 0
    weights = layer.export_weights("onnx")
    model = fastrnn.onnx.to_model(layer)
    sparse = sparse_of("W_l0", weights["W"], flat)
    kept = [tensor for tensor in model.graph.initializer if tensor.name != "W_l0"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    if constant:
        model.graph.node.insert(0, helper.make_node("Constant", [], ["W_l0"], sparse_value=sparse))
    else:
        model.graph.sparse_initializer.append(sparse)
    (read,) = fastrnn.onnx.load(model)
    assert read.flat.tobytes() == layer.flat.tobytes()
    for wrong in (-1, 10**6):
        sparse = model.graph.node[0].attribute[0].sparse_tensor if constant else model.graph.sparse_initializer[0]
        indices = onnx.numpy_helper.to_array(sparse.indices).copy()
        indices[0] = wrong
        sparse.indices.CopyFrom(onnx.numpy_helper.from_array(indices))
        with pytest.raises(ValueError, match=r"^W_l0: expected a sparse tensor of shape \(1, 12, 3\), got indices beyond it"):
            fastrnn.onnx.load(model)


def test_weights_in_a_file_beside_the_model(tmp_path, monkeypatch):
    layer = fastrnn.LSTM(3, 4, rng=0)
    onnx.save_model(
        fastrnn.onnx.to_model(layer), tmp_path / "model.onnx", save_as_external_data=True, location="weights", size_threshold=0
    )
    (read,) = fastrnn.onnx.load(tmp_path / "model.onnx")
    assert read.flat.tobytes() == layer.flat.tobytes()
    bare = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(ValueError, match=r"^W_l0: expected a tensor that holds its data, .* in the file 'weights', which is not"):
        fastrnn.onnx.load(bare)
