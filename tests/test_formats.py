"""Weights of other systems: each format against its system's equations, there and back, and what cannot be held."""

import copy
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn.formats import FORMATS, Cell, Format, Named, Tree, pull_back, write
from other_cells import SYSTEMS

FAMILIES = {"rnn": "rnn", "gru_after": "gru", "gru_before": "gru", "lstm": "lstm"}
LAYERS = {"rnn": fastrnn.RNN, "gru": fastrnn.GRU, "lstm": fastrnn.LSTM}
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
ALL = [(name, form) for name, format in FORMATS.items() for form in format.cells]

every_format = pytest.mark.parametrize("name, form", ALL)


def draw(rng, dtype=np.float64):
    return lambda *shape: (rng.uniform(-1, 1, shape) / np.sqrt(shape[-1])).astype(dtype)


def leaves(tree, path=""):
    """(path, array) of nested dictionaries, lists and tuples; their types are part of the path."""
    if isinstance(tree, dict):
        for key in sorted(tree):
            yield from leaves(tree[key], f"{path}.{key}")
    elif isinstance(tree, (list, tuple)):
        for k, item in enumerate(tree):
            yield from leaves(item, f"{path}{type(tree).__name__}{k}")
    else:
        yield path, tree


def assert_same(a, b):
    a, b = list(leaves(a)), list(leaves(b))
    assert [path for path, _ in a] == [path for path, _ in b]
    for (path, one), (_, other) in zip(a, b):
        assert one.dtype == other.dtype, path
        assert np.array_equal(one, other), path


def options(name, form, I, H, **more):
    """What the weights do not tell."""
    needs = {"input_size": I, "hidden_size": H} if name in ("jax", "thinc") else {}
    needs |= {"reset_after": form == "gru_after"} if name == "onnx" and form.startswith("gru") else {}
    return needs | more


def from_weights(weights, name, form, **given):
    return LAYERS[FAMILIES[form]].from_weights(weights, name, **given)


def random_layer(name, form, L, D, rng, dtype=np.float64, I=3, H=4):
    """A layer that the format can hold."""
    family = FAMILIES[form]
    extra = {"reset_after": form == "gru_after"} if family == "gru" else {}
    cell = FORMATS[name].cells[form]
    held = cell.held
    if family == "lstm":
        extra = {"peephole": ("c", "i") in held}
    I = D * H if name == "onednn" and L > 1 else I
    layer = LAYERS[family](I, H, L, bidirectional=D == 2, dtype=dtype, rng=rng, **extra)
    if form == "gru_after" and ("bh", "n") not in held:
        for key, array in layer.params.items():
            if key.startswith("bias_hh"):
                array[2 * H :] = 0
    return layer


# --- the numbers ----------------------------------------------------------------------------------------------------


def test_every_format_has_its_equations_and_its_place_in_the_documentation():
    assert set(SYSTEMS) == set(ALL)
    text = (Path(__file__).parents[1] / "docs" / "other_systems.md").read_text("utf-8")
    for name, format in FORMATS.items():
        (row,) = (line for line in text.splitlines() if line.startswith(f'| `"{name}"` |'))
        _, _, rnn, gru, lstm, _, _ = row.split("|")
        assert ("yes" in rnn, "yes" in lstm) == ("rnn" in format.cells, "lstm" in format.cells), row
        assert ("after" in gru, "before" in gru) == ("gru_after" in format.cells, "gru_before" in format.cells), row


