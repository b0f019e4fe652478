"""Seconds of an epoch of MNIST pixel by pixel, as examples/pixels.py trains: 784 steps, an IRNN of 100 units, batches of 16.

    python bench/epoch.py [threads]         (with the extra "peers")

Forward, loss, all gradients, clipping and Adam, in float32: the example's own Classifier; PyTorch's nn.RNN and optimiser; JAX's
scan, all in one jit, with optax. All start from the same weights and are compared after three steps; then they take turns, and the
median step counts, times the 3,750 of an epoch. What the pixels are does not matter to the time: they are drawn.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker import pin, settle

T, B, H, CLASSES, STEPS_OF_EPOCH = 784, 16, 100, 10, 60000 // 16
LR, SLOWER, ROUNDS = 1e-3, 20, 15


def in_fastrnn(x: Any, y: Any, start: dict[str, Any]) -> Callable[[], float]:
    import fastrnn
    from classifier import Classifier

    args = argparse.Namespace(lr=LR, slower=SLOWER, decay=0.9995)
    model = Classifier(fastrnn.IRNN(1, H, rng=0), args, steps=10**9)
    for name, array in model.layer.params.items():
        array[...] = start[name]
    model.readout.params["weight"][...], model.readout.params["bias"][...] = start["weight"], start["bias"]
    return lambda: model.step(x, y)


def in_pytorch(x: Any, y: Any, start: dict[str, Any]) -> Callable[[], float]:
    import torch

    layer, readout = torch.nn.RNN(1, H, nonlinearity="relu"), torch.nn.Linear(H, CLASSES)
    for module in (layer, readout):
        module.load_state_dict({name: torch.tensor(start[name]) for name, _ in module.named_parameters()})
    both = [*layer.parameters(), *readout.parameters()]
    adam = torch.optim.Adam([{"params": layer.parameters(), "lr": LR / SLOWER}, {"params": readout.parameters(), "lr": LR}])
    x, y = torch.tensor(x), torch.tensor(y)

    def step() -> float:
        adam.zero_grad()
        loss = torch.nn.functional.cross_entropy(readout(layer(x)[1][0]), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both, 1.0)
        adam.step()
        return loss.item()

    return step


def in_jax(x: Any, y: Any, start: dict[str, Any]) -> Callable[[], float]:
    import jax
    import optax
    from peers import jax_layer

    labels = {name: "slow" if name.endswith("_l0") else "fast" for name in start}
    adams = optax.multi_transform({"fast": optax.adam(LR), "slow": optax.adam(LR / SLOWER)}, labels)
    rule = optax.chain(optax.clip_by_global_norm(1.0), adams)

    def loss_of(p: dict[str, Any], x: Any, y: Any) -> Any:
        weights = [p[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        h = jax_layer("relu", x, *weights)[-1]
        return optax.softmax_cross_entropy_with_integer_labels(h @ p["weight"].T + p["bias"], y).mean()

    @jax.jit
    def update(p: Any, state: Any, x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(p, x, y)
        updates, state = rule.update(grads, state, p)
        return optax.apply_updates(p, updates), state, loss

    p = jax.device_put(start)
    now = [p, rule.init(p)]
    x, y = jax.device_put(x), jax.device_put(y)

    def step() -> float:
        now[0], now[1], loss = update(*now, x, y)
        return float(loss)

    return step


def weights() -> dict[str, Any]:
    """An IRNN's and a readout's first ones, as the example has them; biases are 0."""
    import numpy as np

    rng = np.random.default_rng(0)
    start = {"weight_ih_l0": abs(rng.normal(0, 0.3, (H, 1))), "weight_hh_l0": np.eye(H), "bias_ih_l0": np.zeros(H)}
    start |= {"bias_hh_l0": np.zeros(H), "weight": rng.uniform(-0.1, 0.1, (CLASSES, H)), "bias": np.zeros(CLASSES)}
    return {name: array.astype(np.float32) for name, array in start.items()}


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    pin(threads)
    import numpy as np
    import torch

    import fastrnn

    fastrnn.set_num_threads(threads)
    torch.set_num_threads(threads)
    rng = np.random.default_rng(1)
    x, y = rng.random((T, B, 1), np.float32) * (rng.random((T, B, 1)) < 0.2), rng.integers(0, CLASSES, B)
    steps = {"fastrnn": in_fastrnn(x, y, weights()), "PyTorch": in_pytorch(x, y, weights()), "JAX": in_jax(x, y, weights())}
    losses = {name: [step() for _ in range(3)] for name, step in steps.items()}
    if not all(np.allclose(one, losses["fastrnn"], rtol=1e-3) for one in losses.values()):
        raise SystemExit(f"the losses of the first steps differ: {losses}")
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            settle()
            step()
            for _ in range(3):
                start = time.perf_counter()
                step()
                times[name].append(time.perf_counter() - start)
    epochs = {name: STEPS_OF_EPOCH * statistics.median(each) for name, each in times.items()}
    print(f"seconds of an epoch, {threads} threads, float32 (the first losses: {losses['fastrnn']})")
    for name, seconds in epochs.items():
        print(f"{name:<8} {seconds:8.1f}   x {seconds / epochs['fastrnn']:.1f}")


if __name__ == "__main__":
    sys.path += [str(Path(__file__).parent.parent / folder) for folder in ("examples", "tests")]
    main()
