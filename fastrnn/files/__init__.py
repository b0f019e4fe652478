"""Model files of other systems: the recurrent layers in them, ready to run, and what could not be taken over.

load_model looks at the file's content to see what it is; a module of this package reads each kind, and needs no package but the one
that its errors name.
"""

from .loading import load_model
from .model import Model, Skipped

__all__ = ["Model", "Skipped", "load_model"]
