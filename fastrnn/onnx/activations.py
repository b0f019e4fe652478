"""The eleven activation functions of the ONNX recurrent operators, as functions of NumPy arrays."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._engine.activations import KINDS
from .._engine.activations import Activation as Fused

Array = NDArray[Any]
Function = Callable[[Array], Array]


class Activation(NamedTuple):
    """A function with its parameters; alpha and beta are None where the function has none."""

    name: str
    alpha: float | None = None
    beta: float | None = None

    def function(self) -> Function:
        return lambda x: _FUNCTIONS[self.name](x, self.alpha, self.beta)

    def fused(self) -> Fused:
        """The same function as the kernels have it."""
        return Fused(_ours(self.name), tuple(p for p in (self.alpha, self.beta) if p is not None))

    @classmethod
    def of(cls, fused: Fused) -> Activation:
        """The function of the kernels as ONNX has it."""
        if fused.name == "linear":
            return cls("Affine", *KINDS["linear"].fixed)
        name = next(activation.name for activation in ACTIVATIONS.values() if _ours(activation.name) == fused.name)
        return cls(name, *fused.parameters)


# Equations: ONNX operator LSTM, "Activation functions". Names and the defaults of alpha and beta; the specification refers to the
# operators of the same name. Affine and ScaledTanh had no such defaults when they were operators; ours make them the identity and
# Tanh.
ACTIVATIONS = {
    activation.name.lower(): activation
    for activation in (
        Activation("Relu"),
        Activation("Tanh"),
        Activation("Sigmoid"),
        Activation("Affine", 1.0, 0.0),
        Activation("LeakyRelu", 0.01),
        Activation("ThresholdedRelu", 1.0),
        Activation("ScaledTanh", 1.0, 1.0),
        Activation("HardSigmoid", 0.2, 0.5),
        Activation("Elu", 1.0),
        Activation("Softsign"),
        Activation("Softplus"),
    )
}


def _ours(name: str) -> str:
    """LeakyRelu is leaky_relu."""
    return re.sub(r"(?<=.)(?=[A-Z])", "_", name).lower()


def _sigmoid(x: Array) -> Array:
    """No overflow, and both tails are exact: the exponent is never positive."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


_FUNCTIONS: dict[str, Callable[[Array, Any, Any], Array]] = {
    "Relu": lambda x, a, b: np.maximum(x, 0),
    "Tanh": lambda x, a, b: np.tanh(x),
    "Sigmoid": lambda x, a, b: _sigmoid(x),
    "Affine": lambda x, a, b: a * x + b,
    "LeakyRelu": lambda x, a, b: np.where(x >= 0, x, a * x),
    "ThresholdedRelu": lambda x, a, b: np.where(x >= a, x, 0),
    "ScaledTanh": lambda x, a, b: a * np.tanh(b * x),
    "HardSigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "Elu": lambda x, a, b: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0))),
    "Softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "Softplus": lambda x, a, b: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
}
