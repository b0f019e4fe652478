"""The pre-activation form and the recurrence through the outputs, against plain loops and differences."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

import fastrnn
from fastrnn.train import OutputRNN, PreactivationRNN, scheduled_sampling, squared_error
from wrong import names_the_argument

F32, F64 = np.float32, np.float64
T, B, I, H, O = 5, 4, 3, 6, 2
LENGTHS = np.array([5, 0, 3, 1])
PHI = {"tanh": np.tanh, "relu": lambda a: np.maximum(a, 0)}
each_phi = pytest.mark.parametrize("phi", PHI)
ragged = pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def model_of(kind, phi, dtype=F64):
    model = kind(I, H, O, nonlinearity=phi, dtype=dtype, rng=0)
    model.flat[:] = 0.5 * normal(model.flat.size)
    return model


# --- the pre-activation form ----------------------------------------------------------------------------------


def preactivation_loop(model, x, h, lengths):
    """h_t = b + U x_t + W phi(h_{t-1}), y_t = c + V phi(h_t), row by row."""
    U, W, b, V, c = model.params.values()
    phi = PHI[model.nonlinearity]
    hs, ys, last = np.zeros((T, B, H)), np.zeros((T, B, O)), h.copy()
    for row in range(B):
        for t in range(lengths[row]):
            hs[t, row] = last[row] = b + U @ x[t, row] + W @ phi(last[row])
            ys[t, row] = c + V @ phi(last[row])
    return hs, ys, last


@each_phi
@ragged
@pytest.mark.parametrize("initial", [False, True])
def test_the_preactivation_form_is_its_formula(phi, lengths, initial):
    model, x = model_of(PreactivationRNN, phi), normal(T, B, I)
    h0 = normal(1, B, H) if initial else None
    hs, ys, last = preactivation_loop(model, x, h0[0] if initial else np.zeros((B, H)), [T] * B if lengths is None else lengths)
    y, h_n, tape = model.forward(x, h0, lengths)
    np.testing.assert_allclose(y, ys, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(tape.h, hs, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(h_n[0], last, rtol=1e-12, atol=1e-14)
    assert np.array_equal(model(x, h0, lengths)[0], y)


@each_phi
@ragged
@pytest.mark.parametrize("initial", [False, True])
def test_the_preactivation_form_has_exact_gradients(phi, lengths, initial):
    fastrnn.gradcheck(model_of(PreactivationRNN, phi), normal(T, B, I), normal(1, B, H) if initial else None, lengths)


@each_phi
@ragged
def test_the_gradients_of_the_states_themselves(phi, lengths):
    """The sequence of h as the output, by gradcheck too."""
    model = model_of(PreactivationRNN, phi)

    class OfStates:
        params = model.params

        def forward(self, x, state):
            y, h_n, tape = model.forward(x, state, lengths)
            both = np.concatenate([y, tape.h], axis=2)
            return (
                both,
                h_n,
                SimpleNamespace(backward=lambda d, dstate: tape.backward(d[..., :O].copy(), dstate, d[..., O:].copy())),
            )

    fastrnn.gradcheck(OfStates(), normal(T, B, I), normal(1, B, H))


@each_phi
def test_it_is_the_usual_form_with_h_behind_phi(phi):
    """s = phi(h): the same weights in fastrnn.RNN give phi of these states."""
    model, x, h0 = model_of(PreactivationRNN, phi), normal(T, B, I), normal(1, B, H)
    U, W, b, *_ = model.params.values()
    layer = fastrnn.RNN(I, H, nonlinearity=phi, dtype=F64)
    layer.load_state_dict({"weight_ih_l0": U, "weight_hh_l0": W, "bias_ih_l0": b, "bias_hh_l0": 0 * b})
    s, s_n = layer(x, PHI[phi](h0))
    _, h_n, tape = model.forward(x, h0)
    np.testing.assert_allclose(PHI[phi](tape.h), s, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(PHI[phi](h_n), s_n, rtol=1e-12, atol=1e-14)


# --- outputs that come back -----------------------------------------------------------------------------------


def output_loop(model, x, targets, forced, o, lengths):
    """h_t = phi(b + W o_{t-1} + U x_t), o_t = c + V h_t, row by row."""
    U, W, b, V, c = model.params.values()
    outputs, last = np.zeros((T, B, O)), o.copy()
    for row in range(B):
        for t in range(lengths[row]):
            before = targets[t - 1, row] if t > 0 and forced[t, row] else last[row]
            outputs[t, row] = last[row] = c + V @ PHI[model.nonlinearity](b + W @ before + U @ x[t, row])
    return outputs, last


MIXED = np.random.default_rng(3).random((T, B)) < 0.5
WAYS = {"teacher": (True, None), "closed": (False, None), "mixed": (True, MIXED), "never": (True, np.zeros((T, B), bool))}
each_way = pytest.mark.parametrize("way", WAYS)


@each_way
@each_phi
@ragged
@pytest.mark.parametrize("initial", [False, True])
def test_the_recurrence_through_the_outputs_is_its_formula(way, phi, lengths, initial):
    model, x = model_of(OutputRNN, phi), normal(T, B, I)
    told, forced = WAYS[way]
    targets = normal(T, B, O, seed=1) if told else None
    o0 = normal(1, B, O) if initial else None
    who = np.full((T, B), told) if forced is None else forced
    start = o0[0] if initial else np.zeros((B, O))
    outputs, last = output_loop(model, x, targets, who, start, [T] * B if lengths is None else lengths)
    o, o_n, _ = model.forward(x, targets, forced, o0, lengths)
    np.testing.assert_allclose(o, outputs, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(o_n[0], last, rtol=1e-11, atol=1e-13)
    assert np.array_equal(model(x, targets, forced, o0, lengths)[0], o)


@each_way
@each_phi
@ragged
@pytest.mark.parametrize("initial", [False, True])
def test_the_recurrence_through_the_outputs_has_exact_gradients(way, phi, lengths, initial):
    told, forced = WAYS[way]
    targets, o0 = normal(T, B, O, seed=1) if told else None, normal(1, B, O) if initial else None
    fastrnn.gradcheck(model_of(OutputRNN, phi), normal(T, B, I), targets, forced, o0, lengths)


def test_a_network_that_runs_by_itself_learns_a_sine():
    """Teacher forcing alone, then the closed loop goes on with the wave that it was never fed."""
    from fastrnn.train import Adam

    wave = np.stack([np.sin(0.3 * np.arange(80)), np.cos(0.3 * np.arange(80))], axis=1)[:, None]
    model = OutputRNN(0, 16, 2, dtype=F64, rng=0)
    adam = Adam(model.flat, lr=1e-2)
    nothing = np.zeros((79, 1, 0))
    for _ in range(1000):
        o, _, tape = model.forward(nothing, wave[1:], state=wave[:1])
        loss, do = squared_error(o, wave[1:])
        adam.step(tape.backward(do).flat)
    assert loss < 1e-3
    o, _ = model(nothing[:20], state=wave[:1])
    assert np.abs(o - wave[1:21]).max() < 0.2


# --- both -------------------------------------------------------------------------------------------------------


def run(model, x, state, lengths, told):
    targets = told if isinstance(model, OutputRNN) else None
    return model.forward(x, **({"targets": targets} if targets is not None else {}), state=state, lengths=lengths)


@pytest.mark.parametrize("kind", [PreactivationRNN, OutputRNN])
@pytest.mark.parametrize("told", [False, True])
def test_what_stands_in_the_padding_is_not_looked_at(kind, told):
    model, x, state = model_of(kind, "tanh", F32), normal(T, B, I).astype(F32), normal(1, B, H if kind is PreactivationRNN else O)
    targets, dy = normal(T, B, O).astype(F32), normal(T, B, O, seed=2).astype(F32)
    results = []
    for filling in (0, math.nan):
        padding = np.arange(T)[:, None] >= LENGTHS
        for array in (x, targets, dy):
            array[padding] = filling
        y, last, tape = run(model, x, state.astype(F32), LENGTHS, targets if told else None)
        grads = tape.backward(dy)
        assert not grads.x[padding].any()
        results.append([y, last, grads.x, grads.state, grads.flat])
    for a, b in zip(*results, strict=True):
        assert a.dtype == F32
        assert np.array_equal(a, b)


@pytest.mark.parametrize("kind", [PreactivationRNN, OutputRNN])
def test_a_sequence_may_come_in_pieces(kind):
    model, x = model_of(kind, "tanh"), normal(T, B, I)
    whole, last = model(x)
    first, state = model(x[:2])
    second, end = model(x[2:], state=state)
    np.testing.assert_allclose(np.concatenate([first, second]), whole, rtol=1e-12)
    np.testing.assert_allclose(end, last, rtol=1e-12)


@pytest.mark.parametrize("kind", [PreactivationRNN, OutputRNN])
@pytest.mark.parametrize("shape", [(0, B), (T, 0), (0, 0)])
def test_nothing_to_do(kind, shape):
    model = model_of(kind, "tanh")
    state = normal(1, shape[1], H if kind is PreactivationRNN else O)
    y, last, tape = model.forward(np.zeros((*shape, I)), state=state)
    assert y.shape == (*shape, O)
    assert np.array_equal(last, state)
    grads = tape.backward(dstate=np.ones_like(state))
    assert np.array_equal(grads.state, np.ones_like(state))
    assert not grads.flat.any()
    assert grads.x.shape == (*shape, I)


@pytest.mark.parametrize("kind", [PreactivationRNN, OutputRNN])
def test_the_inputs_are_left_and_the_state_is_torch_like(kind):
    model = model_of(kind, "tanh")
    x, state, dy = normal(T, B, I), normal(1, B, H if kind is PreactivationRNN else O), normal(T, B, O)
    copies = [a.copy() for a in (x, state, dy, model.flat)]
    _, last, tape = model.forward(x, state=state)
    tape.backward(dy, last)
    for a, b in zip((x, state, dy, model.flat), copies, strict=True):
        assert np.array_equal(a, b)
    with pytest.raises(RuntimeError, match="this tape has been used"):
        tape.backward(dy)
    other = kind(I, H, O, dtype=F64, rng=1)
    assert np.abs(other.flat).max() <= 1 / math.sqrt(H)
    other.load_state_dict(model.state_dict())
    assert np.array_equal(other.flat, model.flat)
    assert repr(other) == f"{kind.__name__}(3, 6, 2, dtype=float64)"


def test_the_mask_of_scheduled_sampling():
    mask = scheduled_sampling(200, 50, 0.3, rng=0)
    assert mask.shape == (200, 50)
    assert mask.mean() == pytest.approx(0.3, abs=0.02)
    assert np.array_equal(mask, scheduled_sampling(200, 50, 0.3, rng=0))
    assert scheduled_sampling(3, 2, 1.0).all()
    assert not scheduled_sampling(3, 2, 0.0).any()


x32 = np.zeros((T, B, I), F32)
BAD = {
    "input_size": (lambda: PreactivationRNN(0, 1, 1), ValueError, "input_size: expected an integer of at least 1, got 0"),
    "no negative input": (lambda: OutputRNN(-1, 1, 1), ValueError, "input_size: expected an integer of at least 0, got -1"),
    "phi": (lambda: OutputRNN(1, 1, 1, nonlinearity="sin"), ValueError, "nonlinearity: expected 'tanh' or 'relu', got 'sin'"),
    "x": (lambda: PreactivationRNN(I, H, O)(x32[0]), ValueError, "x: expected 3 dimensions, got shape (4, 3)"),
    "width": (lambda: PreactivationRNN(2, H, O)(x32), ValueError, "x: expected the last axis to be input_size = 2, got shape"),
    "h_0": (
        lambda: PreactivationRNN(I, H, O)(x32, np.zeros((1, B, O), F32)),
        ValueError,
        "state: expected (1, B, H) = (1, 4, 6), got (1, 4, 2)",
    ),
    "o_0": (
        lambda: OutputRNN(I, H, O)(x32, state=np.zeros((1, B, H), F32)),
        ValueError,
        "state: expected (1, B, O) = (1, 4, 2), got (1, 4, 6)",
    ),
    "lengths": (lambda: OutputRNN(I, H, O)(x32, lengths=[6] * B), ValueError, "lengths: expected integers from 0 to T = 5, got 6"),
    "targets": (
        lambda: OutputRNN(I, H, O)(x32, np.zeros((T, B), F32)),
        ValueError,
        "targets: expected (T, B, O) = (5, 4, 2), got (5, 4)",
    ),
    "forced alone": (lambda: OutputRNN(I, H, O)(x32, forced=MIXED), ValueError, "forced: expected None without targets"),
    "forced": (
        lambda: OutputRNN(I, H, O)(x32, np.zeros((T, B, O), F32), MIXED.astype(int)),
        TypeError,
        "forced: expected booleans, got an array of int64",
    ),
    "dh": (
        lambda: PreactivationRNN(I, H, O).forward(x32)[2].backward(dh=np.zeros((T, B, O), F32)),
        ValueError,
        "dh: expected (T, B, H) = (5, 4, 6), got (5, 4, 2)",
    ),
    "no gradient": (
        lambda: OutputRNN(I, H, O).forward(x32)[2].backward(),
        ValueError,
        "tape.backward: expected a gradient of the output, of the state or of both, got neither",
    ),
    "probability": (lambda: scheduled_sampling(1, 1, 1.5), ValueError, "probability: expected a number from 0 to 1, got 1.5"),
}


test_the_argument_that_is_wrong_is_named = names_the_argument(BAD)
