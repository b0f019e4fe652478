"""Layers: their parameters, and that they compute what the functions do."""

import math

import numpy as np
import pytest

import fastrnn
from cases import FLOATS, Case, call, problem

# How a layer is made of each cell of the table.
LAYERS = {
    "tanh": (fastrnn.RNN, {}),
    "relu": (fastrnn.RNN, {"nonlinearity": "relu"}),
    "lstm": (fastrnn.LSTM, {}),
    "lstm-peephole": (fastrnn.LSTM, {"peephole": True}),
    "gru-after": (fastrnn.GRU, {}),
    "gru-before": (fastrnn.GRU, {"reset_after": False}),
}
NAMES = {
    "w_ih": "weight_ih_l0",
    "w_hh": "weight_hh_l0",
    "b_ih": "bias_ih_l0",
    "b_hh": "bias_hh_l0",
    "peephole": "weight_ch_l0",
}

each_cell = pytest.mark.parametrize("cell", LAYERS)
each_dtype = pytest.mark.parametrize("dtype", FLOATS)


def make(cell, I=5, H=6, **options):
    kind, fixed = LAYERS[cell]
    return kind(I, H, **fixed, **{"rng": 0, **options})


def layer_of(p):
    """A layer with the parameters of a problem."""
    case = p.case
    options = {"dtype": p.arrays["x"].dtype, "batch_first": case.batch_first, "bias": "b_ih" not in case.without}
    layer = make(case.cell, case.I, case.H, **options)
    layer.load_state_dict({name: p.arrays[short] for short, name in NAMES.items() if short in p.arrays})
    return layer


def state_of(p):
    """The initial state of a problem as a layer takes it."""
    members = tuple(p.arrays[name][None] for name in ("h0", "c0") if name in p.arrays)
    return (members if p.case.is_lstm else members[0]) if members else None


def of_layer(dstate):
    """(B, H) to (1, B, H)."""
    if isinstance(dstate, tuple):
        return tuple(of_layer(d) for d in dstate)
    return None if dstate is None else dstate[None]


def same(a, b):
    if isinstance(a, tuple) or isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())


# --- a layer is its function --------------------------------------------------------------------------------------

OPTIONS = {
    "plain": {},
    "lengths": {"lengths": True},
    "reset": {"reset": True},
    "batch_first": {"batch_first": True, "lengths": True, "reset": True},
    "unbatched": {"unbatched": True, "B": 1},
    "unbatched, batch_first": {"unbatched": True, "batch_first": True, "B": 1, "lengths": True, "reset": True},
    "no bias": {"without": ("b_ih", "b_hh")},
    "no state": {"without": ("h0", "c0")},
    "through y": {"through": "y"},
    "through the state": {"through": "hc"},
    "through h": {"through": "h"},
    "no steps": {"T": 0},
    "no rows": {"B": 0},
}


@each_cell
@each_dtype
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_layer_is_its_function(cell, dtype, options):
    p = problem(Case(cell, **options), dtype)
    layer, state = layer_of(p), state_of(p)
    keywords = {name: p.keywords[name] for name in ("lengths", "reset") if name in p.keywords}
    y, final, tape = call(fastrnn, cell, p.arrays, **p.keywords, record=True)
    expected = tape.backward(p.dy, p.dstate)
    layer_y, layer_final, tape = layer.forward(p.arrays["x"], state, **keywords)
    got = tape.backward(p.dy, of_layer(p.dstate))
    assert same(layer_y, y) and same(layer_final, of_layer(final))
    assert same(got.x, expected.x) and same(got.state, of_layer(expected.state))
    assert got.params.keys() == layer.params.keys()
    assert all(same(got.params[NAMES[n]], g) for n in NAMES if (g := getattr(expected, n, None)) is not None)
    y, final = layer(p.arrays["x"], state, **keywords)
    assert same(y, layer_y) and same(final, layer_final)


