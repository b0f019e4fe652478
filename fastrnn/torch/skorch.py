"""A callback for skorch, whose nets make their module inside `fit`. Needs skorch: pip install skorch.

>>> from fastrnn.torch.skorch import Accelerate
>>> net = skorch.NeuralNetClassifier(Model, callbacks=[Accelerate()])
"""

from __future__ import annotations

from typing import Any

import torch

try:
    from skorch.callbacks import Callback
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "skorch":
        raise
    raise ImportError("fastrnn.torch.skorch: needs skorch, which is not installed; pip install skorch") from error

from .replace import Report, accelerate


class Accelerate(Callback):
    """Lets the recurrent modules of a net compute on fastrnn: fastrnn.torch.accelerate, when training begins. Takes no arguments.

    report_: what accelerate reported of the net's modules, by names such as "module_.rnn"; None before it.
    """

    report_: Report | None = None

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        modules = {name: value for name, value in vars(net).items() if isinstance(value, torch.nn.Module)}
        report = accelerate(torch.nn.ModuleDict(modules))
        if report.replaced or self.report_ is None:  # not of modules that were accelerated before
            self.report_ = report
