"""fastrnn side by side with a NumPy loop, PyTorch, JAX, ONNX Runtime and OpenVINO, those of them that are installed.

    make compare                                            all of it: about half an hour
    python bench/compare.py --quick                         a look, in a minute or two
    python bench/compare.py --cells lstm --shapes 100,32,256,256 --threads 1 --whats training

Each number of threads has a process of its own, pinned to as many cores (worker.py). In it, results are first compared with
fastrnn.reference; then the contestants take turns for several rounds, warmed up, and the median of their turns counts. Forward is
inference: no gradients, compiled, weights packed where the package can. Training is forward and backward with the gradients of x,
weights and biases. ONNX Runtime and OpenVINO have neither training nor float64. bf16 is float32 with products of bfloat16, beside
PyTorch's autocast, OpenVINO's hint and fastrnn in float32.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import report
from rich.console import Console

SHAPES = ["100,1,64,64", "100,1,256,256", "100,8,128,128", "100,32,128,128", "100,32,256,256", "50,64,512,512", "784,16,1,100"]
QUICK_SHAPES = ["100,1,64,64", "100,8,128,128"]
CELLS = {"lstm": "lstm", "gru": "gru-after", "relu": "relu", "tanh": "tanh"}  # the names of cases.py
DTYPES = ["float32", "float64", "bf16"]  # the last: float32 with products of bfloat16
PACKAGES = ["fastrnn", "numpy", "torch", "jax", "onnxruntime", "openvino"]

log = Console(stderr=True)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--shapes", nargs="+", metavar="T,B,I,H")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--whats", "--what", nargs="+", choices=["forward", "training"], default=["forward", "training"])
    parser.add_argument("--rounds", type=int, help="turns of each contestant (default 5; quick: 2)")
    parser.add_argument("--quick", action="store_true", help="two shapes, short turns: a smoke test, not a measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the ratios to the best peer")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the summary between the markers of this page")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing; show the figures of an earlier --json")
    args = parser.parse_args()
    args.shapes = [[int(n) for n in shape.split(",")] for shape in args.shapes or (QUICK_SHAPES if args.quick else SHAPES)]
    if any(len(shape) != 4 for shape in args.shapes):
        parser.error("--shapes: expected T,B,I,H, four numbers each")
    args.rounds = args.rounds or (2 if args.quick else 5)
    return args


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The figures of all processes, with the machine and the versions."""
    run: dict[str, Any] = {"machine": machine(), "versions": versions(), "limits": [], "records": []}
    for threads in args.threads:
        for line in lines_of_worker(args, threads):
            if "limits" in line:
                run["limits"].append(line["limits"])
            elif "fastrnn" in line:
                run["configuration"] = line["fastrnn"]
            else:
                run["records"].append(line)
                log.print(report.progress(line), highlight=False)
    return run


def lines_of_worker(args: argparse.Namespace, threads: int) -> Any:
    """What the process of so many threads has to say, as it comes."""
    asked = {
        "threads": threads,
        "cells": [CELLS[name] for name in args.cells],
        "shapes": args.shapes,
        "dtypes": args.dtypes,
        "whats": args.whats,
        "rounds": args.rounds,
        "turn": 0.01 if args.quick else 0.05,
    }
    yield from lines_of("worker.py", asked)


def lines_of(program: str, asked: dict[str, Any]) -> Any:
    """What a program of this folder has to say, one object of JSON a line, when it is asked this."""
    command = [sys.executable, str(Path(__file__).with_name(program)), json.dumps(asked)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        for line in worker.stdout or ():
            yield json.loads(line)
    if worker.returncode:
        log.print(f"[red]a process ended with {worker.returncode}: its figures are not complete")
        log.print("[red]" + " ".join(command[:2]), repr(command[2]))


def machine() -> str:
    """The processor, its cores and the system."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{name}, {os.cpu_count()} logical processors, {system}"


def versions() -> dict[str, str]:
    """Versions of the contestants; those that are not installed are named and left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            log.print(f"[yellow]{name} is not installed: left out")
    return found


def main() -> None:
    args = options()
    run = json.loads(args.read.read_text()) if args.read else measure(args)
    if not run["records"]:
        raise SystemExit("nothing was measured")
    report.show(run)
    if args.json:
        args.json.write_text(json.dumps(run, indent=1) + "\n")
    if args.picture:
        report.draw(run, args.picture)
    if args.page:
        report.write_section(run, args.page)
    wrong = [record for record in run["records"] if record["wrong"]]
    expected = len(args.threads) * len(args.dtypes) * len(args.cells) * len(args.shapes) * len(args.whats)
    if wrong or not (args.read or len(run["records"]) == expected):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
