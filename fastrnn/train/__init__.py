"""fastrnn.train: what stands between a tape's gradients and the next step, on NumPy arrays.

`import fastrnn` does not bring it in: `from fastrnn.train import Adam, Linear, clip_global_norm`.

Everything works on flat vectors, in place: `layer.flat` holds all parameters of a layer, `grads.flat` its gradients
in the same order, and a model of several parts is a list of such vectors.
"""

from . import initialisers, schedules
from .average import Average
from .beam import Beam, beam_search
from .checkpoint import load, save
from .clip import clip_global_norm, clip_value, global_norm
from .embedding import Embedding
from .losses import sigmoid_cross_entropy, softmax_cross_entropy, squared_error
from .optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from .padding import reverse_padded
from .parallel import DataParallel
from .readout import Linear
from .recurrences import OutputRNN, PreactivationRNN, scheduled_sampling
from .sampling import draw, sample

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Average",
    "Beam",
    "DataParallel",
    "Embedding",
    "Linear",
    "Optimizer",
    "OutputRNN",
    "PreactivationRNN",
    "RMSprop",
    "beam_search",
    "clip_global_norm",
    "clip_value",
    "draw",
    "global_norm",
    "initialisers",
    "load",
    "reverse_padded",
    "sample",
    "save",
    "scheduled_sampling",
    "schedules",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
    "squared_error",
]
