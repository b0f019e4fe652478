"""fastrnn.autograd against HIPS autograd itself: its own gradients of the same equations, and its checks of a primitive."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cases
import fastrnn

autograd = pytest.importorskip("autograd", reason="the package autograd is not installed")
import autograd.numpy as anp  # noqa: E402
from autograd.test_util import check_grads  # noqa: E402

import fastrnn.autograd  # noqa: E402


def outputs_of(module, case, arrays, keywords):
    """The flat outputs of the function of a case, from fastrnn or fastrnn.autograd."""
    name, fixed = cases.CELLS[case.cell]
    y, state, *_ = getattr(module, name)(**arrays, **fixed, **keywords)
    return (y, *state) if isinstance(state, tuple) else (y, state)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from([np.float32, np.float64]))
def test_gradients_are_those_of_the_tape(seed, dtype):
    for case in cases.sweep(6, seed):
        problem = cases.problem(case, dtype)
        expected = cases.results(fastrnn, problem)
        cotangents = (problem.dy, *(problem.dstate if case.is_lstm else (problem.dstate,)))

        def loss(arrays, case=case, problem=problem, cotangents=cotangents):
            outputs = outputs_of(fastrnn.autograd, case, arrays, problem.keywords)
            return sum(anp.sum(y * d) for y, d in zip(outputs, cotangents, strict=True))

        grads = autograd.grad(loss)(problem.arrays)
        assert grads.keys() == problem.arrays.keys()
        for name, grad in grads.items():
            np.testing.assert_array_equal(grad, expected[f"d{name}"], err_msg=name)
        for y, wanted in zip(
            outputs_of(fastrnn.autograd, case, problem.arrays, problem.keywords),
            outputs_of(fastrnn, case, problem.arrays, problem.keywords),
            strict=True,
        ):
            np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("cell", cases.CELLS)
def test_autograd_finds_the_gradients_right(cell):
    problem = cases.problem(cases.Case(cell, T=3, B=2, I=2, H=3, lengths=True, reverse=True))
    names = list(problem.arrays)

    def function(*values):
        outputs = outputs_of(fastrnn.autograd, problem.case, dict(zip(names, values, strict=True)), problem.keywords)
        return anp.concatenate([anp.ravel(y) for y in outputs])

    check_grads(function, modes=["rev"], order=1)(*problem.arrays.values())


def test_inside_a_model_of_autograd():
    """An LSTM by autograd's own operations and ours have the same gradients of a loss with other parameters around."""
    problem = cases.problem(cases.Case("lstm", T=5, B=3, I=4, H=6))
    arrays = {n: problem.arrays[n] for n in ("x", "w_ih", "w_hh", "b_ih")}
    readout = np.random.default_rng(0).standard_normal((6, 2))

    def by_autograd(x, w_ih, w_hh, b_ih):
        h = c = anp.zeros((3, 6))
        hs = []
        for t in range(5):
            i, f, g, o = anp.split(x[t] @ w_ih.T + b_ih + h @ w_hh.T, 4, axis=1)
            i, f, o = (0.5 * (anp.tanh(gate / 2) + 1) for gate in (i, f, o))
            c = f * c + i * anp.tanh(g)
            h = o * anp.tanh(c)
            hs.append(h)
        return anp.array(hs)

    def loss(parameters, layer):
        arrays, readout = parameters
        return anp.mean(anp.tanh(layer(**arrays) @ readout) ** 2)

    parameters = (arrays, readout)
    ours, ours_readout = autograd.grad(loss)(parameters, lambda **arrays: fastrnn.autograd.lstm(**arrays)[0])
    theirs, theirs_readout = autograd.grad(loss)(parameters, by_autograd)
    np.testing.assert_allclose(ours_readout, theirs_readout, rtol=0, atol=1e-14)
    for name in arrays:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-14, err_msg=name)


def test_a_jacobian_uses_one_call_many_times():
    problem = cases.problem(cases.Case("gru-after", T=2, B=2, I=2, H=3))
    arrays = problem.arrays

    def last(w_hh):
        return fastrnn.autograd.gru(**{**arrays, "w_hh": w_hh})[1]

    jacobian = autograd.jacobian(last)(arrays["w_hh"])
    assert jacobian.shape == (2, 3, 9, 3)
    for b in range(2):
        for i in range(3):
            *_, tape = fastrnn.gru(**arrays, record=True)
            dstate = np.zeros((2, 3))
            dstate[b, i] = 1
            np.testing.assert_array_equal(jacobian[b, i], tape.backward(dstate=dstate).w_hh)


def test_second_derivatives_are_refused():
    problem = cases.problem(cases.Case("tanh", T=2, B=1, I=1, H=1))

    def loss(w_hh):
        return anp.sum(fastrnn.autograd.rnn(**{**problem.arrays, "w_hh": w_hh})[0])

    with pytest.raises(NotImplementedError, match=r"^fastrnn\.autograd: gradients of gradients are not available"):
        autograd.grad(lambda w: anp.sum(autograd.grad(loss)(w)))(problem.arrays["w_hh"])


def test_errors_are_those_of_the_functions():
    x, w = np.ones((2, 1, 1)), np.ones((1, 1))
    with pytest.raises(ValueError, match=r"^w_ih: expected \(H, I\) = \(1, 1\), got \(2, 1\)"):
        autograd.grad(lambda w_hh: anp.sum(fastrnn.autograd.rnn(x, np.ones((2, 1)), w_hh)[0]))(w)
    with pytest.raises(TypeError, match=r"^fastrnn\.autograd\.rnn: got an unexpected keyword argument 'record'"):
        fastrnn.autograd.rnn(x, w, w, record=True)
