"""fastrnn.jax under jit, grad and vmap of JAX, against the functions of the same names and against JAX's own gradients."""

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest

import cases
import fastrnn

jax = pytest.importorskip("jax", reason="the package jax is not installed")
import jax.numpy as jnp  # noqa: E402

import fastrnn.jax  # noqa: E402


@pytest.fixture(autouse=True)
def both_precisions(own):
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def outputs_of(module, case, arrays, keywords):
    """The flat outputs of the function of a case, from fastrnn or fastrnn.jax."""
    name, fixed = cases.CELLS[case.cell]
    y, state, *_ = getattr(module, name)(**arrays, **fixed, **keywords)
    return (y, *state) if isinstance(state, tuple) else (y, state)


def jax_results(problem, jit, **more):
    """As cases.results, by fastrnn.jax: y, h_n, for an LSTM c_n, and the gradients."""
    case, of_rows = problem.case, ("lengths", "reset", "mask")
    cotangents = (problem.dy, *(problem.dstate if case.is_lstm else (problem.dstate,)))
    traced = {n: v for n, v in problem.keywords.items() if n in of_rows}
    fixed = {n: v for n, v in problem.keywords.items() if n not in of_rows} | more

    def outputs_and_gradients(arrays, traced):
        outputs, back = jax.vjp(lambda arrays: outputs_of(fastrnn.jax, case, arrays, {**fixed, **traced}), arrays)
        return outputs_of(fastrnn.jax, case, arrays, {**fixed, **traced}), outputs, back(tuple(map(jnp.asarray, cotangents)))[0]

    plain, recorded, grads = (jax.jit(outputs_and_gradients) if jit else outputs_and_gradients)(problem.arrays, traced)
    jax.tree.map(np.testing.assert_array_equal, plain, recorded)
    return dict(zip(("y", "h_n", "c_n"), plain)) | {f"d{name}": grad for name, grad in grads.items()}


def assert_same(got, problem):
    """All that fastrnn.jax gives, bit by bit; -0.0 and 0.0 are not the same."""
    wanted = cases.results(fastrnn, problem)
    states = ("h_n", "c_n") if problem.case.is_lstm else ("h_n",)
    assert got.keys() == {"y", *states, *(f"d{name}" for name in problem.arrays)}
    for name, array in got.items():
        assert array.dtype == wanted[name].dtype
        assert np.asarray(array).tobytes() == wanted[name].tobytes(), name


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("number, case", list(enumerate(cases.sweep(2 * len(cases.CELLS), seed=5))), ids=str)
def test_outputs_and_gradients_are_those_of_the_functions(number, case, jit):
    problem = cases.problem(case, cases.FLOATS[number % 2])
    assert_same(jax_results(problem, jit), problem)


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("size", [{"B": 0}, {"T": 0}, {"I": 0}, {"B": 0, "T": 0, "I": 0}], ids=str)
def test_without_elements(size, dtype):
    for cell in cases.CELLS:
        problem = cases.problem(cases.Case(cell, **size), dtype)
        assert_same(jax_results(problem, jit=True), problem)


@pytest.mark.parametrize("every", [1, 100, 1000])
@pytest.mark.parametrize("options", [{}, {"lengths": True, "reset": True, "reverse": True}], ids=["dense", "ragged"])
@pytest.mark.parametrize("cell", ["relu", "lstm-projected", "gru-before"])
def test_checkpoints_do_not_show(cell, options, every):
    problem = cases.problem(cases.Case(cell, T=300, B=2, I=3, H=5, **options), np.float32)
    assert_same(jax_results(problem, jit=True, checkpoint=every), problem)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_gradients_of_outputs_held_for_long_are_summed_as_the_functions_do(dtype, reverse):
    """In the same order, and small numbers are not lost: they are denormals here."""
    problem = cases.problem(cases.Case("lstm", T=700, B=4, I=2, H=3, mask=True, hold=True, reset=True, reverse=reverse), dtype)
    skipped = np.ones(700, bool)
    skipped[[20, 28, 29, 170]] = False
    problem.keywords["mask"][:, 1:] = ~skipped[:, None]
    problem.keywords["reset"][200:, 1] = problem.keywords["reset"][:, 2] = False
    problem.keywords["reset"][:] &= np.arange(4) != 2
    problem.dy[:, 3] *= np.finfo(dtype).tiny / 100
    assert_same(jax_results(problem, jit=True), problem)


def gru_by_jax(x, w_ih, w_hh, b_ih, b_hh, h0):
    def step(h, x_t):
        (xr, xz, xn), (hr, hz, hn) = jnp.split(x_t @ w_ih.T + b_ih, 3, axis=-1), jnp.split(h @ w_hh.T + b_hh, 3, axis=-1)
        r, z = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
        h = (1 - z) * jnp.tanh(xn + r * hn) + z * h
        return h, h

    h_n, y = jax.lax.scan(step, h0, x)
    return y, h_n


