"""The small parts of training: Adam, clipping by the global norm, the linear readout."""

import math
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from building import run_python
from fastrnn.train import Adam, Linear, clip_global_norm, global_norm
from wrong import names_the_argument

F32, F64 = np.float32, np.float64


# --- Adam ---------------------------------------------------------------------------------------------------


def adam_of_the_paper(p, gradients, lr, beta1, beta2, eps):
    """Algorithm 1 of Kingma and Ba, for one number, line by line."""
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        p -= lr * m_hat / (math.sqrt(v_hat) + eps)
    return p


@pytest.mark.parametrize("dtype, rtol", [(F32, 2e-6), (F64, 1e-13)])
@pytest.mark.parametrize("lr, betas, eps", [(1e-3, (0.9, 0.999), 1e-8), (0.5, (0.5, 0.75), 0.1), (0.1, (0.0, 0.0), 0.5)])
def test_adam_is_the_algorithm_of_the_paper(dtype, rtol, lr, betas, eps):
    rng = np.random.default_rng(0)
    vectors = [rng.standard_normal(5).astype(dtype), rng.standard_normal((2, 3)).astype(dtype)]
    gradients = [[rng.standard_normal(p.shape).astype(dtype) for p in vectors] for _ in range(20)]
    wanted = [p.copy() for p in vectors]
    for k, p in enumerate(wanted):
        for index in np.ndindex(p.shape):
            p[index] = adam_of_the_paper(float(p[index]), [float(g[k][index]) for g in gradients], lr, *betas, eps)
    adam = Adam(vectors, lr, betas, eps)
    for g in gradients:
        adam.step(g)
    for p, w in zip(vectors, wanted, strict=True):
        np.testing.assert_allclose(p, w, rtol=rtol, atol=rtol)


def test_two_steps_of_adam_by_hand():
    p = np.array([1.0])
    adam = Adam(p, lr=0.1, betas=(0.5, 0.75), eps=1.0)
    adam.step(np.array([3.0]))  # m = 1.5, v = 2.25; both hats are those of g: 3 and 9; 0.1 * 3 / (3 + 1) = 0.075
    assert p[0] == pytest.approx(0.925, rel=1e-15)
    adam.step(np.array([-1.0]))  # m = 0.25, hat 1/3; v = 1.9375, hat 31/7
    assert p[0] == pytest.approx(0.925 - 0.1 / 3 / (math.sqrt(31 / 7) + 1), rel=1e-15)
    assert (adam.t, adam.m[0][0], adam.v[0][0]) == (2, 0.25, 1.9375)


def test_adam_works_on_the_layer_itself_and_a_new_lr_counts_from_the_next_step():
    layer = fastrnn.GRU(2, 3, rng=0)
    before = layer.params["weight_hh_l0"].copy()
    adam = Adam(layer.flat, lr=0.0)
    adam.step(np.ones_like(layer.flat))
    assert np.array_equal(layer.params["weight_hh_l0"], before)
    adam.lr = 0.25
    adam.step(np.ones_like(layer.flat))
    np.testing.assert_allclose(layer.params["weight_hh_l0"], before - 0.25, atol=1e-6)


def test_a_step_of_adam_allocates_nothing_and_leaves_the_gradients():
    p, g = np.zeros(100_000, F32), np.ones(100_000, F32)
    adam = Adam(p)
    adam.step(g)
    tracemalloc.start()
    adam.step(g)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < p.nbytes / 10
    assert (g == 1).all()


def read_only(n):
    array = np.zeros(n)
    array.flags.writeable = False
    return array


