"""gradcheck passes what is right, names what is wrong, and leaves everything as it was."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest

from fastrnn import reference
from fastrnn.gradcheck import GradcheckError, gradcheck

T, B, I, H = 3, 2, 2, 2
CELLS = {
    "tanh": (reference.rnn, 1, {}),
    "relu": (reference.rnn, 1, {"nonlinearity": "relu"}),
    "gru-after": (reference.gru, 3, {}),
    "gru-before": (reference.gru, 3, {"reset_after": False}),
    "lstm": (reference.lstm, 4, {}),
    "lstm-peephole": (reference.lstm, 4, {"peephole": np.array([[0.3, -0.4], [0.5, 0.1], [-0.2, 0.6]])}),
}
RESET = np.array([[1, 0], [0, 0], [0, 1]], bool)
each_cell = pytest.mark.parametrize("cell", CELLS)


def problem(cell, dtype=np.float64):
    """(function, arrays by name, keywords)."""
    function, G, keywords = CELLS[cell]
    rng = np.random.default_rng(0)
    shapes = {
        "x": (T, B, I),
        "w_ih": (G * H, I),
        "w_hh": (G * H, H),
        "b_ih": (G * H,),
        "b_hh": (G * H,),
        "h0": (B, H),
    }
    if function is reference.lstm:
        shapes["c0"] = (B, H)
    arrays = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    return function, arrays, {k: v.astype(dtype) if k == "peephole" else v for k, v in keywords.items()}


def altered(function, change):
    """function with change(grads) done to the gradients that its tape returns."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        y, state, tape = function(*args, **kwargs)

        def backward(dy=None, dstate=None):
            grads = tape.backward(dy, dstate)
            change(grads)
            return grads

        return y, state, SimpleNamespace(backward=backward)

    return wrapper


class Layer:
    """The reference's LSTM as a layer: params are views of one vector. `fails_at` is the call that raises."""

    def __init__(self, fails_at=None):
        shapes = {"weight_ih_l0": (4 * H, I), "weight_hh_l0": (4 * H, H), "bias_l0": (4 * H,)}
        sizes = [int(np.prod(shape)) for shape in shapes.values()]
        self.flat = np.random.default_rng(3).standard_normal(sum(sizes))
        parts = np.split(self.flat, np.cumsum(sizes)[:-1])
        self.params = {
            name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }
        self.calls, self.fails_at = 0, fails_at

    def forward(self, x, state=None, lengths=None, reset=None):
        self.calls += 1
        if self.calls == self.fails_at:
            raise MemoryError("on purpose")
        w_ih, w_hh, b = self.params.values()
        y, final, tape = reference.lstm(
            x, w_ih, w_hh, b, None, *(state or (None, None)), lengths=lengths, reset=reset, record=True
        )

        def backward(dy=None, dstate=None):
            grads = tape.backward(dy, dstate)
            params = dict(zip(self.params, (grads.w_ih, grads.w_hh, grads.b_ih), strict=True))
            return SimpleNamespace(x=grads.x, state=grads.state, params=params)

        return y, final, SimpleNamespace(backward=backward)


def layer_arguments():
    _, arrays, _ = problem("lstm")
    return arrays["x"], (arrays["h0"], arrays["c0"])


# --- what is right passes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lengths": [2, 3], "reset": RESET},
        {"reverse": True, "reset": RESET},
        {"lengths": [0, 2]},
        {"mask": ~RESET, "masked": "hold"},
    ],
    ids=["plain", "lengths-reset", "reverse-reset", "empty-row", "mask"],
)
@each_cell
def test_reference_passes(cell, options):
    function, arrays, keywords = problem(cell)
    result = gradcheck(function, *arrays.values(), **keywords, **options)
    assert result and result.ok
    assert set(result.table) == {*arrays, *(["peephole"] if cell == "lstm-peephole" else [])}
    assert all(entry.checked == arrays[name].size for name, entry in result.table.items() if name in arrays)


@pytest.mark.parametrize("dtype", ["float16", "float32", "longdouble", "complex64", "complex128"])
@pytest.mark.parametrize("cell", ["gru-after", "lstm-peephole"])
def test_reference_passes_in_every_dtype(cell, dtype):
    function, arrays, keywords = problem(cell, dtype)
    assert gradcheck(function, **arrays, **keywords)


