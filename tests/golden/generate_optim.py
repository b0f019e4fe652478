"""Write optim.npz: where PyTorch's optimisers go in 100 steps, for tests/test_train_optim.py to compare with.

PyTorch is needed here alone, as for generate.py, which says how to install it; the tests read the file. From the project's root:

    /path/to/scratch/bin/python tests/golden/generate_optim.py

The file has
    start       (7,), the first parameters;
    gradients   (100, 7), one line for each step; the gradient is that line plus half the parameters, so that where a step leads
                depends on where the ones before it led;
    and for each case of CASES (4, 7) parameters: behind the steps 1, 2, 10 and 100, in float64; and case-32 in float32.
"""

from pathlib import Path

import numpy as np
import torch

CASES = {  # torch's class and its arguments
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd-momentum": ("SGD", {"lr": 0.05, "momentum": 0.9}),
    "sgd-nesterov-decay": ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}),
    "rmsprop": ("RMSprop", {"lr": 0.01}),
    "rmsprop-all": (
        "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-4, "momentum": 0.9, "centered": True, "weight_decay": 0.1},
    ),
    "rmsprop-centered": ("RMSprop", {"lr": 0.01, "alpha": 0.95, "centered": True}),
    "adagrad": ("Adagrad", {"lr": 0.1}),
    "adagrad-all": ("Adagrad", {"lr": 0.2, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 0.01}),
    "adam": ("Adam", {"lr": 0.01}),
    "adam-decay": ("Adam", {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    "adamw": ("AdamW", {"lr": 0.01}),
    "adamw-decay": ("AdamW", {"lr": 0.02, "betas": (0.7, 0.9), "eps": 1e-6, "weight_decay": 0.3}),
}
SHOWN = (1, 2, 10, 100)


def run(kind, options, start, gradients, dtype):
    p = torch.tensor(start, dtype=dtype, requires_grad=True)
    optimizer = getattr(torch.optim, kind)([p], **options)
    path = []
    for t, line in enumerate(gradients, start=1):
        p.grad = torch.tensor(line, dtype=dtype) + 0.5 * p.detach()
        optimizer.step()
        if t in SHOWN:
            path.append(p.detach().numpy().copy())
    return np.stack(path)


def main():
    rng = np.random.default_rng(0)
    start, gradients = (rng.integers(-127, 128, shape) / 64 for shape in [(7,), (100, 7)])
    gradients[:, 6] *= 1e-4  # where eps matters
    arrays = {"start": start, "gradients": gradients}
    for name, (kind, options) in CASES.items():
        arrays[name] = run(kind, options, start, gradients, torch.float64)
        arrays[f"{name}-32"] = run(kind, options, start, gradients, torch.float32)
    path = Path(__file__).parent / "optim.npz"
    np.savez_compressed(path, **arrays)
    print(f"{path}: {len(CASES)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
