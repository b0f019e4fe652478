"""Whole sessions, drawn by hypothesis: a layer and what a user may do with it, in any order, against fastrnn.reference in float64,
and bit for bit against the other ways to the same result.

FASTRNN_EXAMPLES=20000 pytest tests/test_sessions.py draws so many sessions, other ones each time (--hypothesis-seed=1: these).
"""

from __future__ import annotations

import copy
import os
import pickle
import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bad_input
import fastrnn
from fastrnn import config
from fastrnn._engine import schedule
from fastrnn.formats import FORMATS
from layer_reference import LayerReference

pytest.importorskip("hypothesis", reason="hypothesis is not installed")
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

EXAMPLES = int(os.environ.get("FASTRNN_EXAMPLES", "0"))
LIES_AS_X = True  # is the mask of a batch-first layer (B, T), and beside a packed x also what is padded?
TOLERANCE = {np.dtype(np.float32): 2e-4, np.dtype(np.float64): 1e-9}

# --- layers ---------------------------------------------------------------------------------------------------------------

CELLS: dict[str, Any] = {
    "tanh": (fastrnn.RNN, {}),
    "relu": (fastrnn.RNN, {"nonlinearity": "relu"}),
    "irnn": (fastrnn.IRNN, {"input_std": 0.5, "recurrent_scale": 0.9}),
    "lstm": (fastrnn.LSTM, {}),
    "lstm-peephole": (fastrnn.LSTM, {"peephole": True}),
    "gru-after": (fastrnn.GRU, {}),
    "gru-before": (fastrnn.GRU, {"reset_after": False}),
}
seeds = st.integers(0, 2**32 - 1)
flags = st.booleans()
one_of = st.sampled_from


@st.composite
def layers(draw):
    kind, options = CELLS[draw(one_of(list(CELLS)))]
    I, H, L = draw(one_of([1, 2, 3, 5, 9, 17])), draw(one_of([1, 2, 3, 5, 8, 9, 17, 33])), draw(one_of([1, 1, 2, 3]))
    names = ("bias", "batch_first", "bidirectional")
    options = options | {name: draw(flags) for name in names} | {"dtype": draw(one_of([np.float32, np.float64]))}
    if L > 1:
        options["dropout"] = draw(one_of([0.0, 0.0, 0.3, 1.0]))
    if kind is fastrnn.LSTM and H > 1 and draw(flags):
        options["proj_size"] = draw(st.integers(1, H - 1))
    return kind(I, H, L, **options, rng=draw(seeds))


# --- calls ----------------------------------------------------------------------------------------------------------------