def test_layer_passes():
    x, state = layer_arguments()
    result = gradcheck(Layer(), x, state, lengths=[3, 1])
    assert set(result.table) == {"x", "state[0]", "state[1]", "weight_ih_l0", "weight_hh_l0", "bias_l0"}
    assert set(gradcheck(Layer(), x=x).table) == {"x", "weight_ih_l0", "weight_hh_l0", "bias_l0"}


def test_kink_within_the_first_step_passes():
    """The preactivation 6e-5 is positive; h = 1.2e-4 crosses 0, h/8 and twice that do not."""
    one = np.ones((1, 1))
    result = gradcheck(reference.rnn, 6e-5 * one, one, 0 * one, nonlinearity="relu")
    assert result.table["x"].numeric == pytest.approx(result.table["x"].analytic, rel=1e-6)


def test_gradient_below_the_rounding_of_the_output_passes():
    """In float32, x_0 no longer moves the last of 12 steps; its gradient is right and not zero."""
    w = np.full((1, 1), 0.05, np.float32)
    x = np.ones((12, 1), np.float32)

    @functools.wraps(reference.rnn)
    def last(*args, **kwargs):
        y, h_n, tape = reference.rnn(*args, **kwargs)
        return y[-1:], h_n, SimpleNamespace(backward=lambda dy, dh: tape.backward(None, dh + dy[0]))

    result = gradcheck(last, x, w, w)
    assert 0 < abs(last(x, w, w, record=True)[2].backward(w, w[0]).x[0, 0]) < 1e-12
    assert result.table["x"].checked == 12


def test_nothing_to_check_passes():
    x = np.ones((2, 0, 0))
    function = functools.partial(reference.rnn, w_ih=np.ones((1, 0)), w_hh=np.ones((1, 1)))
    result = gradcheck(lambda x, record: function(x, record=record), x)
    assert result and result.name == "" and result.table == {}


# --- what is wrong is named ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", ["x", "w_ih", "w_hh", "b_ih", "b_hh", "h0", "c0", "peephole"])
def test_broken_entry_is_named(name, dtype):
    function, arrays, keywords = problem("lstm-peephole", dtype)
    arrays |= keywords
    index = tuple(n - 1 for n in arrays[name].shape)
    amount = 1e-5 if dtype == np.float64 else 5e-2

    def change(grads):
        getattr(grads, name)[index] += amount

    result = gradcheck(altered(function, change), **arrays, raise_exception=False)
    assert not result
    assert (result.name, result.index) == (name, index)
    assert result.error == pytest.approx(amount, rel=0.05)
    assert result.analytic - result.numeric == pytest.approx(amount, rel=0.05)
    assert [entry.name for entry in result.table.values() if not entry.ok] == [name]


