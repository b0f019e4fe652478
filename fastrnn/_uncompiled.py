"""Why the compiled module is not there, and what to do about it."""

from __future__ import annotations

import sys
from pathlib import Path


def reason() -> str:
    """The text of the ImportError for a folder of the package without a fastrnn._core that this Python can load."""
    folder = Path(__file__).resolve().parent
    text = f"fastrnn is imported from {folder}, where its compiled module fastrnn._core is missing"
    others = sorted(path.name for path in folder.glob("_core.*") if path.suffix in (".so", ".pyd"))
    if others:
        text += f" for this Python, {sys.implementation.cache_tag} on {sys.platform} (there is {', '.join(others)})"
    if (folder.parent / "setup.py").exists():
        return (
            f"{text}. This is the source folder: to use an installed fastrnn, start Python in another folder; to use this one, "
            f"compile it: {sys.executable} -m pip install --editable {folder.parent}"
        )
    return f"{text}. To install it anew: {sys.executable} -m pip install --force-reinstall fastrnn"
