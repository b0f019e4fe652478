"""PyTorch models with a recurrent network between PyTorch's own operators, to be timed before and after fastrnn.torch.accelerate.

    model, inputs = make("loop of cells", "lstm", (48, 128, 74, 64))
    result(model, inputs)     its output, and the gradients of its parameters if it is one that is trained
"""

from __future__ import annotations

from typing import Any

import torch
from steps import torch_cell

Tensor = torch.Tensor
WORDS, TAGS, CALLS = 1000, 20, 100


class Loop(torch.nn.Module):
    """A cell and a linear readout in each step, as in imputation and in decoders."""

    trained = True

    def __init__(self, cell: str, I: int, H: int) -> None:
        super().__init__()
        self.cell, self.readout = torch_cell(cell, I, H), torch.nn.Linear(H, I)

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = None, []
        for x_t in x:
            state = self.cell(x_t, state)
            outputs.append(self.readout(state[0] if isinstance(state, tuple) else state))
        return torch.stack(outputs)


class Calls(torch.nn.Module):
    """A layer that is called for one step at a time, as an agent does."""

    trained = False

    def __init__(self, cell: str, I: int, H: int) -> None:
        super().__init__()
        self.layer = torch_layer(cell)(I, H)

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = None, []
        for x_t in x.split(1):
            y, state = self.layer(x_t, state)
            outputs.append(y)
        return torch.cat(outputs)


class Tagger(torch.nn.Module):
    """Embedding, two bidirectional layers on a packed batch, a score for each tag of each word."""

    trained = True

    def __init__(self, cell: str, I: int, H: int) -> None:
        super().__init__()
        self.embedding, self.scores = torch.nn.Embedding(WORDS, I), torch.nn.Linear(2 * H, TAGS)
        self.layers = torch_layer(cell)(I, H, num_layers=2, bidirectional=True)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        packed = torch.nn.utils.rnn.pack_padded_sequence(self.embedding(words), lengths, enforce_sorted=False)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(self.layers(packed)[0])
        return self.scores(y)


KINDS = {"loop of cells": Loop, "100 calls": Calls, "packed tagger": Tagger}


def torch_layer(cell: str) -> Any:
    return {"lstm": torch.nn.LSTM, "gru-after": torch.nn.GRU}[cell]


def make(kind: str, cell: str, shape: tuple[int, int, int, int]) -> tuple[torch.nn.Module, tuple[Tensor, ...]]:
    """A model and its inputs, the same at each call."""
    torch.manual_seed(0)
    T, B, I, H = shape
    model = KINDS[kind](cell, I, H)
    if kind == "packed tagger":
        lengths = torch.randint(T // 8, T + 1, (B,))
        lengths[0] = T
        return model, (torch.randint(WORDS, (T, B)), lengths)
    return model, (torch.randn(CALLS if kind == "100 calls" else T, B, I),)


def in_double(model: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[torch.nn.Module, tuple[Tensor, ...]]:
    return model.double(), tuple(x.double() if x.is_floating_point() else x for x in inputs)


def result(model: Any, inputs: tuple[Tensor, ...]) -> Any:
    """y, or (y, gradients of the mean of y**2)."""
    if not model.trained:
        with torch.no_grad():
            return model(*inputs)
    y = model(*inputs)
    return y, torch.autograd.grad(y.square().mean(), list(model.parameters()))