@every_format
@pytest.mark.parametrize("I, H", [(3, 5), (1, 1), (7, 2), (2, 2)])
def test_the_layer_computes_what_the_system_does(name, form, I, H):
    rng = np.random.default_rng(0)
    weights, step = SYSTEMS[name, form](draw(rng), I, H)
    before = copy.deepcopy(weights)
    layer = from_weights(weights, name, form, **options(name, form, I, H))
    assert (layer.input_size, layer.hidden_size, layer.dtype) == (I, H, np.float64)
    x, state = rng.standard_normal((6, 3, I)), tuple(rng.standard_normal((2, 3, H))[: 2 if form == "lstm" else 1])
    y, final = layer(x, (state[0][None], state[1][None]) if form == "lstm" else state[0][None])
    for x_t, y_t in zip(x, y):
        state = step(x_t, *state)
        state = state if form == "lstm" else (state,)
        np.testing.assert_allclose(y_t, state[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.stack(final if form == "lstm" else [final])[:, 0], np.stack(state), rtol=0, atol=1e-12)
    assert_same(weights, before)


@every_format
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_there_and_back_is_exact(name, form, dtype):
    weights, _ = SYSTEMS[name, form](draw(np.random.default_rng(1), dtype), 3, 5)
    layer = from_weights(weights, name, form, **options(name, form, 3, 5))
    assert layer.dtype == dtype
    assert_same(layer.export_weights(name), weights)


@every_format
@pytest.mark.parametrize("L, D", [(1, 1), (1, 2), (3, 1), (2, 2)])
def test_layers_and_directions(name, form, L, D):
    layer = random_layer(name, form, L, D, np.random.default_rng(2))
    weights = layer.export_weights(name)
    given = options(name, form, layer.input_size, layer.hidden_size)
    if name in ("jax", "thinc", "chainer"):
        given |= {"bidirectional": D == 2} | ({} if name == "chainer" else {"num_layers": L})
    other = from_weights(weights, name, form, **given)
    assert (other.num_layers, other.bidirectional, list(other.params)) == (L, D == 2, list(layer.params))
    assert_same(other.export_weights(name), weights)
    third = random_layer(name, form, L, D, np.random.default_rng(3))
    third.load_weights(weights, name)
    assert np.array_equal(third.flat, other.flat)
    x = np.random.default_rng(4).standard_normal((5, 2, layer.input_size))
    np.testing.assert_allclose(other(x)[0], layer(x)[0], rtol=0, atol=1e-12)


@every_format
def test_gradients_go_the_way_of_the_weights(name, form):
    """pull_back is the transpose of read: <g, read(w) - read(0)> = <pull_back(g), w> for any w and g."""
    rng = np.random.default_rng(5)
    weights, _ = SYSTEMS[name, form](draw(rng), 3, 5)
    format = FORMATS[name]
    cell = format.cells[form]
    arrays = format.container.split(weights, cell, {"input_size": 3, "hidden_size": 5})[0][0]
    ours, origin = (cell.read(form, {key: a * scale for key, a in arrays.items()}) for scale in (1, 0))
    g = {key: rng.standard_normal(a.shape) for key, a in ours.items()}
    theirs = cell.pull_back(form, g)
    assert {key: a.shape for key, a in theirs.items()} == {key: a.shape for key, a in arrays.items()}
    expected = sum(np.vdot(g[key], ours[key] - origin[key]) for key in g)
    np.testing.assert_allclose(sum(np.vdot(theirs[key], arrays[key]) for key in arrays), expected, rtol=1e-12)


@every_format
def test_gradients_of_a_layer_as_the_system_has_them(name, form):
    """Of a stack in two directions: <export_gradients(g), w> = <g, params of w - params of 0>."""
    layer = random_layer(name, form, 2, 2, np.random.default_rng(6))
    weights = layer.export_weights(name)
    y, _, tape = layer.forward(np.random.default_rng(7).standard_normal((4, 2, layer.input_size)))
    grads = tape.backward(y).params
    before = grads.flat.copy()
    theirs = layer.export_gradients(grads, name)
    assert [(path, a.shape) for path, a in leaves(theirs)] == [(path, a.shape) for path, a in leaves(weights)]
    loaded, offset = copy.deepcopy(layer), FORMATS[name].cells[form].offset
    loaded.load_weights(weights, name)  # biases may be summed now
    expected = np.vdot(grads.flat, loaded.flat)
    if offset:
        loaded.load_weights(scaled(weights, 0), name)
        expected -= np.vdot(grads.flat, loaded.flat)
    found = sum(np.vdot(d, w) for (_, d), (_, w) in zip(leaves(theirs), leaves(weights)))
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    assert np.array_equal(grads.flat, before)


def scaled(tree, factor):
    if isinstance(tree, dict):
        return {key: scaled(item, factor) for key, item in tree.items()}
    return type(tree)(scaled(item, factor) for item in tree) if isinstance(tree, (list, tuple)) else tree * factor


def may_lack_biases(name, form):
    return all(slot.optional for slot in FORMATS[name].cells[form].slots if slot.kinds & {"b", "bx", "bh"})


@pytest.mark.parametrize("name, form", [at for at in ALL if may_lack_biases(*at)])
def test_what_is_optional_may_be_absent(name, form):
    more = {"reset_after": form == "gru_after"} if "gru" in form else {}
    layer = LAYERS[FAMILIES[form]](3, 4, bias=False, dtype=np.float64, rng=6, **more)
    weights = layer.export_weights(name)
    assert len(list(leaves(weights))) == sum(not slot.optional for slot in FORMATS[name].cells[form].slots)
    both = {"gru_after", "gru_before"} <= set(FORMATS[name].cells)  # then only the shape of a bias could tell which it is
    other = from_weights(weights, name, form, **more if both else {})
    assert not other.bias
    assert np.array_equal(other.flat, layer.flat)


def test_a_bias_that_a_format_always_has_is_zero():
    layer = fastrnn.LSTM(3, 4, bias=False, dtype=np.float64, rng=0)
    weights = layer.export_weights("cs231n")
    assert not weights["b"].any()
    layer.load_weights(weights, "cs231n")  # it has no place for a bias, and needs none
    weights["b"][3] = 1
    with pytest.raises(ValueError, match="no place for bias_ih_l0, which is not zero"):
        layer.load_weights(weights, "cs231n")


@pytest.mark.parametrize("name", ["pytorch", "onednn"])
def test_projections(name):
    layer = fastrnn.LSTM(3, 6, bidirectional=True, proj_size=2, dtype=np.float64, rng=0)
    other = fastrnn.LSTM.from_weights(layer.export_weights(name), name)
    assert other.proj_size == 2
    x = np.random.default_rng(1).standard_normal((5, 2, 3))
    np.testing.assert_allclose(other(x)[0], layer(x)[0], rtol=0, atol=1e-12)


# --- sources and dtypes -----------------------------------------------------------------------------------------------


def test_loading_is_all_or_none():
    layer = fastrnn.GRU(3, 4, dtype=np.float64, rng=0)
    before = layer.flat.copy()
    weights = fastrnn.GRU(3, 4, num_layers=2, dtype=np.float64, rng=1).export_weights("keras")
    with pytest.raises(ValueError, match="expected this layer's num_layers = 1, got 2"):
        layer.load_weights(weights, "keras")
    weights = weights[0]
    weights[2] = weights[2][:, :-1]
    with pytest.raises(ValueError, match=r"bias: expected \(2, 3\*H\) with H = 4, I = 3, got \(2, 11\)"):
        layer.load_weights(weights, "keras")
    assert np.array_equal(layer.flat, before)


def test_a_layer_may_take_its_own_weights_in_another_order():
    layer = fastrnn.LSTM(4, 4, num_layers=2, dtype=np.float64, rng=0)
    swapped = {f"{name[:-1]}{1 - int(name[-1])}": array for name, array in layer.params.items()}
    expected = {name: array.copy() for name, array in swapped.items()}
    layer.load_weights(swapped)
    assert all(np.array_equal(layer.params[name], array) for name, array in expected.items())


@pytest.mark.parametrize(
    "given, dtype", [(np.float16, np.float32), (np.int64, np.float64), (">f4", np.float32), (np.float64, np.float64)]
)
def test_dtype_of_the_new_layer(given, dtype):
    weights = {key: (3 * a).astype(given) for key, a in fastrnn.LSTM(3, 4, rng=0).export_weights("cs231n").items()}
    layer = fastrnn.LSTM.from_weights(weights, "cs231n")
    assert layer.dtype == dtype
    assert_same(layer.export_weights("cs231n"), {key: a.astype(dtype) for key, a in weights.items()})


def test_rounding_only_if_asked_for():
    weights = fastrnn.RNN(3, 4, dtype=np.float64, rng=0).state_dict()
    layer = fastrnn.RNN(3, 4, rng=1)
    with pytest.raises(TypeError, match="expected what float32 holds without rounding, got float64"):
        layer.load_weights(weights)
    rounded = fastrnn.RNN.from_weights(weights, dtype=np.float32)
    assert np.array_equal(rounded.flat, np.concatenate([a.ravel() for a in weights.values()]).astype(np.float32))
    fastrnn.RNN(3, 4, dtype=np.float64).load_weights(rounded.state_dict())


def test_objects_with_attributes():
    class Gate:
        def __init__(self, **arrays):
            self.__dict__.update(arrays, activation_fn=np.tanh)

    layer = fastrnn.LSTM(3, 4, peephole=True, dtype=np.float64, rng=0)
    weights = layer.export_weights("madmom")
    there = Gate(**{name: Gate(**arrays) for name, arrays in weights.items()})
    there.cell.peephole_weights = None
    assert_same(fastrnn.LSTM.from_weights(there, "madmom").export_weights("madmom"), weights)


def test_a_format_of_the_caller():
    cell = Cell(
        "nrz", {"in/weights": "n(ug) x", "out/weights": "n(ug) h", "out/bias": "ug bh", "in/bias": "ug bx"}, scale={"n": 4.0}
    )
    format = Format("mine", Tree(), {"gru_after": cell})
    rng = np.random.default_rng(0)
    weights = {
        "in": {"weights": rng.random((2, 9)), "bias": rng.random((3, 3))},
        "out": {"weights": rng.random((3, 9)), "bias": rng.random((3, 3))},
    }
    layer = fastrnn.GRU.from_weights(weights, format)
    np.testing.assert_array_equal(layer.params["weight_ih_l0"][6:], 4 * weights["in"]["weights"][:, ::3].T)
    np.testing.assert_array_equal(layer.params["weight_hh_l0"][:3], weights["out"]["weights"][:, 1::3].T)
    np.testing.assert_array_equal(layer.params["bias_hh_l0"], (weights["out"]["bias"] * [4, 1, 1])[:, [1, 2, 0]].T.ravel())
    assert_same(layer.export_weights(format), weights)
    named = Format(
        "theirs", Named("{layer}{reverse}.{name}"), {"gru_after": Cell("rzn", {"wx": "un x.r+x.z+x.n", "wh": "(gu)n h"})}
    )
    with pytest.raises(ValueError, match="bias_ih_l0: the format theirs has no place for that of gate r, which is not zero"):
        layer.export_weights(named)


# --- what cannot be --------------------------------------------------------------------------------------------------


def rnn(**more):
    return fastrnn.RNN(3, 4, dtype=np.float64, rng=0, **more)


def gru(**more):
    return fastrnn.GRU(3, 4, dtype=np.float64, rng=0, **more)


def lstm(**more):
    return fastrnn.LSTM(3, 4, dtype=np.float64, rng=0, **more)


CANNOT_HOLD = [
    (lstm(), "kears", "format: expected a fastrnn.formats.Format or one of pytorch, .* got 'kears'"),
    (lstm(), None, "format: expected .* got None"),
    (gru(reset_after=False), "pytorch", "format: pytorch has no GRU with reset_after=False"),
    (gru(), "dynet", "format: dynet has no GRU with reset_after=True; it has rnn, gru_before, lstm"),
    (rnn(), "haste", "format: haste has no RNN; it has gru_after, lstm"),
    (gru(), "flax-nnx", "bias_hh_l0: the format flax-nnx has no place for that of gate n, which is not zero"),
    (lstm(peephole=True), "keras", "weight_ch_l0: the format keras has no place for that of gate i"),
    (lstm(peephole=True, num_layers=2), "keras", "weight_ch_l0: the format keras has no place"),
    (lstm(proj_size=2), "keras", "weight_hr_l0: the format keras has no place for a projection"),
    (lstm(num_layers=2), "onednn", "layers of the same sizes in one array"),
]


@pytest.mark.parametrize("layer, name, message", CANNOT_HOLD, ids=[str(name) for _, name, _ in CANNOT_HOLD])
def test_what_a_format_cannot_hold(layer, name, message):
    with pytest.raises(ValueError, match=message):
        layer.export_weights(name)


def zeros(**shapes):
    return {name: np.zeros(shape) for name, shape in shapes.items()}


def cs231n(**other):
    return zeros(Wx=(3, 16), Wh=(4, 16), b=16) | other


BAD_WEIGHTS = [
    (
        "cs231n",
        {"Wx": np.zeros((3, 16)), "Wh": np.zeros((4, 16)), "U": np.zeros(3)},
        KeyError,
        r"missing \['b'\], unexpected \['U'\]",
    ),
    ("cs231n", cs231n(Wx=np.zeros((3, 15))), ValueError, r"Wx: expected \(I, 4\*H\), got \(3, 15\)"),
    ("cs231n", cs231n(Wh=np.zeros((5, 16))), ValueError, r"Wh: expected \(H, 4\*H\) with H = 4, I = 3, got \(5, 16\)"),
    ("cs231n", cs231n(Wx=np.zeros(16)), ValueError, r"Wx: expected \(I, 4\*H\), got \(16,\)"),
    ("cs231n", cs231n(Wx=np.zeros((3, 0)), Wh=np.zeros((0, 0)), b=np.zeros(0)), ValueError, "hidden_size"),
    ("cs231n", cs231n(Wx="abc"), TypeError, "Wx: expected an array of real numbers, got str"),
    ("cs231n", cs231n(b=np.zeros(16, complex)), TypeError, "b: expected an array of real numbers, got ndarray of complex128"),
    ("cs231n", cs231n(b=[[1], [2, 3]]), TypeError, "b: expected an array, got list"),
    ("cs231n", np.zeros(3), TypeError, "weights: expected a mapping of .* got ndarray"),
    ("cs231n", cs231n(b=np.zeros(16, np.longdouble)), TypeError, "without rounding, got .*; pass dtype=np.float64"),
    ("karpathy", np.zeros((4, 16)), ValueError, r"weights: expected \(1\+I\+H, 4\*H\).* got \(4, 16\)"),
    ("keras", [np.zeros((3, 16))], ValueError, "expected a list of 2 or 3 arrays, or twice as many, for each layer, got 1"),
    ("keras", [], ValueError, "expected one item for each layer"),
    ("keras", {}, ValueError, "expected a list of .* got dict"),
    ("dynet", [np.zeros((16, 3))] * 4, ValueError, r"expected a list of the arrays \['x2i', 'h2i', 'bi'\], got list of 4"),
    ("pytorch", [1, 2], TypeError, "weights: expected a mapping of names to arrays, got list"),
    ("pytorch", zeros(**{"lstm.weight_ih_l0": (4, 1)}), KeyError, r"unexpected \['lstm.weight_ih_l0'\]"),
    ("pytorch", zeros(weight_ih_l999999999=(4, 1)), KeyError, "expected 1000000000 layers"),
    ("pytorch", {}, KeyError, r"missing \['weight_ih_l0', 'weight_hh_l0'\]"),
    ("onnx", zeros(W=(3, 16, 2), R=(3, 16, 4)), ValueError, r"expected arrays \(directions, ...\) of 1 or 2 directions, got"),
    ("onnx", zeros(W=(1, 16, 2), R=(2, 16, 4)), ValueError, "1 or 2 directions, got"),
    ("onnx", [], ValueError, "expected one item for each layer"),
    ("pytorch", {"weight_ih_l0": np.ma.zeros((16, 3))}, TypeError, "weight_ih_l0: expected an array, got MaskedArray"),
    ("onednn", zeros(weights_layer=(1, 4), weights_iter=(1, 4)), ValueError, r"expected arrays \(layers, directions, ...\)"),
    ("jax", np.zeros(5), ValueError, "input_size: expected an integer, because a vector"),
    (
        "mlx",
        [lstm().export_weights("mlx")] * 2,
        ValueError,
        r"weights of layer 1: expected \(input, output, hidden\) sizes \(4, 4, 4\) in 1 directions, got \(3, 4, 4\)",
    ),
]


def places(tree, path=()):
    """The way to each array of nested dictionaries, lists and tuples."""
    if isinstance(tree, (dict, list, tuple)):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield from places(tree[key], (*path, key))
    else:
        yield path


def changed(tree, path, change):
    """A copy with change(array) at a place; None takes it away."""
    if not path:
        return change(tree)
    items = dict(tree) if isinstance(tree, dict) else dict(enumerate(tree))
    items[path[0]] = changed(items[path[0]], path[1:], change)
    if items[path[0]] is None:
        del items[path[0]]
    return items if isinstance(tree, dict) else type(tree)(items.values())


WRONG = [  # what is done to an array, the error, and whether it names this very array: a shape that tells a size may be right
    (lambda a: np.zeros((*a.shape[:-1], a.shape[-1] + 1)), ValueError, False),
    (lambda a: a[..., None, None], ValueError, True),
    (lambda a: a.astype(object), TypeError, True),
    (lambda a: a.astype(complex), TypeError, True),
    (lambda a: "abc", TypeError, True),
]


@every_format
@pytest.mark.parametrize("change, error, named", WRONG)
def test_any_wrong_array_is_refused(name, form, change, error, named):
    weights, _ = SYSTEMS[name, form](draw(np.random.default_rng(0)), 3, 5)
    layer = from_weights(weights, name, form, **options(name, form, 3, 5))
    before = layer.flat.copy()
    for path in places(weights):
        with pytest.raises(error, match=r"expected .* got ") as raised:
            layer.load_weights(changed(weights, path, change), name)
        is_named = not path or not isinstance(path[-1], str) or path[-1] in str(raised.value)  # the items of a list have no names
        assert is_named or not named, raised.value
        assert np.array_equal(layer.flat, before)


@every_format
def test_any_missing_array_is_named(name, form):
    weights, _ = SYSTEMS[name, form](draw(np.random.default_rng(0)), 3, 5)
    layer = from_weights(weights, name, form, **options(name, form, 3, 5))
    for path in places(weights) if isinstance(weights, dict) else ():
        key, less = "/".join(path), changed(weights, path, lambda a: None)
        with pytest.raises(KeyError, match=r"expected .* missing ") as raised:
            layer.load_weights(less, name)
        assert repr(key) in str(raised.value).partition("missing")[2]
    if isinstance(weights, list):
        with pytest.raises((KeyError, ValueError), match=r"expected a list of|missing"):
            layer.load_weights(weights[:1], name)


@pytest.mark.parametrize("name, weights, error, message", BAD_WEIGHTS)
def test_bad_weights(name, weights, error, message):
    with pytest.raises(error, match=message):
        fastrnn.LSTM.from_weights(weights, name)


@pytest.mark.parametrize(
    "more, error, message",
    [
        ({"input_size": "2"}, TypeError, "input_size: expected an integer, got '2'"),
        ({"hidden_size": -3}, ValueError, "hidden_size: expected an integer greater than zero, got -3"),
        ({"num_layers": 1.0}, TypeError, "num_layers: expected an integer, got 1.0"),
        ({"num_layers": 10**12}, ValueError, r"weights: expected a vector \(95999999999988,\) for these sizes, got \(5,\)"),
        ({"bidirectional": "no"}, TypeError, "bidirectional: expected True or False, got 'no'"),
    ],
)
def test_bad_sizes(more, error, message):
    with pytest.raises(error, match=message):
        fastrnn.LSTM.from_weights(np.zeros(5), "jax", **{"input_size": 2, "hidden_size": 3} | more)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"a": np.zeros(1)}, KeyError, "expected names such as weight_ih_l0 and bias_hh_l1_reverse, got 'a'"),
        ({"weight_ih_l7777777777": np.zeros(1)}, KeyError, "expected the layers one after the other, got 'weight_ih_l7777777777'"),
        ({"weight_ih_l1": np.zeros((16, 4))}, KeyError, r"missing \['weight_hh_l1'\]"),
        ({"weight_ih_l0": np.zeros((15, 3))}, ValueError, r"weight_ih_l0: expected \(16, 3\), got \(15, 3\)"),
        ({"bias_hh_l0": np.zeros(4)}, ValueError, r"bias_hh_l0: expected \(16,\), got \(4,\)"),
    ],
)
def test_bad_params(change, error, message):
    for function in (write, pull_back):
        with pytest.raises(error, match=message):
            function({**lstm().params, **change}, "keras", "lstm")


