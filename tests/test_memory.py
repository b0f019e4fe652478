"""What a call keeps per step and row, and that nothing else grows with time. Work memory and tapes are counted by tracemalloc."""

import tracemalloc

import numpy as np
import pytest

import fastrnn
from fastrnn import _core

B, I, H = 4, 8, 16
SHORT, LONG = 5000, 15000  # both longer than any chunk, and past where work memory changes to large pages

LAYERS = {
    "rnn": (fastrnn.RNN, {}, 1),
    "irnn": (fastrnn.IRNN, {}, 1),
    "gru": (fastrnn.GRU, {}, 5),
    "gru-before": (fastrnn.GRU, {"reset_after": False}, 5),
    "lstm": (fastrnn.LSTM, {}, 6),
    "lstm-peephole": (fastrnn.LSTM, {"peephole": True}, 6),
}


def bytes_of(work):
    """What `work` returns, the bytes that were allocated at most while it ran, and those that stay."""
    _core.empty_free_list()
    tracemalloc.start()
    try:
        result = work()
        _core.empty_free_list()
        stay, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return result, most, stay


def per_step_and_row(measure):
    """Numbers of float32 by which `measure` grows per step and row."""
    return (measure(LONG) - measure(SHORT)) / (4 * B * (LONG - SHORT))


@pytest.fixture(params=LAYERS)
def layer(request):
    make, options, _ = LAYERS[request.param]
    return make(I, H, rng=0, **options)


def x_of(T):
    return np.ones((T, B, I), np.float32)


@pytest.mark.parametrize("name", LAYERS)
def test_what_a_tape_keeps(name):
    make, options, most = LAYERS[name]
    layer = make(I, H, rng=0, **options)

    def stays(T):
        x = x_of(T)
        return bytes_of(lambda: layer.forward(x))[2]

    y = H
    assert per_step_and_row(stays) - y <= most * H


def test_inference_makes_y_alone(layer):
    def most(T):
        x = x_of(T)
        return bytes_of(lambda: layer(x))[1]

    assert per_step_and_row(most) <= H + 1


def test_backward_makes_dx_alone(layer):
    def most(T):
        y, _, tape = layer.forward(x_of(T))
        return bytes_of(lambda: tape.backward(y))[1]

    assert per_step_and_row(most) <= I + 1
