"""Which activations a layer can have: the one place that decides what readers of files take over."""

from __future__ import annotations

from typing import Any

Activation = str | tuple[Any, ...]  # a name, or a name with its parameters, such as ("hard_sigmoid", 0.2, 0.5)


def activations_supported(family: str, activation: Activation, recurrent_activation: Activation | None = None) -> dict[str, Any]:
    """The arguments of the constructor of a layer with these activations.

    family: "rnn", "gru" or "lstm". recurrent_activation: that of the gates; an RNN has none.

    Raises: ValueError with the reason why no layer has them.
    """
    if family == "rnn":
        if activation in ("tanh", "relu"):
            return {"nonlinearity": activation}
        raise ValueError(f"its activation is {_shown(activation)}, and an RNN has tanh or relu")
    for what, got, ours in (("activation", activation, "tanh"), ("recurrent_activation", recurrent_activation, "sigmoid")):
        if got != ours:
            raise ValueError(f"its {what} is {_shown(got)}, and a layer has {ours}")
    return {}


def _shown(activation: Any) -> str:
    return f"{activation[0]}{activation[1:]}" if isinstance(activation, tuple) else str(activation)
