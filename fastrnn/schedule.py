"""How a call of a given size is run, to look at: `forward` and `backward` return a schedule that prints as a sentence."""

from ._engine.schedule import Schedule, backward, forward

__all__ = ["Schedule", "backward", "forward"]