@each_cell
@pytest.mark.parametrize("name", ["plain", "lengths", "reset", "batch_first", "unbatched, batch_first", "no bias"])
def test_gradients(cell, name):
    """Against differences of the layer's own forward, in x, the state and every parameter."""
    p = problem(Case(cell, **{"T": 4, "B": 3, "H": 3, "I": 2, **OPTIONS[name]}))
    layer, state = layer_of(p), state_of(p)
    keywords = {name: p.keywords[name] for name in ("lengths", "reset") if name in p.keywords}
    result = fastrnn.gradcheck(layer, p.arrays["x"], state, **keywords)
    states = {"state[0]", "state[1]"} if p.case.is_lstm else {"state"}
    assert result.table.keys() == {"x", *states, *layer.params}


@pytest.mark.parametrize("cell", ["lstm", "lstm-peephole"])
def test_an_lstm_takes_half_a_state(cell):
    p = problem(Case(cell))
    layer, x = layer_of(p), p.arrays["x"]
    h, c = state_of(p)
    assert same(layer(x, (h, None)), layer(x, [h, 0 * c]))
    assert same(layer(x, (None, c)), layer(x, (0 * h, c)))
    assert same(layer(x, (None, None)), layer(x))


# --- the tape -------------------------------------------------------------------------------------------------------


@each_cell
def test_a_tape_can_be_used_once(cell):
    layer = make(cell)
    y, _, tape = layer.forward(np.ones((3, 2, 5), np.float32))
    with pytest.raises(ValueError, match="expected one or more of dy, dstate"):
        tape.backward()
    with pytest.raises(ValueError, match=r"^dy: expected \(T, B, H\) = \(3, 2, 6\), got \(3, 2, 5\)"):
        tape.backward(y[..., :5])
    tape.backward(y)  # what was refused was no use
    for _ in range(2):
        with pytest.raises(RuntimeError, match="this tape has been used"):
            tape.backward(y)


@each_cell
def test_each_call_has_its_own_tape(cell):
    layer, rng = make(cell), np.random.default_rng(0)
    inputs = [rng.standard_normal((4, 2, 5)).astype(np.float32) for _ in range(2)]
    alone = []
    for x in inputs:
        y, _, tape = layer.forward(x)
        alone.append(tape.backward(y).flat)
    (y0, _, tape0), (y1, _, tape1) = (layer.forward(x) for x in inputs)
    got = tape1.backward(y1).flat, tape0.backward(y0).flat
    assert same(got[1], alone[0]) and same(got[0], alone[1])


def test_the_output_of_a_recorded_call_is_read_only():
    """The tape reads it."""
    layer, x = make("tanh"), np.ones((3, 2, 5), np.float32)
    y, _, _ = layer.forward(x)
    with pytest.raises(ValueError, match="read-only"):
        y[0] = 0
    y, state = layer(x)
    y[0] = state[0] = 0


# --- parameters -------------------------------------------------------------------------------------------------------


@each_cell
@pytest.mark.parametrize("bias", [True, False])
def test_names_and_shapes(cell, bias):
    I, H, G = 5, 6, Case(cell).gates
    shapes = {"weight_ih_l0": (G * H, I), "weight_hh_l0": (G * H, H)}
    shapes |= {"bias_ih_l0": (G * H,), "bias_hh_l0": (G * H,)} if bias else {}
    shapes |= {"weight_ch_l0": (3, H)} if cell == "lstm-peephole" else {}
    layer = make(cell, bias=bias)
    assert {name: a.shape for name, a in layer.params.items()} == shapes
    assert list(layer.params) == list(shapes)
    assert layer.flat.shape == (sum(map(math.prod, shapes.values())),)


@each_cell
@each_dtype
def test_parameters_are_views_of_one_vector(cell, dtype):
    layer = make(cell, dtype=dtype)
    x = np.ones((3, 2, 5), dtype)
    before, _ = layer(x)
    assert layer.flat.dtype == dtype and layer.flat.flags.c_contiguous
    assert all(np.shares_memory(a, layer.flat) and a.flags.writeable for a in layer.params.values())
    layer.flat[:] = np.arange(layer.flat.size)
    assert same(np.concatenate([a.ravel() for a in layer.params.values()]), layer.flat)
    layer.flat[:] = 0
    layer.params["weight_ih_l0"][:] = 1
    assert layer.flat.sum() == layer.params["weight_ih_l0"].size
    assert not same(layer(x)[0], before)


