"""Short calls side by side with the peers: single steps of cells, layers of few steps, shapes that packages call, PyTorch models.

    make short                                  all of it, which is part of make compare
    python bench/short.py --quick               a look, in a minute or two
    python bench/short.py --only cells --rounds 9 --cells lstm

short_table.py has the cases and the targets. Each group has a process of its own, pinned to its cores (short_worker.py). As in
compare.py, results are checked first; then the contestants take turns, each after the pools of threads of the one before have gone
to sleep, and the median of the turns counts. Targets that are missed are listed; the exit status is 1 for wrong results alone, and
for figures that could not be had.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import short_report
from compare import CELLS, lines_of, log, machine, versions
from short_table import GROUPS


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS), metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), help="of the cells of a group these alone")
    parser.add_argument("--rounds", type=int, help="turns of each contestant (default 7; quick: 2)")
    parser.add_argument("--quick", action="store_true", help="some of the cases, short turns: a smoke test, not a measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the ratios to the best peer")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the tables between the markers of this page")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="write the means between the markers of this page")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing; show the figures of an earlier --json")
    args = parser.parse_args()
    args.rounds = args.rounds or (2 if args.quick else 7)
    return args


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The figures of all processes, with the machine and the versions."""
    run: dict[str, Any] = {"quick": args.quick, "groups": [], "machine": machine(), "versions": versions(), "records": []}
    for group in args.only:
        chosen = [name for name in GROUPS[group].cells if args.cells is None or name in [CELLS[cell] for cell in args.cells]]
        if not chosen:
            continue
        run["groups"].append(group)
        asked = {"group": group, "cells": chosen, "quick": args.quick, "rounds": args.rounds, "turn": 0.01 if args.quick else 0.03}
        for line in lines_of("short_worker.py", asked):
            if "fastrnn" in line:
                run["configuration"] = line["fastrnn"]
            else:
                run["records"].append(line)
                log.print(short_report.progress(line), highlight=False)
    return run


def main() -> None:
    args = options()
    run = json.loads(args.read.read_text()) if args.read else measure(args)
    if not run["records"]:
        raise SystemExit("nothing was measured")
    short_report.show(run)
    if args.json:
        args.json.write_text(json.dumps(run, indent=1) + "\n")
    if args.picture:
        short_report.draw(run, args.picture)
    if args.page:
        short_report.write_section(run, args.page)
    if args.readme:
        short_report.write_readme(run, args.readme)
    if any(record["wrong"] for record in run["records"]) or short_report.unmeasured(run):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
