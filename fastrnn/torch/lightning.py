"""A callback for Lightning's Trainer, for packages that make their model inside `fit` and pass callbacks on to it.

Needs lightning or pytorch_lightning; if both are installed, it is a callback for both.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from .replace import Report, accelerate

PACKAGES = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}  # one and the same, by two names


def _callbacks() -> list[Any]:
    """The classes of callbacks of what is installed of Lightning."""
    found = [importlib.import_module(package).Callback for name, package in PACKAGES.items() if find_spec(name) is not None]
    if not found:
        raise ImportError("fastrnn.torch.lightning: needs Lightning, which is not installed; pip install lightning")
    return found


class Accelerate(*_callbacks()):  # type: ignore[misc]
    """Applies fastrnn.torch.accelerate to the model when fitting, validating, testing or predicting starts. Takes no arguments.

    Attributes
    ----------
    report : fastrnn.torch.Report or None
        What accelerate reported of the model; None before it.

    Examples
    --------
    >>> from fastrnn.torch.lightning import Accelerate
    >>> callback = Accelerate()  # for lightning.Trainer(callbacks=[callback]), or a package's pl_trainer_kwargs
    >>> print(callback.report)
    None
    """

    def __init__(self) -> None:
        super().__init__()
        self.report: Report | None = None

    def _start(self, trainer: Any, pl_module: Any) -> None:
        report = accelerate(pl_module)
        if report.replaced or self.report is None:  # not of a model that was accelerated before
            self.report = report

    on_fit_start = on_validation_start = on_test_start = on_predict_start = _start
