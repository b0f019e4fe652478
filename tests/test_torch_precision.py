"""fastrnn.torch with products of bfloat16 operands: by precision="bf16", and within torch.autocast."""

import copy
import os
import pickle

import numpy as np
import pytest

if os.environ.get("FASTRNN_SANITIZED") == "1":
    pytest.skip("PyTorch is not run under sanitizers", allow_module_level=True)
torch = pytest.importorskip("torch", reason="PyTorch is not installed; `pip install 'fastrnn[torch]'` brings it")
from torch import nn  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence  # noqa: E402

import fastrnn.torch  # noqa: E402
from fastrnn.torch import accelerate, restore  # noqa: E402

torch.set_num_threads(1)  # they wait for each other in a loop, which takes long where others want the processor too

F32, BF16 = torch.float32, torch.bfloat16
LAYERS = {
    "RNN": ("RNN", {}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
    "GRU": ("GRU", {}),
    "GRU stack": ("GRU", {"num_layers": 2, "bidirectional": True}),
    "LSTM": ("LSTM", {}),
    "LSTM stack": ("LSTM", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    "LSTM projected": ("LSTM", {"proj_size": 7}),
}
CELLS = {"RNNCell": ("RNNCell", {}), "GRUCell": ("GRUCell", {}), "LSTMCell": ("LSTMCell", {})}
KINDS = LAYERS | CELLS
each_kind = pytest.mark.parametrize("kind", KINDS)
I, H = 17, 19


def made(kind, **more):
    """Of fastrnn.torch."""
    name, options = KINDS[kind]
    torch.manual_seed(0)
    return getattr(fastrnn.torch, name)(I, H, **options, **more)


def of_torch(kind):
    name, options = KINDS[kind]
    torch.manual_seed(0)
    return getattr(nn, name)(I, H, **options)


def own(kind):
    """Of fastrnn, in bf16, with the same weights."""
    name, options = KINDS[kind]
    layer = getattr(fastrnn, name)(I, H, **options, precision="bf16")
    layer.load_state_dict({n: p.detach().numpy() for n, p in made(kind).named_parameters()})
    return layer


def numbers(kind, dtype=F32, seed=0):
    shape = (3, I) if kind in CELLS else (3, 5, I)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def state(kind, x, dtype):
    """A state of this dtype, or None for None."""
    if dtype is None:
        return None
    module = of_torch(kind)
    rows = 3 if kind in CELLS or getattr(module, "batch_first", False) else 5
    front = () if kind in CELLS else (module.num_layers * (2 if module.bidirectional else 1),)
    generator = torch.Generator().manual_seed(9)
    h, c = (torch.randn(*front, rows, n, generator=generator).to(dtype) for n in (getattr(module, "proj_size", 0) or H, H))
    return (h, c) if "LSTM" in kind else h


def flat(result):
    """All tensors."""
    return [result] if isinstance(result, torch.Tensor) else [t for part in result for t in flat(part)]


def same(got, expected):
    """The same bits: of tensors, and of tensors or arrays."""
    expected = [torch.as_tensor(np.array(a)) if isinstance(a, np.ndarray) else a for a in expected]
    assert [t.dtype for t in got] == [t.dtype for t in expected]
    assert all(torch.equal(a.detach(), b.detach()) for a, b in zip(got, expected, strict=True))


def arrays(result):
    return [result] if isinstance(result, np.ndarray) else [a for part in result for a in arrays(part)]


@pytest.fixture
def autocast():
    with torch.autocast("cpu", dtype=BF16):
        yield


# --- precision="bf16" -------------------------------------------------------------------------------------------------------------


@each_kind
def test_a_module_has_a_precision(kind):
    plain, lower = made(kind), made(kind, precision="bf16")
    assert (plain.precision, lower.precision) == ("float32", "bf16")
    assert "precision" not in repr(plain) and repr(lower) == repr(plain)[:-1] + ", precision='bf16')"
    assert vars(plain).keys() == vars(of_torch(kind)).keys()
    for again in (copy.deepcopy(lower), pickle.loads(pickle.dumps(lower))):
        assert again.precision == "bf16"
        same(flat(again(numbers(kind))), flat(lower(numbers(kind))))
    plain.precision = "bf16"
    same(flat(plain(numbers(kind))), flat(lower(numbers(kind))))
    lower.precision = "float32"
    same(flat(lower(numbers(kind))), flat(made(kind)(numbers(kind))))


@each_kind
def test_wrong_precisions(kind):
    module = made(kind)
    for attempt in (
        lambda: made(kind, precision="bfloat16"),
        lambda: setattr(module, "precision", None),
        lambda: accelerate(module, precision="half"),
    ):
        with pytest.raises(ValueError, match=r"^precision: expected 'float32' or 'bf16', got "):
            attempt()
    for attempt in (
        lambda: made(kind, precision="bf16", dtype=torch.float64),
        lambda: setattr(made(kind).double(), "precision", "bf16"),
        lambda: made(kind, precision="bf16").double()(numbers(kind, torch.float64)),
    ):
        with pytest.raises(TypeError, match=r"^precision: 'bf16' rounds the operands .*; got float64"):
            attempt()


@each_kind
def test_inference_has_the_bits_of_fastrnn(kind):
    model, x = of_torch(kind).eval(), numbers(kind)
    expected = arrays(own(kind)(x.numpy()))
    for frozen in (False, True):
        accelerate(model, frozen=frozen, precision="bf16")
        with torch.no_grad():
            same(flat(model(x)), expected)
            same(flat(model(x.mT.contiguous().mT)), expected)  # the general way


@each_kind
def test_training_has_the_bits_of_fastrnn(kind):
    model, layer, x = made(kind, precision="bf16"), own(kind), numbers(kind).requires_grad_()
    model.precision = "bf16"
    result, (*_, final, tape) = model(x), layer.forward(numbers(kind).numpy())
    same(flat(result), arrays((*_, final)))
    y = flat(result)[0]
    model.precision = "float32"  # the way back keeps that of the forward
    y.sum().backward()
    ones = np.ones(tuple(y.shape), np.float32)
    grads = tape.backward((ones, None) if kind == "LSTMCell" else ones)
    same([x.grad, *(p.grad for p in model.parameters())], [grads.x, *(grads.params[n] for n, _ in model.named_parameters())])


def test_a_loop_whose_precision_changes_between_its_steps():
    """One graph, and the same steps by a cell of fastrnn."""
    module, cell, hx, h, tapes = made("GRUCell"), own("GRUCell"), None, None, []
    for t in range(6):
        x = numbers("GRUCell", seed=t)
        module.precision = cell.precision = "bf16" if t % 2 else "float32"
        hx, (h, tape) = module(x, hx), cell.forward(x.numpy(), h)
        tapes.append(tape)
    same([hx], [h])
    dh, total = np.ones_like(h), 0
    for tape in tapes[::-1]:
        grads = tape.backward(dh)
        dh, total = grads.state, total + grads.flat
    gradients = torch.autograd.grad(hx.sum(), list(module.parameters()))
    np.testing.assert_allclose(torch.cat([g.ravel() for g in gradients]).numpy(), total, rtol=1e-5, atol=1e-4)


# --- accelerate -------------------------------------------------------------------------------------------------------------------


def test_accelerate_says_and_keeps_it():
    model = nn.ModuleDict({"a": nn.LSTM(3, 4), "b": fastrnn.torch.GRU(3, 4), "c": nn.GRUCell(3, 4).double(), "d": nn.Linear(3, 4)})
    report = accelerate(model, precision="bf16")
    assert report.replaced == {"a": "LSTM(3, 4, precision='bf16')", "b": "GRU(3, 4, precision='bf16')"}
    assert report.left == {"c": "its parameters are torch.float64, and precision='bf16' is for torch.float32"}
    assert type(model["a"]) is nn.LSTM and model["b"].precision == "bf16"
    report = accelerate(model)
    assert report.replaced == {"c": "GRUCell(3, 4)"} and report.left == dict.fromkeys("ab", "is fastrnn's already")
    assert accelerate(model.eval(), frozen=True).replaced["a"] == "LSTM(3, 4, precision='bf16')"
    assert accelerate(model, precision="float32").replaced == {"a": "LSTM(3, 4)", "b": "GRU(3, 4)", "c": "GRUCell(3, 4)"}
    accelerate(model, precision="bf16")
    restore(model)
    assert type(model["b"]) is nn.GRU and not any("_fastrnn_precision" in vars(module) for module in model.modules())


@each_kind
def test_what_is_frozen_keeps_its_own(kind):
    model, x = made(kind, precision="bf16").eval(), numbers(kind)
    with torch.no_grad():
        expected = flat(model(x))
        accelerate(model, frozen=True)
        model.precision = "float32"
        same(flat(model(x)), expected)


# --- autocast ---------------------------------------------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("packed", [False, True], ids=["", "packed"])
@pytest.mark.parametrize("hx_dtype", [None, F32, BF16], ids=str)
@pytest.mark.parametrize("x_dtype", [F32, BF16], ids=str)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_autocast_gives_the_dtypes_of_torch(kind, packed, x_dtype, hx_dtype, autocast):
    if packed and kind in CELLS:
        pytest.skip("a cell takes no packed sequence")
    theirs, x = of_torch(kind).eval(), numbers(kind, x_dtype)
    hx = state(kind, x, hx_dtype)
    x = pack_padded_sequence(x, [3, 2, 1, 1, 1][: x.shape[1 - theirs.batch_first]], batch_first=theirs.batch_first) if packed else x
    with torch.no_grad():
        try:
            expected = theirs(x, hx)
        except RuntimeError as error:
            pytest.skip(f"torch.nn's own does not run here: {error}")
        if kind in ("LSTM", "LSTM stack") and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            pytest.skip("oneDNN has no bfloat16 on this processor")
        for frozen in (False, True):
            ours = copy.deepcopy(theirs)
            accelerate(ours, frozen=frozen)
            for a, b in zip(tensors(ours(x, hx)), tensors(expected), strict=True):
                torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)  # the dtype, too


def tensors(result):
    """All of a result that may have packed sequences."""
    return flat([result[0].data, *result[1:]] if isinstance(result, tuple) and hasattr(result[0], "batch_sizes") else result)


@each_kind
@pytest.mark.parametrize("x_dtype", [F32, BF16], ids=str)
@pytest.mark.parametrize("hx_dtype", [None, F32], ids=str)
def test_autocast_computes_what_precision_does(kind, x_dtype, hx_dtype):
    model, lower = made(kind), made(kind, precision="bf16")
    x, wide = (numbers(kind, x_dtype).to(dtype).requires_grad_() for dtype in (x_dtype, F32))
    hx = state(kind, x, hx_dtype)
    with torch.autocast("cpu", dtype=BF16):
        got = flat(model(x, hx))
    expected = flat(lower(wide, hx))
    same(got, [t.to(g.dtype) for t, g in zip(expected, got, strict=True)])
    got[0].float().sum().backward()
    expected[0].to(got[0].dtype).float().sum().backward()
    same([x.grad], [wide.grad.to(x_dtype)])
    same([p.grad for p in model.parameters()], [p.grad for p in lower.parameters()])
    assert x.grad.dtype == x_dtype


@each_kind
def test_what_autocast_leaves_to_torch(kind, monkeypatch):
    model = made(kind)
    with pytest.raises(ValueError, match=r"^input: expected dtype torch.float32"), torch.autocast("cpu", enabled=False):
        model(numbers(kind, BF16))
    monkeypatch.setattr(fastrnn.torch.layers, "_general", None)
    monkeypatch.setattr(fastrnn.torch.cells, "_general", None)
    with torch.autocast("cpu", dtype=BF16):
        with pytest.raises(TypeError, match="NoneType"):
            model(numbers(kind))
        assert flat(model.double()(numbers(kind, torch.float64)))[0].dtype == torch.float64
        assert flat(model.bfloat16()(numbers(kind, BF16)))[0].dtype == BF16
        with pytest.raises(RuntimeError):
            model.float()(numbers(kind, torch.float64))


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "GRUCell"])
def test_gradients_of_gradients_within_autocast_are_torchs(kind, autocast):
    model, x = made(kind), numbers(kind).requires_grad_()
    (g,) = torch.autograd.grad(flat(model(x))[0].float().square().sum(), x, create_graph=True)
    assert any(d.any() for d in torch.autograd.grad(g.square().sum(), list(model.parameters())))
