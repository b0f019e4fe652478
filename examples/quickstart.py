"""A GRU learns to remember the first of 20 numbers: a layer, a readout, a loss, Adam, a loop. Takes a second or two."""

import numpy as np

import fastrnn
from fastrnn.train import Adam, Linear, squared_error

T, B, H = 20, 64, 32  # steps, rows of a batch, hidden units
rng = np.random.default_rng(0)
layer, readout = fastrnn.GRU(1, H, rng=rng), Linear(H, 1, rng=rng)
adam = Adam([layer.flat, readout.flat], lr=1e-2)  # `flat`: all parameters of a part as one vector

for step in range(1, 501):
    x = rng.random((T, B, 1), dtype=np.float32)
    target = x[0]  # (B, 1)

    _, h, tape = layer.forward(x)  # h (1, B, H): the state after the last step
    o, readout_tape = readout.forward(h[-1])
    loss, do = squared_error(o, target)

    readout_grads = readout_tape.backward(do)
    grads = tape.backward(dstate=readout_grads.x[None])
    adam.clipped_step([grads.flat, readout_grads.flat], max_norm=1.0)
    if step % 100 == 0:
        print(f"step {step}: root mean square error {loss**0.5:.4f}")  # 0.29 is that of always answering the mean
