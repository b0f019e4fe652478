"""fastrnn.diagnostics: see gradients vanish and explode, and where numbers stop being numbers.

`import fastrnn` does not bring it in: `from fastrnn.diagnostics import gradient_norms, jacobian_norms, spectra, watch, plot`.

These functions take a layer apart, step by step: they are for looking, not for training.
"""

from .chain import gradient_norms
from .finding import Finding, watch
from .jacobian import JacobianNorms, jacobian_norms, step_jacobians
from .picture import plot
from .spectrum import Spectrum, spectra, spectrum

__all__ = [
    "Finding",
    "JacobianNorms",
    "Spectrum",
    "gradient_norms",
    "jacobian_norms",
    "plot",
    "spectra",
    "spectrum",
    "step_jacobians",
    "watch",
]
