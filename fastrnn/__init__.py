"""fastrnn: recurrent networks at the speed of the hardware, forward and backward, on NumPy arrays."""

from . import reference
from .config import (
    __version__,
    available_isas,
    get_num_threads,
    set_gemm,
    set_num_threads,
    show_config,
)
from .functional import gru, lstm, rnn
from .gradcheck import GradcheckError, gradcheck
from .layers import GRU, IRNN, LSTM, RNN
from .stream import Stream

__all__ = [
    "GRU",
    "IRNN",
    "LSTM",
    "RNN",
    "GradcheckError",
    "Stream",
    "__version__",
    "available_isas",
    "get_num_threads",
    "gradcheck",
    "gru",
    "lstm",
    "reference",
    "rnn",
    "set_gemm",
    "set_num_threads",
    "show_config",
]
