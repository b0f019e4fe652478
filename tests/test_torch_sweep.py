"""Layers against PyTorch's own, forward and backward, over all options together: see torch_options.py."""

import os

import numpy as np
import pytest

import fastrnn

if os.environ.get("FASTRNN_SANITIZED") == "1":
    pytest.skip("PyTorch is not run under sanitizers", allow_module_level=True)
torch = pytest.importorskip("torch", reason="PyTorch is not installed; `pip install 'fastrnn[torch]'` brings it")
pytest.importorskip("hypothesis")
from torch_options import OPTIONS, Numbers, by_module, check_equal, kind_of, sweep  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")


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


@sweep(OPTIONS)
def test_a_layer_is_torchs_layer(o):
    n = Numbers(o)
    layer = kind_of(fastrnn, o)(**o.arguments(), dtype=o.dtype, rng=o.seed)
    theirs = kind_of(torch.nn, o)(**o.arguments(), dtype=getattr(torch, o.dtype))
    shapes = [(name, tuple(w.shape)) for name, w in theirs.state_dict().items()]
    assert shapes == [(name, w.shape) for name, w in layer.params.items()]
    theirs.load_state_dict({name: torch.tensor(w) for name, w in layer.params.items()})
    got = by_us(o, n, layer)
    check_equal(o, got, by_module(o, n, theirs))
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
        theirs = torch.nn.utils.rnn.pack_padded_sequence(torch.tensor(x), torch.tensor(lengths), batch_first, enforce_sorted=False)
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
