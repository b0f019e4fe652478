"""Optimisers, schedules, averages, and the file that a training goes on from."""

import copy
import math
import pickle
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn._engine import schedule
from fastrnn.train import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Average,
    Linear,
    RMSprop,
    clip_global_norm,
    load,
    save,
    schedules,
    softmax_cross_entropy,
)

F32, F64 = np.float32, np.float64
GOLDEN = np.load(Path(__file__).parent / "golden" / "optim.npz")
STEPS = 100
SHOWN = (1, 2, 10, 100)
MAKE = {
    "sgd": lambda p: SGD(p, 0.1),
    "sgd-momentum": lambda p: SGD(p, 0.05, momentum=0.9),
    "sgd-nesterov-decay": lambda p: SGD(p, 0.05, momentum=0.8, nesterov=True, weight_decay=0.01),
    "rmsprop": lambda p: RMSprop(p),
    "rmsprop-all": lambda p: RMSprop(p, alpha=0.9, eps=1e-4, momentum=0.9, centered=True, weight_decay=0.1),
    "rmsprop-centered": lambda p: RMSprop(p, alpha=0.95, centered=True),
    "adagrad": lambda p: Adagrad(p, 0.1),
    "adagrad-all": lambda p: Adagrad(p, 0.2, lr_decay=0.1, weight_decay=0.1, initial=0.5, eps=0.01),
    "adam": lambda p: Adam(p, 0.01),
    "adam-decay": lambda p: Adam(p, 0.02, (0.8, 0.95), 1e-3, weight_decay=0.1),
    "adamw": lambda p: AdamW(p, 0.01),
    "adamw-decay": lambda p: AdamW(p, 0.02, (0.7, 0.9), 1e-6, weight_decay=0.3),
}
each_optimizer = pytest.mark.parametrize("name", MAKE)


def run(optimizer, p, steps=range(STEPS), gradients=GOLDEN["gradients"]):
    """The parameters behind each of SHOWN; the gradient is a line of the file plus half the parameters."""
    path = []
    for t in steps:
        optimizer.step((gradients[t] + 0.5 * p).astype(p.dtype))
        if t + 1 in SHOWN:
            path.append(p.copy())
    return np.array(path)


def peak_of(call):
    """Bytes."""
    tracemalloc.start()
    call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@each_optimizer
def test_an_optimiser_goes_where_torch_went(name):
    start = GOLDEN["start"]
    p = start.copy()
    np.testing.assert_allclose(run(MAKE[name](p), p), GOLDEN[name], rtol=1e-9, atol=1e-12)
    p = start.astype(F32)
    assert np.abs(run(MAKE[name](p), p) - GOLDEN[f"{name}-32"]).max() <= 1e-6 * np.abs(start).max()


@each_optimizer
def test_an_optimiser_goes_where_the_torch_installed_here_goes(name):
    pytest.importorskip("torch")
    sys.path.insert(0, str(Path(__file__).parent / "golden"))
    try:
        import generate_optim
    finally:
        sys.path.pop(0)
    kind, options = generate_optim.CASES[name]
    rng = np.random.default_rng(5)
    start, gradients = rng.standard_normal(7), rng.standard_normal((STEPS, 7))
    theirs = generate_optim.run(kind, options, start, gradients, generate_optim.torch.float64)
    p = start.copy()
    np.testing.assert_allclose(run(MAKE[name](p), p, gradients=gradients), theirs, rtol=1e-9, atol=1e-12)