@each_cell
def test_gradients_are_views_of_one_vector_like_the_parameters(cell):
    layer = make(cell)
    y, _, tape = layer.forward(np.ones((3, 2, 5), np.float32))
    grads = tape.backward(y)
    assert {n: g.shape for n, g in grads.params.items()} == {n: a.shape for n, a in layer.params.items()}
    assert all(np.shares_memory(g, grads.flat) for g in grads.params.values())
    assert same(np.concatenate([g.ravel() for g in grads.params.values()]), grads.flat)
    assert grads.flat.any() and not np.shares_memory(grads.flat, layer.flat)


@each_cell
def test_a_step_against_the_gradient_makes_the_loss_smaller(cell):
    layer, x = make(cell, dtype=np.float64), np.random.default_rng(0).standard_normal((6, 3, 5))
    losses = []
    for _ in range(5):
        y, _, tape = layer.forward(x)
        losses.append(float((y**2).sum()))
        layer.flat[:] -= 0.005 * tape.backward(2 * y).flat
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


# --- state_dict ---------------------------------------------------------------------------------------------------------


@each_cell
@each_dtype
def test_state_dict_round_trip(cell, dtype):
    one, other = make(cell, dtype=dtype, rng=1), make(cell, dtype=dtype, rng=2)
    saved = one.state_dict()
    assert list(saved) == list(one.params) and not same(one.flat, other.flat)
    assert not any(np.shares_memory(a, one.flat) for a in saved.values())
    flat = other.flat
    other.load_state_dict(saved)
    assert same(one.flat, other.flat) and other.flat is flat
    saved["weight_hh_l0"][:] = 7
    assert not (other.params["weight_hh_l0"] == 7).any()


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"bias_hh_l0": None}, KeyError, "missing .'bias_hh_l0'., unexpected .."),
        ({"weight_ch_l0": np.zeros((3, 6), np.float32)}, KeyError, "missing .., unexpected .'weight_ch_l0'."),
        ({"weight_hh_l0": np.zeros((6, 24), np.float32)}, ValueError, r"^weight_hh_l0: .*\(24, 6\), got \(6, 24\)"),
        ({"weight_hh_l0": np.zeros((24, 6))}, TypeError, "^weight_hh_l0: expected dtype float32, got float64"),
        ({"weight_hh_l0": [[0.0] * 6] * 24}, TypeError, "^weight_hh_l0: expected a NumPy array"),
    ],
)
def test_load_state_dict_takes_all_or_nothing(change, error, message):
    layer = make("lstm")
    before = layer.flat.copy()
    mapping = {name: np.ones_like(a) for name, a in layer.params.items()} | change
    with pytest.raises(error, match=message) as raised:
        layer.load_state_dict({name: a for name, a in mapping.items() if a is not None})
    assert raised.type is error
    assert same(layer.flat, before)


# --- initial values -----------------------------------------------------------------------------------------------------


@each_cell
def test_initial_values_are_uniform_within_one_over_the_root_of_H(cell):
    layer = make(cell, I=30, H=64, dtype=np.float64)
    limit = 1 / math.sqrt(64)
    for name, a in layer.params.items():
        assert np.abs(a).max() <= limit and np.abs(a).max() > 0.9 * limit, name
        # standard errors of the mean and of the mean square of a uniform distribution
        assert abs(a.mean()) < 4 * limit / math.sqrt(3 * a.size), name
        assert abs((a**2).mean() / limit**2 - 1 / 3) < 4 * math.sqrt(4 / 45 / a.size), name


@each_cell
def test_a_seed_gives_the_same_values(cell):
    assert same(make(cell, rng=3).flat, make(cell, rng=3).flat)
    assert not same(make(cell, rng=3).flat, make(cell, rng=4).flat)
    assert not same(make(cell, rng=None).flat, make(cell, rng=None).flat)
    rng = np.random.default_rng(3)
    assert same(make(cell, rng=rng).flat, make(cell, rng=3).flat)
    assert not same(make(cell, rng=rng).flat, make(cell, rng=3).flat)  # the generator has moved on


