"""How a call is run, to look at: print(forward(T, B, I, H, G, threads)), G being 1, 3 or 4 gates; likewise backward.

>>> import fastrnn.schedule
>>> print(fastrnn.schedule.forward(T=100, B=1, I=256, H=256, G=4, threads=2))
2 threads share the hidden units, input products first, 64 items a chunk
"""

from ._engine.schedule import Schedule, backward, forward

__all__ = ["Schedule", "backward", "forward"]