@each_optimizer
def test_neighbours_and_strides_change_nothing(name):
    """Several arrays, also matrices, strided, unaligned and in columns, both dtypes: all as one vector at a time."""
    rng = np.random.default_rng(0)
    shapes = [(1000,), (7, 11), (0,), (3,), (5, 4), (9,)]
    starts = [rng.standard_normal(shape) for shape in shapes]
    gradients = [[rng.standard_normal(shape) for shape in shapes] for _ in range(5)]
    wanted = []
    for k, start in enumerate(starts):
        p = start.copy()
        optimizer = MAKE[name](p)
        for lines in gradients:
            optimizer.step(lines[k])
        wanted.append(p)
    strided = np.zeros((7, 22))
    unaligned = np.zeros(9 * 8 + 1, np.int8)[1:].view(F64)
    params = [starts[0].copy(), strided[:, ::2], starts[2].copy(), starts[3].astype(F32), np.asfortranarray(starts[4]), unaligned]
    params[1][...], params[5][...] = starts[1], starts[5]
    optimizer = MAKE[name](params)
    for lines in gradients:
        wide = np.repeat(lines[0], 2)[::2]  # a strided gradient of a contiguous vector
        optimizer.step([wide, lines[1], lines[2], lines[3].astype(F32), lines[4], lines[5]])
    for k in (0, 1, 2, 4, 5):
        assert np.array_equal(params[k], wanted[k])
    np.testing.assert_allclose(params[3], wanted[3], rtol=1e-5, atol=1e-6)
    assert not strided[:, 1::2].any()


@each_optimizer
def test_several_arrays_are_as_each_alone(name):
    """Those before one have pieces of their own; of the last piece a few numbers are left."""
    rng = np.random.default_rng(0)
    starts = [rng.standard_normal(n).astype(dtype) for n, dtype in [(5000, F64), (3, F64), (4096, F32), (1, F32), (9000, F64)]]
    gradients = [rng.standard_normal(start.shape).astype(start.dtype) for start in starts]
    alone, together = [start.copy() for start in starts], [start.copy() for start in starts]
    for p, g in zip(alone, gradients):
        MAKE[name](p).step(g)
    MAKE[name](together).step(gradients)
    assert all(np.array_equal(a, b) and (a != start).all() for a, b, start in zip(alone, together, starts))


def whole_training(name, params):
    """All bits of five clipped steps with an average, of parameters of both dtypes."""
    rng = np.random.default_rng(1)
    optimizer, average = MAKE[name](params), Average(params, 0.9)
    norms = []
    for _ in range(5):
        norms.append(optimizer.clipped_step([rng.standard_normal(p.shape).astype(p.dtype) for p in params], 3.0))
        average.update()
    with average.swapped():
        swapped = [p.tobytes() for p in params]
    kept = [array.tobytes() for array in optimizer.state_dict().values()]
    return norms, [p.tobytes() for p in params], [a.tobytes() for a in average.average], swapped, kept


def spread_over(threads, monkeypatch):
    """What only large arrays are; and a thread that sleeps is waited for."""
    how = schedule.Elementwise(threads, 10**7, True)
    monkeypatch.setattr(schedule, "elementwise", lambda size, most: how)


def some_params():
    rng = np.random.default_rng(0)
    shapes = [((33, 517), F32), ((5,), F32), ((4096,), F64), ((3, 4100), F64), ((40_000,), F32)]
    return [rng.standard_normal(shape).astype(dtype) for shape, dtype in shapes]


@each_optimizer
def test_neither_the_instruction_set_nor_threads_change_a_bit(name, use, monkeypatch, small_work_is_shared_out):
    isas = fastrnn.available_isas()
    expected = whole_training(name, some_params())
    for isa, threads in [*((isa, 1) for isa in isas), *((isas[-1], threads) for threads in (2, 3, 4))]:
        use(isa=isa)
        spread_over(threads, monkeypatch)
        assert whole_training(name, some_params()) == expected


def test_large_arrays_are_for_several_threads_and_small_ones_keep_the_gil():
    assert schedule.elementwise(32_000, 64) == (1, 100, False)
    assert schedule.elementwise(10**9, 4)[::2] == (4, True)
    assert schedule.elementwise(10**9, 1)[::2] == (1, True)


