"""The one table of cases. Tests, gradient checks and benches draw from it.

A `Case` is a cell, its sizes and its options; `problem(case, dtype)` makes the arrays of one, always the same; `call` and `results`
run it by a module that has the functions rnn, gru and lstm: fastrnn or fastrnn.reference.

>>> p = problem(Case("lstm", T=7, B=3, I=5, H=4, lengths=True), np.float32)
>>> results(fastrnn, p)["dw_hh"].shape
(16, 4)
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "tanh": ("rnn", {"nonlinearity": "tanh"}),
    "relu": ("rnn", {"nonlinearity": "relu"}),
    "lstm": ("lstm", {}),
    "lstm-peephole": ("lstm", {}),
    "lstm-projected": ("lstm", {}),
    "gru-after": ("gru", {"reset_after": True}),
    "gru-before": ("gru", {"reset_after": False}),
}
# In the table with some options only. Activations: without jumps, at which rounding decides.
COMBINED: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm-peephole-projected": ("lstm", {}),
    "softplus": ("rnn", {"nonlinearity": "softplus"}),
    "elu": ("rnn", {"nonlinearity": ("elu", 0.5)}),
    "lstm-activated": ("lstm", {"activation": "softsign", "recurrent_activation": ("hard_sigmoid", 0.25)}),
    "lstm-peephole-projected-activated": ("lstm", {"activation": ("leaky_relu", 0.1), "recurrent_activation": "hard_sigmoid"}),
    "gru-after-activated": ("gru", {"activation": "relu", "recurrent_activation": "hard_sigmoid"}),
    "gru-before-activated": (
        "gru",
        {"reset_after": False, "activation": ("affine", 0.5, 0.1), "recurrent_activation": ("scaled_tanh", 0.7, 1.2)},
    ),
}
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
FLOATS = (np.float32, np.float64)

# Twice the widest vector (AVX-512, 16 float32) plus one; past the tallest tile (8 rows), into tiles of uneven heights.
HIDDEN = range(1, 34)
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 13)
STEPS = (0, 1, 2, 7, 64)
INPUTS = (0, 1, 2, 5, 17)


@dataclass(frozen=True)
class Case:
    """One problem. lengths, reset: with rows of several lengths (one of them 0), with some rows cut. mask: with steps that are
    skipped (one row has no other); hold: masked="hold". without: arguments that are None. through: the gradients that come in, of
    y, h_n, c_n and, for s, the sequence of c; truncate: how many steps back they flow."""

    cell: str
    T: int = 7
    B: int = 3
    I: int = 5
    H: int = 6
    lengths: bool = False
    reset: bool = False
    reverse: bool = False
    batch_first: bool = False
    unbatched: bool = False
    mask: bool = False
    hold: bool = False
    without: tuple[str, ...] = ()
    through: str = "yhc"
    truncate: int = 0

    def __str__(self) -> str:
        sizes = f"{self.cell}-T{self.T}-B{self.B}-I{self.I}-H{self.H}"
        flags = [f.name for f in fields(self) if getattr(self, f.name) is True]
        without = [f"without_{'_'.join(self.without)}"] if self.without else []
        through = [f"through_{self.through}"] if self.through != "yhc" else []
        truncate = [f"truncate{self.truncate}"] if self.truncate else []
        return "-".join([sizes, *flags, *without, *through, *truncate])

    @property
    def function(self) -> str:
        return (CELLS | COMBINED)[self.cell][0]

    @property
    def is_lstm(self) -> bool:
        return self.function == "lstm"

    @property
    def gates(self) -> int:
        return GATES[self.function]

    @property
    def P(self) -> int:
        """Numbers in h and y: H, or fewer with a projection."""
        return max(1, self.H * 5 // 8) if "projected" in self.cell else self.H


# --- the table ----------------------------------------------------------------------------------------------

_OPTIONS: tuple[dict[str, Any], ...] = (
    {"lengths": True},
    {"lengths": True, "reverse": True},
    {"reset": True},
    {"reset": True, "reverse": True},
    {"reverse": True},
    {"batch_first": True},
    {"batch_first": True, "lengths": True},
    {"lengths": True, "reset": True, "B": 13, "T": 64},
    {"lengths": True, "reset": True, "reverse": True, "batch_first": True, "B": 9, "H": 17},
    {"mask": True},
    {"mask": True, "hold": True},
    {"mask": True, "hold": True, "reverse": True},
    {"mask": True, "lengths": True, "reset": True, "B": 13, "T": 64},
    {"mask": True, "hold": True, "lengths": True, "reset": True, "reverse": True, "batch_first": True, "B": 9, "H": 17},
    {"mask": True, "hold": True, "reset": True, "without": ("h0", "c0"), "T": 12},
    {"unbatched": True, "B": 1, "mask": True, "hold": True, "reset": True},
    {"unbatched": True, "B": 1},
    {"unbatched": True, "B": 1, "lengths": True, "reset": True, "reverse": True},
    {"without": ("b_ih", "b_hh")},
    {"without": ("b_hh",)},
    {"without": ("b_ih",), "lengths": True},
    {"without": ("h0", "c0")},
    {"without": ("h0", "c0"), "lengths": True, "reset": True},
    {"through": "y"},
    {"through": "hc", "lengths": True},
    {"through": "h", "reverse": True},
    {"through": "yhcs"},
    {"through": "s", "lengths": True, "mask": True, "hold": True, "reset": True, "reverse": True, "T": 12},
    {"through": "yhcs", "batch_first": True, "mask": True, "B": 9, "H": 17},
    {"through": "s", "unbatched": True, "B": 1},
    {"truncate": 3},
    {"truncate": 1, "reverse": True},
    {"truncate": 4, "lengths": True, "mask": True, "hold": True, "reset": True, "B": 13, "T": 64, "through": "yhcs"},
)
_SIZES: tuple[dict[str, int], ...] = (
    {"B": 0, "T": 3},
    {"B": 0, "T": 0, "I": 0},
    {"B": 1, "T": 3, "H": 133, "I": 70},  # panels of several vectors, several of them by one row, the last one narrow
    {"B": 4, "T": 3, "H": 70, "I": 133},
    {"B": 2, "T": 3, "H": 64, "I": 64},  # rows of gates whose distance is a power of two
    {"B": 2, "T": 2, "H": 256, "I": 1},
    {"B": 300, "T": 3, "H": 3, "I": 2},  # a step larger than a chunk
    {"B": 13, "T": 64, "H": 9, "I": 17},  # several chunks
)


def table() -> list[Case]:
    """For each cell: every H, with B, T and I going round; then all the others."""
    return [*(case for cell in CELLS for case in _of_every_size(cell)), *table_of_options()]


def table_of_options() -> list[Case]:
    """For each cell every option, and unusual sizes; then a random sweep."""
    cases = [case for cell in CELLS for case in _with_options(cell)]
    combined = [Case(cell, **options) for cell in COMBINED for options in (*_OPTIONS[:12:3], {"H": 37, "B": 5, "truncate": 3})]
    return [*cases, *combined, *sweep(60)]


def _of_every_size(cell: str) -> Iterator[Case]:
    rng = np.random.default_rng(_seed(cell))
    rounds = [_round_and_round(rng, values) for values in (STEPS, ROWS, INPUTS)]
    for H in HIDDEN[1:] if cell.endswith("projected") else HIDDEN:
        T, B, I = (next(values) for values in rounds)
        yield Case(cell, T, B, I, H)


def _with_options(cell: str) -> Iterator[Case]:
    for options in _OPTIONS:
        if CELLS[cell][0] == "lstm" or options.get("through") != "s":
            yield Case(cell, **options)
    if CELLS[cell][0] == "lstm":
        yield Case(cell, through="c")
        yield Case(cell, without=("c0",), through="yc")
    for sizes in _SIZES:
        yield Case(cell, **sizes)


def _round_and_round(rng: np.random.Generator, values: tuple[int, ...]) -> Iterator[int]:
    """All values in a random order, then all of them in another."""
    while True:
        yield from rng.permutation(values).tolist()


def sweep(n: int, seed: int = 0) -> list[Case]:
    """n random cases; the same n for the same seed."""
    rng = np.random.default_rng(seed)
    return [_random_case(rng, cell) for cell in itertools.islice(itertools.cycle(CELLS), n)]


def _random_case(rng: np.random.Generator, cell: str) -> Case:
    sizes = [int(rng.integers(low, high)) for low, high in ((1, 12), (1, 15), (0, 40), (2, 40))]
    lengths, reset, reverse, batch_first, mask, hold = (rng.random(6) < 0.5).tolist()
    without = tuple(name for name in ("b_ih", "b_hh", "h0", "c0") if rng.random() < 0.2)
    case = Case(cell, *sizes, lengths, reset, reverse, batch_first, mask=mask, hold=mask and hold, without=without)
    return replace(case, B=1, batch_first=False, unbatched=True) if rng.random() < 0.1 else case


# --- problems -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """The arguments of a case: float arrays by name, the other keywords, and what backward is given."""

    case: Case
    arrays: dict[str, Any]
    keywords: dict[str, Any]
    dy: Any
    dstate: Any
    dc: Any  # of the sequence

    def astype(self, dtype: Any) -> Problem:
        """The same numbers in another dtype."""
        arrays = {name: a.astype(dtype) for name, a in self.arrays.items()}
        dstate = _map(self.dstate, lambda d: d.astype(dtype))
        dy, dc = (_map(d, lambda d: d.astype(dtype)) for d in (self.dy, self.dc))
        return replace(self, arrays=arrays, dy=dy, dstate=dstate, dc=dc)

    def backward(self, tape: Any) -> Any:
        """The gradients."""
        more = {"truncate": self.case.truncate} if self.case.truncate else {}
        return tape.backward(self.dy, self.dstate, **more, **({} if self.dc is None else {"dc": self.dc}))


def problem(case: Case, dtype: Any = np.float64) -> Problem:
    """The same numbers at each call, whatever else the table holds.

    Weights are uniform in +-1/sqrt(H), as PyTorch's at the start: no state and no gradient grows along the time.
    """
    rng = np.random.default_rng(_seed(str(case)))
    T, B, I, H, P, rows = case.T, case.B, case.I, case.H, case.P, case.gates * case.H
    state = {"h": (P,) if case.unbatched else (B, P), "c": (H,) if case.unbatched else (B, H)}

    def sequence(n: int) -> tuple[int, ...]:
        return (T, n) if case.unbatched else (B, T, n) if case.batch_first else (T, B, n)

    shapes = {"w_ih": (rows, I), "w_hh": (rows, P), "b_ih": (rows,), "b_hh": (rows,)}
    shapes |= {"peephole": (3, H)} if "peephole" in case.cell else {}
    shapes |= {"w_hr": (P, H)} if "projected" in case.cell else {}
    arrays = {name: rng.uniform(-1, 1, shape) / np.sqrt(H) for name, shape in shapes.items()}
    arrays["x"] = rng.standard_normal(sequence(I))
    for name in ("h0", "c0") if case.is_lstm else ("h0",):
        arrays[name] = rng.standard_normal(state[name[0]])
    dy = rng.standard_normal(sequence(P)).astype(dtype) if "y" in case.through else None
    dh, dc = (rng.standard_normal(state[s]).astype(dtype) if s in case.through else None for s in "hc")
    arrays = {name: a.astype(dtype) for name, a in arrays.items() if name not in case.without}
    keywords = _keywords(case, rng)
    dcs = rng.standard_normal(sequence(H)).astype(dtype) if case.is_lstm and "s" in case.through else None
    return Problem(case, arrays, keywords, dy, (dh, dc) if case.is_lstm else dh, dcs)


def _keywords(case: Case, rng: np.random.Generator) -> dict[str, Any]:
    keywords: dict[str, Any] = {"reverse": True} if case.reverse else {}
    if case.batch_first:
        keywords["batch_first"] = True
    if case.lengths:
        keywords["lengths"] = lengths = rng.integers(0, case.T + 1, case.B)
        if case.B > 1:
            lengths[rng.integers(case.B)] = 0
    if case.reset:
        keywords["reset"] = _as_x(case, rng.random((case.T, case.B)) < 0.2)
    if case.mask:
        mask = rng.random((case.T, case.B)) < 0.6
        if case.B > 2:
            mask[:, rng.integers(case.B)] = False
        keywords |= {"mask": _as_x(case, mask), "masked": "hold" if case.hold else "zero"}
    return keywords


def _as_x(case: Case, flags: Any) -> Any:
    """(T, B) flags as x lies."""
    return flags[:, 0] if case.unbatched else np.ascontiguousarray(flags.T) if case.batch_first else flags


def call(module: Any, cell: str, arrays: dict[str, Any], **keywords: Any) -> tuple[Any, Any, Any]:
    """(y, state, tape) of the function of a cell in fastrnn or fastrnn.reference."""
    name, fixed = (CELLS | COMBINED)[cell]
    return getattr(module, name)(**arrays, **fixed, **keywords)


def outputs(y: Any, state: Any) -> dict[str, Any]:
    """y, h_n and, of an LSTM, c_n by name."""
    return {"y": y, **dict(zip(("h_n", "c_n"), state if isinstance(state, tuple) else (state,)))}


def gradients(grads: Any) -> dict[str, Any]:
    """The gradients of a function by name, dx, dw_ih and so on, those that are not None."""
    names = ("x", "w_ih", "w_hh", "b_ih", "b_hh", "peephole", "w_hr", "h0", "c0")
    return {f"d{name}": g for name in names if (g := getattr(grads, name, None)) is not None}


def results(module: Any, p: Problem, **keywords: Any) -> dict[str, Any]:
    """All that comes out of forward and backward, by name."""
    y, state, tape = call(module, p.case.cell, p.arrays, **p.keywords, **keywords, record=True)
    cells = {"c": tape.c.copy()} if p.case.is_lstm and "checkpoint" not in keywords else {}
    return {**outputs(y, state), **cells, **gradients(p.backward(tape))}


def _map(value: Any, function: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_map(member, function) for member in value)
    return None if value is None else function(value)


def _seed(text: str) -> int:
    return zlib.crc32(text.encode())
