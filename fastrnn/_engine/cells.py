"""The table of cells: what Python has to know of each. The kernels have theirs in csrc/cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from .activations import RELU, SIGMOID, TANH, Activation


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


class Cell(int):
    """The kernels' number of a cell (enum fr_cell of csrc/fastrnn.h), its form, and activations in place of its own.

    activations: none, or all: f of the gates (of an RNN its only one), g of the candidate, and of an LSTM h of c. names: what the
    caller calls each of them.
    """

    RNN_TANH: ClassVar[Cell]
    RNN_RELU: ClassVar[Cell]
    LSTM: ClassVar[Cell]
    LSTM_PEEPHOLE: ClassVar[Cell]
    GRU_AFTER: ClassVar[Cell]
    GRU_BEFORE: ClassVar[Cell]

    form: Form
    gates: int  # G
    is_lstm: bool
    activations: tuple[Activation, ...]
    names: tuple[str, ...]
    kernel_activations: tuple[tuple[int, float, float], ...]  # kind, alpha and beta of each

    def __new__(cls, number: int, activations: tuple[Activation, ...] = (), names: tuple[str, ...] = ()) -> Cell:
        cell = super().__new__(cls, number)
        cell.form, cell.activations, cell.names = _FORMS[number], activations, names
        cell.gates, cell.is_lstm = len(cell.form.letters), cell.form.has_c
        cell.kernel_activations = tuple(activation.numbers for activation in activations)
        return cell

    def __reduce__(self) -> tuple[type[Cell], tuple[int, tuple[Activation, ...], tuple[str, ...]]]:
        return Cell, (int(self), self.activations, self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and (int(self), self.activations) == (int(other), other.activations)

    def __hash__(self) -> int:
        return hash((int(self), self.activations))

    def unusual(self) -> Iterator[tuple[str, Activation]]:
        """The activations that are not the usual tanh and sigmoid, with the caller's names."""
        for name, activation in zip(self.names, self.activations):
            if activation != (SIGMOID if name == "recurrent_activation" else TANH):
                yield name, activation

    def check_slopes(self) -> None:
        """Raises: ValueError, if an activation's value does not tell its slope, which training needs."""
        for name, activation in zip(self.names, self.activations):
            if activation.folds:
                raise ValueError(
                    f"{name}: expected alpha >= 0 of {activation.name!r} for training, got {activation.parameters[0]!r}: with a "
                    "negative alpha numbers on both sides of 0 have the same value, and gradients are made from values"
                )


for _number, _name in enumerate(("RNN_TANH", "RNN_RELU", "LSTM", "LSTM_PEEPHOLE", "GRU_AFTER", "GRU_BEFORE")):
    setattr(Cell, _name, Cell(_number))


def rnn_cell(nonlinearity: Activation) -> Cell:
    usual = {TANH: Cell.RNN_TANH, RELU: Cell.RNN_RELU}
    return usual[nonlinearity] if nonlinearity in usual else _with(Cell.RNN_TANH, (nonlinearity,), ("nonlinearity",))


def gru_cell(reset_after: bool, activation: Activation = TANH, recurrent_activation: Activation = SIGMOID) -> Cell:
    cell = Cell.GRU_AFTER if reset_after else Cell.GRU_BEFORE
    usual = (activation, recurrent_activation) == (TANH, SIGMOID)
    return cell if usual else _with(cell, (recurrent_activation, activation), ("recurrent_activation", "activation"))


def lstm_cell(
    peephole: bool,
    activation: Activation = TANH,
    recurrent_activation: Activation = SIGMOID,
    output: Activation | None = None,
) -> Cell:
    """output: the activation of c on its way into h; None: as of the candidate."""
    cell, output = Cell.LSTM_PEEPHOLE if peephole else Cell.LSTM, output or activation
    if (activation, recurrent_activation, output) == (TANH, SIGMOID, TANH):
        return cell
    names = ("recurrent_activation", "activation", "activation")
    return _with(cell, (recurrent_activation, activation, output), names)


def _with(cell: Cell, activations: tuple[Activation, ...], names: tuple[str, ...]) -> Cell:
    return Cell(int(cell), activations, names)
