"""The options of a layer and of one call of it that PyTorch has too, drawn by Hypothesis, and the results of a torch module.

FASTRNN_EXAMPLES says how many are drawn (200), and with HYPOTHESIS_SEED they are others each time:

    FASTRNN_EXAMPLES=20000 HYPOTHESIS_SEED=1 pytest tests/test_torch_sweep.py
"""

import os
from dataclasses import dataclass

import hypothesis
import hypothesis.strategies as st
import numpy as np
import torch

torch.set_num_threads(1)  # they wait for each other in a loop, which takes long where others want the processor too
SEED = os.environ.get("HYPOTHESIS_SEED")
# Of the largest value of an array: both round; PyTorch's float32 sums and functions are its own.
TOLERANCE = {"float64": 1e-10, "float32": 2e-4}


def sweep(*strategies, examples=200):
    """Decorates a test to be run over what the strategies draw."""

    def decorate(test):
        test = hypothesis.given(*strategies)(test)
        test = hypothesis.seed(int(SEED))(test) if SEED else test
        return hypothesis.settings(
            max_examples=int(os.environ.get("FASTRNN_EXAMPLES", examples)),
            derandomize=SEED is None,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )(test)

    return decorate


@dataclass(frozen=True)
class Options:
    """One layer and one call of it. sequences: as an array, or as one that is packed before or behind the call."""

    kind: str
    I: int
    H: int
    L: int
    bidirectional: bool
    projected: int
    bias: bool
    batch_first: bool
    dtype: str
    T: int
    B: int
    sequences: str
    state: bool
    through: str
    seed: int

    @property
    def D(self):
        return 2 if self.bidirectional else 1

    @property
    def proj_size(self):
        return self.projected % self.H if self.kind == "lstm" else 0

    @property
    def P(self):
        return self.proj_size or self.H

    @property
    def unbatched(self):
        return self.sequences == "unbatched"

    def arguments(self):
        """Those that both packages' layers share."""
        of_kind = {"nonlinearity": self.kind} if self.kind in ("tanh", "relu") else {}
        of_kind |= {"proj_size": self.proj_size} if self.kind == "lstm" else {}
        common = {"bias": self.bias, "batch_first": self.batch_first, "bidirectional": self.bidirectional}
        return {"input_size": self.I, "hidden_size": self.H, "num_layers": self.L, **common, **of_kind}


FLAG = st.booleans()
OPTIONS = st.builds(
    Options,
    kind=st.sampled_from(["tanh", "relu", "gru", "lstm"]),
    I=st.integers(1, 6),
    H=st.integers(1, 20),
    L=st.integers(1, 3),
    bidirectional=FLAG,
    projected=st.integers(0, 19),
    bias=FLAG,
    batch_first=FLAG,
    dtype=st.sampled_from(["float64", "float32"]),
    T=st.integers(1, 7),
    B=st.integers(1, 6),
    sequences=st.sampled_from(["plain", "unbatched", "lengths", "sorted lengths", "packed"]),
    state=FLAG,
    through=st.sampled_from(["ys", "y", "s"]),
    seed=st.integers(0, 2**32 - 1),
)


class Numbers:
    """The arrays of a problem; float64 numbers that float32 holds too, so that both dtypes have the same."""

    def __init__(self, o):
        rng = np.random.default_rng(o.seed)

        def normal(*shape):
            return rng.standard_normal(shape).astype(np.float32).astype(o.dtype)

        rows = () if o.unbatched else (o.B,)
        sequence = (o.T,) if o.unbatched else (o.B, o.T) if o.batch_first else (o.T, o.B)
        widths = (o.P, o.H) if o.kind == "lstm" else (o.P,)
        self.x, self.dy = normal(*sequence, o.I), normal(*sequence, o.D * o.P)
        self.state, self.dstate = ([normal(o.L * o.D, *rows, n) for n in widths] for _ in range(2))
        self.lengths = None
        if o.sequences not in ("plain", "unbatched"):
            self.lengths = rng.integers(1, o.T + 1, o.B)
            self.lengths[rng.integers(o.B)] = o.T
            if o.sequences == "sorted lengths":
                self.lengths[::-1].sort()


def kind_of(package, o):
    """The class of torch.nn, fastrnn or fastrnn.torch."""
    return getattr(package, {"gru": "GRU", "lstm": "LSTM"}.get(o.kind, "RNN"))


def by_module(o, n, layer):
    """All results of a torch module by name, those of the gradients with d in front."""
    x = torch.tensor(n.x, requires_grad=True)
    state = [torch.tensor(s, requires_grad=True) for s in n.state]
    given = x
    if n.lengths is not None:
        lengths = torch.tensor(n.lengths)
        enforce = o.sequences == "sorted lengths"
        given = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, o.batch_first, enforce_sorted=enforce)
    y, final = layer(given, (tuple(state) if o.kind == "lstm" else state[0]) if o.state else None)
    if n.lengths is not None:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, o.batch_first, total_length=o.T)
    final = final if o.kind == "lstm" else (final,)
    loss = (y * torch.tensor(n.dy)).sum() if "y" in o.through else 0
    if "s" in o.through:
        loss = loss + sum((f * torch.tensor(d)).sum() for f, d in zip(final, n.dstate))
    loss.backward()
    results = {"y": y, "dx": x.grad, **{f"d{name}": w.grad for name, w in layer.named_parameters()}}
    results |= {f"state[{i}]": f for i, f in enumerate(final)}
    if o.state:
        results |= {f"dstate[{i}]": s.grad for i, s in enumerate(state)}
    return {name: np.zeros(()) if a is None else a.detach().numpy() for name, a in results.items()}


def check_equal(o, got, expected):
    """The same names, shapes, dtypes and, within the rounding, numbers."""
    assert got.keys() == expected.keys()
    for name, a in got.items():
        b = expected[name]
        if b.shape == ():  # PyTorch's None: nothing depends on it
            assert not a.any(), name
            continue
        assert (a.shape, a.dtype) == (b.shape, o.dtype), name
        assert np.abs(a - b).max() <= TOLERANCE[o.dtype] * max(1, np.abs(b).max()), name
