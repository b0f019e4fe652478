"""Threads, instruction set and the engine of the large products: what holds for the whole process."""

from __future__ import annotations

import os
import sys

import numpy as np

from . import _core
from ._api import checks
from ._engine import blas, cores, schedule

__version__ = "0.1.0"
_MAX_THREADS = 256
_SHOWN = ((1, 64), (1, 256), (8, 128), (32, 256))  # rows and units of the calls that show_config tells of
_default = (1, "")  # threads at the start, and what says so


def set_num_threads(n: int) -> None:
    """Use at most `n` threads in each call from now on, whichever Python thread it comes from. Results do not depend on it.

    The initial value is FASTRNN_NUM_THREADS; without it, the least of the cores that the process may use, the quota of its control
    group (rounded up) and OMP_NUM_THREADS. threadpoolctl.threadpool_limits sets it, too.

    Parameters
    ----------
    n : int
        From 1 to 256.

    Raises
    ------
    TypeError, ValueError
        `n` is no integer, or outside its range.

    Examples
    --------
    >>> import fastrnn
    >>> before = fastrnn.get_num_threads()
    >>> fastrnn.set_num_threads(2)
    >>> fastrnn.get_num_threads()
    2
    >>> fastrnn.set_num_threads(before)
    """
    _core.use_threads(checks.integer("n", n, 1, _MAX_THREADS))


def get_num_threads() -> int:
    """The number of threads that a call may use.

    Returns
    -------
    n : int
        From 1 to 256.

    Examples
    --------
    >>> import fastrnn
    >>> 1 <= fastrnn.get_num_threads() <= 256
    True
    """
    return _core.threads_in_use()


def available_isas() -> list[str]:
    """Names of the instruction sets that this processor runs, the fastest last.

    Returns
    -------
    names : list of str
        "scalar" (plain C) is everywhere; x86-64 has "sse2", and "v3" (AVX2 and FMA), "v4" (AVX-512) and "amx" (AVX-512, and AMX for
        products of bfloat16) if the processor does; aarch64 has "neon". The environment variable FASTRNN_ISA forces one of them.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.available_isas()[0]
    'scalar'
    """
    return _core.isas()


def set_gemm(engine: str) -> None:
    """Choose what computes the large products outside the recurrence: x W, dx and the weights' gradients.

    Parameters
    ----------
    engine : "own" or "blas"
        "own" (the default) is the package's packed micro-kernel: the promises about bits are made for it. "blas" is NumPy's BLAS,
        in calls that may use as many threads as it does (OPENBLAS_NUM_THREADS); other calls stay with "own". The instruction set
        "scalar" takes the BLAS unless told "own". Calls with precision="bf16" always stay with "own": NumPy's BLAS has no products
        of bfloat16. The initial value is FASTRNN_GEMM.

    Raises
    ------
    TypeError, ValueError
        Another name.
    RuntimeError
        For "blas", if NumPy's BLAS does not tell its number of threads.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.set_gemm("own")
    """
    if not isinstance(engine, str):
        raise TypeError(f"engine: expected 'own' or 'blas', got {engine!r:.60}")
    checks.choice("engine", engine, "own", "blas")
    if engine == "blas" and not blas.known():
        raise RuntimeError("engine: NumPy's BLAS does not tell its number of threads here, so 'blas' could not keep threads=n")
    blas.choose(engine)


def gemm() -> str:
    """The engine in use, "own" or "blas"; see `set_gemm`.

    Examples
    --------
    >>> from fastrnn import config
    >>> config.gemm() in ("own", "blas")
    True
    """
    return blas.chosen()


def use_isa(name: str) -> None:
    """Use this instruction set for the calls that follow.

    Parameters
    ----------
    name : str
        One of `available_isas()`.

    Raises
    ------
    ValueError
        It is not available.

    Examples
    --------
    >>> from fastrnn import config
    >>> config.use_isa(config.available_isas()[-1])
    """
    names = _core.isas()
    if name not in names:
        raise ValueError(f"isa: expected one of {', '.join(names)}, got {name!r}")
    _core.use_isa(names.index(name))


def _bf16_kernels() -> str:
    """The instruction set of bf16 products, and what the system says about AMX."""
    name, answer = _core.isa_in_use("bf16"), _core.amx_answer()
    if answer == "refused":
        return f"{name}, because the system refuses the tiles of AMX; the same bits"
    return f"{name}, whose tiles the first call asks the system for" if name == "amx" and not answer else name


def show_config() -> None:
    """Print version, instruction set in use, threads, engine of the large products, NumPy and its BLAS.

    Also how an LSTM of 100 steps would be run at a few sizes.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.show_config()  # doctest: +ELLIPSIS
    fastrnn ...
    instruction set   ... (available: scalar...)
    bf16              ...
    threads           ...
    large products    ...
    NumPy             ...
    """
    build = np.show_config(mode="dicts")
    library = build.get("Build Dependencies", {}).get("blas", {}) if isinstance(build, dict) else {}
    lines = [
        f"fastrnn {__version__}",
        f"instruction set   {_core.isa_in_use()} (available: {', '.join(_core.isas())})",
        f"bf16              {_bf16_kernels()} (products with precision='bf16')",
        f"threads           {get_num_threads()} (default {_default[0]}: {_default[1]})",
        f"large products    {gemm()}",
        f"NumPy             {np.__version__}, BLAS {library.get('name', 'unknown')} {library.get('version', '')}".rstrip(),
        f"Python            {sys.version.split()[0]}",
    ]
    for B, H in _SHOWN:
        lines.append(f"B={B:<3} I=H={H:<4}     {schedule.forward(100, B, H, H, 4, get_num_threads())}")
    print("\n".join(lines))


def _start_threads() -> tuple[int, str]:
    """The number of threads at the start, and what says so."""
    text = os.environ.get("FASTRNN_NUM_THREADS")
    if not text:
        n, bound = cores.default()
        return min(n, _MAX_THREADS), bound
    n = cores.count(text)
    if not 1 <= n <= _MAX_THREADS:
        raise ImportError(f"FASTRNN_NUM_THREADS: expected an integer from 1 to {_MAX_THREADS}, got {text!r:.60}")
    return n, "FASTRNN_NUM_THREADS"


def _register() -> None:
    """Let the limits of threadpoolctl hold for this package, if it is installed."""
    try:
        from threadpoolctl import LibController, register
    except ImportError:  # or one older than 3.2
        return

    class Controller(LibController):  # type: ignore[misc, unused-ignore]
        user_api = internal_api = "fastrnn"
        filename_prefixes = ("_core.",)
        check_symbols = ("fastrnn_threads",)  # other packages have a _core, too

        def get_num_threads(self) -> int:
            return get_num_threads()

        def set_num_threads(self, num_threads: int) -> None:
            set_num_threads(min(max(num_threads, 1), _MAX_THREADS))

        def get_version(self) -> str:
            return __version__

    register(Controller)


def _start() -> None:
    """Reads the FASTRNN_* variables; a value that cannot be used stops the import."""
    global _default
    names = _core.isas()
    wanted = os.environ.get("FASTRNN_ISA") or names[-1]
    if wanted not in names:
        raise ImportError(f"FASTRNN_ISA: expected one of {', '.join(names)}, got {wanted!r}")
    _core.use_isa(names.index(wanted))
    _default = _start_threads()
    _core.use_threads(_default[0])
    engine = os.environ.get("FASTRNN_GEMM")
    if engine:
        try:
            set_gemm(engine)
        except (ValueError, RuntimeError) as error:
            raise ImportError(f"FASTRNN_GEMM: {error}") from None
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_core.after_fork)
    _register()


_start()
