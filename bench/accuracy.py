"""The errors of precision="bf16": y, dx and the weights' gradients beside float64, and beside PyTorch's with the same weights.

    python bench/accuracy.py
    python bench/accuracy.py --cells lstm --shapes 100,32,256,256

Relative errors, as norms, |a - b| / |b|: fastrnn in float32, in bf16, and PyTorch under autocast to bfloat16, if it is installed.
Weights are uniform in +-1/sqrt(H), x and dy normal. fastrnn.reference in float64 is the truth.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).parent.parent / "tests"))

import peers
from compare import CELLS
from worker import exact, members_of

from cases import Case

SHAPES = ["100,8,64,64", "100,32,128,128", "50,16,256,256"]
SHOWN = ("y", "dx", "dw_ih", "dw_hh")
CONTESTANTS = {"float32": peers.Fastrnn, "bf16": peers.FastrnnBf16, "PyTorch's bf16": peers.TorchBf16}


def errors(kind: Any, cell: str, p: Any, truth: dict[str, Any]) -> dict[str, float]:
    """The relative error of each result of a contestant."""
    contestant = kind(cell, p.arrays, p.dy, 1)
    names = ("y", *(f"d{name}" for name in peers.NAMES))
    results = {name: peers.to_numpy(value, truth[name].shape) for name, value in zip(names, members_of(contestant.train()))}
    return {name: float(np.linalg.norm(results[name] - truth[name]) / np.linalg.norm(truth[name])) for name in SHOWN}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--shapes", nargs="+", metavar="T,B,I,H", default=SHAPES)
    args = parser.parse_args()
    contestants = {name: kind for name, kind in CONTESTANTS.items() if not kind.missing()}
    table = Table(title="Relative error")
    for heading in ("", "", *SHOWN):
        table.add_column(heading, justify="right" if heading else "left")
    for name in args.cells:
        for shape in args.shapes:
            p, truth = exact(Case(CELLS[name], *map(int, shape.split(",")), without=("h0", "c0"), through="y"))
            for k, (label, kind) in enumerate(contestants.items()):
                found = errors(kind, CELLS[name], p.astype(np.float32), truth)
                table.add_row("" if k else f"{name} {shape}", label, *(f"{found[result]:.1e}" for result in SHOWN))
    Console(width=None if Console().is_terminal else 120).print(table)


if __name__ == "__main__":
    main()
