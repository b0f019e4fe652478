"""Which activations a layer can have: the one place that decides what readers of files take over."""

from __future__ import annotations

from typing import Any

Activation = str | tuple[Any, ...]  # a name, or a name with its parameters, such as ("hard_sigmoid", 0.2, 0.5)
# The names that mean the same there and here; others may have other parameters, so that readers give those.
_ALIKE = ("tanh", "sigmoid", "relu", "linear", "softsign", "softplus", "elu")


def activations_supported(family: str, activation: Activation, recurrent_activation: Activation | None = None) -> dict[str, Any]:
    """The arguments of the constructor of a layer with these activations.

    family: "rnn", "gru" or "lstm". recurrent_activation: that of the gates; an RNN has none.

    Raises: ValueError with the reason why no layer has them.
    """
    given = {"activation": activation}
    if family != "rnn":
        given["recurrent_activation"] = recurrent_activation or "sigmoid"
    for what, got in given.items():
        if not isinstance(got, tuple) and got not in _ALIKE:
            raise ValueError(f"its {what} is {got}, and a layer has {', '.join(_ALIKE)} and hard_sigmoid")
    return {"nonlinearity": activation} if family == "rnn" else given