@pytest.mark.parametrize("bias", [True, False])
def test_irnn_starts_as_an_identity(bias):
    layer = fastrnn.IRNN(40, 50, input_std=0.1, recurrent_scale=0.5, bias=bias, rng=0)
    p = layer.params
    assert same(p["weight_hh_l0"], 0.5 * np.eye(50, dtype=np.float32))
    assert all(not p[name].any() for name in p if name.startswith("bias")) and ("bias_ih_l0" in p) == bias
    assert abs(p["weight_ih_l0"].std() / 0.1 - 1) < 4 / math.sqrt(2 * 2000)
    assert layer.nonlinearity == "relu"


def test_irnn_by_default_carries_its_state_on():
    layer = fastrnn.IRNN(3, 8, rng=0)
    assert same(layer.params["weight_hh_l0"], np.eye(8, dtype=np.float32))
    assert 0 < np.abs(layer.params["weight_ih_l0"]).max() < 0.01
    h = np.random.default_rng(0).random((1, 2, 8), np.float32)
    y, h_n = layer(np.zeros((30, 2, 3), np.float32), h)
    assert same(h_n, h) and same(y[29], h[0])


# --- what a layer says of itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer, text",
    [
        (fastrnn.RNN(2, 3), "RNN(2, 3)"),
        (fastrnn.RNN(2, 3, nonlinearity="relu", bias=False), "RNN(2, 3, nonlinearity='relu', bias=False)"),
        (fastrnn.IRNN(2, 3), "IRNN(2, 3)"),
        (fastrnn.IRNN(2, 3, 2, recurrent_scale=0.5), "IRNN(2, 3, num_layers=2, recurrent_scale=0.5)"),
        (fastrnn.GRU(2, 3, batch_first=True), "GRU(2, 3, batch_first=True)"),
        (fastrnn.GRU(2, 3, reset_after=False), "GRU(2, 3, reset_after=False)"),
        (fastrnn.LSTM(2, 3), "LSTM(2, 3)"),
        (fastrnn.GRU(2, 3, 4, False, True, 0.5), "GRU(2, 3, num_layers=4, bias=False, batch_first=True, dropout=0.5)"),
        (fastrnn.RNN(2, 3, 4, "relu", bidirectional=True), "RNN(2, 3, num_layers=4, nonlinearity='relu', bidirectional=True)"),
        (fastrnn.LSTM(2, 3, proj_size=2), "LSTM(2, 3, proj_size=2)"),
        (fastrnn.LSTM(2, 3, peephole=True, dtype=np.float64), "LSTM(2, 3, peephole=True, dtype=float64)"),
    ],
)
def test_repr(layer, text):
    assert repr(layer) == text
    assert repr(eval(text, {**vars(fastrnn), "float64": np.float64})) == text


@each_cell
@pytest.mark.parametrize(
    "state, message",
    [
        (np.zeros((2, 6), np.float32), r"expected 3-D for batched 3-D x, \(L\*D, B, H\) = \(1, 2, 6\), got 2-D \(2, 6\)"),
        (np.zeros((1, 3, 6), np.float32), r"expected \(L\*D, B, H\) = \(1, 2, 6\), got \(1, 3, 6\)"),
    ],
)
def test_a_wrong_state(cell, state, message):
    layer, x = make(cell), np.ones((3, 2, 5), np.float32)
    name = "state"
    if cell.startswith("lstm"):
        with pytest.raises(TypeError, match=r"^state: expected a pair \(h, c\), got ndarray"):
            layer(x, state)
        state, name = (None, state), r"state\[1\]"
    with pytest.raises(ValueError, match=f"^{name}: {message}"):
        layer(x, state)


def test_the_input_of_another_dtype_or_size():
    layer = make("lstm")
    with pytest.raises(TypeError, match=r"^x: expected dtype float32, got float64; pass x.astype\(np.float32\)"):
        layer(np.ones((3, 2, 5)))
    with pytest.raises(ValueError, match=r"^x: expected the last axis to be equal to input_size = 5, got shape \(3, 2, 4\)"):
        layer(np.ones((3, 2, 4), np.float32))
