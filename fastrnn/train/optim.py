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

    A step is one compiled pass over all arrays, on several threads if they are large; neither threads nor the instruction set
    change a bit. Numbers below the normal range (1.2e-38 in float32) count as 0, so that the moments of units whose gradient stays
    0 do not slow a step down. All memory is allocated by the constructor: no step allocates, but for arrays that are not
    contiguous. An optimiser serves one thread at a time: every method raises RuntimeError while another thread is in one of the
    same optimiser.

    Parameters
    ----------
    params : array or list of arrays
        float32 or float64, such as [layer.flat, readout.flat]. They are changed in place.
    lr : float or function
        The learning rate, at least 0; or a function of the number of steps so far, such as those of fastrnn.train.schedules.

    Attributes
    ----------
    lr : float or function
        May be set between steps.
    t : int
        The steps so far.
    skipped : int
        The steps that clipped_step left out because a gradient was not finite.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it. Also ValueError for a read-only array, or arrays that overlap.
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

        Parameters
        ----------
        grads : array or list of arrays
            One for each of params, of its shape and dtype; they are only read.

        Raises
        ------
        TypeError, ValueError
            A wrong argument; then nothing was changed.
        RuntimeError
            Another thread is in a method of this optimiser.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import SGD
        >>> p = np.zeros(2)
        >>> SGD(p, lr=0.5).step(np.array([1.0, 2.0]))
        >>> p
        array([-0.5, -1. ])
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

        The gradients of an IRNN or a deep tanh network explode now and then, also in a training that succeeds. Clipped they do no
        harm; where even the norm is not finite there is no direction to follow, and the step is skipped: neither the parameters nor
        what the optimiser keeps is changed, and `skipped` counts it.

        Parameters
        ----------
        grads : array or list of arrays
            As in `step`, but they are changed.
        max_norm : float
            As in `clip_global_norm`.

        Returns
        -------
        norm : float
            Before clipping.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As in `step`.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import SGD
        >>> p = np.zeros(2)
        >>> sgd = SGD(p, lr=1.0)
        >>> sgd.clipped_step(np.array([30.0, 40.0]), max_norm=5.0)
        50.0
        >>> p.round(3)
        array([-3., -4.])
        >>> norm = sgd.clipped_step(np.array([np.nan, 0.0]), max_norm=5.0)
        >>> sgd.t, sgd.skipped
        (1, 1)
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
        """Copies of all that the next step depends on, apart from the parameters and the constructor's other arguments.

        Returns
        -------
        state : dict of arrays
            t, skipped, the kept vectors ("m.0", "m.1", ...), and lr if it is a number.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import Adam
        >>> list(Adam(np.zeros(2)).state_dict())
        ['t', 'skipped', 'lr', 'm.0', 'v.0']
        """
        with self._in_use:
            return state.copies(self._live())

    def load_state_dict(self, mapping: Mapping[str, Array]) -> None:
        """Continue where another optimiser of the same kind, on parameters of the same shapes, stopped.

        Parameters
        ----------
        mapping : mapping of names to arrays
            As `state_dict` returns it.

        Raises
        ------
        KeyError, TypeError, ValueError
            Wrong names, dtypes or shapes; then nothing was changed.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.train import Adam
        >>> p = np.zeros(2)
        >>> adam, other = Adam(p), Adam(p.copy())
        >>> adam.step(np.ones(2))
        >>> other.load_state_dict(adam.state_dict())
        >>> other.t
        1
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
    """Stochastic gradient descent, with momentum (Polyak 1964) or Nesterov's (Sutskever et al. 2013).

    The numbers are those of torch.optim.SGD:

        d = g + weight_decay p           v = momentum v + d           p = p - lr v, or with nesterov p - lr (d + momentum v)

    Parameters
    ----------
    params : array or list of arrays
        float32 or float64, such as [layer.flat, readout.flat]. They are changed in place.
    lr : float or function, default 1e-3
        The learning rate, at least 0; or a function of the number of steps so far, such as those of fastrnn.train.schedules.
    momentum, weight_decay : float, default 0
        At least 0.
    nesterov : bool, default False
        Needs a momentum above 0.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it. Also ValueError for a read-only array, or arrays that overlap.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train import SGD
    >>> p = np.zeros(1)
    >>> sgd = SGD(p, lr=0.1, momentum=0.5)
    >>> for _ in range(2):
    ...     sgd.step(np.ones(1))
    >>> p
    array([-0.25])
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
    """RMSprop (Tieleman and Hinton 2012), centered as by Graves 2013 (arXiv 1308.0850); the numbers of torch.optim.RMSprop.

        v = alpha v + (1 - alpha) g^2                    d = g / (sqrt(v) + eps)                    p = p - lr d

    Parameters
    ----------
    params : array or list of arrays
        float32 or float64, such as [layer.flat, readout.flat]. They are changed in place.
    lr : float or function, default 1e-2
        The learning rate, at least 0; or a function of the number of steps so far, such as those of fastrnn.train.schedules.
    alpha : float, default 0.99
        0 <= alpha < 1.
    eps : float, default 1e-8
        At least 0.
    momentum : float, default 0
        At least 0; above 0, b = momentum b + d replaces d.
    centered : bool, default False
        With m = alpha m + (1 - alpha) g, the root is of v - m^2.
    weight_decay : float, default 0
        At least 0; g + weight_decay p replaces g.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it. Also ValueError for a read-only array, or arrays that overlap.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train import RMSprop
    >>> p = np.zeros(1)
    >>> RMSprop(p, lr=0.1, alpha=0.75, eps=0).step(np.ones(1))
    >>> p
    array([-0.2])
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
    """Adagrad (Duchi, Hazan and Singer 2011); the numbers of torch.optim.Adagrad.

        v = v + g^2                    p = p - lr / (1 + (t - 1) lr_decay) g / (sqrt(v) + eps)

    Parameters
    ----------
    params : array or list of arrays
        float32 or float64, such as [layer.flat, readout.flat]. They are changed in place.
    lr : float or function, default 1e-2
        The learning rate, at least 0; or a function of the number of steps so far, such as those of fastrnn.train.schedules.
    lr_decay : float, default 0
        At least 0.
    initial : float, default 0
        Of v, at least 0.
    eps : float, default 1e-10
        At least 0.
    weight_decay : float, default 0
        At least 0; g + weight_decay p replaces g.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it. Also ValueError for a read-only array, or arrays that overlap.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train import Adagrad
    >>> p = np.zeros(2)
    >>> Adagrad(p, lr=0.1).step(np.array([1.0, 100.0]))
    >>> p.round(6)
    array([-0.1, -0.1])
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

    Parameters
    ----------
    params : array or list of arrays
        float32 or float64, such as [layer.flat, readout.flat]. They are changed in place.
    lr : float or function, default 1e-3
        The learning rate, at least 0; or a function of the number of steps so far, such as those of fastrnn.train.schedules.
    betas : pair of float, default (0.9, 0.999)
        0 <= beta < 1.
    eps : float, default 1e-8
        At least 0.
    weight_decay : float, default 0
        At least 0; g + weight_decay p replaces g.

    Attributes
    ----------
    m, v : lists of arrays
        The running means of g and g^2, one array for each of params.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it. Also ValueError for a read-only array, or arrays that overlap.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> from fastrnn.train import Adam, Linear, squared_error
    >>> layer, readout = fastrnn.GRU(1, 8, rng=0), Linear(8, 1, rng=1)
    >>> adam = Adam([layer.flat, readout.flat], lr=0.01)
    >>> x = np.random.default_rng(2).standard_normal((20, 32, 1), np.float32)  # T=20 B=32
    >>> losses = []
    >>> for _ in range(100):  # learn the sum of the first and the last number
    ...     y, h_n, tape = layer.forward(x)
    ...     o, readout_tape = readout.forward(h_n[-1])
    ...     loss, do = squared_error(o, x[0] + x[-1])
    ...     losses.append(loss)
    ...     readout_grads = readout_tape.backward(do)
    ...     grads = tape.backward(dstate=readout_grads.x[None])
    ...     adam.step([grads.flat, readout_grads.flat])
    >>> losses[-1] < 0.8 * losses[0]
    True
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
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101), with the numbers of torch.optim.AdamW:
    p = p - lr weight_decay p, then Adam's step.

    Parameters
    ----------
    params : array or list of arrays
        float32 or float64, such as [layer.flat, readout.flat]. They are changed in place.
    lr : float or function, default 1e-3
        The learning rate, at least 0; or a function of the number of steps so far, such as those of fastrnn.train.schedules.
    betas : pair of float, default (0.9, 0.999)
        0 <= beta < 1.
    eps : float, default 1e-8
        At least 0.
    weight_decay : float, default 1e-2
        At least 0.

    Attributes
    ----------
    m, v : lists of arrays
        The running means of g and g^2, one array for each of params.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it. Also ValueError for a read-only array, or arrays that overlap.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.train import AdamW, schedules
    >>> p = np.ones(1)
    >>> adamw = AdamW(p, lr=schedules.cosine(0.1, 1000), weight_decay=0.5)
    >>> adamw.step(np.zeros(1))
    >>> p
    array([0.95])
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
