"""Layers of several layers and directions: they are their cells put together, and all promises hold for the whole, bit for bit."""

import copy
import pickle
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastrnn
from cases import CELLS, COMBINED, FLOATS
from fastrnn import _core, reference
from fastrnn._engine import schedule
from fastrnn._engine import stack as stacks
from stacks import LAYERS, Setup, Stack, assert_same_bits, named, table

each_cell = pytest.mark.parametrize("cell", LAYERS)
each_dtype = pytest.mark.parametrize("dtype", FLOATS)
WEIGHTS = {
    "w_ih": "weight_ih",
    "w_hh": "weight_hh",
    "b_ih": "bias_ih",
    "b_hh": "bias_hh",
    "w_hr": "weight_hr",
    "peephole": "weight_ch",
}

# --- the layer is its cells, put together by hand -------------------------------------------------------------------------


class ByHand:
    """The same by the functions of one layer and one direction each."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.s, self.tapes = setup, setup.stack, []
        name, self.fixed = (CELLS | COMBINED)[self.s.cell]
        self.function = getattr(fastrnn, name)

    def turned(self, a: Any) -> Any:
        """To (T, B, .) and back."""
        s = self.s
        return (a[:, 0] if a.ndim == 3 else a[:, None]) if s.unbatched else a.swapaxes(0, 1) if s.batch_first else a

    def batched(self, a: Any) -> Any:
        """A member of a state, (B, .)."""
        return a[None] if self.s.unbatched else a

    def suffix(self, k: int) -> str:
        return f"_l{k // self.s.D}" + ("_reverse" if k % self.s.D else "")

    def cell(self, k: int, x: Any) -> Any:
        s, given = self.s, dict(self.setup.arguments)
        state, params = given.pop("state", None), self.setup.layer.params
        arrays = {n: params[long + self.suffix(k)] for n, long in WEIGHTS.items() if long + self.suffix(k) in params}
        if state is not None:
            arrays |= {n: self.batched(m[k]) for n, m in zip(("h0", "c0"), state if s.is_lstm else (state,))}
        rows = {n: self.turned(v).reshape(s.T, s.B) if n in ("reset", "mask") else v for n, v in given.items() if n != "x"}
        y, state, tape = self.function(x, **arrays, **self.fixed, **rows, reverse=bool(k % s.D), record=True)
        self.tapes.append(tape)
        return y, state

    def run(self) -> dict[str, Any]:
        s, results = self.s, {}
        x, states = self.turned(self.setup.arguments["x"]), []
        for layer in range(s.L):
            cells = [self.cell(layer * s.D + d, x) for d in range(s.D)]
            results |= {f"h{self.suffix(layer * s.D + d)}": self.turned(y) for d, (y, _) in enumerate(cells)}
            x = np.concatenate([y for y, _ in cells], axis=2)
            states += [state for _, state in cells]
        results["y"] = self.turned(x)
        results |= self.state("state", [state if s.is_lstm else (state,) for state in states])
        return results | self.backward()

    def state(self, name: str, states: list[tuple[Any, ...]]) -> dict[str, Any]:
        members = [np.stack(member) for member in zip(*states)]
        return dict(zip((f"{name}_h", f"{name}_c"), (m[:, 0] for m in members) if self.s.unbatched else members))

    def backward(self) -> dict[str, Any]:
        s, setup, results = self.s, self.setup, {}
        d, states = self.turned(setup.dy), []
        for layer in reversed(range(s.L)):
            dx = []
            for k in range(layer * s.D, layer * s.D + s.D):
                dy = d[..., (k % s.D) * s.P :][..., : s.P] + self.turned(setup.doutputs[f"h{self.suffix(k)}"])
                dstate = tuple(self.batched(m[k]) for m in (setup.dstate if s.is_lstm else (setup.dstate,)))
                grads = self.tapes[k].backward(dy, dstate if s.is_lstm else dstate[0])
                dx.append(grads.x)
                states.append((k, grads.state if s.is_lstm else (grads.state,)))
                found = {f"d{long}{self.suffix(k)}": getattr(grads, n, None) for n, long in WEIGHTS.items()}
                results |= {name: g for name, g in found.items() if g is not None}
            d = sum(dx[1:], start=dx[0])
        states = [state for _, state in sorted(states, key=lambda item: item[0])]
        return {**results, "dx": self.turned(d), **self.state("dstate", states)}


@each_dtype
@pytest.mark.parametrize("stack", table(), ids=str)
def test_a_layer_is_its_cells(stack, dtype):
    setup = Setup(stack, dtype)
    got = setup.run()
    inside = {name for name in got if name.startswith(("c_", "gates_"))}
    assert_same_bits({name: a for name, a in got.items() if name not in inside}, ByHand(setup).run())
    y, state = setup.layer(**setup.arguments)
    assert_same_bits({"y": y, **named("state", state)}, {n: got[n] for n in got if n == "y" or n.startswith("state")})


# --- the promises -----------------------------------------------------------------------------------------------------------

BIG: dict[str, Any] = {"T": 9, "B": 7, "I": 9, "H": 21}
WAYS = pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])


def rows_of(setup: Setup, rows: Any, t0: int = 0, t1: int | None = None, **changes: Any) -> Setup:
    """The same layer, with these rows and times of every argument and gradient."""
    s = setup.stack
    part = Setup(replace(s, B=len(np.arange(s.B)[rows]), T=len(np.arange(s.T)[t0:t1])), setup.layer.dtype)
    part.layer = setup.layer
    part.arguments = {n: a[t0:t1, rows] for n, a in setup.arguments.items() if n in ("x", "reset", "mask")}
    part.arguments |= {n: a for n, a in setup.arguments.items() if n == "masked"}
    part.arguments |= {"lengths": setup.arguments["lengths"][rows]} if s.lengths else {}

    def members(state: Any) -> Any:
        return tuple(m[:, rows].copy() for m in state) if s.is_lstm else state[:, rows].copy()

    part.arguments["state"] = members(setup.arguments["state"])
    part.dy, part.dstate = setup.dy[t0:t1, rows], members(setup.dstate)
    part.doutputs = {n: d[t0:t1, rows] for n, d in setup.doutputs.items()}
    part.arguments |= changes
    return part


def of_rows(results: dict[str, Any], rows: Any, t0: int = 0, t1: int | None = None) -> dict[str, Any]:
    """What belongs to these rows and times: all but the parameters' gradients, which sum over the batch."""
    own = {n: a for n, a in results.items() if not n.startswith(("dweight", "dbias"))}
    return {n: a[:, rows] if "state" in n else a[t0:t1, rows] for n, a in own.items()}