BAD_ADAM = {
    "list of numbers": (([[1.0, 2.0]],), TypeError, "params[0]: expected a NumPy array, got list"),
    "integers": ((np.arange(3),), TypeError, "params[0]: expected float32 or float64, got int64"),
    "read-only": (([np.zeros(2), read_only(2)],), ValueError, "params[1]: expected an array that may be written to"),
    "lr": ((np.zeros(2), -1.0), ValueError, "lr: expected a finite number of at least 0, got -1.0"),
    "lr nan": ((np.zeros(2), math.nan), ValueError, "lr: expected a finite number of at least 0, got nan"),
    "beta": ((np.zeros(2), 1.0, (0.9, 1.0)), ValueError, "betas: expected two numbers, 0 <= beta < 1, got (0.9, 1.0)"),
    "one beta": ((np.zeros(2), 1.0, (0.9,)), ValueError, "betas: expected two numbers"),
    "eps": ((np.zeros(2), 1.0, (0.9, 0.9), -1e-8), ValueError, "eps: expected a finite number of at least 0, got -1e-08"),
}


@pytest.mark.parametrize("case", BAD_ADAM)
def test_adam_names_the_argument_that_is_wrong(case):
    arguments, error, message = BAD_ADAM[case]
    with pytest.raises(error) as caught:
        Adam(*arguments)
    assert str(caught.value).startswith(message)


BAD_STEP = {
    "too few": ([np.ones(3)], ValueError, "grads: expected 2 arrays, one for each of params, got 1"),
    "shape": ([np.ones(3), np.ones(3)], ValueError, "grads[1]: expected the shape of params[1], (2,), got (3,)"),
    "dtype": ([np.ones(3), np.ones(2, F32)], TypeError, "grads[1]: expected the dtype of params[1], float64, got float32"),
    "list": ([np.ones(3), [1.0, 1.0]], TypeError, "grads[1]: expected a NumPy array, got list"),
}


@pytest.mark.parametrize("case", BAD_STEP)
def test_a_step_of_adam_that_fails_changes_nothing(case):
    grads, error, message = BAD_STEP[case]
    params = [np.zeros(3), np.zeros(2)]
    adam = Adam(params)
    with pytest.raises(error) as caught:
        adam.step(grads)
    assert str(caught.value) == message
    assert adam.t == 0
    assert not any(array.any() for array in [*params, *adam.m, *adam.v])


# --- clipping -----------------------------------------------------------------------------------------------


def test_clipping_scales_all_arrays_by_one_factor_and_returns_the_norm_before():
    a, b = np.array([3.0, 0.0]), np.array([[0.0], [4.0]], F32)
    assert clip_global_norm([a, b], max_norm=2.0) == 5.0
    factor = 2.0 / (5.0 + 1e-6)
    assert np.array_equal(a, [3 * factor, 0])
    assert np.array_equal(b, np.array([[0], [4 * factor]], F32))


@pytest.mark.parametrize("max_norm", [5.1, math.inf])
def test_gradients_within_the_bound_stay_as_they_are(max_norm):
    grad = np.array([3.0, 4.0], F32)
    assert clip_global_norm(grad, max_norm) == 5.0
    assert np.array_equal(grad, [3, 4])


def test_no_gradients_have_the_norm_0():
    assert clip_global_norm([], 1.0) == 0.0
    assert clip_global_norm([np.zeros(0), np.zeros((0, 3), F32)], 1.0) == 0.0
    zeros = np.zeros(3)
    assert clip_global_norm(zeros, 1.0) == 0.0
    assert not zeros.any()


@pytest.mark.parametrize("dtype, size", [(F32, 1e30), (F32, 3e38), (F64, 1e30), (F64, 1e300)])
def test_norms_whose_squares_overflow(dtype, size):
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(1000)
    direction /= np.abs(direction).max()
    grads = [(size * direction[:600]).astype(dtype), (size * direction[600:]).astype(dtype)]
    norm = clip_global_norm(grads, 1.0)
    assert norm == pytest.approx(size * np.linalg.norm(direction), rel=1e-6)
    # The digits survive, also where the factor is below the normal range of float32.
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(np.concatenate(grads), direction / np.linalg.norm(direction), rtol=8 * eps)


