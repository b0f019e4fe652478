"""A callback for Lightning's Trainer, for packages that make their model inside `fit` and hand callbacks on to it.

Needs lightning or pytorch_lightning; of both, the one that is imported already is taken.

>>> from fastrnn.torch.lightning import Accelerate
>>> trainer = lightning.Trainer(callbacks=[Accelerate()])
>>> model = darts.models.RNNModel(..., pl_trainer_kwargs={"callbacks": [Accelerate()]})
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from .replace import Report, accelerate


def _callback() -> Any:
    """Lightning's class of callbacks."""
    names = sorted(("lightning", "pytorch_lightning"), key=lambda name: name not in sys.modules)
    for name in names:
        if importlib.util.find_spec(name) is not None:
            return importlib.import_module(f"{name}.pytorch" if name == "lightning" else name).Callback
    raise ImportError("fastrnn.torch.lightning: needs Lightning, which is not installed; pip install lightning")


class Accelerate(_callback()):  # type: ignore[misc]
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
