"""Whole layers for the tests: a `Stack` is a layer of several layers and directions, its sizes and its options; `Setup(stack)`
makes the layer and the arrays of a call, and its `run` has all that comes out, by name."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

import fastrnn
from cases import COMBINED

# How a layer is made of each cell of the table in cases.py.
LAYERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "tanh": (fastrnn.RNN, {}),
    "relu": (fastrnn.RNN, {"nonlinearity": "relu"}),
    "lstm": (fastrnn.LSTM, {}),
    "lstm-peephole": (fastrnn.LSTM, {"peephole": True}),
    "gru-after": (fastrnn.GRU, {}),
    "gru-before": (fastrnn.GRU, {"reset_after": False}),
    "lstm-activated": (fastrnn.LSTM, COMBINED["lstm-activated"][1]),
    "gru-before-activated": (fastrnn.GRU, COMBINED["gru-before-activated"][1]),
}


@dataclass(frozen=True)
class Stack:
    """lengths, reset, mask, hold: as in cases.py."""

    cell: str
    T: int = 7
    B: int = 4
    I: int = 3
    H: int = 5
    L: int = 2
    bidirectional: bool = True
    proj_size: int = 0
    bias: bool = True
    batch_first: bool = False
    unbatched: bool = False
    dropout: float = 0.0
    lengths: bool = False
    reset: bool = False
    mask: bool = False
    hold: bool = False
    state: bool = True

    def __str__(self) -> str:
        changed = [f"{f.name}_{getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default]
        return "-".join([self.cell, *changed[1:]])

    @property
    def is_lstm(self) -> bool:
        return LAYERS[self.cell][0] is fastrnn.LSTM

    @property
    def D(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def P(self) -> int:
        return self.proj_size or self.H


OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"L": 1},
    {"L": 3, "bidirectional": False},
    {"bias": False},
    {"batch_first": True},
    {"batch_first": True, "L": 1, "lengths": True},
    {"unbatched": True, "B": 1},
    {"unbatched": True, "batch_first": True, "B": 1, "reset": True, "mask": True, "hold": True},
    {"lengths": True},
    {"lengths": True, "bidirectional": False, "H": 17},
    {"reset": True, "T": 12},
    {"mask": True},
    {"mask": True, "hold": True},
    {"lengths": True, "reset": True, "mask": True, "hold": True, "batch_first": True, "L": 3, "T": 12, "B": 9, "H": 19},
    {"state": False, "lengths": True, "mask": True, "hold": True, "reset": True},
    {"T": 1},
    {"T": 0},
    {"B": 0},
)
PROJECTED: tuple[dict[str, Any], ...] = (
    {"proj_size": 2},
    {"proj_size": 3, "L": 3, "lengths": True, "batch_first": True, "H": 19},
    {"proj_size": 1, "bidirectional": False, "reset": True, "mask": True, "hold": True, "bias": False},
)


def table() -> list[Stack]:
    """Every cell with every option."""
    stacks = [Stack(cell, **options) for cell in LAYERS for options in OPTIONS]
    return stacks + [Stack("lstm", **options) for options in PROJECTED]


class Setup:
    """The layer, `arguments` of its forward, and `given`, what its backward is given: dy, dstate, doutputs."""

    def __init__(self, s: Stack, dtype: Any = np.float64) -> None:
        rng = np.random.default_rng(zlib.crc32(str(s).encode()))

        def normal(*shape: int) -> Any:
            return rng.standard_normal(shape).astype(dtype)

        def states() -> Any:
            rows = () if s.unbatched else (s.B,)
            h = normal(s.L * s.D, *rows, s.P)
            return (h, normal(s.L * s.D, *rows, s.H)) if s.is_lstm else h

        kind, fixed = LAYERS[s.cell]
        options = {"num_layers": s.L, "bias": s.bias, "batch_first": s.batch_first, "bidirectional": s.bidirectional}
        options |= {"proj_size": s.proj_size} if s.proj_size else {}
        self.stack = s
        self.layer = kind(s.I, s.H, **fixed, **options, dropout=s.dropout, dtype=dtype, rng=rng)
        sequence = (s.T,) if s.unbatched else (s.B, s.T) if s.batch_first else (s.T, s.B)
        self.arguments = {"x": normal(*sequence, s.I), **self._rows(rng)}
        if s.state:
            self.arguments["state"] = states()
        suffixes = [f"_l{k}{way}" for k in range(s.L) for way in ("", "_reverse")[: s.D]]
        self.doutputs = {f"h{suffix}": normal(*sequence, s.P) for suffix in suffixes}
        if s.is_lstm:
            self.doutputs |= {f"c{suffix}": normal(*sequence, s.H) for suffix in suffixes}
        self.dy, self.dstate = normal(*sequence, s.D * s.P), states()

    def _rows(self, rng: np.random.Generator) -> dict[str, Any]:
        s, rows = self.stack, {}
        if s.lengths:
            rows["lengths"] = lengths = rng.integers(0, s.T + 1, s.B)
            if s.B > 1:
                lengths[rng.integers(s.B)] = 0
        for name, share in (("reset", 0.2), ("mask", 0.6)):
            if getattr(s, name):
                flags = rng.random((s.T, s.B)) < share
                rows[name] = flags[:, 0] if s.unbatched else flags.T if s.batch_first else flags
        if s.hold:
            rows["masked"] = "hold"
        return rows

    def forward(self, **changes: Any) -> tuple[Any, Any, Any]:
        return self.layer.forward(**{**self.arguments, **changes})

    def run(self, outputs: Any = "h", **changes: Any) -> dict[str, Any]:
        """y, the state and all gradients, with gradients entering through everything of these kinds, too."""
        y, state, tape = self.forward(**changes)
        doutputs = {name: d for name, d in self.doutputs.items() if name[0] in outputs}
        results = {"y": y, **named("state", state), **{name: a.copy() for name, a in tape.outputs.items()}}
        grads = tape.backward(self.dy, self.dstate, doutputs)
        return {**results, "dx": grads.x, **named("dstate", grads.state), **{f"d{n}": g for n, g in grads.params.items()}}


def named(name: str, state: Any) -> dict[str, Any]:
    return dict(zip((f"{name}_h", f"{name}_c"), state if isinstance(state, tuple) else (state,)))


def assert_same_bits(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert got.keys() == expected.keys()
    for name, a in got.items():
        b = expected[name]
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        assert a.tobytes() == b.tobytes(), f"{name}: {(a != b).sum()} of {a.size} differ"
