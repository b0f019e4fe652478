"""fastrnn.jax under jit, grad and vmap of JAX, against the functions it calls and against JAX's own gradients."""

import numpy as np
import pytest

import cases
import fastrnn

jax = pytest.importorskip("jax", reason="the package jax is not installed")
import jax.numpy as jnp  # noqa: E402

import fastrnn.jax  # noqa: E402


@pytest.fixture(autouse=True)
def both_precisions():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def outputs_of(module, case, arrays, keywords):
    """The flat outputs of the function of a case, from fastrnn or fastrnn.jax."""
    name, fixed = cases.CELLS[case.cell]
    y, state, *_ = getattr(module, name)(**arrays, **fixed, **keywords)
    return (y, *state) if isinstance(state, tuple) else (y, state)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("number, case", list(enumerate(cases.sweep(2 * len(cases.CELLS), seed=5))), ids=str)
def test_outputs_and_gradients_are_those_of_the_functions(number, case, jit):
    dtype = cases.FLOATS[number % 2]
    problem = cases.problem(case, dtype)
    expected = cases.results(fastrnn, problem)
    cotangents = (problem.dy, *(problem.dstate if case.is_lstm else (problem.dstate,)))
    traced = {n: v for n, v in problem.keywords.items() if n in ("lengths", "reset", "mask")}
    fixed = {n: v for n, v in problem.keywords.items() if n not in traced}

    def loss(arrays, traced):
        outputs = outputs_of(fastrnn.jax, case, arrays, {**fixed, **traced})
        return sum(jnp.vdot(y, d) for y, d in zip(outputs, cotangents, strict=True)), outputs

    function = jax.value_and_grad(loss, has_aux=True)
    (_, outputs), grads = (jax.jit(function) if jit else function)(problem.arrays, traced)
    for y, wanted in zip(outputs, outputs_of(fastrnn, case, problem.arrays, problem.keywords), strict=True):
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, wanted)
    assert grads.keys() == problem.arrays.keys()
    for name, grad in grads.items():
        np.testing.assert_array_equal(grad, expected[f"d{name}"], err_msg=name)


def gru_by_jax(x, w_ih, w_hh, b_ih, b_hh, h0):
    def step(h, x_t):
        (xr, xz, xn), (hr, hz, hn) = jnp.split(x_t @ w_ih.T + b_ih, 3, axis=-1), jnp.split(h @ w_hh.T + b_hh, 3, axis=-1)
        r, z = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
        h = (1 - z) * jnp.tanh(xn + r * hn) + z * h
        return h, h

    h_n, y = jax.lax.scan(step, h0, x)
    return y, h_n


def test_inside_a_model_of_jax():
    """A readout and a loss around it; JAX's own scan of the same cell is the oracle."""
    problem = cases.problem(cases.Case("gru-after", T=6, B=4, I=3, H=5))
    readout = np.random.default_rng(0).standard_normal((5, 2))

    def loss(parameters, layer):
        arrays, readout = parameters
        y, h_n = layer(**arrays)
        return jnp.mean(jnp.tanh(y @ readout) ** 2) + jnp.sum(h_n**3)

    grad = jax.jit(jax.grad(loss), static_argnums=1)
    ours, theirs = (grad((problem.arrays, readout), layer) for layer in (fastrnn.jax.gru, gru_by_jax))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-13), ours, theirs)


def test_vmap_is_one_call_per_element():
    problem = cases.problem(cases.Case("gru-after", T=3, B=2, I=3, H=5))
    xs = np.random.default_rng(0).standard_normal((4, 3, 2, 3))

    def loss(x):
        y, _ = fastrnn.jax.gru(**{**problem.arrays, "x": x})
        return jnp.sum(y**2)

    values, grads = jax.vmap(jax.value_and_grad(loss))(xs)
    for x, value, grad in zip(xs, values, grads, strict=True):
        one_value, one_grad = jax.value_and_grad(loss)(x)
        np.testing.assert_allclose(value, one_value, rtol=1e-15)
        np.testing.assert_array_equal(grad, one_grad)


def test_a_call_is_compiled_once():
    x, w = np.ones((2, 1, 1), np.float32), np.ones((1, 1), np.float32)
    traces = []

    @jax.jit
    def function(x):
        traces.append(1)
        return fastrnn.jax.rnn(x, w, w, nonlinearity="relu")[0]

    for k in range(3):
        assert function(k * x)[0, 0, 0] == k
    assert traces == [1]
    assert fastrnn.jax._Forward(fastrnn.jax.Call("rnn", ())) == fastrnn.jax._Forward(fastrnn.jax.Call("rnn", ()))


def test_large_arrays_pass():
    """A callback that waits for JAX's threads would hang here."""
    rng = np.random.default_rng(0)
    x, w_ih, w_hh = (rng.standard_normal(s, dtype=np.float32) / 16 for s in [(64, 32, 256), (1024, 256), (1024, 256)])
    grad = jax.jit(jax.grad(lambda w: jnp.sum(fastrnn.jax.lstm(2 * jnp.asarray(x), w_ih, w)[0] ** 2)))
    y, _, tape = fastrnn.lstm(2 * x, w_ih, w_hh, record=True)
    np.testing.assert_array_equal(grad(w_hh), tape.backward(2 * y).w_hh)


def test_errors_come_while_tracing_and_name_the_argument():
    x, w = np.ones((2, 1, 1)), np.ones((1, 1))
    for run in (lambda f, *a: f(*a), lambda f, *a: jax.jit(f)(*a), lambda f, *a: jax.eval_shape(f, *a)):
        with pytest.raises(ValueError, match=r"^w_ih: expected \(H, I\) = \(1, 1\), got \(2, 1\)"):
            run(fastrnn.jax.rnn, x, np.ones((2, 1)), w)
        with pytest.raises(TypeError, match=r"^x: expected dtype float32 or float64, got bfloat16"):
            run(fastrnn.jax.rnn, jnp.ones((2, 1, 1), jnp.bfloat16), w, w)
    with pytest.raises(ValueError, match=r"^masked: expected 'zero' or 'hold', got 'no'"):
        fastrnn.jax.rnn(x, w, w, masked="no")
    with pytest.raises(TypeError, match=r"^fastrnn\.jax\.rnn: got an unexpected keyword argument 'record'"):
        fastrnn.jax.rnn(x, w, w, record=True)
    with pytest.raises(Exception, match="lengths: expected integers from 0 to T = 2, got 3"):  # a value: known when it runs
        jax.block_until_ready(fastrnn.jax.rnn(x, w, w, lengths=np.array([3])))
