"""What layers and cells do with their parameters: names, one vector, saving and loading, copying, other dtypes, showing."""

import copy
import pickle
import re

import numpy as np
import pytest

import fastrnn

MAKERS = {
    "RNN": lambda **k: fastrnn.RNN(3, 4, 2, "relu", bidirectional=True, **k),
    "IRNN": lambda **k: fastrnn.IRNN(3, 4, 2, recurrent_scale=0.9, input_std=0.5, **k),
    "GRU": lambda **k: fastrnn.GRU(3, 4, 3, dropout=0.5, reset_after=False, **k),
    "LSTM": lambda **k: fastrnn.LSTM(3, 4, 2, bidirectional=True, peephole=True, batch_first=True, **k),
    "LSTM-projected": lambda **k: fastrnn.LSTM(3, 4, 2, bias=False, bidirectional=True, proj_size=2, dropout=0.5, **k),
    "RNNCell": lambda **k: fastrnn.RNNCell(3, 4, True, "relu", **k),
    "GRUCell": lambda **k: fastrnn.GRUCell(3, 4, False, **k),
    "LSTMCell": lambda **k: fastrnn.LSTMCell(3, 4, peephole=True, **k),
}
each = pytest.mark.parametrize("name", MAKERS)


def make(name, **options):
    return MAKERS[name](**{"rng": 0, **options})


def step(module, dtype=np.float32):
    """The bytes of an output, and of its gradients."""
    x = np.random.default_rng(0).standard_normal((3, 2, 3)).astype(dtype)
    if "Cell" in type(module).__name__:
        state, tape = module.forward(x[0])
        grads = tape.backward(state)
        y = state[0] if isinstance(state, tuple) else state
    else:
        y, _, tape = module.forward(x)
        grads = tape.backward(y)
    return y.tobytes(), grads.flat.tobytes()


def assert_one_vector(module):
    """params are views of flat, in its order."""
    assert all(np.shares_memory(a, module.flat) for a in module.params.values())
    assert np.concatenate([a.ravel() for a in module.params.values()]).tobytes() == module.flat.tobytes()


# --- names and shapes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("options", [{}, {"proj_size": 2}, {"peephole": True}], ids=str)
def test_names_and_shapes_of_a_stack(bias, bidirectional, options):
    I, H, P, D = 3, 5, options.get("proj_size", 5), 2 if bidirectional else 1
    expected = {}
    for k in range(3):
        for way in ("", "_reverse")[:D]:
            shapes = {"weight_ih": (4 * H, D * P if k else I), "weight_hh": (4 * H, P)}
            shapes |= {"bias_ih": (4 * H,), "bias_hh": (4 * H,)} if bias else {}
            shapes |= {"weight_hr": (P, H)} if P < H else {}
            shapes |= {"weight_ch": (3, H)} if "peephole" in options else {}
            expected |= {f"{name}_l{k}{way}": shape for name, shape in shapes.items()}
    layer = fastrnn.LSTM(I, H, 3, bias, bidirectional=bidirectional, **options)
    assert [(name, a.shape) for name, a in layer.params.items()] == list(expected.items())
    assert_one_vector(layer)


def test_an_irnn_is_an_identity_in_each_layer_and_direction():
    layer = fastrnn.IRNN(30, 40, 3, bidirectional=True, recurrent_scale=0.5, input_std=0.1, rng=0)
    assert len(layer.params) == 24
    for name, a in layer.params.items():
        if name.startswith("weight_hh"):
            assert np.array_equal(a, 0.5 * np.eye(40))
        elif name.startswith("bias"):
            assert not a.any()
        else:
            assert abs(a.std() / 0.1 - 1) < 5 / np.sqrt(2 * a.size)


@each
def test_the_generator_is_the_layers_own_or_the_one_given(name):
    rng = np.random.default_rng(3)
    module = make(name, rng=rng)
    assert module.rng is rng
    assert module.flat.tobytes() == make(name, rng=3).flat.tobytes()


# --- one vector -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")  # since NumPy 2.5; others do it all the same
@each
def test_names_and_vector_are_the_same_numbers_whatever_is_assigned(name):
    module = make(name)
    flat, before = module.flat, step(module)
    module.flat -= 0.25
    first = next(iter(module.params))
    module.params[first] -= 1
    module.params[first] = module.params[first] + 1
    module.flat = module.flat + np.float32(0.25)
    assert module.flat is flat and step(module) != before
    assert_one_vector(module)
    module.params[first].shape = -1  # a view of the caller's own
    step(module)


