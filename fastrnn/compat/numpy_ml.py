"""numpy-ml 0.1.2, numpy_ml.neural_nets.layers: RNNCell, LSTMCell, RNN, LSTM.

RNN and LSTM cannot be constructed in that release; these can, and do what its documentation says. They take X (n_ex, n_in, n_t) and
return (n_ex, n_out, n_t). A second forward continues from the state of the first, until flush_gradients() or update().

Parameters: Wax (n_in, n_out), Waa (n_out, n_out), ba, bx (n_out, 1); of an LSTM Wf, Wu, Wc, Wo (n_out + n_in, n_out), bf, bu, bc,
bo (1, n_out). They are made at the first forward, by the same draws from np.random as there. Gradients add up until they are
flushed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._api import checks
from . import _step
from ._one_user import layer_in_use, one_user
from ._recorded import Recorded, copy

__all__ = ["LSTM", "RNN", "LSTMCell", "RNNCell"]

Array = NDArray[Any]
_MODES = ("glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "std_normal", "trunc_normal")
_GAIN = {"Tanh": 5 / 3, "ReLU": 2**0.5, "Sigmoid": 1.0}


class _Layer:
    """What the four share: parameters, gradients, and their bookkeeping."""

    _lstm: bool

    def __init__(self, n_out: int, act_fn: Any, gate_fn: Any, init: str, optimizer: Any) -> None:
        self.n_out, self.n_in = checks.integer("n_out", n_out, 1), 0
        self.act_fn = _activation("act_fn", act_fn, *(("Tanh",) if self._lstm else ("Tanh", "ReLU")))
        self.gate_fn = _activation("gate_fn", gate_fn, "Sigmoid")
        self.init, self.optimizer = checks.choice("init", init, *_MODES), optimizer
        if optimizer is not None and not (callable(optimizer) and hasattr(optimizer, "step")):
            raise TypeError(f"optimizer: expected None or an optimizer object of numpy-ml, got {optimizer!r:.60}")
        self.trainable, self.is_initialized, self._in_use = True, False, layer_in_use()
        self.parameters: dict[str, Any] = dict.fromkeys(self._shapes())
        self.gradients: dict[str, Array] = {}
        self._forget()

    def _shapes(self) -> dict[str, tuple[int, int]]:
        I, H = self.n_in, self.n_out
        if self._lstm:
            return {f"W{gate}": (H + I, H) for gate in "fuco"} | {f"b{gate}": (1, H) for gate in "fuco"}
        return {"Wax": (I, H), "Waa": (H, H), "ba": (H, 1), "bx": (H, 1)}

    def _init_params(self, n_in: int) -> None:
        self.n_in = n_in
        for name, shape in self._shapes().items():
            act_fn = self.act_fn if not self._lstm or name == "Wc" else self.gate_fn
            self.parameters[name] = np.zeros(shape) if name[0] == "b" else _draw(self.init, shape, _GAIN[act_fn])
        self.is_initialized = True
        self.gradients = {name: np.zeros(shape) for name, shape in self._shapes().items()}

    def _forget(self) -> None:
        """Forget all steps, and set the gradients to zero."""
        self.X: list[Array] = []
        self.gradients = {name: np.zeros(array.shape) for name, array in self.parameters.items() if array is not None}
        self.derived_variables: dict[str, Any] = {"A": [], "n_timesteps": 0, "current_step": 0, "dLdA_accumulator": None}
        if self._lstm:
            self.derived_variables |= {"C": [], "dLdC_accumulator": None}

    def _before(self, X: Array, steps: int) -> tuple[Array, Array | None]:
        """Count the steps; A and C after the last one, and zeros, which are kept, before the first."""
        if not self.is_initialized:
            self._init_params(X.shape[1])
        derived = self.derived_variables
        derived["n_timesteps"] += steps
        derived["current_step"] += steps
        for name in ("A", "C") if self._lstm else ("A",):
            if not derived[name]:
                derived[name].append(np.zeros((len(X), self.n_out)))
        return derived["A"][-1], derived["C"][-1] if self._lstm else None

    def _from_later_steps(self) -> tuple[Any, Any]:
        """The gradients of A and C from the steps gone back already; 0 at the last step."""
        found = (self.derived_variables.get(name) for name in ("dLdA_accumulator", "dLdC_accumulator"))
        dA, dC = (0.0 if d is None else d for d in found)
        return dA, dC

    def _passed(self, steps: int, dA: Array, dC: Array | None, gradients: Mapping[str, Array]) -> None:
        """Note what came out of a step back, or of several."""
        self.derived_variables["current_step"] -= steps
        self.derived_variables["dLdA_accumulator"] = dA
        if self._lstm:
            self.derived_variables["dLdC_accumulator"] = dC
        for name, gradient in gradients.items():
            self.gradients[name] += gradient

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """layer (the class), init, n_in (None before the first forward), n_out, act_fn, optimizer; of an LSTM gate_fn."""
        known = {"layer": type(self).__name__, "init": self.init, "n_in": self.n_in or None, "n_out": self.n_out}
        known |= {"act_fn": self.act_fn} | ({"gate_fn": self.gate_fn} if self._lstm else {})
        return known | {"optimizer": self.optimizer}

    def summary(self) -> dict[str, Any]:
        """The layer's class, parameters and hyperparameters.

        Returns
        -------
        summary : dict
        """
        return {"layer": type(self).__name__, "parameters": self.parameters, "hyperparameters": self.hyperparameters}

    @one_user
    def set_params(self, summary_dict: Mapping[str, Any]) -> Any:
        """Copy the parameters of a summary(), or of a mapping of their names; all or none.

        Parameters
        ----------
        summary_dict : mapping

        Returns
        -------
        layer
            Itself.

        Raises
        ------
        ValueError
            Unknown names or wrong shapes.
        """
        new = dict(summary_dict.get("parameters", summary_dict))
        arrays = {name: np.array(value, np.float64) for name, value in new.items() if name in self.parameters}
        if len(arrays) != len(new) or (not self.is_initialized and len(arrays) != len(self.parameters)):
            raise ValueError(f"summary_dict: expected the parameters {[*self.parameters]}, got {[*new]}")
        n_in, before = self.n_in, self.n_in
        if not self.is_initialized:
            n_in = len(arrays["Wf"]) - self.n_out if self._lstm else len(arrays["Wax"])
        self.n_in = n_in
        wrong = {name: array.shape for name, array in arrays.items() if array.shape != self._shapes()[name]}
        if wrong:
            expected = {name: self._shapes()[name] for name in wrong}
            self.n_in = before
            raise ValueError(f"summary_dict: expected {expected}, got {wrong}")
        self.parameters |= arrays
        self.is_initialized = True
        self._forget()
        return self

    def freeze(self) -> None:
        """No backward and no update until unfreeze()."""
        self.trainable = False

    def unfreeze(self) -> None:
        """See freeze."""
        self.trainable = True

    @one_user
    def flush_gradients(self) -> None:
        """Set the gradients to zero and forget all steps: the next forward starts from a state of zeros.

        Raises
        ------
        AssertionError
            The layer is frozen.
        """
        self._check_trainable()
        self._forget()

    @one_user
    def update(self, cur_loss: float | None = None) -> None:
        """A step of the optimizer on each parameter, then flush_gradients().

        Parameters
        ----------
        cur_loss : float, optional
            Passed to the optimizer.

        Raises
        ------
        AssertionError
            The layer is frozen.
        """
        self._check_trainable()
        if self.optimizer is not None:
            self.optimizer.step()
        for name, gradient in self.gradients.items():
            old = self.parameters[name]
            self.parameters[name] = (
                old - 0.01 * gradient if self.optimizer is None else self.optimizer(old, gradient, name, cur_loss)
            )
        self._forget()

    def _check_trainable(self) -> None:
        if not self.trainable:
            raise AssertionError("Layer is frozen: call unfreeze() first")


class RNNCell(_Layer):
    """A step of a plain RNN at each forward, and one back at each backward.

    Parameters
    ----------
    n_out : int
    act_fn : str or activation object of numpy-ml, default "Tanh"
        "Tanh" or "ReLU"; the kernels have no others.
    init : str, default "glorot_uniform"
        One of numpy-ml's names.
    optimizer : optimizer object of numpy-ml, optional
        None: numpy-ml's default of plain SGD with a rate of 0.01.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.numpy_ml import RNNCell
    >>> layer, X = RNNCell(n_out=4), np.ones((2, 3))  # n_ex=2 n_in=3
    >>> Y = layer.forward(X)
    >>> dX = layer.backward(Y)
    >>> layer.update()
    >>> Y.shape, dX.shape
    ((2, 4), (2, 3))
    """

    _lstm = False

    def __init__(self, n_out: int, act_fn: Any = "Tanh", init: str = "glorot_uniform", optimizer: Any = None) -> None:
        super().__init__(n_out, act_fn, "Sigmoid", init, optimizer)

    @one_user
    def forward(self, Xt: Array) -> Array:
        """One step.

        Parameters
        ----------
        Xt : array (n_ex, n_in)

        Returns
        -------
        At : array (n_ex, n_out)
        """
        A, _ = self._before(Xt, 1)
        p = self.parameters
        Z = np.dot(A, p["Waa"]) + p["ba"].T + np.dot(Xt, p["Wax"]) + p["bx"].T
        A = np.tanh(Z) if self.act_fn == "Tanh" else np.maximum(Z, 0)
        self.X.append(Xt)
        self.derived_variables["A"].append(A)
        return A

    @one_user
    def backward(self, dLdAt: Array) -> Array:
        """One step back: the last one that was not gone back yet.

        Parameters
        ----------
        dLdAt : array (n_ex, n_out)

        Returns
        -------
        dLdXt : array (n_ex, n_in)

        Raises
        ------
        AssertionError
            The layer is frozen.
        ValueError
            No step is left.
        """
        self._check_trainable()
        t, p = _last_step(self.derived_variables), self.parameters
        A_prev, A = self.derived_variables["A"][t : t + 2]
        dA = dLdAt + self._from_later_steps()[0]
        dZ = dA * (1 - A * A) if self.act_fn == "Tanh" else dA * (A > 0)
        db, product = np.add.reduce(dZ, 0)[:, None], _step.product
        gradients = {"Waa": product(A_prev.T, dZ), "Wax": product(self.X[t].T, dZ), "ba": db, "bx": db}
        self._passed(1, np.dot(dZ, p["Waa"].T), None, gradients)
        return np.dot(dZ, p["Wax"].T)


class LSTMCell(_Layer):
    """A step of an LSTM at each forward, and one back at each backward.

    Parameters
    ----------
    n_out : int
    act_fn : str or activation object of numpy-ml, default "Tanh"
        "Tanh"; the kernels have no others.
    gate_fn : str or activation object of numpy-ml, default "Sigmoid"
        "Sigmoid".
    init : str, default "glorot_uniform"
        One of numpy-ml's names.
    optimizer : optimizer object of numpy-ml, optional
        None: numpy-ml's default of plain SGD with a rate of 0.01.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.numpy_ml import LSTMCell
    >>> layer, X = LSTMCell(n_out=4), np.ones((2, 3))  # n_ex=2 n_in=3
    >>> Y, C = layer.forward(X)
    >>> dX = layer.backward(Y)
    >>> layer.update()
    >>> Y.shape, dX.shape
    ((2, 4), (2, 3))
    """

    _lstm = True

    def __init__(
        self, n_out: int, act_fn: Any = "Tanh", gate_fn: Any = "Sigmoid", init: str = "glorot_uniform", optimizer: Any = None
    ) -> None:
        super().__init__(n_out, act_fn, gate_fn, init, optimizer)

    def _forget(self) -> None:
        super()._forget()
        self._gates: list[_step.Gates] = []

    @one_user
    def forward(self, Xt: Array) -> tuple[Array, Array]:
        """One step.

        Parameters
        ----------
        Xt : array (n_ex, n_in)

        Returns
        -------
        At, Ct : arrays (n_ex, n_out)
        """
        A, C = self._before(Xt, 1)
        p, Z = self.parameters, np.concatenate([A, Xt], axis=1)
        assert C is not None
        before = [np.dot(Z, p["Wu"]) + p["bu"], np.dot(Z, p["Wf"]) + p["bf"], np.dot(Z, p["Wo"]) + p["bo"]]
        i, f, o = _step.sigmoid(np.array(before))
        gates = _step.Gates(i, f, np.tanh(np.dot(Z, p["Wc"]) + p["bc"]), o)
        A, C = _step.forward(*gates, C)
        self.X.append(Xt)
        self._gates.append(gates)
        self.derived_variables["A"].append(A)
        self.derived_variables["C"].append(C)
        return A, C

    @one_user
    def backward(self, dLdAt: Array) -> Array:
        """One step back: the last one that was not gone back yet.

        Parameters
        ----------
        dLdAt : array (n_ex, n_out)

        Returns
        -------
        dLdXt : array (n_ex, n_in)

        Raises
        ------
        AssertionError
            The layer is frozen.
        ValueError
            No step is left.
        """
        self._check_trainable()
        derived, p = self.derived_variables, self.parameters
        t = _last_step(derived)
        C_prev, C = derived["C"][t : t + 2]
        dA, dC = self._from_later_steps()
        d, dC = _step.backward(dLdAt + dA, dC, self._gates[t], C_prev, C)
        Z = np.concatenate([derived["A"][t], self.X[t]], axis=1)
        dZ = np.dot(d.i, p["Wu"].T) + np.dot(d.f, p["Wf"].T) + np.dot(d.g, p["Wc"].T) + np.dot(d.o, p["Wo"].T)
        gradients = {}
        for gate, d_gate in (("u", d.i), ("f", d.f), ("c", d.g), ("o", d.o)):
            gradients["W" + gate] = _step.product(Z.T, d_gate)
            gradients["b" + gate] = np.add.reduce(d_gate, 0, keepdims=True)
        self._passed(1, dZ[:, : self.n_out], dC, gradients)
        return dZ[:, self.n_out :]


class _Sequence(_Layer):
    """Whole sequences, on the kernels."""

    def _forget(self) -> None:
        super()._forget()
        self._passes: list[Recorded] = []

    @one_user
    def forward(self, X: Array) -> Array:
        """A sequence.

        Parameters
        ----------
        X : array (n_ex, n_in, n_t)

        Returns
        -------
        A : array (n_ex, n_out, n_t)

        Raises
        ------
        TypeError, ValueError
            A wrong argument; the message names it.
        """
        X = np.asarray(X)
        if X.ndim != 3:
            raise ValueError(f"X: expected (n_ex, n_in, n_t), got {X.shape}")
        A, C = self._before(X, X.shape[2])
        form, x = "lstm" if self._lstm else "rnn", X.transpose(0, 2, 1)
        relu: dict[str, Any] = {"nonlinearity": "relu"} if self.act_fn == "ReLU" else {}
        recorded = Recorded("numpy-ml", form, x, self.parameters, A, C, batch_first=True, cells=self._lstm, **relu)
        self.derived_variables["A"].extend(recorded.y.swapaxes(0, 1))
        if recorded.c is not None:
            self.derived_variables["C"].extend(recorded.c.swapaxes(0, 1))
        self._passes.append(recorded)
        return copy(recorded.y.transpose(0, 2, 1))

    @one_user
    def backward(self, dLdA: Array) -> Array:
        """Back through the last forward that was not gone back yet.

        Parameters
        ----------
        dLdA : array (n_ex, n_out, n_t)

        Returns
        -------
        dLdX : array (n_ex, n_in, n_t)

        Raises
        ------
        AssertionError
            The layer is frozen.
        ValueError
            A wrong shape, or no forward is left.
        """
        self._check_trainable()
        _last_step(self.derived_variables)
        recorded, dLdA = self._passes[-1], np.asarray(dLdA)
        n_ex, n_t, n_out = recorded.y.shape
        expected = (n_ex, n_out, n_t)
        if dLdA.shape != expected:
            raise ValueError(f"dLdA: expected (n_ex, n_out, n_t) = {expected}, got {dLdA.shape}")
        later = self._from_later_steps()
        dA, dC = (None if isinstance(d, float) else d for d in later)
        dx, dA0, dC0, gradients = recorded.backward(dLdA.transpose(0, 2, 1), dA, dC)
        self._passes.pop()
        self._passed(n_t, dA0, dC0, gradients)
        return copy(dx.transpose(0, 2, 1))


class RNN(_Sequence):
    """A layer of a plain RNN, on the kernels.

    Parameters
    ----------
    n_out : int
    act_fn : str or activation object of numpy-ml, default "Tanh"
        "Tanh" or "ReLU"; the kernels have no others.
    init : str, default "glorot_uniform"
        One of numpy-ml's names.
    optimizer : optimizer object of numpy-ml, optional
        None: numpy-ml's default of plain SGD with a rate of 0.01.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.numpy_ml import RNN
    >>> layer, X = RNN(n_out=4), np.ones((2, 3, 7))  # n_ex=2 n_in=3 n_t=7
    >>> Y = layer.forward(X)
    >>> dX = layer.backward(Y)
    >>> layer.update()
    >>> Y.shape, dX.shape
    ((2, 4, 7), (2, 3, 7))
    """

    _lstm = False

    def __init__(self, n_out: int, act_fn: Any = "Tanh", init: str = "glorot_uniform", optimizer: Any = None) -> None:
        super().__init__(n_out, act_fn, "Sigmoid", init, optimizer)


class LSTM(_Sequence):
    """An LSTM layer, on the kernels.

    Parameters
    ----------
    n_out : int
    act_fn : str or activation object of numpy-ml, default "Tanh"
        "Tanh"; the kernels have no others.
    gate_fn : str or activation object of numpy-ml, default "Sigmoid"
        "Sigmoid".
    init : str, default "glorot_uniform"
        One of numpy-ml's names.
    optimizer : optimizer object of numpy-ml, optional
        None: numpy-ml's default of plain SGD with a rate of 0.01.

    Raises
    ------
    TypeError, ValueError
        A wrong argument; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.compat.numpy_ml import LSTM
    >>> layer, X = LSTM(n_out=4), np.ones((2, 3, 7))  # n_ex=2 n_in=3 n_t=7
    >>> Y = layer.forward(X)
    >>> dX = layer.backward(Y)
    >>> layer.update()
    >>> Y.shape, dX.shape
    ((2, 4, 7), (2, 3, 7))
    """

    _lstm = True

    def __init__(
        self, n_out: int, act_fn: Any = "Tanh", gate_fn: Any = "Sigmoid", init: str = "glorot_uniform", optimizer: Any = None
    ) -> None:
        super().__init__(n_out, act_fn, gate_fn, init, optimizer)


def _last_step(derived: Mapping[str, Any]) -> int:
    if derived["current_step"] < 1:
        raise ValueError("backward: expected no more calls than of forward, got one more")
    return int(derived["current_step"]) - 1


def _activation(name: str, value: Any, *options: str) -> str:
    """By its name in any case, or an activation object of numpy-ml, which tells it."""
    for option in options:
        if str(value).lower() == option.lower():
            return option
    raise ValueError(f"{name}: expected {' or '.join(map(repr, options))}, got {str(value)!r:.60}")


def _draw(mode: str, shape: tuple[int, int], gain: float) -> Array:
    """Random weights (fan_in, fan_out) as numpy-ml makes them; gain is for the glorot modes."""
    if mode == "std_normal":
        return np.random.randn(*shape)  # noqa: NPY002 -- numpy-ml's generator, and its draws
    scale = {"glorot": gain * (2 / sum(shape)) ** 0.5, "he": (2 / shape[0]) ** 0.5, "trunc": 1.0}[mode.partition("_")[0]]
    if mode.endswith("uniform"):
        return np.random.uniform(-(3**0.5) * scale, 3**0.5 * scale, shape)  # noqa: NPY002
    samples = np.random.normal(0, scale, shape)  # noqa: NPY002
    while (far := np.abs(samples) >= 2 * scale).any():
        samples[far] = np.random.normal(0, scale, far.sum())  # noqa: NPY002
    return samples
