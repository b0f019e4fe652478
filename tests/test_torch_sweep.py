"""Layers against PyTorch's own, forward and backward, over all options together.

Hypothesis draws the options; FASTRNN_EXAMPLES says how many of them (200), and with HYPOTHESIS_SEED they are others each time:

    FASTRNN_EXAMPLES=20000 HYPOTHESIS_SEED=1 pytest tests/test_torch_sweep.py
"""

import os
from dataclasses import dataclass

import numpy as np
import pytest

import fastrnn

torch = pytest.importorskip("torch", reason="PyTorch is not installed; the extra `torch` names the version to compare with")
hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
EXAMPLES = int(os.environ.get("FASTRNN_EXAMPLES", "200"))
SEED = os.environ.get("HYPOTHESIS_SEED")
# Of the largest value of an array: both round; PyTorch's float32 sums and functions are its own.
TOLERANCE = {"float64": 1e-10, "float32": 2e-4}


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


def by_torch(o, n, weights):
    """All results by name."""
    kind = {"tanh": torch.nn.RNN, "relu": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[o.kind]
    layer = kind(**o.arguments(), dtype=getattr(torch, o.dtype))
    assert [(name, tuple(w.shape)) for name, w in layer.state_dict().items()] == [(name, w.shape) for name, w in weights.items()]
    layer.load_state_dict({name: torch.tensor(w) for name, w in weights.items()})
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


def by_us(o, n, layer):
    """The same results by the same names."""
    pair = tuple if o.kind == "lstm" else lambda members: members[0]
    x, dy, lengths = n.x, n.dy if "y" in o.through else None, n.lengths
    if o.sequences == "packed":
        x, lengths = fastrnn.pack(n.x, n.lengths, o.batch_first), None
        dy = None if dy is None else fastrnn.pack(n.dy, n.lengths, o.batch_first)
    y, final, tape = layer.forward(x, pair(n.state) if o.state else None, lengths)
    grads = tape.backward(dy, pair(n.dstate) if "s" in o.through else None)
    dx = grads.x
    if o.sequences == "packed":
        (y, found), (dx, _) = (fastrnn.unpack(p, o.batch_first, o.T) for p in (y, dx))
        assert found.tolist() == n.lengths.tolist()
    results = {"y": y, "dx": dx, **{f"d{name}": g for name, g in grads.params.items()}}
    results |= {f"state[{i}]": f for i, f in enumerate(final if o.kind == "lstm" else (final,))}
    if o.state:
        results |= {f"dstate[{i}]": g for i, g in enumerate(grads.state if o.kind == "lstm" else (grads.state,))}
    return results


@hypothesis.settings(
    max_examples=EXAMPLES,
    derandomize=SEED is None,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@(hypothesis.seed(int(SEED)) if SEED else lambda test: test)
@hypothesis.given(OPTIONS)
def test_a_layer_is_torchs_layer(o):
    n = Numbers(o)
    kind = {"tanh": fastrnn.RNN, "relu": fastrnn.RNN, "gru": fastrnn.GRU, "lstm": fastrnn.LSTM}[o.kind]
    layer = kind(**o.arguments(), dtype=o.dtype, rng=o.seed)
    expected, got = by_torch(o, n, layer.params), by_us(o, n, layer)
    assert got.keys() == expected.keys()
    for name, a in got.items():
        b = expected[name]
        if b.shape == ():  # PyTorch's None: nothing depends on it
            assert not a.any(), name
            continue
        assert (a.shape, a.dtype) == (b.shape, o.dtype), name
        assert np.abs(a - b).max() <= TOLERANCE[o.dtype] * max(1, np.abs(b).max()), name
    y, final = layer(n.x, None if not o.state else tuple(n.state) if o.kind == "lstm" else n.state[0], n.lengths)
    assert y.tobytes() == got["y"].tobytes()
    assert (final[0] if o.kind == "lstm" else final).tobytes() == got["state[0]"].tobytes()


def ragged():
    """x (6, 4, 3), and lengths in no order."""
    return torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 6, 1, 3])