@each_cell
@each_dtype
@pytest.mark.parametrize("options", [{}, {"lengths": True, "reset": True, "mask": True, "hold": True}], ids=["dense", "ragged"])
def test_one_row_is_one_row(cell, dtype, options):
    setup = Setup(Stack(cell, **BIG, **options), dtype)
    together = setup.run()
    for b in range(setup.stack.B):
        row = slice(b, b + 1)
        assert_same_bits(of_rows(rows_of(setup, row).run(), slice(None)), of_rows(together, row))


@each_cell
@each_dtype
def test_pieces_of_time_are_the_whole(cell, dtype):
    setup = Setup(Stack(cell, **BIG, L=3, bidirectional=False), dtype)
    layer, x, state = setup.layer, setup.arguments["x"], setup.arguments["state"]
    whole, final = layer(x, state)
    pieces = []
    for t0, t1 in ((0, 4), (4, 5), (5, 9)):
        y, state = layer(x[t0:t1], state)
        pieces.append(y)
    assert np.concatenate(pieces).tobytes() == whole.tobytes()
    assert_same_bits(named("state", state), named("state", final))


@each_cell
@pytest.mark.parametrize("options", [{}, {"lengths": True, "reset": True, "mask": True, "hold": True}], ids=["dense", "ragged"])
@pytest.mark.usefixtures("small_work_is_shared_out")
def test_threads_do_not_change_a_bit(cell, options):
    setup, threads = Setup(Stack(cell, **BIG, **options), np.float32), fastrnn.get_num_threads()
    results = {}
    try:
        for n in (1, 2, 3):
            fastrnn.set_num_threads(n)
            results[n] = setup.run()
    finally:
        fastrnn.set_num_threads(threads)
    assert_same_bits(results[2], results[1])
    assert_same_bits(results[3], results[1])


