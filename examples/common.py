"""What the examples share: their options, a training with a progress bar that can be stopped and gone on with, a picture."""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fastrnn.train import load, save

console = Console(highlight=False, soft_wrap=True)

# Options that may change between two parts of a training; with any other, it would not be the same training.
MAY_CHANGE = {"steps", "stop", "seconds", "state", "out", "data"}


def options(document: str | None, out: str, seconds: float | None = 60, steps: int | None = None) -> argparse.ArgumentParser:
    """A parser with the options that all examples have; without those of a training if `seconds` is None."""
    parser = argparse.ArgumentParser(
        description=(document or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    if steps is not None:
        parser.add_argument("--steps", type=int, default=steps, help="of training at most")
    if seconds is not None:
        parser.add_argument("--seconds", type=float, default=seconds, help="of training at most, this time")
        parser.add_argument("--stop", type=int, metavar="STEP", help="stop behind this step, this time")
        parser.add_argument("--state", type=Path, help="file to keep the training in, and to go on from if it is there")
    parser.add_argument("--seed", type=int, default=0, help="of the data and the weights")
    parser.add_argument("--out", default=out, help="the picture")
    parser.add_argument("--quick", action="store_true", help="done in seconds, with less of everything")
    return parser


def precision(parser: argparse.ArgumentParser) -> None:
    """The option of what the products of the recurrent layers are computed in."""
    choices = ("float32", "bf16")
    parser.add_argument("--precision", choices=choices, default="float32", help="of the products in the recurrent layers")


def parse(parser: argparse.ArgumentParser, **when_quick: Any) -> argparse.Namespace:
    """The options. --quick changes the defaults of others, not what was asked for."""
    args = parser.parse_args()
    if args.quick:
        parser.set_defaults(**{"seconds": 600, **when_quick})  # so that it depends on no clock
        args = parser.parse_args()
    for name, value in vars(args).items():
        least = 0 if name == "seed" else 1
        if type(value) is int and value < least:
            parser.error(f"--{name}: expected at least {least}, got {value}")
    return args


class Arrays(dict[str, NDArray[Any]]):
    """Arrays by name, as a part of a training."""

    def state_dict(self) -> dict[str, NDArray[Any]]:
        return {name: array.copy() for name, array in self.items()}

    def load_state_dict(self, mapping: dict[str, NDArray[Any]]) -> None:
        self.update({name: np.array(array) for name, array in mapping.items()})


class Training:
    """The steps of a training, under a bar; its curves; and its state in a file.

    Stopped by Ctrl-C, by --stop or by the end of its --seconds, it goes on from the file as if it had never stopped, bit for bit:
    the file has all parts (layers, readouts, optimisers, Generators), the curves, and the options, which have to be the same.

    >>> training = Training(args, layer=layer, readout=readout, adam=adam, rng=rng)
    >>> for step in training.each(args.steps):
    ...     training.note(loss=train(layer, readout, adam, rng))
    >>> steps, losses = training.curve("loss")
    """

    def __init__(self, args: argparse.Namespace, **parts: Any) -> None:
        self.args, self.parts = args, parts
        self.step, self.seconds = 0, 0.0
        self.notes: dict[str, list[tuple[int, float]]] = {}
        self._going = True
        settings = {k: v for k, v in sorted(vars(args).items()) if k not in MAY_CHANGE}
        if settings.get("precision") == "float32":
            del settings["precision"]  # files from before there was a choice do not name it
        self._settings = json.dumps(settings)
        if args.state is not None and args.state.exists():
            self._load(args.state)

    def note(self, **values: float) -> None:
        """Another point of each of these curves."""
        for name, value in values.items():
            self.notes.setdefault(name, []).append((self.step, float(value)))

    def curve(self, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """Its steps and its values."""
        steps, values = np.array(self.notes.get(name, [])).reshape(-1, 2).T
        return steps.astype(int), values

    def latest(self, name: str) -> float:
        """Its last value; NaN if it has none."""
        values = self.notes.get(name)
        return values[-1][1] if values else float("nan")

    def stop(self) -> None:
        """Let this step be the last."""
        self._going = False

    def each(self, steps: int, save_every: float = 60) -> Iterator[int]:
        """The numbers of the steps that are still to be done."""
        start = saved = time.perf_counter()
        before, end = self.seconds, min(steps, self.args.stop or steps)
        # A training that was interrupted within a step could not go on exactly, so Ctrl-C waits for its end.
        interrupt = signal.signal(signal.SIGINT, lambda *_: self.stop())
        columns = [BarColumn(None), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
        try:
            with Progress(*columns, console=console) as progress:
                bar = progress.add_task("", total=steps, completed=self.step)
                while self._going and self.step < end and time.perf_counter() - start < self.args.seconds:
                    self.step += 1
                    yield self.step
                    now = time.perf_counter()
                    self.seconds = before + now - start
                    if now - saved > save_every:
                        self._save()
                        saved = now
                    progress.update(bar, advance=1, description=self._status())
            self._save()
        finally:
            signal.signal(signal.SIGINT, interrupt)

    def _status(self) -> str:
        return ", ".join(f"{name} {self.latest(name):.4f}" for name in self.notes)

    def _save(self) -> None:
        if self.args.state is not None:
            notes = {f"curve of {name}": np.array(values) for name, values in self.notes.items()}
            save(self.args.state, step=self.step, seconds=self.seconds, settings=self._settings, **self.parts, **notes)

    def _load(self, path: Path) -> None:
        values = load(path)  # first without the parts, which are of other shapes if the options are not the same
        if values["settings"] != self._settings:
            raise SystemExit(f"--state {path}: expected a training with {self._settings}, got one with {values['settings']}")
        load(path, **self.parts)
        self.step, self.seconds = values["step"], values["seconds"]
        for name, value in values.items():
            if name.startswith("curve of "):
                self.notes[name.removeprefix("curve of ")] = [(int(step), float(number)) for step, number in value]
        console.print(f"going on behind step {self.step}, from {path}")


def picture(path: str, draw: Callable[[Any], None], panels: int = 1) -> None:
    """draw(axes) on a new picture, or draw([axes, ...]) if there are several panels."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        console.print("No picture: matplotlib is not installed.")
        return
    figure = Figure(figsize=(8, 1 + 3.6 * panels), dpi=150, layout="constrained")
    draw(figure.subplots(panels))
    figure.savefig(path)
    console.print(f"Picture: {path}")