@pytest.mark.parametrize("dtype, size", [(F32, 1e-40), (F64, 1e-160), (F64, 1e-310)])
def test_norms_whose_squares_are_denormal(dtype, size):
    assert global_norm(np.full(4, size, dtype)) == pytest.approx(2 * size, rel=1e-4, abs=0)


def test_the_norm_of_float32_is_summed_in_float64():
    assert global_norm(np.full(4, 1e-30, F32)) == pytest.approx(2e-30)  # in float32 the squares are 0,
    numbers = np.full(2**16, 1e-4, F32)
    numbers[0] = 1  # and beside 1 each of these squares is lost
    assert global_norm(numbers) == pytest.approx(math.sqrt(1 + (2**16 - 1) * 1e-8), rel=1e-9)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_norm_that_is_not_finite_is_told_and_the_gradients_are_left(bad, dtype):
    a, b = np.array([1e3, 2e3], dtype), np.array([bad, 1.0], dtype)
    norm = clip_global_norm([a, b], 1.0)
    assert math.isnan(norm) if math.isnan(bad) else norm == math.inf
    assert np.array_equal(a, [1e3, 2e3])
    assert np.array_equal(b, [bad, 1.0], equal_nan=True)


def test_strided_arrays_are_clipped_in_place():
    whole = np.full((4, 6), 10.0, F32)
    assert clip_global_norm(whole[::2, ::3], 1.0) == 20.0
    np.testing.assert_allclose(whole[::2, ::3], 0.5, rtol=1e-6)
    assert whole.sum() == pytest.approx(20 * 10 + 4 * 0.5)


BAD_CLIP = {
    "max_norm 0": ((np.ones(2), 0.0), ValueError, "max_norm: expected a number above 0, got 0.0"),
    "max_norm nan": ((np.ones(2), math.nan), ValueError, "max_norm: expected a number above 0, got nan"),
    "read-only": (([np.ones(2), read_only(2)], 1.0), ValueError, "grads[1]: expected an array that may be written to"),
    "None": (([np.ones(2), None], 1.0), TypeError, "grads[1]: expected a NumPy array, got NoneType"),
    "half": ((np.ones(2, np.float16), 1.0), TypeError, "grads[0]: expected float32 or float64, got float16"),
}


@pytest.mark.parametrize("case", BAD_CLIP)
def test_clipping_names_the_argument_that_is_wrong(case):
    arguments, error, message = BAD_CLIP[case]
    with pytest.raises(error) as caught:
        clip_global_norm(*arguments)
    assert str(caught.value).startswith(message)


