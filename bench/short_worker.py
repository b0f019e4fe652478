"""One process of the comparison of short calls: a group of short_table.py. Started by short.py.

    python bench/short_worker.py '{"group": "cells", "cells": ["lstm"], "quick": true, "rounds": 2, "turn": 0.01}'

Standard output gets one line of JSON per figure and case. How it times and checks is worker.py's.
"""

from __future__ import annotations

import copy
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from short_table import GROUPS, Shape, cases, figures
from worker import configuration, exact, interleaved, pin, wrong


@dataclass
class Contest:
    """Calls that take turns, by contestant; what each should return; how many steps there are in a call."""

    what: str
    calls: dict[str, Callable[[], Any]]
    truth: dict[str, Any]
    steps: int = 1


# --- what is timed in a case of a group ---------------------------------------------------------------------------------


def of_layers(names: set[str], threads: int, cell: str, kind: str, shape: Shape) -> Iterator[Contest]:
    """Whole layers, from an initial state of zeros."""
    import peers

    from cases import Case

    p, truth = exact(Case(cell, *shape, without=("h0", "c0"), through="y"))
    p = p.astype("float32")
    every = peers.Layer, peers.FrozenLayer, peers.NumPy, peers.Torch, peers.Jax, peers.OnnxRuntime, peers.OpenVino
    there = [one(cell, p.arrays, p.dy, threads) for one in every if one.name in names and not one.missing()]
    truth = {name: truth[name] for name in ("y", *(f"d{name}" for name in peers.NAMES))}
    yield Contest("inference", {c.name: c.forward for c in there}, truth)
    yield Contest("training", {c.name: c.train for c in there if c.trains}, truth)


def of_cells(names: set[str], threads: int, cell: str, kind: str, shape: Shape) -> Iterator[Contest]:
    """Loops over single steps, and one step with its gradients; in microseconds per step."""
    from peers import NAMES
    from steps import Cell, FrozenCell, NumPyStep, TorchCell, UnrolledCell

    from cases import Case

    def contest(what: str, T: int, every: tuple[Any, ...]) -> Contest:
        p, truth = exact(Case(cell, T, *shape[1:]))
        ends = ("h0", "c0") if p.case.is_lstm else ("h0",)
        wanted = [f"{end[0]}_n" for end in ends] if what == "inference" else ["y", *(f"d{name}" for name in (*NAMES, *ends))]
        there = [one(p.astype("float32")) for one in every if not one.missing()]
        calls = {c.name: c.forward if what == "inference" else c.train for c in there}
        return Contest(what, calls, {name: truth[name] for name in wanted}, T)

    yield contest("inference", shape[0], (Cell, FrozenCell, NumPyStep, TorchCell))
    yield contest("step", 1, (Cell, TorchCell))
    yield contest("loop", shape[0], (UnrolledCell, TorchCell))


def of_models(names: set[str], threads: int, cell: str, kind: str, shape: Shape) -> Iterator[Contest]:
    """Models of PyTorch before and after, compared with themselves in float64."""
    import torch
    from models import in_double, make, result
    from worker import members_of

    import fastrnn.torch

    fastrnn.set_num_threads(threads)
    torch.set_num_threads(threads)
    model, inputs = make(kind, cell, shape)
    truth = members_of(result(*in_double(copy.deepcopy(model), inputs)))
    ours = copy.deepcopy(model)
    fastrnn.torch.accelerate(ours)
    calls = {"accelerated": partial(result, ours, inputs), "PyTorch": partial(result, model, inputs)}
    names_of = ["y", *(f"the gradient of {name}" for name, _ in model.named_parameters())]
    yield Contest("model", calls, {name: value.detach().numpy() for name, value in zip(names_of, truth)})


CONTESTS = {"layers": of_layers, "packages": of_layers, "cells": of_cells, "pytorch": of_models}


# --- the process --------------------------------------------------------------------------------------------------------


def records(options: dict[str, Any], cell: str, kind: str, shape: Shape) -> Iterator[dict[str, Any]]:
    """One record for each figure of the group: the seconds of fastrnn and of the peers, and who is wrong."""
    group = options["group"]
    names = {name for figure in figures(group).values() for name in (figure.ours, *figure.peers)}
    for contest in CONTESTS[group](names, GROUPS[group].threads, cell, kind, shape):
        shown = figures(group, contest.what)
        wanted = {name for figure in shown.values() for name in (figure.ours, *figure.peers)}
        calls = {name: call for name, call in contest.calls.items() if name in wanted}
        errors = {name: wrong(call(), contest.truth, "float32", cell) for name, call in calls.items()}
        right = {name: call for name, call in calls.items() if not errors[name]}
        seconds = interleaved(right, options["rounds"], options["turn"])
        for key, figure in shown.items():
            called = {figure.ours: "fastrnn"} | {name: name for name in figure.peers}
            yield {
                "figure": key,
                "threads": GROUPS[group].threads,
                "cell": cell,
                "kind": kind,
                "shape": shape,
                "seconds": {called[name]: s / contest.steps for name, s in seconds.items() if name in called},
                "wrong": {called[name]: error for name, error in errors.items() if error and name in called},
            }


def main() -> None:
    options = json.loads(sys.argv[1])
    pin(GROUPS[options["group"]].threads)
    sys.path.append(str(Path(__file__).parent.parent / "tests"))  # cases.py
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the packages print is not a result
    print(json.dumps({"fastrnn": configuration()}), file=lines)
    gc.disable()
    for cell in options["cells"]:
        for kind, shape in cases(options["group"], options["quick"]):
            for record in records(options, cell, kind, shape):
                print(json.dumps(record), file=lines)
            gc.collect()


if __name__ == "__main__":
    main()
