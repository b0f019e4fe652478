"""A callback for skorch, whose nets make their module inside `fit`. Needs skorch: pip install skorch."""

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
    """Applies fastrnn.torch.accelerate to a net when training begins. Takes no arguments.

    Attributes
    ----------
    report_ : fastrnn.torch.Report or None
        What accelerate reported of the net's modules, by names such as "module_.rnn"; None before it.

    Examples
    --------
    >>> from fastrnn.torch.skorch import Accelerate
    >>> callback = Accelerate()  # for skorch.NeuralNetClassifier(Model, callbacks=[callback])
    >>> print(callback.report_)
    None
    """

    report_: Report | None = None

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        modules = {name: value for name, value in vars(net).items() if isinstance(value, torch.nn.Module)}
        report = accelerate(torch.nn.ModuleDict(modules))
        if report.replaced or self.report_ is None:  # not of modules that were accelerated before
            self.report_ = report