@pytest.mark.parametrize(
    "stack",
    [
        *(Stack(cell, T=300, B=1, I=9, H=21) for cell in LAYERS),
        Stack("lstm", T=300, B=1, I=9, H=21, proj_size=7, batch_first=True),
        *(Stack(cell, T=150, B=3, H=21, lengths=True, reset=True, mask=True, hold=True) for cell in LAYERS),
        Stack("gru-after", T=0),
        Stack("lstm", B=0),
    ],
    ids=str,
)
@pytest.mark.parametrize("checkpoint", [None, 1])
def test_directions_side_by_side_do_not_change_a_bit(stack, checkpoint, monkeypatch, own):
    """Again and again: a thread that finds no core in time is not waited for, so no single call says much. Runs that recompute
    segments go one after the other."""
    together = []

    def run_together(rows):
        together.append(len(rows))
        _core.run_together(rows)

    monkeypatch.setattr(stacks, "run_together", run_together)
    monkeypatch.setattr(schedule, "side_by_side", lambda *sizes: False)
    setup = Setup(stack, np.float32)
    expected = setup.run("hc", checkpoint=checkpoint)
    monkeypatch.setattr(schedule, "side_by_side", lambda *sizes: True)
    assert not together
    for _ in range(8):
        assert_same_bits(setup.run("hc", checkpoint=checkpoint), expected)
    in_segments = checkpoint is not None and setup.layer._cell.form.saves
    assert set(together) == ({2} if stack.T * stack.B and not in_segments else set())


def test_directions_go_side_by_side_where_that_takes_more_threads():
    def beside(runs=2, T=100, B=1, I=64, H=64, G=4, threads=2):
        return schedule.side_by_side(runs, T, B, I, H, G, threads)

    assert beside() and beside(B=1, threads=4) and beside(H=512)
    assert not beside(runs=1)
    assert not beside(threads=1)
    assert not beside(T=1)  # too little to do
    assert not beside(B=2)  # two threads have a row each
    assert not beside(H=512, threads=8)  # eight can share the units


@each_cell
@each_dtype
@WAYS
def test_lengths_cut_each_row(cell, dtype, bidirectional):
    """Padding gets a gradient of exactly 0 and is never read, not even by a NaN."""
    setup = Setup(Stack(cell, **BIG, bidirectional=bidirectional, lengths=True), dtype)
    lengths = setup.arguments["lengths"]
    padding = np.arange(9)[:, None] >= lengths
    for a in (setup.arguments["x"], setup.dy, *setup.doutputs.values()):
        a[padding] = np.nan
    together = setup.run()
    assert not any(np.isnan(a).any() for a in together.values())
    assert not any(a[padding].any() for n, a in together.items() if n in ("y", "dx") or n[:2] in ("h_", "c_", "ga"))
    for b, n in enumerate(lengths):
        alone = rows_of(setup, slice(b, b + 1), 0, n)
        del alone.arguments["lengths"]
        assert_same_bits(of_rows(alone.run(), slice(None)), of_rows(together, slice(b, b + 1), 0, n))


@each_cell
@each_dtype
def test_resets_cut_a_row_into_pieces(cell, dtype):
    """In all layers and both directions: nothing flows through a cut, forward or backward."""
    setup = Setup(Stack(cell, **{**BIG, "T": 12}, reset=True), dtype)
    s, reset = setup.stack, setup.arguments["reset"]
    reset[0, :2] = True, False
    together = setup.run()
    for b in range(s.B):
        edges = [0, *(t for t in range(1, s.T) if reset[t, b]), s.T]
        for t0, t1 in zip(edges, edges[1:]):
            piece = rows_of(setup, slice(b, b + 1), t0, t1)
            flags = piece.arguments.pop("reset")
            starts = np.tile([t0 == 0 and not flags[0, 0], t1 == s.T], s.L)  # forward, reverse: from the given state?
            ends = np.tile([t1 == s.T, t0 == 0], s.L)  # into the final state?
            for members in (piece.arguments["state"], piece.dstate):
                keep = starts if members is piece.arguments["state"] else ends
                for m in members if s.is_lstm else (members,):
                    m[~keep] = 0
            alone, mine = piece.run(), of_rows(together, slice(b, b + 1), t0, t1)
            for name, a in of_rows(alone, slice(None)).items():
                keep = starts if name.startswith("dstate") else ends if name.startswith("state") else slice(None)
                assert a[keep].tobytes() == mine[name][keep].tobytes(), name


