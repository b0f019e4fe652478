"""Initial values, and clipping by value."""

import math

import numpy as np
import pytest

import fastrnn
from fastrnn.train import clip_value
from fastrnn.train.initialisers import glorot, identity, initialise, normal, np_rnn, np_rnn_input, orthogonal, uniform

F32 = np.float32


def make(fill, shape, seed=0):
    return fill(shape, np.random.default_rng(seed))


@pytest.mark.parametrize("shape", [(50, 50), (50, 20), (20, 50), (1, 1)])
def test_orthogonal_matrices(shape):
    w = make(orthogonal(2.0), shape)
    assert w.shape == shape
    gram = w @ w.T if shape[0] <= shape[1] else w.T @ w
    np.testing.assert_allclose(gram, 4 * np.eye(min(shape)), atol=1e-12)
    assert not np.array_equal(w, make(orthogonal(2.0), shape, seed=1)) or shape == (1, 1)


def test_orthogonal_matrices_are_drawn_evenly():
    """The mean of each entry is 0 (without the signs of R it is not), and a rotation by 180 degrees is as likely as one by 0."""
    draws = np.array([make(orthogonal(), (2, 2), seed) for seed in range(2000)])
    assert np.abs(draws.mean(axis=0)).max() < 0.06
    assert 900 < (np.linalg.det(draws) > 0).sum() < 1100


def test_limits_and_spreads():
    shape = (100, 300)
    for fill, limit in [(glorot(), math.sqrt(6 / 400)), (glorot(2.0), math.sqrt(24 / 400)), (uniform(), 0.1), (uniform(0.3), 0.3)]:
        w = make(fill, shape)
        assert 0.99 * limit < np.abs(w).max() <= limit
        assert w.std() == pytest.approx(limit / math.sqrt(3), rel=0.02)
    assert make(normal(0.001), shape).std() == pytest.approx(0.001, rel=0.02)
    alpha = math.sqrt(2) * math.exp(1.2 / 97.6)
    assert make(np_rnn_input(), shape).std() == pytest.approx(alpha / 10, rel=0.02)
    assert np.array_equal(make(identity(0.5), (3, 3)), 0.5 * np.eye(3))


def test_np_rnn_has_one_eigenvalue_of_1_and_the_others_below():
    w = make(np_rnn(), (40, 40))
    assert np.array_equal(w, w.T)
    values = np.linalg.eigvalsh(w)
    assert values[0] > 0
    assert values[-1] == pytest.approx(1, rel=1e-12)
    assert values[-2] < 1
    r = np.random.default_rng(0).standard_normal((40, 40))
    np.testing.assert_allclose(w / w[0, 0], (r.T @ r / 40 + np.eye(40)) / (r.T @ r / 40 + np.eye(40))[0, 0], rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match=r"np_rnn: expected a square matrix, got shape \(3, 4\)"):
        make(np_rnn(), (3, 4))


@pytest.mark.parametrize("kind", [fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM])
def test_a_layer_is_filled_gate_by_gate(kind):
    layer = kind(3, 8, rng=0)
    layer.params["bias_ih_l0"][...] = 1
    untouched = layer.params["weight_ih_l0"].copy()
    initialise(layer, weight_hh=orthogonal(), rng=1)
    w = layer.params["weight_hh_l0"].reshape(-1, 8, 8)
    for block in w:
        np.testing.assert_allclose(block @ block.T, np.eye(8), atol=1e-6)
    assert len({block.tobytes() for block in w}) == len(w)
    assert np.array_equal(layer.params["weight_ih_l0"], untouched)
    assert (layer.params["bias_ih_l0"] == 1).all()
    initialise(layer, weight_ih=glorot(), bias=0.0, rng=1)
    assert np.abs(layer.params["weight_ih_l0"]).max() > 0.9 * math.sqrt(6 / 11)
    assert not layer.params["bias_ih_l0"].any()
    assert not layer.params["bias_hh_l0"].any()
    again = kind(3, 8)
    again.load_state_dict(layer.state_dict())
    for target in (layer, again):
        initialise(target, weight_ih=normal(1), weight_hh=uniform(), rng=7)
    assert np.array_equal(layer.flat, again.flat)


def test_the_forget_gate():
    layer = fastrnn.LSTM(3, 4, rng=0)
    before = layer.state_dict()
    initialise(layer, forget_bias=1.0)
    both = layer.params["bias_ih_l0"] + layer.params["bias_hh_l0"]
    assert (both[4:8] == 1).all()
    for name, array in layer.params.items():
        keep = np.ones(len(array), bool)
        keep[4:8] = not name.startswith("bias")
        assert np.array_equal(array[keep], before[name][keep])
    for other in (fastrnn.GRU(3, 4), fastrnn.LSTM(3, 4, bias=False)):
        with pytest.raises(ValueError, match="forget_bias: expected None for a layer without"):
            initialise(other, forget_bias=1.0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: identity(math.nan), "scale: expected a finite number, got nan"),
        (lambda: uniform(-1.0), "limit: expected a finite number of at least 0, got -1.0"),
        (lambda: normal(-1.0), "std: expected a finite number of at least 0, got -1.0"),
        (lambda: initialise(fastrnn.RNN(1, 1), bias=math.inf), "bias: expected a finite number, got inf"),
        (lambda: initialise(fastrnn.RNN(1, 1), rng=-1), "rng: expected a seed or a numpy.random.Generator, got -1"),
    ],
)
def test_the_argument_that_is_wrong_is_named(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == message


# --- clipping by value --------------------------------------------------------------------------------------


def test_each_number_is_clipped_by_itself():
    a, b = np.array([3.0, -7.0, 0.5]), np.array([[-2.0, 6.0]], F32)
    assert clip_value([a, b], 5.0) == 7.0
    assert np.array_equal(a, [3, -5, 0.5])
    assert np.array_equal(b, [[-2, 5]])
    assert clip_value([a, b], 5.0) == 5.0
    assert clip_value(a, math.inf) == 5.0
    assert clip_value([], 1.0) == 0.0
    assert clip_value([np.zeros(0), np.zeros(2)], 1.0) == 0.0
    whole = np.full((4, 6), -10.0, F32)
    assert clip_value(whole[::2, ::3], 1.0) == 10.0
    assert whole.sum() == -20 * 10 - 4


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_gradients_that_are_not_finite_are_told_and_left(bad):
    a, b = np.array([9.0]), np.array([1.0, bad])
    assert not math.isfinite(clip_value([a, b], 5.0))
    assert a[0] == 9
    assert np.array_equal(b, [1, bad], equal_nan=True)


def test_torch_clips_the_same():
    torch = pytest.importorskip("torch")
    a = np.random.default_rng(0).standard_normal(100).astype(F32)
    theirs = torch.zeros(100, requires_grad=True)
    theirs.grad = torch.tensor(a)
    torch.nn.utils.clip_grad_value_([theirs], 0.7)
    clip_value(a, 0.7)
    assert np.array_equal(a, theirs.grad.numpy())


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
def test_a_limit_is_above_0(limit):
    with pytest.raises(ValueError, match=f"limit: expected a number above 0, got {limit}"):
        clip_value(np.ones(2), limit)
