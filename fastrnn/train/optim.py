"""Optimisers: they change flat vectors of parameters in place, one call per step, by PyTorch's rules."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from .._api import checks
from .._core import InUse
from . import state
from .clip import clip_global_norm
from .vectors import Array, Arrays, Column, Rule, apply, matching, vectors, writable

Rate = float | Callable[[int], float]


class Optimizer(ABC):
    """What SGD, RMSprop, Adagrad, Adam and AdamW share.

    Args:
        params: an array or several, float32 or float64, such as [layer.flat, readout.flat]. They are changed in place.
        lr: the learning rate, at least 0; or a function of the number of steps so far, such as those of
            fastrnn.train.schedules. The attribute `lr` may be set between steps.

    Attributes:
        t: the steps so far.
        skipped: the steps that clipped_step left out because a gradient was not finite.

    A step is one compiled pass over all arrays, on several threads if they are large; neither threads nor the instruction set
    change a bit. Numbers below the normal range (1.2e-38 in float32) count as 0, so that the moments of units whose gradient
    stays 0 do not slow a step down. All memory is allocated here: no step allocates, but for arrays that are not contiguous.
    An optimiser serves one thread at a time.

    Raises: TypeError; ValueError, also for a read-only array. Every method: RuntimeError where another thread is in one of the same
        optimiser.

    >>> adam = Adam([layer.flat, readout.flat], lr=1e-3)
    >>> adam.step([layer_grads.flat, readout_grads.flat])
    """

    _rule: Rule
    _kept: tuple[str, ...] = ()  # all vectors that the rule may keep beside the parameters
    _names: tuple[str, ...] = ()  # those that it keeps

    def __init__(self, params: Arrays, lr: Rate) -> None:
        self.lr = lr if callable(lr) else checks.real("lr", lr, 0)
        self.params = writable("params", vectors("params", params))
        self.t = self.skipped = 0
        self._in_use = InUse(type(self).__name__, "add the threads' gradients up and step in one thread")
        for name in self._names:
            setattr(self, name, [np.zeros(p.shape, p.dtype) for p in self.params])
        kept = [tuple(getattr(self, name)) if name in self._names else None for name in self._kept]
        self._changed: tuple[Column, ...] = (tuple(self.params), *kept)

    def step(self, grads: Arrays) -> None:
        """Change the parameters by one step.

        Args:
            grads: one array for each of params, with its shape and dtype; they are only read.

        Raises: TypeError, ValueError; then nothing was changed.

        >>> adam.step(grads.flat)
        """
        with self._in_use:
            self._step(grads)

    def _step(self, grads: Arrays) -> None:
        grads = matching("grads", grads, self.params)
        lr = checks.real("lr", self.lr(self.t) if callable(self.lr) else self.lr, 0)
        self.t += 1
        apply(self._rule, self._numbers(lr), self._changed, (grads,))

    def clipped_step(self, grads: Arrays, max_norm: float) -> float:
        """Clip the gradients by their global norm, in place, and step; but not if the norm is NaN or infinite.

        The gradients of an IRNN or a deep tanh network explode now and then, also in a training that succeeds. Clipped they do
        no harm; where even the norm is not finite there is no direction to follow, and the step is skipped: neither the
        parameters nor what the optimiser keeps is touched, and `skipped` counts it.

        Args: as step's; max_norm as clip_global_norm's.

        Returns: the norm before clipping.

        Raises: TypeError, ValueError.

        >>> norm = adam.clipped_step([layer_grads.flat, readout_grads.flat], max_norm=1.0)
        """
        with self._in_use:
            grads = matching("grads", grads, self.params)
            norm = clip_global_norm(grads, max_norm)
            if math.isfinite(norm):
                self._step(grads)
            else:
                self.skipped += 1
            return norm

    def state_dict(self) -> dict[str, Array]:
        """Copies of all that the next step depends on, apart from the parameters and what the constructor was given: t, the kept
        vectors ("m.0", "m.1", ...), and lr if it is a number."""
        with self._in_use:
            return state.copies(self._live())

    def load_state_dict(self, mapping: Mapping[str, Array]) -> None:
        """Go on where another optimiser of the same kind, on parameters of the same shapes, stopped.

        Raises: KeyError, TypeError, ValueError; then nothing was changed.
        """
        with self._in_use:
            live = self._live()
            state.take_over(live, mapping)
            self.t, self.skipped = int(live["t"]), int(live["skipped"])
            if "lr" in live:
                self.lr = float(live["lr"])

    def __reduce__(self) -> NoReturn:
        raise TypeError("an optimiser works on the arrays that it was given; save state_dict(), and load it into a new one")

    def _live(self) -> dict[str, Array]:
        numbers = {"t": np.array(self.t, np.int64), "skipped": np.array(self.skipped, np.int64)}
        if not callable(self.lr):
            numbers["lr"] = np.array(self.lr, np.float64)
        return numbers | {f"{name}.{k}": array for name in self._names for k, array in enumerate(getattr(self, name))}

    @abstractmethod
    def _numbers(self, lr: float) -> tuple[float, ...]:
        """Those of this step, in the order of csrc/fastrnn.h."""


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Polyak 1964) or Nesterov's (Sutskever et al. 2013); torch.optim.SGD's numbers.

        d = g + weight_decay p           v = momentum v + d           p = p - lr v, or with nesterov p - lr (d + momentum v)

    Args: momentum, weight_decay: at least 0. nesterov: needs a momentum above 0. The rest is told in Optimizer.

    >>> sgd = SGD(layer.flat, lr=0.1, momentum=0.9)
    """

    _rule, _kept = Rule.SGD, ("v",)

    def __init__(
        self, params: Arrays, lr: Rate = 1e-3, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        self.momentum = checks.real("momentum", momentum, 0)
        self.weight_decay = checks.real("weight_decay", weight_decay, 0)
        self.nesterov = checks.flag("nesterov", nesterov)
        if nesterov and momentum == 0:
            raise ValueError("nesterov: expected False without momentum, got True")
        self._names = ("v",) if momentum else ()
        super().__init__(params, lr)

    def _numbers(self, lr: float) -> tuple[float, ...]:
        return lr, self.weight_decay, self.momentum, self.nesterov


class RMSprop(Optimizer):
    """RMSprop (Tieleman and Hinton 2012), centered as by Graves 2013 (arXiv 1308.0850); torch.optim.RMSprop's numbers.

        v = alpha v + (1 - alpha) g^2                    d = g / (sqrt(v) + eps)                    p = p - lr d

    centered: with m = alpha m + (1 - alpha) g, the root is of v - m^2. momentum: b = momentum b + d stands in for d.

    Args: alpha: 0 <= alpha < 1. eps, momentum, weight_decay: at least 0. The rest is told in Optimizer.

    >>> rmsprop = RMSprop([layer.flat, readout.flat], lr=2e-3, alpha=0.95)
    """

    _rule, _kept = Rule.RMSPROP, ("v", "m", "b")

    def __init__(
        self,
        params: Arrays,
        lr: Rate = 1e-2,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        centered: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        self.alpha, self.eps = _fraction("alpha", alpha), checks.real("eps", eps, 0)
        self.momentum = checks.real("momentum", momentum, 0)
        self.centered = checks.flag("centered", centered)
        self.weight_decay = checks.real("weight_decay", weight_decay, 0)
        self._names = ("v", *(["m"] if centered else []), *(["b"] if momentum else []))
        super().__init__(params, lr)

    def _numbers(self, lr: float) -> tuple[float, ...]:
        return lr, self.weight_decay, self.alpha, 1 - self.alpha, self.eps, self.momentum


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan and Singer 2011); torch.optim.Adagrad's numbers.

        v = v + g^2                    p = p - lr / (1 + (t - 1) lr_decay) g / (sqrt(v) + eps)

    Args: lr_decay, initial (of v), eps, weight_decay: at least 0. The rest is told in Optimizer.

    >>> adagrad = Adagrad(layer.flat, lr=0.1)
    """

    _rule, _kept, _names = Rule.ADAGRAD, ("v",), ("v",)

    def __init__(
        self,
        params: Arrays,
        lr: Rate = 1e-2,
        *,
        lr_decay: float = 0.0,
        initial: float = 0.0,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
    ) -> None:
        self.lr_decay, initial = checks.real("lr_decay", lr_decay, 0), checks.real("initial", initial, 0)
        self.eps, self.weight_decay = checks.real("eps", eps, 0), checks.real("weight_decay", weight_decay, 0)
        self.v: list[Array]
        super().__init__(params, lr)
        for v in self.v:
            v[...] = initial

    def _numbers(self, lr: float) -> tuple[float, ...]:
        return lr / (1 + (self.t - 1) * self.lr_decay), self.weight_decay, self.eps


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1), with the numbers of torch.optim.Adam.

        m = beta1 m + (1 - beta1) g                  v = beta2 v + (1 - beta2) g^2
        p = p - lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)

    Args:
        betas: two numbers, 0 <= beta < 1.
        eps: at least 0.
        weight_decay: at least 0; g + weight_decay p stands in for g. The rest is told in Optimizer.

    Attributes: m, v, the running means of g and g^2, one array for each of params.

    >>> adam = Adam([layer.flat, readout.flat], lr=1e-3)
    >>> adam.step([layer_grads.flat, readout_grads.flat])
    """

    _rule, _kept, _names = Rule.ADAM, ("m", "v"), ("m", "v")
    m: list[Array]
    v: list[Array]

    def __init__(
        self,
        params: Arrays,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        weight_decay: float = 0.0,
    ) -> None:
        self.betas, self.eps = _betas(betas), checks.real("eps", eps, 0)
        self.weight_decay = checks.real("weight_decay", weight_decay, 0)
        super().__init__(params, lr)

    def _numbers(self, lr: float) -> tuple[float, ...]:
        return self._adam(lr, self.weight_decay, 1.0)

    def _adam(self, lr: float, decay_of_gradient: float, keep: float) -> tuple[float, ...]:
        """keep: the part of p that decay apart from the gradient leaves."""
        beta1, beta2 = self.betas
        means = beta1, 1 - beta1, beta2, 1 - beta2
        return lr / (1 - beta1**self.t), decay_of_gradient, *means, (1 - beta2**self.t) ** -0.5, self.eps, keep


class AdamW(Adam):
    """Adam with the decay of the weights apart from the gradient (Loshchilov and Hutter 2019, arXiv 1711.05101), with the numbers
    of torch.optim.AdamW: p = p - lr weight_decay p, then Adam's step. Arguments as Adam's.

    >>> adamw = AdamW([layer.flat, readout.flat], lr=schedules.cosine(1e-3, 10_000), weight_decay=0.1)
    """

    def __init__(
        self,
        params: Arrays,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay=weight_decay)

    def _numbers(self, lr: float) -> tuple[float, ...]:
        return self._adam(lr, 0.0, 1 - lr * self.weight_decay)


def _fraction(name: str, value: Any) -> float:
    """How much of a running mean stays."""
    number = checks.real(name, value)
    if not 0 <= number < 1:
        raise ValueError(f"{name}: expected a number, 0 <= {name} < 1, got {value!r}")
    return number


def _betas(value: Any) -> tuple[float, float]:
    if not isinstance(value, Sequence):
        raise TypeError(f"betas: expected two numbers, got {type(value).__name__}")
    if len(value) != 2:
        raise ValueError(f"betas: expected two numbers, got {len(value)}")
    beta1, beta2 = (checks.real(f"betas[{k}]", beta) for k, beta in enumerate(value))
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"betas: expected two numbers, 0 <= beta < 1, got {value!r}")
    return beta1, beta2