@each_optimizer
def test_an_array_that_is_there_twice_or_a_part_of_another_is_refused(name):
    """It would step twice, and not as PyTorch's rules say."""
    p = np.linspace(-1, 1, 4000)
    for params in ([p, p], [p, p[:3000]], [p[:2000], p[2000:], p[::-1]]):
        with pytest.raises(ValueError, match=r"^params\[\d\]: expected memory of its own, got an array that overlaps params\[0\]"):
            MAKE[name](params)
    MAKE[name]([p[:2000], p[2000:]]).step([p[:2000].copy(), p[2000:].copy()])


def denormal(array):
    """How many numbers of it are."""
    return np.count_nonzero((array != 0) & (np.abs(array) < np.finfo(array.dtype).tiny))


@each_optimizer
@pytest.mark.parametrize("dtype, small", [(F32, 1e-18), (F64, 1e-153)])
def test_what_dies_becomes_0_and_is_never_denormal(name, dtype, small, isa):
    """Gradients of dead units stay 0. What is kept of the last one halves every step; its square is near the lower end already."""
    p, g = np.zeros(100, dtype), np.zeros(100, dtype)
    g[::2] = small
    halves = {"momentum": 0.5, "alpha": 0.5, "betas": (0.5, 0.5), "weight_decay": 0.0}
    optimizer = MAKE[name](p)
    for attribute in halves.keys() & vars(optimizer).keys():
        setattr(optimizer, attribute, halves[attribute])
    optimizer.step(g)
    decays = [array for kept in optimizer._names for array in getattr(optimizer, kept) if not isinstance(optimizer, Adagrad)]
    alive = any(array.any() for array in decays)
    for _ in range(600):
        optimizer.step(np.zeros(100, dtype))
        assert sum(map(denormal, [p, *decays])) == 0
    assert not any(array.any() for array in decays)
    assert alive == bool(decays)
    assert dtype(small) * dtype(small) * dtype(1e-3) != 0  # the caller still has denormal numbers


def test_an_average_of_what_dies_is_never_denormal():
    p = np.full(100, 1e-30, F32)
    average = Average(p, 0.5)
    average.update()
    p[...] = 0
    for _ in range(100):
        average.update()
        assert denormal(average.average[0]) == 0
    assert (average.average[0] < 2 * np.finfo(F32).tiny).all()  # where its half would be denormal, it stays


def test_a_gradient_that_stays_the_same_has_no_variance():
    """Rounding would leave one below 0, and its root is no number."""
    p, g = np.zeros(3, F32), np.full(3, 0.1, F32)
    rmsprop = RMSprop(p, centered=True, eps=1.0)
    for _ in range(2000):
        rmsprop.step(g)
    assert (rmsprop.v[0] < rmsprop.m[0] * rmsprop.m[0]).all()  # it would
    assert np.isfinite(p).all()


def test_without_decay_no_parameter_is_looked_at():
    """Not even to multiply it by 0, where one is infinite."""
    p = np.array([np.inf, 1.0])
    SGD(p, 0.5).step(np.ones(2))
    assert p.tolist() == [np.inf, 0.5]


def test_a_gradient_may_be_a_part_of_the_parameters(monkeypatch, small_work_is_shared_out):
    """Shifted by one number: of two threads, one would change what the other has yet to read."""
    spread_over(2, monkeypatch)
    memory = np.random.default_rng(0).standard_normal(50 * 4096 + 1)
    p, g = memory[:-1], memory[1:]
    for _ in range(20):
        wanted = p - 0.5 * g
        SGD(p, 0.5).step(g)
        assert np.array_equal(p, wanted)


def test_an_array_that_was_closed_behind_the_optimisers_back():
    for p in (np.zeros(4), np.zeros(8)[::2]):
        adam = Adam(p)
        p.flags.writeable = False
        with pytest.raises(ValueError, match=r"params\[0\]: expected an array that may be written to, got a read-only one"):
            adam.step(np.ones(4))
        assert not p.any()
    p = np.zeros(4)
    adam = Adam(p)
    p.resize(6, refcheck=False)
    with pytest.raises(ValueError, match=r"params\[0\]: expected arrays of one size, got \[\(6,\), \(4,\), \(4,\), \(6,\)\]"):
        adam.step(np.ones(6))


