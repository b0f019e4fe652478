"""Calls of every kind leave nothing behind: no bytes, no objects, no references to what they were given, no resident memory.

The short version counts bytes (tracemalloc, which NumPy tells of its arrays) over a few calls, where one small object that stays
after each shows. The slow one makes 10,000 calls of each kind, where what no allocator of Python's knows shows as resident memory.
"""

from __future__ import annotations

import copy
import gc
import os
import pickle
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import bad_input
import fastrnn
from fastrnn import _core, train
from fastrnn._engine import blas

T, B, I, H = 5, 3, 4, 6
STATM = Path("/proc/self/statm")
CALLS, ROUNDS, MOST_PER_CALL = 40, 6, 8  # bytes: no object is as small
MANY, MOST_RESIDENT = 10_000, 1_500_000  # 150 bytes a call

rng = np.random.default_rng(0)
x, long = rng.standard_normal((T, B, I)).astype(np.float32), rng.standard_normal((150, B, I)).astype(np.float32)
lengths, flags = [5, 2, 3], rng.random((T, B)) < 0.5
STACK = {"num_layers": 2, "bidirectional": True, "dropout": 0.3}
layers = {
    "rnn": fastrnn.RNN(I, H, rng=0),
    "irnn": fastrnn.IRNN(I, H, rng=0),
    "gru": fastrnn.GRU(I, H, **STACK, rng=0),
    "gru-before": fastrnn.GRU(I, H, reset_after=False, rng=0),
    "lstm": fastrnn.LSTM(I, H, **STACK, rng=0),
    "lstm-peephole": fastrnn.LSTM(I, H, peephole=True, rng=0),
    "lstm-projected": fastrnn.LSTM(I, H, proj_size=2, rng=0),
}
lstm, stack = layers["lstm-peephole"], layers["lstm"]
large = fastrnn.LSTM(I, 40, rng=0)  # its memory waits for the next call
packed = fastrnn.pack(x, lengths)


def members(state):
    return state if isinstance(state, tuple) else (state,)


def both_ways(layer, x, **options):
    y, state, tape = layer.forward(x, **options)
    outputs = {name: a for name, a in tape.outputs.items() if name[0] != "g"}
    return tape.backward(y, state, outputs, truncate=2)


def by_function(name):
    layer = layers[name]
    kinds = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "weight_hr": "w_hr", "weight_ch": "peephole"}
    arrays = {ours: layer.params[f"{theirs}_l0"] for theirs, ours in kinds.items() if f"{theirs}_l0" in layer.params}

    def call():
        y, state, tape = getattr(fastrnn, layer._family)(x, **arrays, lengths=lengths, record=True)
        tape.backward(y, state)

    return call


def by_cell(cell):
    def call():
        state, tape = cell.forward(x[0])
        tape.backward(state)
        cell(x[1], state)

    return call


def by_stream(layer):
    stream, out = layer.stream(B), np.empty((B, layer._output_size), np.float32)

    def call():
        stream(x[0])
        stream(x, None)
        stream(x[0], out)
        stream.state = stream.state
        stream.reset([0])

    return call


def there_and_back(name, **options):
    layer = fastrnn.LSTM(I, H, rng=0)
    return lambda: fastrnn.LSTM.from_weights(layer.export_weights(name), name, **options)


def refused(table, *arguments):
    """All the errors of a table of bad input."""

    def call():
        for wrong in table.values():
            with pytest.raises(bad_input.ERRORS):
                wrong(*arguments)

    return call


def training():
    layer = fastrnn.GRU(I, H, rng=0)
    readout = train.Linear(H, 3, rng=0)
    optimizer = train.Adam([layer.flat, readout.flat])

    def call():
        y, _, tape = layer.forward(x)
        o, of_readout = readout.forward(y)
        _, do = train.squared_error(o, np.ones_like(o))
        grads = of_readout.backward(do)
        both = [tape.backward(grads.x).flat, grads.flat]
        train.clip_global_norm(both, 1.0)
        optimizer.step(both)

    return call


def with_setting(setter, value, before, call):
    def changed():
        setter(value)
        call()
        setter(before)

    return changed