# --- the readout --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(), (3,), (4, 3), (0,)], ids=str)
def test_the_readout_and_its_gradients(lead, bias):
    """L = sum(o * do) is linear in each argument by itself, so a difference quotient has no error but rounding."""
    rng = np.random.default_rng(0)
    readout = Linear(5, 2, bias=bias, dtype=F64, rng=rng)
    h, do = rng.standard_normal((*lead, 5)), rng.standard_normal((*lead, 2))
    o, tape = readout.forward(h)
    V, c = readout.params["weight"], readout.params.get("bias", np.zeros(2))
    np.testing.assert_allclose(o, np.einsum("...h,oh->...o", h, V) + c, rtol=1e-13, atol=1e-14)
    assert np.array_equal(readout(h), o)
    grads = tape.backward(do)

    def difference(array):
        numeric = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            value = array[index]
            array[index] = value + 1
            plus = (readout(h) * do).sum()
            array[index] = value - 1
            numeric[index] = (plus - (readout(h) * do).sum()) / 2
            array[index] = value
        return numeric

    np.testing.assert_allclose(grads.x, difference(h), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(grads.flat, difference(readout.flat), rtol=1e-12, atol=1e-13)
    assert set(grads.params) == set(readout.params) == ({"weight", "bias"} if bias else {"weight"})
    for name, array in readout.params.items():
        assert np.shares_memory(array, readout.flat)
        np.testing.assert_allclose(grads.params[name], difference(array), rtol=1e-12, atol=1e-13)


def test_the_readout_starts_as_torch_does_and_keeps_its_dtype():
    readout = Linear(400, 50, rng=0)
    assert readout.flat.dtype == F32
    assert readout.flat.size == 400 * 50 + 50
    assert 0.049 < np.abs(readout.flat).max() <= 0.05
    assert abs(readout.flat.mean()) < 0.001
    assert np.array_equal(readout.flat, Linear(400, 50, rng=0).flat)
    h = np.ones((2, 400), F32)
    o, tape = readout.forward(h)
    grads = tape.backward(o)
    assert {o.dtype, grads.x.dtype, grads.flat.dtype} == {np.dtype(F32)}


def test_the_readout_of_a_layer_trains_it():
    """One way through layer, readout and back: the gradient of the layer is that of the whole model."""
    rng = np.random.default_rng(0)
    layer, readout = fastrnn.RNN(2, 4, dtype=F64, rng=rng), Linear(4, 1, dtype=F64, rng=rng)
    x = rng.standard_normal((5, 3, 2))
    _, h, tape = layer.forward(x)
    o, readout_tape = readout.forward(h[-1])
    flat = tape.backward(dstate=readout_tape.backward(np.ones_like(o)).x[None]).flat
    for k in (0, 7, 20, layer.flat.size - 1):
        value, step = layer.flat[k], 1e-6
        sums = []
        for shifted in (value + step, value - step):
            layer.flat[k] = shifted
            sums.append(readout(layer(x)[1][-1]).sum())
        layer.flat[k] = value
        assert flat[k] == pytest.approx((sums[0] - sums[1]) / (2 * step), rel=1e-7, abs=1e-9)


def test_a_tape_of_the_readout_can_be_used_once():
    o, tape = Linear(3, 2).forward(np.ones((4, 3), F32))
    with pytest.raises(ValueError, match=r"do: expected \(\.\.\., O\) = \(4, 2\), got \(4, 3\)"):
        tape.backward(np.ones((4, 3), F32))  # a call that fails uses nothing up
    tape.backward(o)
    with pytest.raises(RuntimeError, match="this tape has been used"):
        tape.backward(o)


BAD_READOUT = {
    "input_size": (lambda: Linear(0, 1), ValueError, "input_size: expected"),
    "output_size": (lambda: Linear(1, 2.5), TypeError, "output_size: expected an integer, got 2.5"),
    "bias": (lambda: Linear(1, 1, bias=None), TypeError, "bias: expected True or False, got None"),
    "dtype": (lambda: Linear(1, 1, dtype=np.int32), TypeError, "dtype: expected float32 or float64, got <class 'numpy.int32'>"),
    "no dtype": (lambda: Linear(1, 1, dtype=None), TypeError, "dtype: expected float32 or float64, got None"),
    "rng": (lambda: Linear(1, 1, rng="x"), TypeError, "rng: expected a seed or a numpy.random.Generator, got 'x'"),
    "h's dtype": (lambda: Linear(3, 1)(np.ones((2, 3))), TypeError, "h: expected dtype float32, got float64"),
    "h's shape": (lambda: Linear(3, 1)(np.ones((3, 2), F32)), ValueError, "h: expected the last axis to be input_size = 3"),
    "h a number": (lambda: Linear(3, 1)(np.array(1, F32)), ValueError, "h: expected the last axis to be input_size = 3"),
}


test_the_readout_names_the_argument_that_is_wrong = names_the_argument(BAD_READOUT)


# --- the package --------------------------------------------------------------------------------------------


def test_importing_fastrnn_leaves_the_training_parts_where_they_are():
    code = "import sys, fastrnn; print('fastrnn.train' in sys.modules); import fastrnn.train; print(fastrnn.train.Adam.__name__)"
    root = Path(fastrnn.__file__).parents[1]
    assert run_python("-c", code, cwd=root, PYTHONPATH=str(root)).split() == ["False", "Adam"]
    assert "fastrnn.train" in sys.modules