@each_optimizer
def test_a_step_allocates_nothing_and_leaves_the_gradients(name):
    p, g = np.ones(1_000_000, F32), np.ones(1_000_000, F32)
    optimizer = MAKE[name](p)
    optimizer.step(g)
    assert peak_of(lambda: optimizer.step(g)) < 10_000
    assert (g == 1).all()
    assert peak_of(lambda: optimizer.clipped_step(g, 1.0)) < 10_000
    np.testing.assert_allclose(g, 1e-3, rtol=1e-4)  # clipped


@each_optimizer
@pytest.mark.parametrize("stop", [0, 1, 37])
def test_a_training_that_was_stopped_goes_on_bit_for_bit(name, stop, tmp_path):
    whole = GOLDEN["start"].copy()
    run(MAKE[name](whole), whole)
    p = GOLDEN["start"].copy()
    first = MAKE[name](p)
    run(first, p, range(stop))
    first.skipped = 2
    save(tmp_path / "state.npz", optimizer=first, p=p)
    again = np.zeros(7)
    second = MAKE[name](again)
    again[...] = load(tmp_path / "state.npz", optimizer=second)["p"]
    assert (second.t, second.skipped, second.lr) == (stop, 2, first.lr)
    run(second, again, range(stop, STEPS))
    assert np.array_equal(again, whole)


def test_the_learning_rate_is_part_of_the_state_unless_it_is_a_function():
    a, b = SGD(np.zeros(2), 0.5), SGD(np.zeros(2), 0.1)
    b.load_state_dict(a.state_dict())
    assert b.lr == 0.5
    c = SGD(np.zeros(2), schedules.constant(0.1))
    assert set(c.state_dict()) == {"t", "skipped"}
    with pytest.raises(KeyError, match="unexpected \\['lr'\\]"):
        c.load_state_dict(a.state_dict())


def test_a_schedule_sets_the_rate_of_each_step():
    p, q = np.zeros(1), np.zeros(1)
    scheduled, by_hand = SGD(p, lambda t: 1.0 + t), SGD(q)
    for t in range(4):
        by_hand.lr = 1.0 + t
        scheduled.step(np.ones(1))
        by_hand.step(np.ones(1))
    assert p[0] == q[0] == -10


def test_a_rate_below_0_changes_nothing():
    p = np.zeros(2)
    sgd = SGD(p, schedules.linear(1.0, 4, end=-1.0), momentum=0.5)
    for _ in range(3):
        sgd.step(np.ones(2))
    before = p.copy(), sgd.v[0].copy()
    with pytest.raises(ValueError, match=r"lr: expected a finite number of at least 0, got -0\.5"):
        sgd.step(np.ones(2))
    assert np.array_equal(p, before[0])
    assert np.array_equal(sgd.v[0], before[1])
    assert sgd.t == 3


def test_a_step_clips_or_is_skipped():
    p, q = np.zeros(2), np.zeros(2)
    clipped, by_hand = SGD(p, 1.0), SGD(q, 1.0)
    g = np.array([3.0, 4.0])
    assert clipped.clipped_step(g, 1.0) == 5.0
    other = np.array([3.0, 4.0])
    clip_global_norm(other, 1.0)
    by_hand.step(other)
    assert np.array_equal(p, q)
    before = p.copy()
    for bad in (math.nan, math.inf):
        norm = clipped.clipped_step(np.array([bad, 1.0]), 1.0)
        assert not math.isfinite(norm)
    assert np.array_equal(p, before)
    assert (clipped.t, clipped.skipped) == (1, 2)
    with pytest.raises(ValueError, match=r"grads\[0\]: expected the shape of params\[0\], \(2,\), got \(3,\)"):
        clipped.clipped_step(np.full(3, math.nan), 1.0)
    assert clipped.skipped == 2


