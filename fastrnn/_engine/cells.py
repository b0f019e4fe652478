"""The table of cells: what Python has to know of each. The kernels have theirs in csrc/cells."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class HiddenGradient(NamedTuple):
    """Blocks of the gradient of w_hh: those from `row` on are dgates blocks from `dgates` on, times h, or times r*h."""

    dgates: int
    blocks: int
    row: int
    of_reset_h: bool = False


class Form(NamedTuple):
    """letters: of the gates, in the order of the weights' row blocks. has_c: the state is a pair (h, c). saves: a training forward
    saves gates; else y is enough. peephole: with weights from c to the gates."""

    letters: str
    hidden: tuple[HiddenGradient, ...]
    has_c: bool = False
    saves: bool = True
    peephole: bool = False


_ALL_FOUR = (HiddenGradient(0, 4, 0),)
_RNN = Form("h", (HiddenGradient(0, 1, 0),), saves=False)
_FORMS = (
    _RNN,
    _RNN,
    Form("ifgo", _ALL_FOUR, has_c=True),
    Form("ifgo", _ALL_FOUR, has_c=True, peephole=True),
    Form("rzn", (HiddenGradient(1, 2, 0), HiddenGradient(0, 1, 2))),
    Form("rzn", (HiddenGradient(0, 2, 0), HiddenGradient(2, 1, 2, of_reset_h=True))),
)


class Cell(IntEnum):
    """The kernels' names of the cells (enum fr_cell of csrc/fastrnn.h), and their forms."""

    RNN_TANH = 0
    RNN_RELU = 1
    LSTM = 2
    LSTM_PEEPHOLE = 3
    GRU_AFTER = 4
    GRU_BEFORE = 5

    form: Form
    gates: int  # G
    is_lstm: bool

    def __init__(self, number: int) -> None:
        self.form = _FORMS[number]
        self.gates = len(self.form.letters)
        self.is_lstm = self.form.has_c


def rnn_cell(nonlinearity: str) -> Cell:
    """Of "tanh" or "relu"."""
    return Cell.RNN_TANH if nonlinearity == "tanh" else Cell.RNN_RELU


def gru_cell(reset_after: bool) -> Cell:
    return Cell.GRU_AFTER if reset_after else Cell.GRU_BEFORE


def lstm_cell(peephole: bool) -> Cell:
    return Cell.LSTM_PEEPHOLE if peephole else Cell.LSTM
