"""Python threads on the same objects: each gets what it would get alone, or a RuntimeError that says what is in its way.

Nothing crashes, with the GIL or without it: `make free-threaded` runs the suite on an interpreter that has none.
"""

import os
import pickle
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastrnn
from building import IMPORTED_FROM
from fastrnn import _core
from fastrnn.compat import madmom, numpy_ml
from fastrnn.train import SGD, Adagrad, Adam, AdamW, Average, DataParallel, Embedding, Linear, OutputRNN, PreactivationRNN, RMSprop
from six_threads import wrong_steps

F32 = np.float32


@pytest.fixture(autouse=True)
def threads_change_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def hammer(*works, calls=1, seconds=0.0):
    """Each work in a thread of its own, so many times and until so many seconds are over; all results and all errors."""
    results, errors, start, end = [], [], threading.Barrier(len(works)), time.monotonic() + seconds

    def run(work):
        start.wait()
        k = 0
        while k < calls or time.monotonic() < end:
            k += 1
            try:
                results.append(work())
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    [t.start() for t in threads]
    [t.join() for t in threads]
    return results, errors


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


def bits(*arrays):
    return b"".join(np.asarray(a).tobytes() for a in arrays)


# --- what is shared, and what a caller's other threads change meanwhile --------------------------------------------------------


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python is not free-threaded")
def test_the_import_leaves_the_lock_off():
    code = "import sys, fastrnn; sys.exit(sys._is_gil_enabled())"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"} | {"PYTHONPATH": IMPORTED_FROM}
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment).returncode == 0


def test_six_threads_train_three_layers(own, small_work_is_shared_out):
    """Their blocks of memory, of many sizes, come from one list, and whoever comes second to the pool works alone."""
    assert wrong_steps(40) == 0


def test_a_block_of_memory_is_nobody_elses():
    """The list of the blocks that wait for the next call has room for a few, so they come and go."""
    sizes = [(n, 1, 1) for n in (20_000, 30_000, 40_000)]

    def work():
        me = threading.get_ident() % 1000
        for shape in sizes * 3:
            a, b = _core.new_saved(shape, False), _core.new_saved(shape, True)
            a.fill(me), b.fill(-me)
            assert (a == me).all() and (b == -me).all()

    _, errors = hammer(*[work] * 6, calls=100)
    assert not errors


def test_a_layer_changes_while_others_call_it(own):
    """The numbers may be of before or of after, but they are numbers, and the shapes are the layer's."""
    layer, x = fastrnn.GRU(5, 19, 2, rng=0), draw(20, 4, 5)
    state, zeros = layer.state_dict(), np.zeros_like(layer.flat)

    def replace():
        layer.load_state_dict(state)
        layer.flat = zeros
        layer.params["weight_hh_l0"] = state["weight_hh_l0"]
        return layer.astype(np.float64).flat, pickle.loads(pickle.dumps(layer)).flat

    def call():
        y, _, tape = layer.forward(x)
        return y, tape.backward(np.ones_like(y)).flat, layer.stream(4)(x)

    results, errors = hammer(call, call, replace, replace, seconds=0.3)
    assert results and not errors
    assert all(np.isfinite(a).all() for arrays in results for a in arrays)