def test_bad_options():
    with pytest.raises(ValueError, match=r"weights: expected a vector \(84,\) for these sizes, got \(5,\)"):
        fastrnn.LSTM.from_weights(np.zeros(5), "jax", input_size=2, hidden_size=3)
    with pytest.raises(ValueError, match="num_layers: expected 1, as the weights tell, got 2"):
        fastrnn.LSTM.from_weights(lstm().state_dict(), num_layers=2)
    with pytest.raises(ValueError, match="reset_after: expected True or False, because weights in the format onnx do not tell"):
        fastrnn.GRU.from_weights(gru().export_weights("onnx"), "onnx")
    for other, message in (
        (lstm(proj_size=2), "proj_size = 0, got 2"),
        (lstm(bidirectional=True), "bidirectional = False, got True"),
    ):
        with pytest.raises(ValueError, match=f"weights: expected this layer's {message}"):
            lstm().load_weights(other.state_dict())


@pytest.mark.parametrize(
    "gradients, error, message",
    [
        (3, TypeError, "gradients: expected a mapping of names to arrays, got int"),
        ({}, KeyError, "gradients: expected the names .'weight_ih_l0', .* got .."),
        ({**lstm().params, "bias_ih_l0": np.zeros(3)}, ValueError, r"bias_ih_l0: expected its shape = \(16,\), got \(3,\)"),
        (lstm().astype(np.float32).params, TypeError, "weight_ih_l0"),
    ],
)
def test_bad_gradients(gradients, error, message):
    with pytest.raises(error, match=message):
        lstm().export_gradients(gradients, "keras")


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Cell("ifgo", {"W": "(gun x"}).slots, "balanced brackets"),
        (lambda: Cell("ifgo", {"W": "gu n x"}).slots, "W: expected a layout and a content, got 'gu n x'"),
        (lambda: Cell("ifgo", {"W": "guu x"}).slots, "letters of 'gun', each once"),
        (lambda: Cell("ifgo", {"W": "gun y"}).slots, "block: expected one of"),
        (lambda: Cell("ifgo", {"W": "gun x.if,h"}).slots, "as many gates in each column"),
    ],
)
def test_errors_in_a_format(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- what is missing, and what is too much ------------------------------------------------------------------------------


def stack_of(family, **options):
    options = {"num_layers": 2, "bidirectional": True, "dtype": np.float64, "rng": 0, **options}
    return {"rnn": fastrnn.RNN, "gru": fastrnn.GRU, "lstm": fastrnn.LSTM}[family](3, 4, **options)


@pytest.mark.parametrize("family", ["rnn", "gru", "lstm"])
def test_a_state_dict_without_one_of_its_biases(family):
    layer = stack_of(family)
    before, weights = layer.flat.copy(), layer.state_dict()
    for name in [name for name in weights if name.startswith("bias")]:
        less = {other: array for other, array in weights.items() if other != name}
        for load in (layer.load_weights, type(layer).from_weights, layer.load_state_dict):
            with pytest.raises(KeyError, match=rf"missing \['{name}'\]"):
                load(less)
    without = {name: array for name, array in weights.items() if name.startswith("weight")}
    assert not type(layer).from_weights(without).bias
    with pytest.raises(KeyError, match=r"missing \['bias_ih_l0', 'bias_hh_l0'\]"):
        layer.load_weights(without)
    assert np.array_equal(layer.flat, before)


@pytest.mark.parametrize(
    "name, key", [("onnx", "B"), ("mlx", "bias"), ("lasagne", "b_ingate"), ("onnx", "P"), ("lasagne", "W_cell_to_ingate")]
)
def test_a_bias_or_peephole_that_only_some_layers_have(name, key):
    weights = stack_of("lstm", peephole=key[0] in "PW", bidirectional=name == "onnx").export_weights(name)
    del weights[1][key]
    with pytest.raises(KeyError, match=rf"missing \['{key} of layer 1'"):
        fastrnn.LSTM.from_weights(weights, name)


def test_a_keras_layer_without_its_bias_among_others():
    weights = stack_of("lstm", bias=True).export_weights("keras")
    weights[1] = [weights[1][k] for k in (0, 1, 3, 4)]
    with pytest.raises(KeyError, match=r"missing \['bias of layer 1'\]"):
        fastrnn.LSTM.from_weights(weights, "keras")


def whole_model():
    """A state_dict with an encoder, a decoder of another size, and a readout."""
    encoder, decoder = stack_of("lstm").state_dict(), fastrnn.LSTM(5, 6, dtype=np.float64).state_dict()
    named = {f"encoder.rnn.{name}": array for name, array in encoder.items()} | zeros(**{"readout.weight": (2, 6)})
    return named | {f"decoder.{name}": array for name, array in decoder.items()}


@pytest.mark.parametrize(
    "wrap, encoder",
    [
        (lambda model: model, "keep those of {} with the prefix 'encoder.rnn.' and cut it"),
        (
            lambda model: {f"module.{name}": array for name, array in model.items()},
            "keep those of {} with the prefix 'module.encoder.rnn.' and cut it",
        ),
        (
            lambda model: {"epoch": 3, "state_dict": model},
            "keep those of {}['state_dict'] with the prefix 'encoder.rnn.' and cut it",
        ),
    ],
    ids=["plain", "DataParallel", "checkpoint"],
)
def test_a_whole_state_dict_says_which_prefix_to_cut(wrap, encoder):
    weights, layer = wrap(whole_model()), stack_of("lstm")
    with pytest.raises(KeyError) as raised:
        fastrnn.LSTM.from_weights(weights)
    assert f"{encoder.format('weights')} or " in str(raised.value) and "decoder." in str(raised.value)
    for load, name in ((layer.load_weights, "weights"), (layer.load_state_dict, "mapping")):
        with pytest.raises(KeyError) as raised:
            load(weights)
        assert encoder.format(name) in str(raised.value)
    with pytest.raises(KeyError) as raised:
        layer.load_state_dict(weights)
    assert "take those" not in str(raised.value)  # of the decoder: it has other names


def test_what_only_resembles_the_weights_is_named_too():
    weights = whole_model()
    del weights["encoder.rnn.bias_ih_l0"], weights["decoder.bias_ih_l0"]
    for load in (fastrnn.LSTM.from_weights, stack_of("lstm").load_state_dict):
        with pytest.raises(KeyError, match=r"prefix 'encoder.rnn.' and cut it or .* prefix 'decoder.'"):
            load(weights)


def test_a_cell_of_a_whole_state_dict():
    cell = fastrnn.GRUCell(3, 4)
    with pytest.raises(KeyError, match=r"with the prefix 'core/cell\.' and cut it"):
        cell.load_state_dict({f"core/cell.{name}": array for name, array in cell.state_dict().items()})


def test_the_parameters_of_a_whole_model_in_flax():
    cell = fastrnn.LSTM(3, 4, bias=False).export_weights("flax-linen")
    params = {"params": {"Dense_0": zeros(kernel=(2, 2), bias=2), "encoder": {"cell": cell}}}
    with pytest.raises(KeyError, match=r"whole model's: take weights\['params'\]\['encoder'\]\['cell'\]"):
        fastrnn.LSTM.from_weights(params, "flax-linen")


def test_the_weights_of_a_whole_model_in_keras():
    first, second = fastrnn.LSTM(8, 4, rng=0).export_weights("keras"), fastrnn.LSTM(4, 5, bias=False, rng=0).export_weights("keras")
    weights = [np.zeros((20, 8)), *first, *second, np.zeros((5, 1)), np.zeros(1)]
    with pytest.raises(ValueError, match=r"take weights\[1:4\] or take weights\[4:6\]$"):
        fastrnn.LSTM.from_weights(weights, "keras")


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16])
def test_quantised_weights_are_no_weights(kind):
    weights = {name: array.astype(kind) for name, array in lstm().state_dict().items()}
    with pytest.raises(TypeError, match=f"weight_ih_l0: expected real numbers, got {np.dtype(kind)}, which suggests quantised"):
        fastrnn.LSTM.from_weights(weights)


