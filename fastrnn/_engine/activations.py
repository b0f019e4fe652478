"""The activations that cells may have, and what the kernels call them (enum fr_activation_kind of csrc/fastrnn.h)."""

from __future__ import annotations

from typing import NamedTuple

ActivationLike = str | tuple[str | float, ...]  # as a caller says it


class Kind(NamedTuple):
    """number: the kernels'. parameters: the defaults of alpha and beta, as far as the function has them. fixed: those of a function
    that has none but is another one with these."""

    number: int
    parameters: tuple[float, ...] = ()
    fixed: tuple[float, ...] = ()


KINDS = {
    "tanh": Kind(1),
    "sigmoid": Kind(2),
    "relu": Kind(3),
    "leaky_relu": Kind(4, (0.01,)),
    "thresholded_relu": Kind(5, (1.0,)),
    "affine": Kind(6, (1.0, 0.0)),
    "linear": Kind(6, (), (1.0, 0.0)),
    "scaled_tanh": Kind(7, (1.0, 1.0)),
    "hard_sigmoid": Kind(8, (0.2, 0.5)),
    "elu": Kind(9, (1.0,)),
    "softsign": Kind(10),
    "softplus": Kind(11),
}


class Activation(NamedTuple):
    """A function by its name in KINDS, with as many parameters as that has."""

    name: str
    parameters: tuple[float, ...] = ()

    @property
    def given(self) -> ActivationLike:
        """As a caller would say it: the name alone where the parameters are the defaults."""
        return self.name if self.parameters == KINDS[self.name].parameters else (self.name, *self.parameters)

    @property
    def numbers(self) -> tuple[int, float, float]:
        """Kind, alpha and beta, as the kernels take them."""
        kind = KINDS[self.name]
        alpha, beta, *_ = (*self.parameters, *kind.fixed, 0.0, 0.0)
        return kind.number, alpha, beta

    @property
    def steepest(self) -> float:
        """The largest magnitude of its slope."""
        if self.name in ("leaky_relu", "elu"):
            return max(1.0, abs(self.parameters[0]))
        if self.name == "scaled_tanh":
            return abs(self.parameters[0] * self.parameters[1])
        return abs(self.parameters[0]) if self.name in ("affine", "hard_sigmoid") else 0.25 if self.name == "sigmoid" else 1.0

    @property
    def folds(self) -> bool:
        """Does it have the same values on both sides of 0, so that they do not tell the slope?"""
        return self.name in ("leaky_relu", "elu") and self.parameters[0] < 0


TANH, SIGMOID, RELU = Activation("tanh"), Activation("sigmoid"), Activation("relu")