def test_a_layer_is_pickled_before_its_first_call_ends():
    for _ in range(200):
        layer, x = fastrnn.RNN(2, 3, rng=0), draw(4, 1, 2)
        _, errors = hammer(lambda: layer(x), lambda: pickle.dumps(layer))  # noqa: B023 -- they end before the next
        assert not errors


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="without the GIL NumPy itself crashes")
def test_arguments_change_their_shape_meanwhile():
    """What was checked is what is read."""
    p = {"x": draw(64, 8, 8), "w_ih": draw(32, 8), "w_hh": draw(32, 8)}
    shapes = {name: [a.shape, (a.size // 2, 2), (a.size,)] for name, a in p.items()}
    layer = fastrnn.GRU(8, 8, rng=0)
    stream = layer.stream(8)

    def reshape():
        for k in range(9):
            for name, a in p.items():
                a.resize(shapes[name][k % 3], refcheck=False)  # the same size: the numbers stay where they are

    calls = (lambda: fastrnn.lstm(**p), lambda: layer.forward(p["x"])[2].backward(p["x"]), lambda: stream(p["x"]))
    _, errors = hammer(reshape, *calls, seconds=0.5)
    unexpected = [e for e in errors if not isinstance(e, ValueError) or not str(e).startswith(("x: ", "w_ih: ", "w_hh: ", "dy: "))]
    assert not unexpected


def test_lengths_change_meanwhile(monkeypatch):
    """Integers are used as they were when they were checked: another thread writes right behind that."""
    layer, x, lengths = fastrnn.LSTM(5, 8, rng=0), draw(30, 4, 5), np.full(4, 20)
    expected, find = bits(layer(x, lengths=lengths.copy())[0]), np.flatnonzero

    def check_and_overwrite(wrong):
        found, lengths[:] = find(wrong), 3
        return found

    monkeypatch.setattr(np, "flatnonzero", check_and_overwrite)
    assert bits(layer(x, lengths=lengths)[0]) == expected
    assert (lengths == 3).all()


# --- objects that keep a state: one user at a time ------------------------------------------------------------------------------


class Kind(NamedTuple):
    """make: a new object. change: the call that changes it, of which it returns the result; wrong: the same with a wrong argument.
    left: what is left in it. others: its other methods. once: change can be called once."""

    make: Callable[[], Any]
    change: Callable[[Any], bytes]
    wrong: Callable[[Any], Any]
    left: Callable[[Any], bytes] = lambda thing: b""
    others: tuple[Callable[[Any], Any], ...] = ()
    once: bool = False


X, DY, H = draw(6, 2, 5), draw(6, 2, 8, seed=3), draw(2, 8, seed=4)
ONES = np.ones(40_000, F32)


def stream(layer):
    def state(s):
        return bits(*s.state) if isinstance(s.state, tuple) else bits(s.state)

    others = (lambda s: s(X[0]), state, lambda s: setattr(s, "state", None), lambda s: s.reset(), lambda s: s.reset([0]))
    return Kind(lambda: layer.stream(2), lambda s: bits(s(X)), lambda s: s(X.tolist()), state, others)


def tape(make, dy, *others):
    def change(t):
        grads = t.backward(dy)
        return bits(*(grads.flat,) if hasattr(grads, "flat") else (grads.w_ih, grads.w_hh))

    return Kind(make, change, lambda t: t.backward(dy[..., :-1]), others=others, once=True)


def optimizer(make, **options):
    def new():
        return make(np.zeros(40_000, F32), lr=0.1, **options)

    saved = new().state_dict()
    others = (lambda o: o.clipped_step(ONES.copy(), 1.0), lambda o: o.state_dict(), lambda o: o.load_state_dict(saved))
    return Kind(new, lambda o: bits(o.step(ONES) or 0), lambda o: o.step(ONES[1:]), lambda o: bits(o.t, *o.params), others)


def average():
    def new():
        return Average(ONES.copy(), 0.9)

    def swap(a):
        with a.swapped():
            pass

    def change(a):
        a.update()
        return b""

    saved = new().state_dict()
    others = (swap, lambda a: a.state_dict(), lambda a: a.load_state_dict(saved))
    return Kind(new, change, lambda a: a.load_state_dict({}), lambda a: bits(a.n, *a.average), others)


class OneProcess:
    """An MPI communicator of one process."""

    Get_rank, Get_size = lambda self: 0, lambda self: 1

    def Bcast(self, array, root):
        pass

    def Allreduce(self, sent, received):
        received[...] = sent


def parallel():
    def change(p):
        grads = draw(40_000)
        return bits(p.average(grads, 2.0, 3.0), grads)

    return Kind(lambda: DataParallel(ONES.copy(), OneProcess()), change, lambda p: p.average(ONES[1:].copy(), 1.0))


def madmom_layer(make, blocks):
    def new():
        gates = [(draw(5, 8, seed=k), draw(8, seed=k), draw(8, 8, seed=k)) for k in range(len(blocks))]
        return make(*(block(*gate) for block, gate in zip(blocks, gates)) if make is not madmom.RecurrentLayer else gates[0])

    x = draw(50, 5)
    others = (lambda m: m(x), lambda m: m.reset())
    return Kind(new, lambda m: bits(m(x, reset=False)), lambda m: m(x[0]), lambda m: bits(m._prev), others)


def numpy_ml_layer(make, x):
    def new():
        np.random.seed(0)  # noqa: NPY002 -- numpy-ml's generator
        layer = make(8)
        layer.forward(x)
        layer.flush_gradients()
        return layer

    others = (lambda m: m.update(), lambda m: m.flush_gradients(), lambda m: m.set_params(new().parameters))
    left = lambda m: bits(*m.derived_variables["A"])  # noqa: E731
    return Kind(new, lambda m: bits(*m.forward(x)), lambda m: m.forward(x[:, :1]), left, others)


def lstm_tape():
    return fastrnn.lstm(X, draw(32, 5, seed=1), draw(32, 8, seed=2), record=True)[2]


KINDS = {
    "stream": stream(fastrnn.LSTM(5, 8, rng=0)),
    "stream of a stack": stream(fastrnn.GRU(5, 8, 3, rng=0)),
    "tape of a function": tape(lstm_tape, DY, lambda t: t.c),
    "tape of a layer": tape(lambda: fastrnn.GRU(5, 8, 2, rng=0).forward(X)[2], DY, lambda t: t.outputs),
    "tape of a cell": tape(lambda: fastrnn.GRUCell(5, 8, rng=0).forward(X[0])[1], H),
    "tape of a readout": tape(lambda: Linear(5, 8, rng=0).forward(X)[1], DY),
    "tape of an embedding": tape(lambda: Embedding(5, 8, rng=0).forward(np.zeros(X.shape[:2], int))[1], DY),
    "tape of PreactivationRNN": tape(lambda: PreactivationRNN(5, 4, 8, rng=0).forward(X)[2], DY),
    "tape of OutputRNN": tape(lambda: OutputRNN(5, 4, 8, rng=0).forward(X)[2], DY),
    "SGD": optimizer(SGD, momentum=0.9),
    "RMSprop": optimizer(RMSprop),
    "Adagrad": optimizer(Adagrad),
    "Adam": optimizer(Adam),
    "AdamW": optimizer(AdamW),
    "Average": average(),
    "DataParallel": parallel(),
    "madmom RecurrentLayer": madmom_layer(madmom.RecurrentLayer, [None]),
    "madmom LSTMLayer": madmom_layer(madmom.LSTMLayer, [madmom.Gate, madmom.Gate, madmom.Cell, madmom.Gate]),
    "madmom GRULayer": madmom_layer(madmom.GRULayer, [madmom.Gate, madmom.Gate, madmom.GRUCell]),
    "numpy_ml RNN": numpy_ml_layer(numpy_ml.RNN, draw(2, 5, 6).astype(float)),
    "numpy_ml LSTM": numpy_ml_layer(numpy_ml.LSTM, draw(2, 5, 6).astype(float)),
    "numpy_ml RNNCell": numpy_ml_layer(numpy_ml.RNNCell, draw(2, 5).astype(float)),
    "numpy_ml LSTMCell": numpy_ml_layer(numpy_ml.LSTMCell, draw(2, 5).astype(float)),
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@kinds
def test_whoever_comes_second_gets_an_error(kind):
    thing = kind.make()
    before = kind.left(thing)
    with thing._in_use:
        for method in (kind.change, *kind.others):
            with pytest.raises(RuntimeError, match=r"^\w+: in use by another thread, or by .*; "):
                method(thing)
    assert kind.left(thing) == before
    kind.change(thing)


@kinds
def test_after_an_error_it_is_free(kind):
    thing = kind.make()
    with pytest.raises((KeyError, TypeError, ValueError)):
        kind.wrong(thing)
    kind.change(thing)


@kinds
def test_calls_from_many_threads_are_as_many_calls_of_one(kind, own):
    """Those that went through were one after the other."""
    for _ in range(40 if kind.once else 1):
        thing, alone = kind.make(), kind.make()
        results, errors = hammer(*[lambda: kind.change(thing)] * 4, calls=1 if kind.once else 200)  # noqa: B023 -- they end here
        assert sorted(results) == sorted(kind.change(alone) for _ in results)
        assert kind.left(thing) == kind.left(alone)
        assert results and all(type(e) is RuntimeError for e in errors), errors


@kinds
def test_all_methods_from_many_threads(kind):
    thing = kind.make()
    works = [lambda method=method: method(thing) for method in (kind.change, *kind.others)]
    _, errors = hammer(*works, *works, calls=50)
    assert all(type(e) is RuntimeError for e in errors), errors


def test_one_stream_in_two_threads_with_blocks_of_changing_size():
    thing, x = fastrnn.GRU(1, 32, rng=0).stream(), draw(64, 1, 1)
    sizes = [iter(range(2000)) for _ in range(2)]
    _, errors = hammer(*[lambda k=k: thing(x[: 1 + next(k) % 64]) for k in sizes], calls=2000)
    assert all(type(e) is RuntimeError for e in errors), errors


def test_a_stream_is_made_once():
    layer = fastrnn.GRU(5, 8, rng=0)
    thing = layer.stream()
    with pytest.raises(RuntimeError, match=r"^stream: expected one that is new"):
        thing.__init__(layer._cell, layer._weights()[0], 1)
    with pytest.raises(RuntimeError, match=r"^stream: in use"):
        fastrnn.Stream.__new__(fastrnn.Stream)(np.zeros((1, 0, 0), bool))
    assert bits(thing(X[:, :1])) == bits(layer(X[:, :1])[0])
