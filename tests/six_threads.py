"""Six threads train three layers that they share, each step compared bit for bit with that of one thread alone.

The suite runs it for a moment; as a program it goes on for as long as it is told: python tests/six_threads.py MINUTES [STEPS]
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import fastrnn
from fastrnn import _core
from fastrnn._engine import schedule

THREADS, STEPS = 6, 400
LAYERS = (
    lambda: fastrnn.LSTM(16, 48, rng=0),
    lambda: fastrnn.GRU(16, 40, 2, rng=1),
    lambda: fastrnn.LSTM(16, 32, bidirectional=True, rng=2),
)
SIZES = ((30, 8), (50, 3), (20, 16))  # (T, B)


def step(layer, x):
    y, _, tape = layer.forward(x)
    grads = tape.backward(np.ones_like(y))
    return y.tobytes() + grads.x.tobytes() + grads.flat.tobytes()


def wrong_steps(steps):
    """How many of the steps differ from those of one thread alone."""
    layers = [make() for make in LAYERS]
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((T, B, 16)).astype(np.float32) for T, B in SIZES]
    expected = [[step(layer, x) for x in inputs] for layer in layers]

    def work(first):
        pairs = [((k + first) % 3, (k // 3 + first) % 3) for k in range(steps)]
        return sum(step(layers[i], inputs[j]) != expected[i][j] for i, j in pairs)

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(work, range(THREADS)))


def main(minutes, steps=STEPS):
    schedule._WORK_PER_THREAD = 1  # so that these small calls, too, want the pool
    fastrnn.set_num_threads(2)
    _core.always_form_teams(True)
    end, runs, wrong = time.monotonic() + 60 * minutes, 0, 0
    while not runs or time.monotonic() < end:
        wrong += wrong_steps(steps)
        runs += 1
    lock = "with" if getattr(sys, "_is_gil_enabled", lambda: True)() else "without"
    print(f"{runs} runs of {THREADS} x {steps} steps {lock} the GIL: {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), *map(int, sys.argv[2:])))
