"""What bench/short.py measures, and what it should show.

A group is a number of threads, cells and cases. A figure is one comparison in each case of its group: of what of fastrnn, beside
which peers, and how many times as fast it should be, in the geometric mean and in the slowest case.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

Shape = tuple[int, int, int, int]  # T, B, I, H
Case = tuple[str, Shape]  # what it is, where a group has cases of several kinds


@dataclass(frozen=True)
class Group:
    title: str
    threads: int
    cells: tuple[str, ...]  # as in cases.py
    cases: tuple[Case, ...]
    quick: tuple[Case, ...]  # some of them, for a look


@dataclass(frozen=True)
class Figure:
    group: str
    what: str  # figures of a group with the same `what` come from the same rounds
    title: str
    short: str  # its title in README.md
    ours: str  # the contestants by their names
    peers: tuple[str, ...]
    mean: float
    worst: float = 1.0


def alike(shapes: list[Shape]) -> tuple[Case, ...]:
    return tuple(("", shape) for shape in shapes)


def square(steps: tuple[int, ...], batches: tuple[int, ...], units: tuple[int, ...]) -> tuple[Case, ...]:
    """Each T with each B with each H = I."""
    return alike([(T, B, H, H) for T, B, H in itertools.product(steps, batches, units)])


# What forecasting, tagging, reinforcement learning and imputation packages call, as it was seen in eleven of them.
PACKAGES = alike(
    [
        (48, 128, 1, 128),
        (36, 32, 1, 25),
        (47, 32, 48, 40),
        (60, 64, 16, 16),
        (59, 64, 12, 10),
        (49, 1024, 1, 128),
        (30, 32, 350, 256),
        (6, 1, 2, 256),
        (1, 2000, 48, 40),
        (1, 16, 1, 200),
    ]
)
MODELS: tuple[Case, ...] = (
    ("loop of cells", (48, 128, 74, 64)),
    ("loop of cells", (24, 16, 128, 128)),
    ("loop of cells", (12, 1, 256, 256)),
    ("100 calls", (1, 1, 256, 256)),
    ("100 calls", (1, 16, 128, 128)),
    ("100 calls", (1, 10, 256, 256)),
    ("packed tagger", (40, 32, 100, 128)),
)
LOOP = 20  # steps of a loop of cells

GROUPS = {
    "layers": Group(
        "Layers, 1 to 20 steps",
        2,
        ("lstm", "gru-after"),
        square((1, 5, 20), (1, 16), (64, 128, 256, 512)),
        square((1, 20), (1, 16), (64, 256)),
    ),
    "cells": Group(
        "One step of a cell",
        1,
        ("lstm", "gru-after", "tanh"),
        square((LOOP,), (1, 16), (8, 32, 64, 128, 256, 512)),
        square((LOOP,), (1, 16), (8, 128, 512)),
    ),
    "packages": Group(
        "Ten shapes of other people's packages", 2, ("lstm", "gru-after", "relu"), PACKAGES, PACKAGES[1::6] + PACKAGES[-1:]
    ),
    "pytorch": Group("PyTorch models, accelerated", 2, ("lstm", "gru-after"), MODELS, MODELS[1::2] + MODELS[-1:]),
}

NUMPY, TORCH, JAX, ORT, OPENVINO = "NumPy", "PyTorch", "JAX", "ONNX Runtime", "OpenVINO"
TRAINING_OF_LAYER = "`layer.forward`, `tape.backward`"

FIGURES = {
    "layer": Figure("layers", "inference", "`layer(x)`", "inference", "layer", (NUMPY, TORCH, JAX), 1.6),
    "layer, frozen": Figure("layers", "inference", "`layer.frozen()(x)`", "frozen, beside ONNX Runtime", "frozen", (ORT,), 1.3),
    "layer, training": Figure("layers", "training", TRAINING_OF_LAYER, "with gradients", "layer", (TORCH, JAX), 2.0),
    "cell": Figure("cells", "inference", "`cell(x, state)`", "inference", "cell", (NUMPY, TORCH), 2.2),
    "cell, frozen": Figure("cells", "inference", "`cell.frozen()(x, state)`", "frozen", "frozen", (NUMPY, TORCH), 3.5),
    "cell, training": Figure("cells", "step", "`cell.forward`, `tape.backward`", "with gradients", "cell", (TORCH,), 4.0),
    "cell, unrolled": Figure(
        "cells", "loop", f"`cell.unrolled()`, loops of {LOOP} steps", "in unrolled loops with gradients", "unrolled", (TORCH,), 6.0
    ),
    "package, inference": Figure(
        "packages", "inference", "`layer.frozen()(x)`", "frozen", "frozen", (NUMPY, TORCH, JAX, ORT, OPENVINO), 1.6
    ),
    "package, training": Figure("packages", "training", TRAINING_OF_LAYER, "with gradients", "layer", (NUMPY, TORCH, JAX), 2.2),
    "accelerated": Figure("pytorch", "model", "`accelerate(model)`", "beside PyTorch itself", "accelerated", (TORCH,), 1.8),
}


def cases(group: str, quick: bool) -> tuple[Case, ...]:
    return GROUPS[group].quick if quick else GROUPS[group].cases


def figures(group: str, what: str | None = None) -> dict[str, Figure]:
    """The figures of a group, all or those of one `what`, by name."""
    return {name: f for name, f in FIGURES.items() if f.group == group and what in (None, f.what)}
