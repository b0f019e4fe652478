"""The operators RNN, GRU and LSTM of ONNX, written from their specification: one row, one step, one equation at a time.

Slow and independent of the package: nothing here knows fastrnn. The choices that the specification leaves open are those of
help(fastrnn.onnx). `random_node` makes a node of any attributes and the inputs for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
ALPHA = {"Affine": 1, "LeakyRelu": 0.01, "ThresholdedRelu": 1, "ScaledTanh": 1, "HardSigmoid": 0.2, "Elu": 1}
BETA = {"Affine": 0, "ScaledTanh": 1, "HardSigmoid": 0.5}
NAMES = ["Relu", "Tanh", "Sigmoid", "Softsign", "Softplus", *ALPHA]


class Activations:
    """The functions of a node in order. margin: how near an argument came to the jump of a ThresholdedRelu."""

    def __init__(self, names: list[str], alphas: list[float], betas: list[float]) -> None:
        self.margin = np.inf
        alphas, betas = list(alphas), list(betas)
        self.functions = []
        for name in names:
            name = next(known for known in NAMES if known.lower() == name.lower())
            alpha = alphas.pop(0) if name in ALPHA and alphas else ALPHA.get(name)
            beta = betas.pop(0) if name in BETA and betas else BETA.get(name)
            self.functions.append(self._vectorised(name, alpha, beta))

    def _vectorised(self, name: str, alpha: Any, beta: Any) -> Any:
        def function(v: Any) -> Any:
            return np.array([self._apply(name, alpha, beta, float(x)) for x in v])

        return function

    def _apply(self, name: str, alpha: Any, beta: Any, x: float) -> float:
        if name == "Relu":
            return max(0.0, x)
        if name == "Tanh":
            return np.tanh(x)
        if name == "Sigmoid":
            return 1 / (1 + np.exp(-x)) if x >= 0 else np.exp(x) / (1 + np.exp(x))
        if name == "Affine":
            return alpha * x + beta
        if name == "LeakyRelu":
            return x if x >= 0 else alpha * x
        if name == "ThresholdedRelu":
            self.margin = min(self.margin, abs(x - alpha))
            return x if x >= alpha else 0.0
        if name == "ScaledTanh":
            return alpha * np.tanh(beta * x)
        if name == "HardSigmoid":
            return min(max(alpha * x + beta, 0.0), 1.0)
        if name == "Elu":
            return x if x >= 0 else alpha * (np.exp(x) - 1)
        if name == "Softsign":
            return x / (1 + abs(x))
        assert name == "Softplus"
        return np.logaddexp(0, x)


def run(op: str, attributes: dict[str, Any], inputs: list[Any]) -> tuple[list[Any], float]:
    """The outputs in float64, and the margin of Activations."""
    given = [None if v is None else v.astype(np.float64) for v in inputs] + [None] * (8 - len(inputs))
    X, W, R, B, lengths, h0, c0, P = given
    batchwise = attributes.get("layout", 0) == 1
    if batchwise:
        X, h0, c0 = (None if v is None else v.swapaxes(0, 1) for v in (X, h0, c0))
    direction = attributes.get("direction", "forward")
    backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    D, (T, N, _), H, G = len(backwards), X.shape, R.shape[2], GATES[op]
    lengths = [T] * N if lengths is None else [int(n) for n in lengths]
    activations = Activations(
        attributes.get("activations", DEFAULTS[op] * D),
        attributes.get("activation_alpha", []),
        attributes.get("activation_beta", []),
    )
    each = len(DEFAULTS[op])
    Y, Y_h, Y_c = np.zeros((T, D, N, H)), np.zeros((D, N, H)), np.zeros((D, N, H))
    for d in range(D):
        bias = np.zeros(2 * G * H) if B is None else B[d]
        peepholes = np.zeros(3 * H) if P is None else P[d]
        weights = (W[d], R[d], bias[: G * H], bias[G * H :], peepholes)
        step = {"RNN": rnn_step, "GRU": gru_step, "LSTM": lstm_step}[op]
        functions = activations.functions[d * each : (d + 1) * each]
        for n in range(N):
            h, c = (np.zeros(H) if s is None else s[d, n] for s in (h0, c0))
            steps = range(lengths[n])
            for t in reversed(steps) if backwards[d] else steps:
                h, c = step(X[t, n], h, c, weights, functions, attributes)
                Y[t, d, n] = h
            if lengths[n] > 0:
                Y_h[d, n], Y_c[d, n] = h, c
    if batchwise:
        Y, Y_h, Y_c = Y.transpose(2, 0, 1, 3), Y_h.swapaxes(0, 1), Y_c.swapaxes(0, 1)
    return [Y, Y_h, Y_c] if op == "LSTM" else [Y, Y_h], activations.margin


def clipped(v: Any, attributes: dict[str, Any]) -> Any:
    return v if "clip" not in attributes else np.clip(v, -attributes["clip"], attributes["clip"])


def rnn_step(x: Any, h: Any, c: Any, weights: Any, functions: Any, attributes: Any) -> Any:
    W, R, Wb, Rb, _ = weights
    (f,) = functions
    return f(clipped(W @ x + R @ h + Wb + Rb, attributes)), c


def gru_step(x: Any, h: Any, c: Any, weights: Any, functions: Any, attributes: Any) -> Any:
    (Wz, Wr, Wh), (Rz, Rr, Rh), (Wbz, Wbr, Wbh), (Rbz, Rbr, Rbh) = (np.split(w, 3) for w in weights[:4])
    f, g = functions
    z = f(clipped(Wz @ x + Rz @ h + Wbz + Rbz, attributes))
    r = f(clipped(Wr @ x + Rr @ h + Wbr + Rbr, attributes))
    recurrent = r * (Rh @ h + Rbh) if attributes.get("linear_before_reset", 0) else Rh @ (r * h) + Rbh
    n = g(clipped(Wh @ x + recurrent + Wbh, attributes))
    return (1 - z) * n + z * h, c


def lstm_step(x: Any, h: Any, c: Any, weights: Any, functions: Any, attributes: Any) -> Any:
    (Wi, Wo, Wf, Wc), (Ri, Ro, Rf, Rc), (Wbi, Wbo, Wbf, Wbc), (Rbi, Rbo, Rbf, Rbc) = (np.split(w, 4) for w in weights[:4])
    Pi, Po, Pf = np.split(weights[4], 3)
    f, g, h_of = functions
    i = f(clipped(Wi @ x + Ri @ h + Pi * c + Wbi + Rbi, attributes))
    forget = 1 - i if attributes.get("input_forget", 0) else f(clipped(Wf @ x + Rf @ h + Pf * c + Wbf + Rbf, attributes))
    new = forget * c + i * g(clipped(Wc @ x + Rc @ h + Wbc + Rbc, attributes))
    o = f(clipped(Wo @ x + Ro @ h + Po * new + Wbo + Rbo, attributes))
    return o * h_of(new), new


# --- random nodes -------------------------------------------------------------------------------------------------


@dataclass
class Node:
    op: str
    attributes: dict[str, Any]
    inputs: list[Any]


def random_node(rng: np.random.Generator, *, dtype: Any = np.float64, least: int = 0, standard: bool = False) -> Node:
    """A node of random attributes, sizes and optional inputs. least: of T, N and each length; standard: activations by default."""

    def maybe() -> bool:
        return bool(rng.random() < 0.5)

    op = str(rng.choice(list(GATES)))
    T, N, I, H = (int(rng.integers(low, 6)) for low in (least, least, least, 1))
    attributes: dict[str, Any] = {"direction": str(rng.choice(["forward", "reverse", "bidirectional"]))}
    D = 2 if attributes["direction"] == "bidirectional" else 1
    if maybe():
        attributes["hidden_size"] = H
    if maybe():
        attributes["layout"] = int(rng.integers(2))
    if op == "GRU" and maybe():
        attributes["linear_before_reset"] = int(rng.integers(2))
    if not standard:
        _random_exotics(rng, op, D, attributes)
    G, batchwise = GATES[op], attributes.get("layout", 0) == 1

    def array(*shape: int, scale: float = 1.0) -> Any:
        return (rng.uniform(-scale, scale, shape)).astype(dtype)

    state = (N, D, H) if batchwise else (D, N, H)
    scale = H**-0.5
    optional = [
        array(D, 2 * G * H, scale=scale),
        rng.integers(least, T + 1, N).astype(np.int32),
        array(*state),
        *([array(*state), array(D, 3 * H)] if op == "LSTM" else []),
    ]
    optional = [value if maybe() else None for value in optional]
    while optional and optional[-1] is None and maybe():
        optional.pop()
    X = array(N, T, I, scale=2.0) if batchwise else array(T, N, I, scale=2.0)
    return Node(op, attributes, [X, array(D, G * H, I, scale=scale), array(D, G * H, H, scale=scale), *optional])


def _random_exotics(rng: np.random.Generator, op: str, D: int, attributes: dict[str, Any]) -> None:
    if rng.random() < 0.5:
        attributes["clip"] = float(np.float32(rng.uniform(0.1, 1.5)))
    if op == "LSTM" and rng.random() < 0.5:
        attributes["input_forget"] = int(rng.integers(2))
    if rng.random() < 0.8:
        names = [str(name) for name in rng.choice(NAMES, D * len(DEFAULTS[op]))]
        attributes["activations"] = names
        for parameter, takers in (("activation_alpha", ALPHA), ("activation_beta", BETA)):
            most = sum(name in takers for name in names)
            count = int(rng.integers(most + 1))
            if count or rng.random() < 0.5:
                attributes[parameter] = [float(np.float32(v)) for v in rng.uniform(-0.5, 1, count)]
