"""The packages that parts of fastrnn need and fastrnn itself does without."""

from __future__ import annotations

# What is known of those that may be there and yet not load.
_ADVICE = {
    "keras": "it needs one of its backends: fastrnn.keras is for KERAS_BACKEND=numpy, set before keras is imported",
    "mpi4py": "it needs an MPI library, the system's (apt install libopenmpi-dev) or PyPI's (pip install mpich)",
}


def missing(user: str, package: str, extra: str, error: Exception) -> ImportError:
    """What `user`, a module or function of ours, raises when importing `package` has ended with `error`.

    Args:
        extra: the extra of fastrnn that brings the package and what it needs.

    Returns: a ModuleNotFoundError with the name of the package that is not installed; an ImportError with the reason, and what may
    help, where it is installed but does not load.
    """
    absent = error.name.partition(".")[0] if isinstance(error, ModuleNotFoundError) and error.name else None
    if absent == package or (absent and package not in _ADVICE):
        text = f"{user} needs the package {absent}, which is not installed: pip install 'fastrnn[{extra}]'"
        return ModuleNotFoundError(text, name=absent)
    advice = _ADVICE.get(package, f"to install it anew: pip install --force-reinstall 'fastrnn[{extra}]'")
    return ImportError(f"{user} needs the package {package}, which does not load ({error}); {advice}", name=package)
