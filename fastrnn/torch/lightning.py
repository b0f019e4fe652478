"""A callback for Lightning's Trainer, for packages that make their model inside `fit` and hand callbacks on to it.

Needs lightning or pytorch_lightning; if both are installed, it is a callback for both.

>>> from fastrnn.torch.lightning import Accelerate
>>> trainer = lightning.Trainer(callbacks=[Accelerate()])
>>> model = darts.models.RNNModel(..., pl_trainer_kwargs={"callbacks": [Accelerate()]})
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
    """Lets the recurrent modules of the model compute on fastrnn: fastrnn.torch.accelerate, when fitting, validating, testing or
    predicting starts. Takes no arguments.

    report: what accelerate reported of the model; None before it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.report: Report | None = None

    def _start(self, trainer: Any, pl_module: Any) -> None:
        report = accelerate(pl_module)
        if report.replaced or self.report is None:  # not of a model that was accelerated before
            self.report = report

    on_fit_start = on_validation_start = on_test_start = on_predict_start = _start