@each_cell
@each_dtype
@WAYS
def test_a_mask_takes_steps_out(cell, dtype, bidirectional):
    setup = Setup(Stack(cell, **BIG, bidirectional=bidirectional, mask=True), dtype)
    mask = setup.arguments["mask"]
    together = setup.run()
    assert not together["y"][~mask].any() and not together["dx"][~mask].any()
    for b in range(setup.stack.B):
        times, row = np.flatnonzero(mask[:, b]), slice(b, b + 1)
        alone = rows_of(setup, row)
        del alone.arguments["mask"]
        alone.arguments["x"], alone.dy = alone.arguments["x"][times], alone.dy[times]
        alone.doutputs = {n: d[times] for n, d in alone.doutputs.items()}
        mine = {n: a if "state" in n else a[times] for n, a in of_rows(together, row).items()}
        assert_same_bits(of_rows(alone.run(), slice(None)), mine)


# --- dropout ------------------------------------------------------------------------------------------------------------------


def test_dropout_is_between_the_layers_and_in_forward_alone():
    """The second layer passes on what is positive, so that all that dropout does is to be seen."""
    layer = fastrnn.RNN(3, 50, 2, "relu", False, dropout=0.25, rng=0)
    layer.params["weight_ih_l1"] = np.eye(50, dtype=np.float32)
    layer.params["weight_hh_l1"] *= 0
    x = np.random.default_rng(0).standard_normal((40, 30, 3)).astype(np.float32)
    whole, _ = layer(x)
    y, _, tape = layer.forward(x)
    below = tape.outputs["h_l0"]
    assert whole.tobytes() == below.tobytes()
    kept = y != 0
    np.testing.assert_allclose(y[kept], below[kept] / 0.75, rtol=1e-6)
    share = kept[below > 0].mean()
    assert abs(share - 0.75) < 5 * np.sqrt(0.75 * 0.25 / (below > 0).sum())
    again, _, _ = layer.forward(x)
    assert ((again != 0) != kept).any()
    dbelow = tape.backward(np.ones_like(y), doutputs={"h_l0": -kept.astype(np.float32) / np.float32(0.75)})
    assert not dbelow.x.any()  # what comes down through the dropout is 4/3 where it kept, and 0 else


def test_dropout_is_replayed_by_the_state_of_the_generator():
    layer = fastrnn.GRU(3, 20, 3, dropout=0.5, rng=0)
    x = np.ones((5, 4, 3), np.float32)
    state = layer.rng.bit_generator.state
    first, second = (layer.forward(x)[0].tobytes() for _ in range(2))
    layer.rng.bit_generator.state = state
    assert first != second
    assert [layer.forward(x)[0].tobytes() for _ in range(2)] == [first, second]


@pytest.mark.parametrize("batch_first", [False, True])
def test_dropout_of_everything(batch_first):
    layer = fastrnn.LSTM(3, 4, 2, dropout=1, batch_first=batch_first, rng=0)
    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    y, _, tape = layer.forward(x)
    layer.params["weight_ih_l1"] *= 0
    assert y.tobytes() == layer(x)[0].tobytes()
    grads = tape.backward(y)
    assert not grads.x.any() and not grads.params["weight_ih_l1"].any() and grads.params["weight_hh_l1"].any()


def test_inference_draws_nothing():
    layer = fastrnn.GRU(3, 4, 2, dropout=0.5, rng=0)
    x = np.ones((2, 5, 3), np.float32)
    state = layer.rng.bit_generator.state
    y, _ = layer(x)
    assert layer.rng.bit_generator.state == state
    assert y.tobytes() == fastrnn.GRU(3, 4, 2, rng=0)(x)[0].tobytes()


@pytest.mark.parametrize("kind", [fastrnn.RNN, fastrnn.IRNN, fastrnn.GRU, fastrnn.LSTM])
def test_dropout_of_one_layer_is_a_warning(kind):
    with pytest.warns(UserWarning, match="^dropout: .*num_layers greater than 1, got dropout=0.5 and num_layers=1") as warned:
        kind(3, 4, dropout=0.5)
    assert [w.filename for w in warned] == [__file__]


