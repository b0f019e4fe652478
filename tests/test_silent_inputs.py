"""Inputs that look right, so that they would pass, and are not what they seem."""

import warnings

import numpy as np
import pytest

import fastrnn
from fastrnn import train
from wrong import names_the_argument

N = 4  # T, B, I and H: nothing is told by its size
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, N, N)).astype(np.float32)
FLAGS = RNG.random((N, N)) < 0.5
assert (FLAGS != FLAGS.T).any()


# --- masks and resets lie as x does, also where T = B ---------------------------------------------------------------------


def layer_of(batch_first):
    return fastrnn.GRU(N, N, 2, batch_first=batch_first, bidirectional=True, rng=0)


def by_layer(batch_first, x, flags):
    y, _, tape = layer_of(batch_first).forward(x, **flags)
    return y, tape.backward(y).x


def by_function(batch_first, x, flags):
    p = fastrnn.GRU(N, N, rng=0).params
    weights = [p[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    y, _, tape = fastrnn.gru(x, *weights, batch_first=batch_first, record=True, **flags)
    return y, tape.backward(y).x


def by_reference(batch_first, x, flags):
    p = fastrnn.GRU(N, N, rng=0).params
    weights = [p[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    y, _, tape = fastrnn.reference.gru(x, *weights, batch_first=batch_first, record=True, **flags)
    return y, tape.backward(y).x


def by_norms(batch_first, x, flags):
    norms = train_norms(layer_of(batch_first), x, dy=np.ones((N, N, 2 * N), np.float32), **flags)
    return tuple(norm.T for norm in norms.values()) if batch_first else tuple(norms.values())


def train_norms(*args, **kwargs):
    from fastrnn.diagnostics import gradient_norms

    return gradient_norms(*args, **kwargs)


@pytest.mark.parametrize("way", [by_layer, by_function, by_reference, by_norms])
@pytest.mark.parametrize("name", ["mask", "reset"])
def test_flags_lie_as_x_does(way, name):
    expected = way(False, X, {name: FLAGS})
    got = way(True, X.swapaxes(0, 1), {name: FLAGS.T})
    assert all(np.array_equal(a, b.swapaxes(0, 1)) for a, b in zip(expected, got, strict=True))
    other = way(True, X.swapaxes(0, 1), {name: FLAGS})
    assert any(not np.array_equal(a, b.swapaxes(0, 1)) for a, b in zip(expected, other, strict=True))


@pytest.mark.parametrize("name", ["mask", "reset"])
@pytest.mark.parametrize("function", ["gru", "lstm"])
def test_flags_of_a_traced_call_lie_as_x_does(name, function):
    jax = pytest.importorskip("jax", reason="the package jax is not installed")
    import fastrnn.jax

    cell = {"gru": fastrnn.GRU, "lstm": fastrnn.LSTM}[function](3, N, rng=0)
    weights, flags = [cell.params["weight_ih_l0"], cell.params["weight_hh_l0"]], FLAGS[:3]
    x = X[:3, :, :3]
    expected, *_ = getattr(fastrnn, function)(x, *weights, **{name: flags})
    call = jax.jit(lambda x, flags: getattr(fastrnn.jax, function)(x, *weights, batch_first=True, **{name: flags})[0])
    assert np.array_equal(call(x.swapaxes(0, 1), flags.T).swapaxes(0, 1), expected)
    with pytest.raises(ValueError, match=rf"^{name}: expected \(B, T\)"):
        call(x.swapaxes(0, 1), flags)


TALL = np.zeros((5, 3, N), np.float32)  # (T, B, I), or (B, T, I)
WRONG_WAY = {
    "(T, B) of a batch-first layer": (fastrnn.GRU(N, N, batch_first=True), TALL, (3, 5), "(B, T) = (5, 3), as x lies, got (3, 5)"),
    "(B, T) of a time-major layer": (fastrnn.GRU(N, N), TALL, (3, 5), "(T, B) = (5, 3), as x lies, got (3, 5)"),
    "no batch": (fastrnn.GRU(N, N, batch_first=True), TALL[:, 0], (1, 5), "(T,) = (5,), as x lies, got (1, 5)"),
    "packed": (
        fastrnn.GRU(N, N, batch_first=True),
        fastrnn.pack(TALL, [5, 4, 2]),
        (5, 3),
        "(B, T) = (3, 5), as x lies, got (5, 3)",
    ),
}


@pytest.mark.parametrize("name", ["mask", "reset"])
@pytest.mark.parametrize("what", WRONG_WAY)
def test_errors_say_how_flags_should_lie(what, name):
    layer, x, shape, says = WRONG_WAY[what]
    with pytest.raises(ValueError) as raised:
        layer(x, **{name: np.ones(shape, bool)})
    assert str(raised.value) == f"{name}: expected {says}"


# --- arrays that hide numbers, share memory, or have another shape -----------------------------------------------------------

P = np.zeros(6)
HIDING = np.ma.array(np.zeros(6), mask=[1, 0, 0, 0, 0, 0])


def filled_by(function):
    return lambda: train.initialisers.initialise(fastrnn.RNN(N, N), weight_hh=function)


def adam_state(**changes):
    adam = train.Adam(P.copy())
    return lambda: adam.load_state_dict(adam.state_dict() | changes)


SILENT = {
    "masked parameters": (lambda: train.SGD(HIDING), TypeError, "params[0]: expected a NumPy array, got MaskedArray"),
    "masked gradients": (lambda: train.SGD(P).step(HIDING), TypeError, "grads[0]: expected a NumPy array, got MaskedArray"),
    "masked, clipped": (lambda: train.clip_value([P, HIDING], 1), TypeError, "grads[1]: expected a NumPy array, got MaskedArray"),
    "masked state": (adam_state(**{"m.0": HIDING}), TypeError, "m.0: expected an array, got MaskedArray"),
    "masked prompt": (
        lambda: train.sample(fastrnn.GRU(3, 4), train.Linear(4, 3), np.ma.array([0, 1], mask=[0, 1]), 2),
        ValueError,
        "prompt: expected (n, B) integers",
    ),
    "masked rows": (
        lambda: fastrnn.GRU(3, 4).stream(3).reset(np.ma.array([True] * 3, mask=[0, 0, 1])),
        TypeError,
        "rows: expected an index of 3 rows",
    ),
    "a count below 0": (adam_state(t=np.array(-3)), ValueError, "t: expected a count of at least 0, got -3"),
    "parameters twice": (
        lambda: train.Adam([P, P]),
        ValueError,
        "params[1]: expected memory of its own, got an array that overlaps",
    ),
    "parameters and a part of them": (
        lambda: train.SGD([P[:2], P[3:], P[1:4]]),
        ValueError,
        "params[2]: expected memory of its own",
    ),
    "an average of parameters twice": (lambda: train.Average([P, P[::-1]]), ValueError, "params[1]: expected memory of its own"),
    "gradients clipped twice": (lambda: train.clip_global_norm([P, P], 1), ValueError, "grads[1]: expected memory of its own"),
    "one number for a block": (filled_by(lambda shape, rng: 0.5), ValueError, "weight_hh: expected a function that makes (4, 4)"),
    "a row for a block": (filled_by(lambda shape, rng: np.ones(N)), ValueError, "weight_hh: expected a function that makes (4, 4)"),
}

test_what_would_pass_silently = names_the_argument(SILENT)


def test_parameters_side_by_side_in_one_array_are_apart():
    both = np.arange(12.0).reshape(2, 6)
    sgd = train.SGD([both[0], both[1]], lr=1.0)
    sgd.step([np.ones(6), np.ones(6)])
    train.SGD([both[:, ::2], both[:, 1::2]], lr=1.0).step([np.ones((2, 3)), np.ones((2, 3))])
    assert np.array_equal(both, np.arange(12.0).reshape(2, 6) - 2)


def test_a_subclass_is_changed_as_the_array_that_it_is():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        matrix = np.matrix(np.arange(6.0).reshape(2, 3))
    plain = np.asarray(matrix).copy()
    for p in (matrix, plain):
        adam = train.Adam(p, lr=0.1)
        for _ in range(3):
            adam.step(np.ones((2, 3)))
    assert np.array_equal(np.asarray(matrix), plain)


@pytest.mark.parametrize("name", ["x", "w_hh", "lengths", "mask"])
@pytest.mark.parametrize("module", ["jax", "autograd"])
def test_masked_arrays_do_not_get_through_a_framework(module, name):
    pytest.importorskip(module, reason=f"the package {module} is not installed")
    module = pytest.importorskip(f"fastrnn.{module}")
    given = {"x": X, "w_ih": np.eye(N, dtype=np.float32), "w_hh": np.eye(N, dtype=np.float32)}
    given |= {"lengths": np.array([1, 2, 3, 4]), "mask": FLAGS}
    given[name] = np.ma.array(given[name], mask=np.ones(given[name].shape, bool))
    with pytest.raises(TypeError, match=f"^{name}: expected .*, got MaskedArray"):
        module.rnn(**given)


@pytest.mark.parametrize("name", ["lengths", "mask", "reset"])
def test_a_tensor_that_is_no_plain_array_is_one_error(name):
    torch = pytest.importorskip("torch", reason="the package torch is not installed")
    layer, wrong = fastrnn.GRU(N, N), torch.ones(N, requires_grad=True)
    with pytest.raises(TypeError, match=f"^{name}: expected "):
        layer(X, **{name: wrong})
    right = {"lengths": torch.tensor([1, 2, 3, 4]), "mask": torch.tensor(FLAGS), "reset": torch.tensor(FLAGS)}[name]
    assert np.array_equal(layer(X, **{name: right})[0], layer(X, **{name: right.numpy()})[0])