KINDS = {
    **{f"inference, {name}": lambda layer=layer: layer(x) for name, layer in layers.items()},
    **{f"forward, {name}": lambda layer=layer: layer.forward(x) for name, layer in layers.items()},
    **{f"backward, {name}": lambda layer=layer: both_ways(layer, x) for name, layer in layers.items()},
    **{f"function, {name}": by_function(name) for name in layers if layers[name].num_layers == 1},
    **{f"stream, {name}": by_stream(layer) for name, layer in layers.items() if not layer.bidirectional},
    "a stream": lambda: lstm.stream(B),
    "cells, rnn": by_cell(fastrnn.RNNCell(I, H, rng=0)),
    "cells, gru": by_cell(fastrnn.GRUCell(I, H, rng=0)),
    "cells, lstm": by_cell(fastrnn.LSTMCell(I, H, rng=0)),
    "rows": lambda: both_ways(stack, x, lengths=lengths, reset=flags, mask=flags, masked="hold"),
    "packed": lambda: both_ways(stack, packed),
    "pack and unpack": lambda: fastrnn.unpack(fastrnn.pack(x, lengths)),
    "unbatched": lambda: both_ways(stack, x[:, 0]),
    "in no order": lambda: both_ways(stack, x[::-1, :, ::-1]),
    "checkpoints": lambda: both_ways(large, long, checkpoint=50),
    "large": lambda: both_ways(large, long),
    "layers": lambda: fastrnn.LSTM(I, H, **STACK, rng=0),
    "pickle": lambda: pickle.loads(pickle.dumps(stack)),
    "copies": lambda: (copy.deepcopy(stack), stack.astype(np.float64)),
    "state_dict": lambda: stack.load_state_dict(stack.state_dict()),
    "pytorch": there_and_back("pytorch"),
    "keras": there_and_back("keras"),
    "onnx": there_and_back("onnx"),
    "jax": there_and_back("jax", input_size=I, hidden_size=H),
    "training": training(),
    "bad calls": refused(bad_input.CALLS, stack, x, {"x": x}),
    "bad backwards": refused(bad_input.BACKWARDS, lstm.forward(x)[2], x),
    "bad streams": refused(bad_input.STREAMS, lstm.stream(B), np.ones((2, B, I), np.float32)),
    "threads": with_setting(fastrnn.set_num_threads, 2, fastrnn.get_num_threads(), lambda: both_ways(large, long)),
}
if blas.known():
    KINDS["blas"] = with_setting(fastrnn.set_gemm, "blas", "own", lambda: both_ways(large, long, checkpoint=50))
each_kind = pytest.mark.parametrize("kind", KINDS)


def references():
    """How often somebody refers to what calls are given."""
    given = [x, long, flags, lengths, *packed, *(layer.flat for layer in layers.values())]
    return [sys.getrefcount(a) for a in given]


def resident():
    return int(STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def repeat(call, n):
    for _ in range(n):
        call()
    _core.empty_free_list()
    forget = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache  # names too, of which NumPy makes new ones
    forget()
    gc.collect()


@pytest.fixture(autouse=True, scope="module")
def only_what_is_new():
    """The collector looks at nothing else, which is quicker by far."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@each_kind
def test_nothing_stays(kind):
    """In the best of some rounds: the caches of Python and NumPy fill up in the first ones."""
    call, grown = KINDS[kind], []
    tracemalloc.start()
    try:
        repeat(call, CALLS)
        while len(grown) < ROUNDS and not any(fits(*growth) for growth in grown):
            bytes_before, objects, before = tracemalloc.get_traced_memory()[0], len(gc.get_objects()), references()
            repeat(call, CALLS)
            assert references() == before
            grown.append((tracemalloc.get_traced_memory()[0] - bytes_before, len(gc.get_objects()) - objects))
    finally:
        tracemalloc.stop()
    assert any(fits(*growth) for growth in grown), grown


def fits(growth, objects):
    return growth < CALLS * MOST_PER_CALL and objects < CALLS // 2


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="the system does not tell how much memory is resident")
@each_kind
def test_ten_thousand_calls(kind):
    call = KINDS[kind]
    repeat(call, MANY // 10)
    memory, objects, before = resident(), len(gc.get_objects()), references()
    repeat(call, MANY)
    assert resident() - memory < MOST_RESIDENT
    assert len(gc.get_objects()) - objects < MANY // 100
    assert references() == before