def lstm_by_jax(x, w_ih, w_hh, b_ih, b_hh, h0, c0):
    def step(state, x_t):
        h, c = state
        i, f, g, o = jnp.split(x_t @ w_ih.T + b_ih + h @ w_hh.T + b_hh, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    state, y = jax.lax.scan(step, (h0, c0), x)
    return y, state


@pytest.mark.parametrize("cell, theirs", [("gru-after", gru_by_jax), ("lstm", lstm_by_jax)])
def test_inside_a_model_of_jax(cell, theirs):
    """A readout and a loss around it; JAX's own scan of the same cell is the oracle."""
    problem = cases.problem(cases.Case(cell, T=6, B=4, I=3, H=5))
    ours = getattr(fastrnn.jax, problem.case.function)
    readout = np.random.default_rng(0).standard_normal((5, 2))

    def loss(parameters, layer):
        arrays, readout = parameters
        y, state = layer(**arrays)
        return jnp.mean(jnp.tanh(y @ readout) ** 2) + sum(jnp.sum(s**3) for s in jax.tree.leaves(state))

    grad = jax.jit(jax.grad(loss), static_argnums=1)
    got, wanted = (grad((problem.arrays, readout), layer) for layer in (ours, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-13), got, wanted)


def test_vmap_is_one_call_per_element():
    problem = cases.problem(cases.Case("gru-after", T=3, B=2, I=3, H=5))
    xs = np.random.default_rng(0).standard_normal((4, 3, 2, 3))
    lengths = np.array([[3, 0], [1, 2], [3, 3], [0, 1]])

    def loss(x, lengths):
        y, _ = fastrnn.jax.gru(**{**problem.arrays, "x": x}, lengths=lengths)
        return jnp.sum(y**2)

    function = jax.value_and_grad(loss)
    values, grads = jax.jit(jax.vmap(function))(xs, lengths)
    for k in range(len(xs)):
        value, grad = function(xs[k], lengths[k])
        np.testing.assert_allclose(values[k], value, rtol=1e-15)
        np.testing.assert_array_equal(grads[k], grad)


def test_inside_scan_and_checkpoint():
    """Layer upon layer by a scan over their weights, whose steps JAX computes again in its backward pass."""
    rng = np.random.default_rng(0)
    x, w_ih, w_hh = rng.standard_normal((5, 2, 4)), *rng.standard_normal((2, 3, 16, 4))

    def loss(weights, loop):
        def step(x, w):
            return fastrnn.jax.lstm(x, *w)[0], None

        return jnp.sum(loop(step, x, weights)[0] ** 2)

    def plain(step, x, weights):
        for w in zip(*weights, strict=True):
            x, _ = step(x, w)
        return x, None

    def scan(step, x, weights):
        return jax.lax.scan(jax.checkpoint(step), x, weights)

    grads = [jax.jit(jax.grad(loss), static_argnums=1)((w_ih, w_hh), loop) for loop in (plain, scan)]
    jax.tree.map(np.testing.assert_array_equal, *grads)


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


def python(program, seconds, **environment):
    """The output of a program of its own process, which may take so long."""
    environment = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


GRU_256 = """
import os
import numpy as np
import jax, jax.numpy as jnp
import fastrnn, fastrnn.jax
weights, x = [jnp.full((768, 256), 0.01)] * 2, jnp.ones((20, 32, 256))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_one_core_is_enough():
    """A callback to Python that waits for JAX's one thread, which waits for it, would never come back."""
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})" + GRU_256
    program += """
grad = jax.jit(jax.grad(lambda x: fastrnn.jax.gru(x, *weights)[0].sum()))
for i in range(30):
    y = grad(x + i)
print(np.isfinite(y).all())
"""
    assert python(program, seconds=300) == ["True"]