# --- gradients against differences --------------------------------------------------------------------------------------------

TINY: dict[str, Any] = {"T": 3, "B": 2, "I": 2, "H": 2}
CHECKED: tuple[dict[str, Any], ...] = (
    {},
    {"L": 3, "bidirectional": False},
    {"batch_first": True, "bias": False},
    {"unbatched": True, "B": 1},
    {"lengths": True, "B": 3},
    {"reset": True, "mask": True, "T": 5, "B": 1},
    {"lengths": True, "reset": True, "mask": True, "hold": True, "T": 4, "L": 1},
    {"dropout": 0.4},
    {"dropout": 0.4, "batch_first": True, "lengths": True, "L": 3, "bidirectional": False, "B": 3},
)
TO_CHECK = [Stack(cell, **{**TINY, **options}) for cell in LAYERS for options in CHECKED]
TO_CHECK += [Stack("lstm", **{**TINY, "H": 3, "proj_size": 2, **options}) for options in (CHECKED[0], CHECKED[6], CHECKED[7])]


@pytest.mark.parametrize("stack", TO_CHECK, ids=str)
def test_gradients(stack):
    setup = Setup(stack)
    before = setup.layer.rng.bit_generator.state
    _, _, tape = setup.forward()
    outputs = [name for name in tape.outputs if name[0] in "hc"]
    for through, entries in ((outputs, None), ((), 3)):  # with all that may come in, every entry
        setup.layer.rng.bit_generator.state = before
        result = fastrnn.gradcheck(setup.layer, **setup.arguments, outputs=through, max_entries=entries)
        states = {"state[0]", "state[1]"} if stack.is_lstm else {"state"}
        assert result.table.keys() == {"x", *states, *setup.layer.params}
        assert setup.layer.rng.bit_generator.state == before


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_gradients_through_each_output_alone(cell):
    setup = Setup(Stack(cell, **TINY))
    for name, d in setup.doutputs.items():
        _, _, tape = setup.forward()
        alone = tape.backward(doutputs={name: d})
        _, _, tape = setup.forward()
        zeros = {n: d if n == name else np.zeros_like(other) for n, other in setup.doutputs.items()}
        zero_state = tuple(0 * m for m in setup.dstate) if setup.stack.is_lstm else 0 * setup.dstate
        together = tape.backward(0 * setup.dy, zero_state, zeros)
        assert np.array_equal(alone.x, together.x) and np.array_equal(alone.flat, together.flat) and alone.flat.any()
        assert alone.params[f"weight_ih{name[1:]}"].any()


def test_a_gradient_that_is_wrong_is_found():
    """So that the checks above say something: a layer that forgets what comes in through c_l0."""
    setup = Setup(Stack("lstm", **TINY))

    class Forgetful(type(setup.layer)):
        def forward(self, x, state=None):
            y, state, tape = super().forward(x, state)
            backward = tape.backward
            tape.backward = lambda dy, dstate, doutputs: backward(dy, dstate, {**doutputs, "c_l0": 0 * doutputs["c_l0"]})
            return y, state, tape

    setup.layer.__class__ = Forgetful
    with pytest.raises(fastrnn.GradcheckError, match="wrong gradient at"):
        fastrnn.gradcheck(setup.layer, **setup.arguments, outputs=["c_l0"])


# --- checkpoints: less is kept, the same comes out -----------------------------------------------------------------------------

LONG: dict[str, Any] = {"T": 75, "B": 4, "I": 4, "H": 9}  # three sums of the weights' gradients, so as many segments
MADE_AGAIN: tuple[dict[str, Any], ...] = (
    {},
    {"dropout": 0.4, "batch_first": True, "L": 3, "bidirectional": False},
    {"unbatched": True, "B": 1, "T": 300, "mask": True, "hold": True, "reset": True},
    {"lengths": True, "reset": True, "mask": True, "hold": True, "T": 150},
    {"T": 0},
    {"B": 0},
)
AGAIN = [Stack(cell, **{**LONG, **options}) for cell in LAYERS for options in MADE_AGAIN]
AGAIN += [Stack("lstm", **{**LONG, "proj_size": 4, **options}) for options in (MADE_AGAIN[0], MADE_AGAIN[3])]