def test_error_names_the_worst_entry_and_both_values():
    function, arrays, _ = problem("gru-after")

    def change(grads):
        grads.w_hh[4, 1] = 12.5
        grads.b_ih[0] += 1e-4

    with pytest.raises(
        AssertionError, match=r"wrong gradient at w_hh\[4, 1\]: analytic 12.5, numeric -?\d"
    ) as e:
        gradcheck(altered(function, change), **arrays)
    assert isinstance(e.value, GradcheckError)
    assert "WRONG  b_ih[0]" in str(e.value) and "ok     x[" in str(e.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_nan_infinity_and_zero_are_wrong(value):
    function, arrays, _ = problem("tanh")

    def change(grads):
        grads.h0[1, 0] = value

    with np.errstate(invalid="ignore"):
        result = gradcheck(altered(function, change), **arrays, raise_exception=False)
    assert not result and (result.name, result.index) == ("h0", (1, 0))


@pytest.mark.parametrize("ignored", ["dy", "dh_n", "dc_n"])
def test_a_gradient_that_does_not_enter_is_seen(ignored):
    function, arrays, _ = problem("lstm")

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        y, state, tape = function(*args, **kwargs)

        def backward(dy, dstate):
            dh_n, dc_n = dstate
            given = {"dy": dy, "dh_n": dh_n, "dc_n": dc_n, ignored: None}
            return tape.backward(given["dy"], (given["dh_n"], given["dc_n"]))

        return y, state, SimpleNamespace(backward=backward)

    with pytest.raises(GradcheckError):
        gradcheck(wrapper, **arrays)


@pytest.mark.parametrize("value, came", [(None, "none"), (np.ones(3), r"one of shape \(3,\)")])
def test_missing_or_misshapen_gradient(value, came):
    function, arrays, _ = problem("tanh")
    target = altered(function, lambda grads: setattr(grads, "w_hh", value))
    with pytest.raises(GradcheckError, match=rf"w_hh: expected a gradient of shape \(2, 2\), got {came}"):
        gradcheck(target, **arrays)


def test_broken_layer_is_named():
    class Broken(Layer):
        def forward(self, x, state=None):
            y, state, tape = super().forward(x, state)

            def backward(dy, dstate):
                grads = tape.backward(dy, dstate)
                grads.params["weight_hh_l0"][5, 0] += 1e-3
                grads.state[1][1, 1] += 1
                return grads

            return y, state, SimpleNamespace(backward=backward)

    x, state = layer_arguments()
    with pytest.raises(GradcheckError, match=r"wrong gradient at state\[1\]\[1, 1\]") as e:
        gradcheck(Broken(), x, state)
    assert "WRONG  weight_hh_l0[5, 0]" in str(e.value)


@pytest.mark.parametrize(
    "target, args, message",
    [
        (3, (), "target: expected a function or a layer, got int"),
        (
            lambda *args, record: None,
            (np.ones(1),),
            "target: expected arguments with names, got several in 'args'",
        ),
    ],
    ids=["number", "star-args"],
)
def test_bad_target(target, args, message):
    with pytest.raises(TypeError, match=message):
        gradcheck(target, *args)


# --- how much is checked ------------------------------------------------------------------------------------


def test_max_entries_is_seeded():
    function, arrays, _ = problem("gru-after")
    seen = []

    def forward(*args, **kwargs):
        seen.append(tuple(a.tobytes() for a in args if isinstance(a, np.ndarray)))
        return function(*args, **kwargs)

    target = functools.wraps(function)(forward)
    for seed in (0, 0, 1):
        result = gradcheck(target, **arrays, max_entries=3, seed=seed)
        assert {name: entry.checked for name, entry in result.table.items()} == dict.fromkeys(arrays, 3)
    first, second, third = (seen[k : k + len(seen) // 3] for k in range(0, len(seen), len(seen) // 3))
    assert first == second != third


def test_tolerances_are_the_users():
    function, arrays, _ = problem("tanh")

    def change(grads):
        grads.x[0, 0, 0] += 1e-3

    target = altered(function, change)
    assert not gradcheck(target, **arrays, raise_exception=False)
    assert gradcheck(target, **arrays, atol=2e-3)
    assert gradcheck(target, **arrays, rtol=1e2)
    assert not gradcheck(function, **arrays, eps=1e-4, rtol=0, atol=0, raise_exception=False)


# --- nothing is left changed --------------------------------------------------------------------------------


@pytest.mark.parametrize("writeable", [True, False])
def test_arguments_are_untouched(writeable):
    function, arrays, _ = problem("lstm")
    before = {name: a.copy() for name, a in arrays.items()}
    for a in arrays.values():
        a.flags.writeable = writeable
    gradcheck(function, **arrays)
    for name, a in arrays.items():
        assert a.tobytes() == before[name].tobytes()


def test_layer_is_restored_bit_for_bit():
    layer, (x, state) = Layer(), layer_arguments()
    layer.flat[::5] = -0.0  # of which value - step + step would make +0.0
    before = [a.tobytes() for a in (layer.flat, x, *state)]
    gradcheck(layer, x, state)
    assert [a.tobytes() for a in (layer.flat, x, *state)] == before
    assert all(np.shares_memory(p, layer.flat) for p in layer.params.values())


def test_layer_is_restored_after_an_exception():
    """Whichever of the calls raises."""
    x, state = layer_arguments()
    healthy = Layer()
    gradcheck(healthy, x, state, max_entries=1)
    for fails_at in range(1, healthy.calls + 1):
        layer = Layer(fails_at)
        before = [a.tobytes() for a in (layer.flat, x, *state)]
        with pytest.raises(MemoryError, match="on purpose"):
            gradcheck(layer, x, state, max_entries=1)
        assert [a.tobytes() for a in (layer.flat, x, *state)] == before