FORMS = {
    "C": lambda a: a.copy(),
    "Fortran": np.asfortranarray,
    "every other": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every other number": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "downwards": lambda a: a[::-1].copy()[::-1],
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "unaligned": lambda a: np.frombuffer(b"?" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
}


@dataclass(frozen=True)
class Call:
    """x (T, B, I); state: members (L*D, B, .), or None; rows: lengths (B,), reset and mask (T, B), masked; how they are given."""

    x: Any
    state: Any
    rows: dict[str, Any]
    form: str = "C"
    unbatched: bool = False
    packed: bool = False

    def outward(self, layer: Any, a: Any) -> Any:
        """(T, B, .) as the caller of this layer has it; a packed sequence is one of arrays."""
        if self.packed:
            return fastrnn.pack(a, self.rows["lengths"])
        return a[:, 0] if self.unbatched else a.swapaxes(0, 1) if layer.batch_first else a

    def inward(self, layer: Any, a: Any) -> Any:
        """And back."""
        if self.packed:
            return fastrnn.unpack(a, total_length=len(self.x))[0]
        return a[:, None] if self.unbatched else a.swapaxes(0, 1) if layer.batch_first else a

    def padded(self, layer: Any, a: Any) -> Any:
        """Between (T, B, ...) and what is given or shown beside x: as x lies, and padded where x is packed."""
        if self.unbatched:
            return a[:, 0]
        turned = layer.batch_first and (LIES_AS_X or not self.packed)
        return a.swapaxes(0, 1) if turned else a

    def state_outward(self, members: Any) -> Any:
        if members is None:
            return None
        members = tuple(None if m is None else FORMS[self.form](m[:, 0] if self.unbatched else m) for m in members)
        return members if len(members) > 1 else members[0]

    def state_inward(self, state: Any) -> Any:
        return tuple(m[:, None] if self.unbatched else m for m in members_of(state))

    def arguments(self, layer: Any) -> dict[str, Any]:
        """Those of a call of the layer."""
        x = self.outward(layer, self.x)
        given = {"x": x if self.packed else FORMS[self.form](x), "state": self.state_outward(self.state), **self.rows}
        for name in {"reset", "mask"} & set(given):
            given[name] = self.padded(layer, given[name]) if LIES_AS_X or self.unbatched else given[name]
        if self.packed:
            del given["lengths"]
        return given

    def part(self, time: slice, rows: slice, state: Any = None) -> Call:
        """These steps and rows; state: of them, if not the same."""
        T = len(self.x)
        start, stop, _ = time.indices(T)
        kept = {n: v[time, rows] if n in ("reset", "mask") else v for n, v in self.rows.items()}
        if "lengths" in kept:
            kept["lengths"] = np.clip(kept["lengths"][rows], start, max(start, stop)) - start
        state = tuple(m[:, rows] for m in self.state) if state is None and self.state is not None else state
        return replace(self, x=self.x[time, rows], state=state, rows=kept, packed=False)


def members_of(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


@dataclass(frozen=True)
class Drawn:
    """What is drawn of a call before the layer is known; the numbers follow from the seed."""

    T: int
    B: int
    seed: int
    form: str
    lengths: bool
    reset: bool
    mask: bool
    hold: bool
    state: bool
    how: str

    def of(self, layer: Any) -> Call:
        rng = np.random.default_rng(self.seed)
        T, B = self.T, 1 if self.how == "unbatched" else self.B
        packed = self.how == "packed" and T > 0 and B > 0
        rows: dict[str, Any] = {}
        if self.lengths or packed:
            rows["lengths"] = rng.integers(1 if packed else 0, T + 1, B)
            T = int(rows["lengths"].max()) if packed else T
        if self.reset:
            rows["reset"] = rng.random((T, B)) < 0.3
        if self.mask:
            rows |= {"mask": rng.random((T, B)) < 0.6, "masked": "hold" if self.hold else "zero"}
        cells = layer.num_layers * (1 + layer.bidirectional)
        widths = [getattr(layer, "proj_size", 0) or layer.hidden_size] + [layer.hidden_size] * (layer._family == "lstm")
        state = tuple(rng.standard_normal((cells, B, n)).astype(layer.dtype) for n in widths) if self.state else None
        x = rng.standard_normal((T, B, layer.input_size)).astype(layer.dtype)
        return Call(x, state, rows, self.form, self.how == "unbatched", packed)


calls = st.builds(
    Drawn,
    T=one_of([1, 2, 3, 3, 5, 5, 8, 8, 0, 40]),
    B=one_of([1, 1, 2, 2, 3, 5, 9, 0]),
    seed=seeds,
    form=one_of(list(FORMS)),
    lengths=flags,
    reset=flags,
    mask=flags,
    hold=flags,
    state=flags,
    how=one_of(["batch", "batch", "unbatched", "packed"]),
)

# --- comparing ------------------------------------------------------------------------------------------------------------


def assert_close(name: str, got: Any, expected: Any) -> None:
    assert got.shape == expected.shape, name
    most = np.abs(expected).max(initial=0)
    assert np.isfinite(got).all() and np.abs(got - expected).max(initial=0) <= TOLERANCE[got.dtype] * (1 + most), name


def assert_same_bits(name: str, got: Any, expected: Any) -> None:
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype), name
    assert got.tobytes() == expected.tobytes(), f"{name}: {(got != expected).sum()} of {got.size} differ"


def same_result(name: str, got: Any, expected: Any) -> None:
    """(y, members of the state); bit for bit, but from a BLAS, whose sums depend on how many rows it is given at once."""
    compare = assert_same_bits if config.gemm() == "own" else assert_close
    for one, other in zip((got[0], *got[1]), (expected[0], *expected[1])):
        compare(name, one, other)


# --- sessions -------------------------------------------------------------------------------------------------------------------


class Sessions(RuleBasedStateMachine):
    @initialize(layer=layers())
    def start(self, layer):
        self.layer, self.tapes, self.streams = layer, [], []
        fastrnn.set_num_threads(1)
        fastrnn.set_gemm("own")
        config.use_isa(fastrnn.available_isas()[-1])

    # --- forward and backward

    def run(self, call: Call, **more: Any) -> tuple[Any, Any]:
        """Inference: y (T, B, .) and the members of the state (L*D, B, .)."""
        y, state = self.layer(**call.arguments(self.layer), **more)
        return call.inward(self.layer, y), call.state_inward(state)

    def dropouts(self, call: Call, generator: Any) -> list[Any]:
        """What forward will multiply by, from a copy of the layer's generator."""
        layer, p = self.layer, self.layer.dropout
        if not p or layer.num_layers == 1:
            return []
        width = (1 + layer.bidirectional) * (getattr(layer, "proj_size", 0) or layer.hidden_size)
        shape, scale = (*call.x.shape[:2], width), 1 / (1 - p) if p < 1 else 0
        return [(generator.random(shape, np.float32) >= p) * scale for _ in range(layer.num_layers - 1)]

    @rule(drawn=calls, checkpoint=one_of([None, None, 1, 3, 10**9]))
    def forward(self, drawn, checkpoint):
        layer, call = self.layer, drawn.of(self.layer)
        generator = copy.deepcopy(layer.rng)
        expected = LayerReference(layer, call.x, call.state, call.rows, self.dropouts(call, generator))
        given = call.arguments(layer)
        y, state, tape = layer.forward(**given, checkpoint=checkpoint)
        assert generator.bit_generator.state == layer.rng.bit_generator.state
        got = call.inward(layer, y), call.state_inward(state)
        assert_close("y", got[0], expected.y)
        for one, other in zip(got[1], expected.state):
            assert_close("state", one, other)
        if not layer.dropout:
            same_result("inference", self.run(call), got)
        self.tapes.append(SimpleNamespace(tape=tape, call=call, layer=layer, expected=expected, given=given, y=y, used=False))

    @precondition(lambda self: self.tapes)
    @rule(
        k=seeds,
        seed=seeds,
        bad=one_of([None, None, None, *bad_input.BACKWARDS]),
        truncate=one_of([None, None, 1, 2, 3, 50]),
        through=st.sets(one_of("yhcs"), min_size=1),
    )
    def backward(self, k, seed, bad, truncate, through):
        """Any tape, whatever happened in between; or an error, behind which it can still be used."""
        kept = self.tapes[k % len(self.tapes)]
        if bad is None:
            self.use(kept, np.random.default_rng(seed), truncate, through)
        else:
            before, y = self.everything(), kept.y.data if kept.call.packed else kept.y
            with pytest.raises(bad_input.ERRORS):
                bad_input.BACKWARDS[bad](kept.tape, y)
            assert self.everything() == before

    def use(self, kept: Any, rng: Any, truncate: Any = None, through: Any = "yhcs") -> None:
        """Once, or see the error."""
        call, layer = kept.call, kept.layer
        if kept.used:
            with pytest.raises(RuntimeError, match="used"):
                kept.tape.backward(kept.y)
            return
        for name, a in kept.tape.outputs.items():
            if not name.startswith("gates"):
                assert_close(name, a, call.padded(layer, kept.expected.outputs[name]))
        dy, dstate, doutputs = self.draw_gradients(kept, rng, through)
        given = {
            "dy": None if dy is None else call.outward(layer, dy),
            "dstate": call.state_outward(dstate),
            "doutputs": {n: call.padded(layer, a) for n, a in doutputs.items()},
            "truncate": truncate,
        }
        grads, kept.used = kept.tape.backward(**given), True
        assert np.concatenate([g.ravel() for g in grads.params.values()]).tobytes() == grads.flat.tobytes()
        if getattr(layer, "nonlinearity", "") == "relu" and layer.dtype == np.float32:
            return  # a sum next to 0 may be on the other side of it in float64, with another derivative
        expected = kept.expected.backward(dy, dstate, doutputs, truncate)
        ends = dict(zip(("dh", "dc"), call.state_inward(grads.state)))
        got = {"dx": call.inward(layer, grads.x), **ends, **grads.params}
        assert got.keys() == expected.keys()
        for name, g in got.items():
            assert_close(name, g, expected[name])

    def draw_gradients(self, kept: Any, rng: Any, through: Any) -> tuple[Any, ...]:
        """Of y, the members of the state and the outputs: through h, c, y and some of the sequences inside, s."""

        def normal(a: Any) -> Any:
            return rng.standard_normal(a.shape).astype(kept.layer.dtype)

        expected = kept.expected
        doutputs = {n: normal(a) for n, a in expected.outputs.items() if rng.random() < 0.6} if "s" in through else {}
        dstate = tuple(normal(m) if name in through else None for name, m in zip("hc", expected.state))
        nothing = not doutputs and all(d is None for d in dstate)
        return normal(expected.y) if "y" in through or nothing else None, dstate, doutputs

    # --- other ways to the same bits

    @rule(drawn=calls, way=one_of(["rows", "pieces", "threads", "function", "cell", "form", "batch_first"]), seed=seeds)
    def equal_ways(self, drawn, way, seed):
        rng, call, engine = np.random.default_rng(seed), drawn.of(self.layer), config.gemm()
        fastrnn.set_gemm("own")
        try:
            getattr(self, f"by_{way}")(call, self.run(call), rng)
        finally:
            fastrnn.set_gemm(engine)

    def by_rows(self, call, whole, rng):
        for b in range(call.x.shape[1]):
            alone = self.run(call.part(slice(None), slice(b, b + 1)))
            same_result("a row alone", alone, (whole[0][:, b : b + 1], [m[:, b : b + 1] for m in whole[1]]))

    def by_pieces(self, call, whole, rng):
        if self.layer.bidirectional:
            return
        k, every = int(rng.integers(len(call.x) + 1)), slice(None)
        y, state = self.run(call.part(slice(0, k), every))
        more, state = self.run(call.part(slice(k, None), every, state))
        same_result("pieces of time", (np.concatenate([y, more]), state), whole)

    def by_threads(self, call, whole, rng):
        before = fastrnn.get_num_threads()
        fastrnn.set_num_threads(int(rng.integers(1, 5)))
        same_result("threads", self.run(call), whole)
        fastrnn.set_num_threads(before)

    def by_function(self, call, whole, rng):
        layer = self.layer
        if layer.num_layers > 1:
            return
        function, found = getattr(fastrnn, layer._family), []
        options = {name: getattr(layer, name) for name in ("nonlinearity", "reset_after") if hasattr(layer, name)}
        names = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh", "w_hr": "weight_hr"}
        for k, way in enumerate(("_l0", "_l0_reverse")[: 1 + layer.bidirectional]):
            arrays = {n: layer.params.get(long + way) for n, long in {**names, "peephole": "weight_ch"}.items()}
            arrays = {n: a for n, a in arrays.items() if a is not None}
            if call.state is not None:
                arrays |= {n: m[k] for n, m in zip(("h0", "c0"), call.state)}
            y, state, _ = function(call.x, **arrays, **options, **call.rows, reverse=bool(k))
            found.append((y, members_of(state)))
        y = np.concatenate([y for y, _ in found], axis=2)
        same_result("the function", (y, [np.stack(m) for m in zip(*(state for _, state in found))]), whole)

    def by_cell(self, call, whole, rng):
        layer = self.layer
        if layer.num_layers > 1 or layer.bidirectional or getattr(layer, "proj_size", 0) or set(call.rows) - {"masked"}:
            return
        options = {n: getattr(layer, n) for n in ("nonlinearity", "reset_after", "peephole") if hasattr(layer, n)}
        kind = {"rnn": fastrnn.RNNCell, "gru": fastrnn.GRUCell, "lstm": fastrnn.LSTMCell}[layer._family]
        cell = kind(layer.input_size, layer.hidden_size, layer.bias, **options, dtype=layer.dtype)
        cell.load_state_dict({name.removesuffix("_l0"): a for name, a in layer.params.items()})
        state, y = None if call.state is None else tuple(m[0] for m in call.state), np.zeros_like(whole[0])
        for t, x in enumerate(call.x):
            state = members_of(cell(x, state if state is None or len(state) > 1 else state[0]))
            y[t] = state[0]
        same_result("a cell", (y, [] if state is None else [m[None] for m in state]), (whole[0], [] if state is None else whole[1]))

    def by_form(self, call, whole, rng):
        form = list(FORMS)[rng.integers(len(FORMS))]
        same_result(f"given as {form}", self.run(replace(call, form=form, packed=False)), whole)

    def by_batch_first(self, call, whole, rng):
        other = copy.copy(self.layer)
        other.batch_first = not other.batch_first
        y, state = other(**call.arguments(other))
        same_result("batch_first", (call.inward(other, y), call.state_inward(state)), whole)

    @rule(drawn=calls, threads=one_of([1, 2, 3]), checkpoint=one_of([None, 1, 100]), truncate=one_of([None, 2]))
    def gradients_again(self, drawn, threads, checkpoint, truncate):
        """The same dropout, drawn again; the gradients do not depend on threads and checkpoints."""
        layer, call, results = self.layer, drawn.of(self.layer), []
        before, engine, state = fastrnn.get_num_threads(), config.gemm(), layer.rng.bit_generator.state
        fastrnn.set_gemm("own")
        for n, k in ((before, None), (threads, checkpoint)):
            fastrnn.set_num_threads(n)
            layer.rng.bit_generator.state = state
            y, _, tape = layer.forward(**call.arguments(layer), checkpoint=k)
            grads = tape.backward(call.outward(layer, np.ascontiguousarray(call.inward(layer, y))), truncate=truncate)
            results.append((call.inward(layer, grads.x), (grads.flat, *call.state_inward(grads.state))))
        same_result("gradients", results[1], results[0])
        fastrnn.set_num_threads(before)
        fastrnn.set_gemm(engine)

    # --- weights

    @rule(seed=seeds, way=one_of(["flat", "params", "state_dict", "no change"]))
    def change_weights(self, seed, way):
        layer, rng = self.layer, np.random.default_rng(seed)
        new = {n: (a * rng.uniform(0.5, 1)).astype(a.dtype) for n, a in layer.params.items()}
        if way == "flat":
            layer.flat = np.concatenate([a.ravel() for a in new.values()])
        elif way == "params":
            for name, a in new.items():
                layer.params[name] = a
        else:
            new = new if way == "state_dict" else layer.state_dict()
            layer.load_state_dict(dict(reversed(new.items())))
        assert all(a.tobytes() == new[name].tobytes() for name, a in layer.params.items())
        if way != "no change":
            self.tapes = [kept for kept in self.tapes if kept.layer is not layer]  # they want the weights as they were

    @rule(way=one_of(["pickle", "deepcopy", "astype"]), drawn=calls)
    def copy_layer(self, way, drawn):
        call = drawn.of(self.layer)
        before, old = self.run(call), self.layer
        if way == "pickle":
            self.layer = pickle.loads(pickle.dumps(old))
        elif way == "deepcopy":
            self.layer = copy.deepcopy(old)
        else:
            self.layer = old.astype(np.float64).astype(old.dtype)
        same_result(way, self.run(call), before)
        assert self.layer.rng.bit_generator.state == old.rng.bit_generator.state and repr(self.layer) == repr(old)
        assert not np.shares_memory(self.layer.flat, old.flat)

    @rule(name=one_of(list(FORMATS)), drawn=calls)
    def formats(self, name, drawn):
        layer, call = self.layer, drawn.of(self.layer)
        before = layer.flat.copy()
        try:
            weights = layer.export_weights(name)
        except ValueError:
            return  # it has no place for this layer; nothing may have changed: see below
        finally:
            assert layer.flat.tobytes() == before.tobytes()
        other = copy.deepcopy(layer)
        other.flat[...] = 0
        other.load_weights(weights, name)
        self.layer = other
        got, self.layer = self.run(call), layer
        for one, a in zip((got[0], *got[1]), (lambda y, state: (y, *state))(*self.run(call))):
            assert_close(name, one, a.astype(np.float64))
        assert other.export_weights(name) is not None
        again = copy.deepcopy(other)
        again.load_weights(other.export_weights(name), name)
        if name not in ("dynet",):  # f of its LSTM is stored less 1
            assert_same_bits(name, again.flat, other.flat)

    # --- streams

    def some_stream(self, k: int) -> Any:
        """One of up to three, which is new if it has to be."""
        if k % 4 >= len(self.streams) and len(self.streams) < 3:
            B, snapshot = (1, 1, 2, 3, 9)[k % 5], copy.deepcopy(self.layer)
            snapshot.batch_first = False
            new = SimpleNamespace(stream=self.layer.stream(B), layer=snapshot, isa=config._core.isa_in_use(), B=B)
            assert not any(m.any() for m in members_of(new.stream.state))
            self.streams.append(new)
        return self.streams[k % len(self.streams)]

    @precondition(lambda self: not self.layer.bidirectional)
    @rule(
        k=seeds,
        n=one_of([0, 1, 1, 2, 5, 70]),
        out=flags,
        form=one_of(list(FORMS)),
        bad=one_of([None, None, *bad_input.STREAMS]),
        seed=seeds,
    )
    def stream(self, k, n, out, form, bad, seed):
        """A block, or one step, bit for bit as the layer of then has it."""
        s = self.some_stream(k)
        if bad is not None:
            settings = self.everything()
            with pytest.raises(bad_input.ERRORS):
                bad_input.STREAMS[bad](s.stream, np.ones((2, s.B, s.layer.input_size), s.layer.dtype))
            assert self.everything() == settings
        x = np.random.default_rng(seed).standard_normal((n, s.B, s.layer.input_size)).astype(s.layer.dtype)
        isa, engine, before = config._core.isa_in_use(), config.gemm(), s.stream.state
        config.use_isa(s.isa)
        fastrnn.set_gemm("own")
        y, state = s.layer(x, before)
        config.use_isa(isa)
        fastrnn.set_gemm(engine)
        one = n == 1 and seed % 2
        given, expected = (x[0], y[0]) if one else (x, y)
        if one and s.B == 1 and seed % 4 == 1:
            given, expected = given[0], expected[0]
        target = np.full_like(expected, np.nan) if out else None
        got = s.stream(FORMS[form](given), target)
        assert target is None or got is target
        assert_same_bits("stream", got, expected)
        for new, other in zip(members_of(s.stream.state), members_of(state)):
            assert_same_bits("state of the stream", new, other)

    @precondition(lambda self: not self.layer.bidirectional)
    @rule(k=seeds, seed=seeds, way=one_of(["set", "none", "all", "row", "rows", "booleans", "slice"]))
    def stream_state(self, k, seed, way):
        s, rng = self.some_stream(k), np.random.default_rng(seed)
        expected = [m.copy() for m in members_of(s.stream.state)]
        rows = {"row": s.B - 1, "rows": [0, -1], "booleans": rng.random(s.B) < 0.5, "slice": slice(0, s.B, 2), "all": None}
        if way == "set":
            expected = [rng.standard_normal(m.shape).astype(m.dtype) for m in expected]
            s.stream.state = tuple(expected) if len(expected) > 1 else expected[0]
        elif way == "none":
            expected, s.stream.state = [np.zeros_like(m) for m in expected], None
        else:
            for m in expected:
                m[:, slice(None) if way == "all" else rows[way]] = 0
            s.stream.reset(rows[way])
        for new, other in zip(members_of(s.stream.state), expected):
            assert_same_bits("state of the stream", new, other)

    # --- bad input

    def everything(self) -> list[Any]:
        """All that an error must leave as it was."""
        streams = [m.tobytes() for s in self.streams for m in members_of(s.stream.state)]
        settings = (fastrnn.get_num_threads(), config.gemm(), config._core.isa_in_use())
        return [self.layer.flat.tobytes(), str(self.layer.rng.bit_generator.state), streams, settings]

    @rule(bad=one_of(list(bad_input.CALLS)), drawn=calls)
    def bad_call(self, bad, drawn):
        call = drawn.of(self.layer)
        given, before = replace(call, unbatched=False, packed=False).arguments(self.layer), self.everything()
        with pytest.raises(bad_input.ERRORS):
            bad_input.CALLS[bad](self.layer, call.x, given)
        assert self.everything() == before

    # --- settings

    @rule(threads=one_of([1, 2, 3]), isa=one_of(fastrnn.available_isas()), engine=one_of(["own", "own", "blas"]))
    def configure(self, threads, isa, engine):
        fastrnn.set_num_threads(threads)
        config.use_isa(isa)
        if engine == "own" or config.blas.known():
            fastrnn.set_gemm(engine)

    def teardown(self):
        """What was kept is still good for its one use, the last first."""
        if sys.exc_info()[0] is None:
            for k, kept in reversed(list(enumerate(self.tapes))):
                self.use(kept, np.random.default_rng(k))


@pytest.fixture
def small_schedules(small_work_is_shared_out, use, monkeypatch):
    """Threads, chunks and row blocks for calls as small as these, and all settings as they were behind it."""
    for name in ("_STEP_FOR_UNITS", "_ROWS_OF_A_BLOCK"):
        monkeypatch.setattr(schedule, name, 1)
    for name in ("_FORWARD_ITEMS", "_BACKWARD_ITEMS", "_UNIT_ITEMS"):
        monkeypatch.setattr(schedule, name, 8)
    threads = fastrnn.get_num_threads()
    yield
    fastrnn.set_num_threads(threads)


def test_sessions(small_schedules):
    how = {"max_examples": EXAMPLES} if EXAMPLES else {"max_examples": 300, "derandomize": True}
    checks = settings(**how, deadline=None, stateful_step_count=20, database=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Sessions, settings=checks)