@each_dtype
@pytest.mark.parametrize("stack", AGAIN, ids=str)
@pytest.mark.parametrize("truncate", [None, 21])
def test_checkpoints_do_not_change_a_bit(stack, dtype, truncate):
    setup = Setup(stack, dtype)
    before, results = setup.layer.rng.bit_generator.state, {}
    for k in (None, 1, 50, 10**30):
        setup.layer.rng.bit_generator.state = before
        y, state, tape = setup.forward(checkpoint=k)
        assert all(n[0] == "h" for n in tape.outputs) or k is None
        grads = tape.backward(setup.dy, setup.dstate, setup.doutputs, truncate)
        results[k] = {"y": y, **named("state", state), "dx": grads.x, "dflat": grads.flat, **named("dstate", grads.state)}
        assert_same_bits(results[k], results[None])


@pytest.mark.parametrize("cell", ["gru-after", "lstm"])
def test_a_tape_with_checkpoints_says_what_it_does_not_keep(cell):
    setup = Setup(Stack(cell, L=1, bidirectional=False))
    for T in (7, 0):
        _, _, tape = setup.forward(x=setup.arguments["x"][:T], checkpoint=1)
        assert list(tape.outputs) == ["h_l0"]
        with pytest.raises(KeyError, match=r"'gates_l0': expected one of \['h_l0'\], because .* not keep c and gates"):
            tape.outputs["gates_l0"]
    _, _, tape = setup.forward()
    with pytest.raises(KeyError, match=r"'gates_l7': expected one of \['h_l0', .*'gates_l0'\]\W*$"):
        tape.outputs["gates_l7"]


def peak(layer: Any, x: Any, dy: Any, **options: Any) -> int:
    """The most bytes that a training step holds at once."""
    _core.empty_free_list()
    tracemalloc.start()
    try:
        layer.forward(x, **options)[2].backward(dy)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_long_sequence_trains_in_little_memory(own):
    """Two layers of 64 units: beside y of both and the gradients that go down, hardly anything grows with T."""
    layer, rng = fastrnn.LSTM(8, 64, 2, rng=0), np.random.default_rng(0)
    plain, little = {}, {}
    for T in (10000, 20000):
        x, dy = (rng.standard_normal((T, 1, n), dtype=np.float32) for n in (8, 64))
        plain[T], little[T] = peak(layer, x, dy), peak(layer, x, dy, checkpoint=500)
    step = 4 * 64
    assert plain[20000] - plain[10000] > 10000 * 2 * (1 + 1 + 4) * step
    sequences = 3 * step + 4 * 8  # y, y and dy of the lower layer, dx
    assert little[20000] - little[10000] < 10000 * (sequences + 3)  # and a state in 500 steps
    assert little[20000] < 20000 * sequences + (5 << 20)


# --- what a tape shows ----------------------------------------------------------------------------------------------------------


@each_cell
@pytest.mark.parametrize("options", [{}, {"batch_first": True, "L": 1}, {"unbatched": True, "B": 1}], ids=str)
def test_outputs_are_read_only_views_of_what_is_stored(cell, options):
    s = Stack(cell, **options)
    setup = Setup(s)
    y, state, tape = setup.forward()
    outputs, G = tape.outputs, {"rnn": 0, "gru": 3, "lstm": 4}[(CELLS | COMBINED)[cell][0]]
    sequence = y.shape[:-1]
    shapes = {"h": (*sequence, s.H), "c": (*sequence, s.H), "gates": (*sequence, G * s.H)}
    kinds = ["h"] + ["c"] * s.is_lstm + ["gates"] * (G > 0)
    suffixes = [f"_l{k}{way}" for k in range(s.L) for way in ("", "_reverse")]
    assert {n: a.shape for n, a in outputs.items()} == {kind + suffix: shapes[kind] for suffix in suffixes for kind in kinds}
    for name, a in outputs.items():
        assert not a.flags.writeable and np.shares_memory(a, tape.outputs[name])
    top = [outputs[f"h_l{s.L - 1}{way}"] for way in ("", "_reverse")]
    assert all(np.shares_memory(h, y) for h in top) and np.array_equal(np.concatenate(top, axis=-1), y)
    time = 1 if s.batch_first else 0
    final = state if s.is_lstm else (state,)
    for kind, members in zip("hc", final):
        for k, suffix in enumerate(suffixes):
            assert np.array_equal(np.take(outputs[kind + suffix], 0 if "reverse" in suffix else -1, axis=time), members[k])
    if s.is_lstm:
        o = outputs["gates_l0"][..., 3 * s.H :]
        of_c = reference.Function("activation", LAYERS[cell][1].get("activation", "tanh")).value(outputs["c_l0"])
        np.testing.assert_allclose(outputs["h_l0"], o * of_c, rtol=1e-12)
    tape.backward(y)
    with pytest.raises(RuntimeError, match="this tape has been used"):
        tape.outputs  # noqa: B018 -- the property raises