@each
def test_wrong_assignments(name):
    module = make(name)
    before, first = module.flat.copy(), next(iter(module.params))
    a = module.params[first]
    for wrong, error in ((a[1:], ValueError), (a.astype(float), TypeError), (a.tolist(), TypeError), (1.0, TypeError)):
        with pytest.raises(error, match=rf"^{first}: expected .*, got "):
            module.params[first] = wrong
        with pytest.raises(error, match=r"^flat: expected .*, got "):
            module.flat = wrong
    with pytest.raises(KeyError, match=r"'weight': expected one of \['weight_ih"):
        module.params["weight"] = a
    with pytest.raises(AttributeError):
        del module.params[first]
    assert module.flat.tobytes() == before.tobytes()
    assert_one_vector(module)


# --- saving and loading ---------------------------------------------------------------------------------------------------


@each
def test_state_dict_round_trip(name):
    one, other = make(name, rng=1), make(name, rng=2)
    other.load_state_dict(one.state_dict())
    assert other.flat.tobytes() == one.flat.tobytes()
    assert_one_vector(other)


@each
def test_all_that_is_wrong_with_a_mapping_is_in_one_message(name):
    module = make(name)
    before, mapping = module.flat.copy(), module.state_dict()
    mapping["more"] = mapping["still_more"] = np.zeros(3, np.float32)
    first, second, *_ = module.params
    del mapping[first]
    mapping[second] = np.zeros((2, 2), np.float32)
    with pytest.raises(KeyError) as raised:
        module.load_state_dict(mapping)
    shape = re.escape(str(module.params[second].shape))
    text = str(raised.value)
    assert f"missing ['{first}'], unexpected ['more', 'still_more']" in text
    assert re.search(rf"; {second}: expected its shape = {shape}, got \(2, 2\)", text)
    wrong = {key: np.zeros((2, 2), np.float32) if key in (first, second) else a for key, a in module.state_dict().items()}
    with pytest.raises(ValueError, match=rf"^{first}: expected .*got \(2, 2\); {second}: expected .*got \(2, 2\)"):
        module.load_state_dict(wrong)
    assert module.flat.tobytes() == before.tobytes()


# --- copies ---------------------------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
@pytest.mark.parametrize("used", [False, True])
def test_copies_are_alike_and_apart(name, how, used):
    module = make(name)
    if used:
        step(module)
    made = pickle.loads(pickle.dumps(module)) if how == "pickle" else copy.deepcopy(module)
    assert type(made) is type(module) and repr(made) == repr(module)
    assert list(made.params) == list(module.params) and made.flat.tobytes() == module.flat.tobytes()
    assert_one_vector(made)
    assert not np.shares_memory(made.flat, module.flat)
    assert step(made) == step(module)  # the generators stand at the same place, too
    made.flat[:] = 0
    assert module.flat.any() and step(made) != step(module)
    made.load_state_dict(module.state_dict())


@each
def test_another_dtype(name):
    module = make(name)
    double = module.astype(np.float64)
    assert double.dtype == double.flat.dtype == np.float64 and module.dtype == np.float32
    assert repr(double) == repr(module)[:-1] + ", dtype=float64)"
    assert np.array_equal(double.flat, module.flat) and list(double.params) == list(module.params)
    assert_one_vector(double)
    x, y = (np.frombuffer(step(m, m.dtype)[0], m.dtype) for m in (module, double))
    np.testing.assert_allclose(x, y, atol=1e-6)
    double.flat[:] = 0
    assert module.flat.any()
    back = make(name).astype("float64").astype("float32")
    assert step(back) == step(make(name))
    with pytest.raises(TypeError, match=r"^dtype: expected float32 or float64, got 'int8'"):
        module.astype("int8")


@each
def test_repr_makes_the_layer_again(name):
    module = make(name)
    again = eval(repr(module), vars(fastrnn))
    assert repr(again) == repr(module)
    assert [(n, a.shape) for n, a in again.params.items()] == [(n, a.shape) for n, a in module.params.items()]


def test_a_subclass_with_arguments_of_its_own():
    class Square(fastrnn.GRU):
        def __init__(self, width, *, bias=True):
            super().__init__(width, width, bias=bias)

    assert repr(Square(3, bias=False)) == "Square(bias=False)"
    assert type(Square(3).astype(np.float64)) is Square


@each
def test_the_vector_cannot_be_exchanged(name):
    """It would no longer be the numbers of the names."""
    module = make(name)
    with pytest.raises(AttributeError):
        module.params.flat = np.zeros_like(module.flat)
    assert_one_vector(module)


def test_a_state_may_be_the_layers_own_in_another_order():
    layer = fastrnn.GRU(3, 4, rng=0)
    before = layer.state_dict()
    ih, hh = "bias_ih_l0", "bias_hh_l0"
    layer.load_state_dict({**layer.params, ih: layer.params[hh], hh: layer.params[ih]})
    assert np.array_equal(layer.params[ih], before[hh]) and np.array_equal(layer.params[hh], before[ih])