@pytest.mark.parametrize("way", [copy.deepcopy, pickle.dumps, copy.copy])
def test_an_optimiser_is_not_copied_away_from_its_parameters(way):
    with pytest.raises(TypeError, match="save state_dict"):
        way(Adam(np.zeros(2)))


BAD = {
    "lr": (lambda p: RMSprop(p, -1), "lr: expected a finite number of at least 0, got -1"),
    "momentum": (lambda p: SGD(p, momentum=-0.5), "momentum: expected a finite number of at least 0, got -0.5"),
    "nesterov": (lambda p: SGD(p, nesterov=True), "nesterov: expected False without momentum, got True"),
    "decay": (lambda p: SGD(p, weight_decay=math.nan), "weight_decay: expected a finite number of at least 0, got nan"),
    "alpha": (lambda p: RMSprop(p, alpha=1.0), "alpha: expected a number, 0 <= alpha < 1, got 1.0"),
    "eps": (lambda p: RMSprop(p, eps=-1e-8), "eps: expected a finite number of at least 0, got -1e-08"),
    "lr_decay": (lambda p: Adagrad(p, lr_decay=-1.0), "lr_decay: expected a finite number of at least 0, got -1.0"),
    "initial": (lambda p: Adagrad(p, initial=-1.0), "initial: expected a finite number of at least 0, got -1.0"),
    "betas": (lambda p: AdamW(p, betas=(0.9, 1.0)), "betas: expected two numbers, 0 <= beta < 1, got (0.9, 1.0)"),
    "adam's decay": (lambda p: Adam(p, weight_decay=-1.0), "weight_decay: expected a finite number of at least 0, got -1.0"),
    "lr inf": (lambda p: SGD(p, math.inf), "lr: expected a finite number of at least 0, got inf"),
    "average": (lambda p: Average(p, 1.0), "decay: expected None or a number, 0 <= decay < 1, got 1.0"),
    "every": (lambda p: schedules.step(1.0, 0), "every: expected an integer of at least 1, got 0"),
    "steps": (lambda p: schedules.cosine(1.0, 0), "steps: expected an integer of at least 1, got 0"),
    "value": (lambda p: schedules.constant(math.nan), "value: expected a finite number, got nan"),
    "k": (lambda p: schedules.inverse_sigmoid(0.5), "k: expected a finite number of at least 1, got 0.5"),
}


@pytest.mark.parametrize("case", BAD)
def test_the_argument_that_is_wrong_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError) as caught:
        call(np.zeros(2))
    assert str(caught.value) == message


NUMBERS = ["lr", "momentum", "weight_decay", "eps", "alpha", "lr_decay", "betas", "decay", "params", "max_norm"]


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_is_named(name):
    kinds = {"momentum": SGD, "alpha": RMSprop, "lr_decay": Adagrad, "decay": Average}
    params = np.zeros(2)
    with pytest.raises(TypeError, match=f"^{name}: expected"):
        if name == "params":
            Adam("abc")
        elif name == "max_norm":
            Adam(params).clipped_step(params, "1")
        else:
            kinds.get(name, Adam)(params, **{name: 1j})


# --- schedules ----------------------------------------------------------------------------------------------


def test_schedules():
    cosine = schedules.cosine(2.0, 10, end=1.0)
    assert [cosine(t) for t in (0, 5, 10, 11)] == pytest.approx([2.0, 1.5, 1.0, 1.0])
    assert [schedules.linear(1.0, 4, end=0.5)(t) for t in (0, 2, 4, 9)] == [1.0, 0.75, 0.5, 0.5]
    assert [schedules.step(8.0, 3, 0.5)(t) for t in (0, 2, 3, 6)] == [8, 8, 4, 2]
    assert schedules.exponential(1.0, 0.97)(10) == pytest.approx(0.97**10)
    assert schedules.constant(0.3)(10**6) == 0.3
    warm = schedules.warmup(2, cosine)
    assert [warm(t) for t in range(4)] == pytest.approx([1.0, 2.0, 2.0, cosine(1)])
    falling = schedules.inverse_sigmoid(50.0)
    assert [falling(t) for t in (0, 100, 300, 10**9)] == pytest.approx(
        [50 / 51, 50 / (50 + math.exp(2)), 50 / (50 + math.exp(6)), 0]
    )
    with pytest.raises(TypeError, match="schedule: expected a function of the steps so far, got float"):
        schedules.warmup(2, 0.1)