def test_wrong_gradients_of_outputs():
    setup = Setup(Stack("gru-after"))
    _, _, tape = setup.forward()
    right = setup.doutputs["h_l0"]
    for wrong, error, message in (
        ({"c_l0": right}, ValueError, r"^doutputs: expected names among \['h_l0', .*\], got \['c_l0'\]"),
        ({"gates_l0": right}, ValueError, r"^doutputs: .*got \['gates_l0'\]"),
        ({"h_l0": right[1:]}, ValueError, r"^doutputs\['h_l0'\]: expected \(T, B, H\) = \(7, 4, 5\), got \(6, 4, 5\)"),
        ({"h_l0": right.astype(np.float32)}, TypeError, r"^doutputs\['h_l0'\]: expected dtype float64, got float32"),
        ([right], TypeError, "^doutputs: expected a mapping of names to arrays, got list"),
    ):
        with pytest.raises(error, match=message):
            tape.backward(setup.dy, doutputs=wrong)
    with pytest.raises(ValueError, match="got none"):
        tape.backward(doutputs={})
    tape.backward(setup.dy)


@pytest.mark.parametrize("make", [fastrnn.LSTM, fastrnn.LSTMCell])
def test_a_pair_of_nothing_is_no_gradient(make):
    module, x = make(3, 5, rng=0), np.ones((2, 2, 3), np.float32)
    *_, tape = module.forward(x if make is fastrnn.LSTM else x[0])
    for nothing in (None, (None, None), [None, None]):
        with pytest.raises(ValueError, match=r"expected .*, got (none|None)$"):
            tape.backward(dstate=nothing)
    c = np.ones((1, 2, 5) if make is fastrnn.LSTM else (2, 5), np.float32)
    assert tape.backward(dstate=(None, c)).x.any()


def test_a_tape_is_not_copied():
    for how in (copy.copy, copy.deepcopy, pickle.dumps):
        _, _, tape = Setup(Stack("gru-after")).forward()
        with pytest.raises(TypeError, match="a tape is of its call"):
            how(tape)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_a_truncated_gradient_is_that_of_pieces_that_hand_on_their_state(kind):
    rng, k = np.random.default_rng(0), 4
    layer = getattr(fastrnn, kind)(3, 5, num_layers=2, dtype=np.float64, rng=0)
    x, dy = rng.standard_normal((10, 2, 3)), rng.standard_normal((10, 2, 5))
    grads = layer.forward(x)[2].backward(dy, truncate=k)
    state, dx, flat = None, [], np.zeros_like(layer.flat)
    for start in range(0, 10, k):
        _, state, tape = layer.forward(x[start : start + k], state)
        piece = tape.backward(dy[start : start + k])
        dx.append(piece.x)
        flat += piece.flat
    np.testing.assert_allclose(grads.x, np.concatenate(dx), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(grads.flat, flat, rtol=1e-12, atol=1e-14)
    whole = layer.forward(x)[2].backward(dy)
    assert not np.allclose(grads.flat, whole.flat)
    assert layer.forward(x)[2].backward(dy, truncate=10**30).flat.tobytes() == whole.flat.tobytes()


def test_gradients_that_come_in_are_not_written_to():
    setup = Setup(Stack("lstm"))
    given = [setup.dy, *setup.dstate, *setup.doutputs.values(), setup.arguments["x"], *setup.arguments["state"]]
    before = [a.tobytes() for a in given]
    setup.run("hc")
    assert [a.tobytes() for a in given] == before
