"""fastrnn: recurrent networks at the speed of the hardware, forward and backward, on NumPy arrays."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

try:
    import_module("._core", __name__)
except ModuleNotFoundError as error:
    if error.name != f"{__name__}._core":
        raise
    from ._uncompiled import reason

    raise ImportError(reason(), name=error.name) from None

from .cells import GRUCell, LSTMCell, RNNCell
from .config import __version__, available_isas, get_num_threads, set_gemm, set_num_threads, show_config
from .frozen import FrozenCell, FrozenLayer
from .functional import gru, lstm, rnn
from .gradcheck import GradcheckError, gradcheck
from .layers import GRU, IRNN, LSTM, RNN
from .packed import Packed, pack, unpack
from .stream import Stream
from .unrolled import UnrolledCell

if TYPE_CHECKING:
    from . import reference
    from .files import load_model
    from .saving import load, save

__all__ = [
    "GRU",
    "IRNN",
    "LSTM",
    "RNN",
    "FrozenCell",
    "FrozenLayer",
    "GRUCell",
    "GradcheckError",
    "LSTMCell",
    "Packed",
    "RNNCell",
    "Stream",
    "UnrolledCell",
    "__version__",
    "available_isas",
    "get_num_threads",
    "gradcheck",
    "gru",
    "load",
    "load_model",
    "lstm",
    "pack",
    "reference",
    "rnn",
    "save",
    "set_gemm",
    "set_num_threads",
    "show_config",
    "unpack",
]


_FUNCTIONS = {"load": "saving", "load_model": "files", "save": "saving"}


def __getattr__(name: str) -> Any:
    """The oracle, a look at schedules, and what reads and writes files are loaded when somebody asks for them."""
    if name in ("reference", "schedule"):
        return import_module(f".{name}", __name__)
    if name in _FUNCTIONS:
        return getattr(import_module(f".{_FUNCTIONS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