def test_python_threads_share_a_compiled_function():
    program = GRU_256 + """
from concurrent.futures import ThreadPoolExecutor

@jax.jit
def function(x):
    y, back = jax.vjp(lambda x: fastrnn.jax.gru(x, *weights)[0], x)
    return y, *back(y)

alone = [function(x + i) for i in range(4)]
with ThreadPoolExecutor(4) as pool:
    results = list(pool.map(lambda k: jax.block_until_ready(function(x + k % 4)), range(100)))
print(all((a == b).all() for k, result in enumerate(results) for a, b in zip(result, alone[k % 4])))
"""
    assert python(program, seconds=300) == ["True"]


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="threads cannot be counted here")
def test_the_number_of_threads_holds():
    """Also one that was lowered after compiling."""
    program = GRU_256 + """
def threads():
    return len(os.listdir("/proc/self/task"))

def run(**options):
    function = jax.jit(jax.grad(lambda x: fastrnn.jax.gru(x, *weights, **options)[0].sum())).lower(x).compile()
    return function, jax.block_until_ready(function(x))

fastrnn._core.always_form_teams(True)
fastrnn.set_num_threads(1)
_, one = run()
before = threads()
run(threads=1)
fastrnn.set_num_threads(3)
function = jax.jit(jax.grad(lambda x: fastrnn.jax.gru(x, *weights)[0].sum())).lower(x).compile()
fastrnn.set_num_threads(1)
np.testing.assert_array_equal(function(x), one)
print(threads() - before)
fastrnn.set_num_threads(3)
np.testing.assert_array_equal(function(x), one)
print(threads() - before)
fastrnn.set_num_threads(1)
run(threads=4)
print(threads() - before)
"""
    assert python(program, seconds=300) == ["0", "2", "3"]


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory cannot be measured here")
def test_nothing_is_left_behind_by_calls():
    x, w = np.ones((400, 4, 8), np.float32), np.ones((64, 16), np.float32)
    mask = np.arange(400) % 5 > 0

    @jax.jit
    def function(x, mask, lengths):
        options = {"mask": mask[:, None].repeat(4, 1), "masked": "hold", "lengths": lengths, "checkpoint": 50}
        return jax.grad(lambda x: fastrnn.jax.lstm(x, w[:, :8], w, **options)[0].sum())(x)

    def pages():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1])

    def call(times):
        for k in range(times):
            try:
                jax.block_until_ready(function(x, mask, np.array([400, 7, 0, 401 if k % 10 == 0 else 3])))
            except jax.errors.JaxRuntimeError:
                assert k % 10 == 0

    call(100)
    before = pages()
    call(1000)
    assert pages() - before < 500  # a block lost in each call would be thousands of them


def test_on_several_devices():
    program = GRU_256 + """
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
x, weights = np.random.default_rng(0).standard_normal((5, 4, 256), np.float32), [np.asarray(w) for w in weights]
y, _, _ = fastrnn.gru(x, *weights)
halves = jax.pmap(lambda x: fastrnn.jax.gru(x, *weights)[0], in_axes=1, out_axes=1)(x.reshape(5, 2, 2, 256))
np.testing.assert_array_equal(np.asarray(halves).reshape(y.shape), y)
sharded = jax.device_put(x, NamedSharding(Mesh(np.array(jax.devices()), ("rows",)), P(None, "rows")))
np.testing.assert_array_equal(jax.jit(lambda x: fastrnn.jax.gru(x, *weights)[0])(sharded), y)
print(len(jax.devices()))
"""
    assert python(program, seconds=300, XLA_FLAGS="--xla_force_host_platform_device_count=2", JAX_PLATFORMS="cpu") == ["2"]


def test_second_derivatives_and_forward_mode_are_refused():
    w, x = jnp.ones((1, 1)), jnp.ones((2, 1, 1))

    def loss(x):
        return fastrnn.jax.rnn(x, w, w)[0].sum()

    for second in (jax.hessian(loss), jax.grad(lambda x: jax.grad(loss)(x).sum()), jax.jacrev(jax.grad(loss))):
        with pytest.raises(NotImplementedError, match=r"^fastrnn\.jax: gradients of gradients are not available"):
            second(x)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(loss, (x,), (x,))


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


@pytest.mark.parametrize("wrong", [-1, 3, 2**31 - 1])
def test_a_wrong_value_is_an_error_when_it_runs(wrong):
    x, w = np.ones((2, 2, 1)), np.ones((1, 1))
    function = jax.jit(jax.grad(lambda x, lengths: fastrnn.jax.rnn(x, w, w, lengths=lengths)[0].sum()))
    for kind in (np.int32, np.int64):
        with pytest.raises(jax.errors.JaxRuntimeError, match=f"lengths: expected integers from 0 to T = 2, got {wrong} at row 1"):
            jax.block_until_ready(function(x, np.array([2, wrong], kind)))
    assert np.isfinite(function(x, np.array([2, 0]))).all()


def test_a_call_of_another_form_is_refused():
    for target in ("fastrnn_forward", "fastrnn_backward"):
        call = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct((1,), np.float32))
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"expected a call of fastrnn\.jax, with \d\d arguments"):
            jax.block_until_ready(call(jnp.ones(1), options=np.arange(3)))


def test_an_old_jax_is_named(monkeypatch):
    importlib.reload(fastrnn.jax)  # the targets may be registered twice
    monkeypatch.delattr(jax, "ffi")
    monkeypatch.setitem(sys.modules, "jax.ffi", None)
    with pytest.raises(ImportError, match=r"^fastrnn\.jax: expected jax 0\.5 or later, got \d"):
        importlib.reload(fastrnn.jax)