def test_torch_has_the_same_schedules():
    torch = pytest.importorskip("torch")
    rates = torch.optim.lr_scheduler
    for ours, theirs in [
        (schedules.cosine(0.5, 20, 0.1), lambda sgd: rates.CosineAnnealingLR(sgd, 20, 0.1)),
        (schedules.step(0.5, 7, 0.3), lambda sgd: rates.StepLR(sgd, 7, 0.3)),
        (schedules.exponential(0.5, 0.9), lambda sgd: rates.ExponentialLR(sgd, 0.9)),
        (schedules.linear(0.5, 8), lambda sgd: rates.LinearLR(sgd, 1.0, 0.0, 8)),
    ]:
        sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
        scheduler = theirs(sgd)
        for t in range(20):
            assert ours(t) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
            sgd.step()
            scheduler.step()


# --- averages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [None, 0.0, 0.9])
def test_an_average_of_the_parameters(decay):
    rng = np.random.default_rng(0)
    p = np.zeros((2, 3))
    average = Average(p, decay)
    seen = rng.standard_normal((20, 2, 3))
    wanted = seen[0]
    for n, values in enumerate(seen, start=1):
        p[...] = values
        average.update()
        if decay is not None and n > 1:
            wanted = decay * wanted + (1 - decay) * values
        elif decay is None:
            wanted = seen[:n].mean(axis=0)
        np.testing.assert_allclose(average.average[0], wanted, rtol=1e-12)
    with average.swapped():
        np.testing.assert_allclose(p, wanted, rtol=1e-12)
    assert np.array_equal(p, seen[-1])
    with pytest.raises(RuntimeError, match="in between"), average.swapped():
        raise RuntimeError("in between")
    assert np.array_equal(p, seen[-1])
    other = Average(np.zeros((2, 3)), decay)
    other.load_state_dict(average.state_dict())
    assert other.n == 20
    assert np.array_equal(other.average[0], average.average[0])


def test_an_update_allocates_nothing():
    average = Average(np.zeros(100_000, F32), 0.9)
    average.update()

    def both():
        average.update()
        with average.swapped():
            pass

    assert peak_of(both) < 10_000


# --- the file -----------------------------------------------------------------------------------------------


