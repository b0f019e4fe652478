"""Other people's packages, and how much faster fastrnn does their work.

    python bench/packages.py                  the packages that are installed, and code that is no package by its equations
    python bench/packages.py nagisa cs231n    these alone
    python bench/packages.py --steps          the single steps of fastrnn.compat

`make packages` installs the packages first, all but madmom: that wants a NumPy below 2 and so an environment of its own, which
`make systems-old` makes. One thread on one core (--threads for more), results compared before they are timed, and then both take
turns; the median of their turns counts. The table is in Markdown.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

from worker import interleaved, pin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="packages; all by default")
    parser.add_argument("--steps", action="store_true", help="single steps of 1 and 16 rows, 8 to 512 units")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn")
    args = parser.parse_args()
    pin(args.threads)  # before NumPy is imported, whose BLAS asks once
    warnings.simplefilter("ignore")  # of other people's code
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from clients import CLIENTS, STEPS, STUDENTS, assert_same

    every = STEPS if args.steps else CLIENTS | STUDENTS
    unknown = [name for name in args.names if name not in every]
    if unknown:
        parser.error(f"names: expected {', '.join(every)}, got {', '.join(unknown)}")
    print("| package | work | its own code | fastrnn | faster |\n|---|---|---|---|---|")
    for name in args.names or every:
        try:
            works = every[name]()
        except ModuleNotFoundError as error:
            print(f"{name}: not installed ({error})", file=sys.stderr)
            continue
        for work in works:
            assert_same(work.ours(), work.theirs(), work.tolerance)
            seconds = interleaved({"theirs": work.theirs, "ours": work.ours}, args.rounds, args.seconds)
            print(row(name, work, seconds["theirs"], seconds["ours"], 1 + args.steps), flush=True)


def row(name: str, work: Any, theirs: float, ours: float, digits: int) -> str:
    what = work.what + (f" ({work.note})" if work.note else "")
    return f"| {name} | {what} | {time(theirs)} | {time(ours)} | {theirs / ours:.{digits}f} x |"


def time(seconds: float) -> str:
    return f"{seconds * 1e6:,.{seconds < 1e-4:d}f} us" if seconds < 1e-3 else f"{seconds * 1e3:,.1f} ms"


if __name__ == "__main__":
    main()
