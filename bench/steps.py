"""The contestants for loops over single steps: one class each, as in peers.py.

    contestant = TorchCell(p)       p: a problem of cases.py, x (T, B, I), with an initial state
    contestant.forward()            the state after all steps, for inference
    contestant.train()              ([h of each step], ([dx of each step], dw_ih, dw_hh, db_ih, db_hh, dstate)), where it trains

The gradients that come in are dy of each step's h, and at the end dstate of the last state.
"""

from __future__ import annotations

from typing import Any

import numpy_loop
from peers import LONG_NAMES, NAMES, Contestant, fastrnn_module

from cases import CELLS, Problem


class Steps(Contestant):
    """What they have in common: x and dy as lists, the state as cells take it, the loop of inference over self.step."""

    def __init__(self, p: Problem) -> None:
        self.is_lstm = p.case.is_lstm
        self.cell, self.xs, self.dhs = p.case.cell, list(p.arrays["x"]), list(p.dy)
        self.state = (p.arrays["h0"], p.arrays["c0"]) if self.is_lstm else p.arrays["h0"]
        dh, self.dc = p.dstate if self.is_lstm else (p.dstate, None)
        self.dhs[-1] = self.dhs[-1] + dh
        self.dstate = (self.dhs[-1], self.dc) if self.is_lstm else self.dhs[-1]
        self.weights = {name: p.arrays[name] for name in NAMES[1:]}

    def forward(self) -> Any:
        step, state = self.step, self.state
        for x in self.xs:
            state = step(x, state)
        return state

    def own(self) -> Any:
        """fastrnn's cell with these weights."""
        return fastrnn_module("Cell", self.cell, self.weights, threads=1)


class Cell(Steps):
    name, modules = "cell", ("fastrnn",)

    def __init__(self, p: Problem) -> None:
        super().__init__(p)
        self.step = self.own()

    def train(self) -> Any:
        """Of a single step."""
        (x,) = self.xs
        state, tape = self.step.forward(x, self.state)
        grads = tape.backward(self.dstate)
        return [state[0] if self.is_lstm else state], ([grads.x], *of_weights(grads), grads.state)


class FrozenCell(Cell):
    name, trains = "frozen", False

    def __init__(self, p: Problem) -> None:
        super().__init__(p)
        self.step = self.step.frozen()


class UnrolledCell(Steps):
    name, modules = "unrolled", ("fastrnn",)

    def __init__(self, p: Problem) -> None:
        super().__init__(p)
        self.module = self.own()

    def train(self) -> Any:
        state, hs, tapes, dxs, is_lstm = self.state, [], [], [None] * len(self.xs), self.is_lstm
        with self.module.unrolled() as steps:
            for x in self.xs:
                state, tape = steps.forward(x, state)
                hs.append(state[0] if is_lstm else state)
                tapes.append(tape)
            dstate = self.dstate
            for t in reversed(range(len(tapes))):
                grads = tapes[t].backward(dstate)
                dxs[t], dstate = grads.x, grads.state
                if t:
                    dh = self.dhs[t - 1]
                    dstate = (dstate[0] + dh, dstate[1]) if is_lstm else dstate + dh
            return hs, (dxs, *of_weights(steps.grads), dstate)


def of_weights(grads: Any) -> tuple[Any, ...]:
    return tuple(grads.params[name] for name in LONG_NAMES)


class NumPyStep(Steps):
    name, trains = "NumPy", False

    def __init__(self, p: Problem) -> None:
        super().__init__(p)
        self.step = numpy_loop.stepper(self.cell, **self.weights)


class TorchCell(Steps):
    name, modules = "PyTorch", ("torch",)

    def __init__(self, p: Problem) -> None:
        import torch

        super().__init__(p)
        torch.set_num_threads(1)
        self.torch = torch
        self.step = torch_cell(self.cell, p.case.I, p.case.H)
        self.step.load_state_dict({long: torch.tensor(self.weights[name]) for name, long in zip(NAMES[1:], LONG_NAMES)})
        self.xs = [torch.tensor(x, requires_grad=True) for x in self.xs]
        ends = self.state if self.is_lstm else (self.state,)
        self.state0 = [torch.tensor(end, requires_grad=True) for end in ends]
        self.state = tuple(self.state0) if self.is_lstm else self.state0[0]
        self.wanted = [*self.xs, *self.step.parameters(), *self.state0]  # the parameters in the order of NAMES
        self.given = [torch.tensor(d) for d in (*self.dhs, *([self.dc] if self.is_lstm else []))]

    def forward(self) -> Any:
        with self.torch.inference_mode():
            return super().forward()

    def train(self) -> Any:
        step, state, hs = self.step, self.state, []
        for x in self.xs:
            state = step(x, state)
            hs.append(state[0] if self.is_lstm else state)
        grads = self.torch.autograd.grad([*hs, state[1]] if self.is_lstm else hs, self.wanted, self.given)
        T = len(hs)
        return hs, (list(grads[:T]), *grads[T:])


def torch_cell(cell: str, I: int, H: int) -> Any:
    """PyTorch's cell of that name of cases.py."""
    import torch

    kind = {"rnn": torch.nn.RNNCell, "gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell}[CELLS[cell][0]]
    return kind(I, H, **({"nonlinearity": cell} if kind is torch.nn.RNNCell else {}))