@pytest.mark.parametrize("dtype", [None, np.float32, np.float64])
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "torch half", "torch bfloat16"])
def test_weights_of_16_bits(kind, dtype):
    weights = fastrnn.LSTM(3, 4, rng=0).state_dict()
    if kind.startswith("torch"):
        torch = pytest.importorskip("torch", reason="the package torch is not installed")
        given = {name: getattr(torch.from_numpy(array), kind.split()[1])() for name, array in weights.items()}
        rounded = {name: tensor.double().numpy() for name, tensor in given.items()}
    else:
        type_ = kind if kind == "float16" else pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed").bfloat16
        given = {name: array.astype(type_) for name, array in weights.items()}
        rounded = {name: array.astype(np.float64) for name, array in given.items()}
    layer = fastrnn.LSTM.from_weights(given, dtype=dtype)
    assert layer.dtype == (dtype or np.float32)
    for name, array in layer.params.items():
        assert np.array_equal(array, rounded[name])
    layer.load_weights(given)


@every_format
def test_an_array_too_many_is_named(name, form):
    weights, _ = SYSTEMS[name, form](draw(np.random.default_rng(0)), 3, 5)
    if isinstance(weights, dict):
        for key in ("extra", b"extra", 7):
            with pytest.raises((KeyError, ValueError), match=r"(unexpected \[|got \{).*(extra|7)"):
                from_weights({**weights, key: np.zeros(3)}, name, form, **options(name, form, 3, 5))
    elif isinstance(weights, list):
        with pytest.raises(ValueError, match="expected a list of"):
            from_weights([*weights, np.zeros(3), np.zeros(3)], name, form, **options(name, form, 3, 5))


def test_biases_that_cancel_are_none():
    """dynet's LSTM adds 1 to f; what is written for it of a layer without biases takes that back."""
    layer = fastrnn.LSTM(3, 4, bias=False, rng=0)
    before = layer.flat.copy()
    layer.load_weights(layer.export_weights("dynet"), "dynet")
    assert layer.flat.tobytes() == before.tobytes()
    with pytest.raises(ValueError, match="no place for bias_ih_l0, which is not zero"):
        layer.load_weights(fastrnn.LSTM(3, 4, rng=0).export_weights("dynet"), "dynet")