@pytest.mark.parametrize("batch_first", [False, True])
def test_pack_and_unpack_are_torchs(batch_first):
    rng = np.random.default_rng(0)
    for _ in range(50):
        T, B = rng.integers(1, 9, 2)
        x, lengths = rng.standard_normal((B, T, 3) if batch_first else (T, B, 3)), rng.integers(1, T + 1, B)
        theirs = torch.nn.utils.rnn.pack_padded_sequence(
            torch.tensor(x), torch.tensor(lengths), batch_first, enforce_sorted=False
        )
        ours = fastrnn.pack(x, lengths, batch_first)
        for field, a in ours._asdict().items():
            b = getattr(theirs, field).numpy()
            assert (a.dtype, a.tolist()) == (b.dtype, b.tolist()), field
        padded, back = torch.nn.utils.rnn.pad_packed_sequence(theirs, batch_first, total_length=int(T))
        for packed in (ours, theirs):
            a, b = fastrnn.unpack(packed, batch_first, int(T))
            assert a.tolist() == padded.tolist() and b.tolist() == back.tolist()


@pytest.mark.parametrize("enforce_sorted", [False, True])
def test_a_layer_takes_what_torch_has_packed(enforce_sorted):
    """Also without indices, where torch was told that the lengths fall; and the packed result goes back to torch."""
    x, lengths = ragged()
    if enforce_sorted:
        lengths = lengths.sort(descending=True).values
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
    layer = fastrnn.GRU(3, 5, 2, bidirectional=True, rng=0)
    y, state = layer(packed)
    again = torch.nn.utils.rnn.PackedSequence(*(None if a is None else torch.tensor(a) for a in y))
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(again)
    expected, final = layer(x.numpy(), lengths=lengths.numpy())
    assert padded.numpy().tobytes() == expected.tobytes() and state.tobytes() == final.tobytes()


def test_a_tensor_that_needs_a_gradient_is_refused():
    x, lengths = ragged()
    packed = torch.nn.utils.rnn.pack_padded_sequence(x.requires_grad_(), lengths, enforce_sorted=False)
    with pytest.raises(TypeError, match=r"^x.data: expected an array, got Tensor: .*requires grad"):
        fastrnn.GRU(3, 5)(packed)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"])
def test_parameters_start_as_torchs(kind):
    """In names, order, shapes, and the distribution of the values: uniform within 1 / sqrt(H)."""
    options = {} if kind.endswith("Cell") else {"num_layers": 2, "bidirectional": True}
    torch.manual_seed(0)
    theirs, ours = getattr(torch.nn, kind)(30, 40, **options), getattr(fastrnn, kind)(30, 40, **options, rng=0)
    for (name, a), (other, b) in zip(ours.params.items(), theirs.named_parameters(), strict=True):
        assert (name, a.shape) == (other, tuple(b.shape))
        limit, b = 1 / np.sqrt(40), b.detach().numpy()
        for values in (a, b):
            assert np.abs(values).max() <= limit * (1 + 1e-6)
            assert abs((values**2).mean() / limit**2 - 1 / 3) < 5 * np.sqrt(4 / 45 / values.size)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind, options", [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("GRU", {}), ("LSTM", {})])
@pytest.mark.parametrize("shape", [(4, 3), (3,)])
def test_a_cell_is_torchs_cell(kind, options, bias, shape):
    theirs = getattr(torch.nn, f"{kind}Cell")(3, 5, bias, **options, dtype=torch.float64)
    ours = getattr(fastrnn, f"{kind}Cell")(3, 5, bias, **options, dtype=np.float64)
    ours.load_state_dict({name: w.numpy() for name, w in theirs.state_dict().items()})
    rng = np.random.default_rng(0)
    x, (h, c, dh, dc) = rng.standard_normal(shape), rng.standard_normal((4, *shape[:-1], 5))
    tx, th, tc = (torch.tensor(a, requires_grad=True) for a in (x, h, c))
    for state, t_state in ((None, None), ((h, c), (th, tc)) if kind == "LSTM" else (h, th)):
        new, t_new = ours(x, state), theirs(tx, t_state)
        for a, b in zip(*((r if kind == "LSTM" else (r,)) for r in (new, t_new)), strict=True):
            np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-12, atol=1e-14)
    new, tape = ours.forward(x, state)
    grads = tape.backward((dh, dc) if kind == "LSTM" else dh)
    pairs = zip(*((r if kind == "LSTM" else (r,)) for r in (t_new, (dh, dc) if kind == "LSTM" else dh)), strict=True)
    sum((a * torch.tensor(d)).sum() for a, d in pairs).backward()
    np.testing.assert_allclose(grads.x, tx.grad.numpy(), rtol=1e-11, atol=1e-13)
    for a, b in zip(grads.state if kind == "LSTM" else (grads.state,), (th, tc)):
        np.testing.assert_allclose(a, b.grad.numpy(), rtol=1e-11, atol=1e-13)
    for name, w in theirs.named_parameters():
        np.testing.assert_allclose(grads.params[name], w.grad.numpy(), rtol=1e-11, atol=1e-13)