class Training:
    """A small one with everything that has a state."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.layer, self.readout = fastrnn.LSTM(3, 5, rng=self.rng), Linear(5, 3, rng=self.rng)
        params = [self.layer.flat, self.readout.flat]
        self.adam, self.average = Adam(params, schedules.cosine(0.1, 20)), Average(params, 0.9)

    def parts(self):
        return {name: getattr(self, name) for name in ("rng", "layer", "readout", "adam", "average")}

    def go(self, steps):
        for _ in range(steps):
            x = self.rng.standard_normal((4, 2, 3)).astype(F32)
            y, _, tape = self.layer.forward(x)
            o, readout_tape = self.readout.forward(y)
            _, do = softmax_cross_entropy(o, self.rng.integers(0, 3, (4, 2)))
            grads = readout_tape.backward(do)
            self.adam.clipped_step([tape.backward(grads.x).flat, grads.flat], 1.0)
            self.average.update()
        return np.concatenate([self.layer.flat, self.readout.flat, *self.average.average])


def test_a_whole_training_goes_on_bit_for_bit(tmp_path):
    whole = Training(0).go(12)
    first = Training(0)
    first.go(5)
    path = tmp_path / "training"
    save(path, **first.parts(), step=5, lr=0.25, note="to be continued", table=np.arange(3), file=1, allow_pickle=True)
    assert [p.name for p in tmp_path.iterdir()] == ["training"]
    second = Training(1)
    values = load(path, **second.parts())
    assert np.array_equal(values.pop("table"), [0, 1, 2])
    assert values == {"step": 5, "lr": 0.25, "note": "to be continued", "file": 1, "allow_pickle": True}
    assert type(values["step"]) is int
    assert np.array_equal(second.go(7), whole)
    alone = fastrnn.LSTM(3, 5)
    load(path, layer=alone)
    assert np.array_equal(alone.flat, first.layer.flat)


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_every_generator_goes_on(kind, tmp_path):
    bits = getattr(np.random, kind)
    rng = np.random.Generator(bits(1))
    rng.random(3, dtype=F32)  # half of a number of 64 bits is kept
    save(tmp_path / "rng", rng=rng)
    other = np.random.Generator(bits(2))
    load(tmp_path / "rng", rng=other)
    assert np.array_equal(other.random(1000, dtype=F32), rng.random(1000, dtype=F32))
    assert np.array_equal(other.standard_normal(1000), rng.standard_normal(1000))


@pytest.mark.parametrize("make", [Adam, Average])
def test_a_state_of_another_dtype_is_refused(make):
    kept = make(np.zeros(2, F32))
    wide = {name: a.astype(F64) if a.dtype == F32 else a for name, a in kept.state_dict().items()}
    with pytest.raises(TypeError, match=r"\.0: expected dtype float32, got float64"):
        kept.load_state_dict(wide)


def test_what_does_not_fit_changes_nothing(tmp_path):
    path = tmp_path / "state"
    old = Training(0)
    old.go(2)
    save(path, **old.parts(), step=2)
    new = Training(1)
    before, state = new.go(1), new.rng.bit_generator.state
    attempts = [
        ({"layer": new.layer, "adam": SGD(new.layer.flat)}, KeyError, "missing \\['lr'\\]"),
        ({"rng": new.rng, "layer": fastrnn.LSTM(3, 6)}, ValueError, "weight_ih_l0: expected"),
        ({"rng": new.rng, "layer": new.layer, "other": new.readout}, KeyError, "other: expected one of the saved states"),
        ({"layer": new.layer, "step": new.readout}, KeyError, "step: expected one of the saved states"),
        (
            {"layer": new.layer, "rng": np.random.Generator(np.random.SFC64(0))},
            ValueError,
            "rng: expected the state of a SFC64, got that of a PCG64",
        ),
        ({"layer": new.layer, "readout": np.random.default_rng()}, TypeError, "readout: expected what was saved"),
        ({"layer": new.layer, "readout": np.zeros(3)}, TypeError, "readout: expected an object with a state_dict"),
    ]
    for parts, error, message in attempts:
        with pytest.raises(error, match=message):
            load(path, **parts)
        assert np.array_equal(np.concatenate([new.layer.flat, new.readout.flat, *new.average.average]), before)
        assert new.rng.bit_generator.state == state


def test_what_cannot_be_saved_leaves_the_old_file(tmp_path):
    path = tmp_path / "state"
    save(path, step=1)
    for parts, message in [({"x": object()}, "x: expected an object with a state_dict"), ({"a/b": 1}, "a/b: expected a name")]:
        with pytest.raises(TypeError, match=message):
            save(path, step=2, **parts)
    with pytest.raises(TypeError, match="None"):
        save(path, step=2, x=None)
    assert load(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_another_kind_of_file_is_refused(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"path: expected an \.npz file, got an \.npy file"):
        load(tmp_path / "array.npy")
    (tmp_path / "pickle").write_bytes(pickle.dumps({"step": 1}))
    with pytest.raises(ValueError):
        load(tmp_path / "pickle")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none")
