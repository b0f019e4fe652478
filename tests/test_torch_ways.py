"""The ways in which PyTorch differentiates and traces a module, by module: with accelerated modules and with fastrnn.torch's own,
all have torch.nn's values. docs/pytorch.md has the table."""

import copy
import os
import re
from pathlib import Path

import pytest

from building import ROOT

if os.environ.get("FASTRNN_SANITIZED") == "1":
    pytest.skip("PyTorch is not run under sanitizers", allow_module_level=True)
torch = pytest.importorskip("torch", reason="PyTorch is not installed; `pip install 'fastrnn[torch]'` brings it")
from torch import nn  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.autograd import functional as AF  # noqa: E402
from torch.func import functional_call  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence  # noqa: E402

import fastrnn.torch  # noqa: E402

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's own: deprecations, and what it says of traces


class Model(nn.Module):
    """A recurrent module between what needs no state and gives one tensor; so that every way can be gone with every module.

    packed: the rows of the input are packed, by these lengths. head: a linear layer behind, whose gradient keeps PyTorch's graph
    alive where the module's own would be lost without a word.
    """

    def __init__(self, kind, options, lengths=None):
        super().__init__()
        self.recurrent = getattr(nn, kind)(3, 4, **options)
        self.head = nn.Linear(4 * (1 + bool(options.get("bidirectional"))), 2)
        self.lengths = lengths

    def forward(self, x):
        if self.lengths is not None:
            x = pack_padded_sequence(x, self.lengths, enforce_sorted=False)
        y = self.recurrent(x)
        if isinstance(y, tuple):
            y = y[0]
        if isinstance(y, PackedSequence):
            y = y.data
        return self.head(y)


CASES = {
    "RNN": ("RNN", {"nonlinearity": "tanh", "batch_first": True}),
    "GRU": ("GRU", {"num_layers": 2, "dropout": 0.3}),
    "LSTM": ("LSTM", {"bidirectional": True}),
    "packed GRU": ("GRU", {}, torch.tensor([2, 3])),
    "RNNCell": ("RNNCell", {}),
    "GRUCell": ("GRUCell", {}),
    "LSTMCell": ("LSTMCell", {}),
}


def numbers(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def torchs(case):
    torch.manual_seed(0)
    return Model(*CASES[case]).double()


def accelerated(case):
    model = torchs(case)
    fastrnn.torch.accelerate(model)
    return model


def of_own(case):
    model = torchs(case)
    own = getattr(fastrnn.torch, CASES[case][0])(3, 4, **CASES[case][1]).double()
    own.load_state_dict(model.recurrent.state_dict())
    model.recurrent = own
    return model


def x_of(case, seed=1):
    return numbers(seed, *((2, 3) if case.endswith("Cell") else (3, 2, 3)))


def loss(y):
    return (y**3).sum()


# --- the ways: each a function of a model and of an input, that gives tensors ---------------------------------------------------


def first(model, x):
    x.requires_grad_()
    y = model(x)
    return [y, *torch.autograd.grad(loss(y), [x, *model.parameters()])]


def penalty(model, x):
    """As the critic of a WGAN-GP is trained."""
    x.requires_grad_()
    score = loss(model(x))
    (g,) = torch.autograd.grad(score, x, create_graph=True)
    return torch.autograd.grad(score + 10 * (g.norm() - 1) ** 2, list(model.parameters()))


def penalty_without_head(model, x):
    x.requires_grad_()
    y = model.recurrent(x if model.lengths is None else pack_padded_sequence(x, model.lengths, enforce_sorted=False))
    y = y[0] if isinstance(y, tuple) else y
    y = y.data if isinstance(y, PackedSequence) else y
    (g,) = torch.autograd.grad(loss(y), x, create_graph=True)
    (10 * (g.norm() - 1) ** 2).backward()
    return [x.grad, *(w.grad for w in model.recurrent.parameters())]


def twice_backward(model, x):
    x.requires_grad_()
    loss(model(x)).backward(create_graph=True)
    second = sum((w.grad**2).sum() for w in [x, *model.parameters()])
    return torch.autograd.grad(second, [x, *model.parameters()])


def of_weights_alone(model, x):
    model.head.requires_grad_(False)
    weights = list(model.recurrent.parameters())
    grads = torch.autograd.grad(loss(model(x)), weights, create_graph=True)
    return torch.autograd.grad(sum((g**2).sum() for g in grads), weights)


def of_the_input_alone(model, x):
    model.requires_grad_(False)
    x.requires_grad_()
    (g,) = torch.autograd.grad(loss(model(x)), x, create_graph=True)
    return torch.autograd.grad(g.square().sum(), x)


def one_weight(model, x):
    model.requires_grad_(False)
    w = next(w for name, w in model.recurrent.named_parameters() if name.startswith("weight_hh")).requires_grad_()
    (g,) = torch.autograd.grad(loss(model(x)), w, create_graph=True)
    return torch.autograd.grad(g.square().sum(), w)


def third(model, x):
    x.requires_grad_()
    (g,) = torch.autograd.grad(loss(model(x)), x, create_graph=True)
    (g,) = torch.autograd.grad(g.square().sum(), x, create_graph=True)
    return torch.autograd.grad(g.square().sum(), [x, *model.recurrent.parameters()])


def maml(model, x):
    """A step of the weights, differentiated through."""
    weights = dict(model.named_parameters())
    grads = torch.autograd.grad(loss(functional_call(model, weights, (x,))), list(weights.values()), create_graph=True)
    new = {name: w - 0.1 * g for (name, w), g in zip(weights.items(), grads)}
    return torch.autograd.grad(loss(functional_call(model, new, (2 * x,))), list(weights.values()))


def batched_grads(model, x):
    x.requires_grad_()
    y = model(x)
    v = numbers(5, 4, *y.shape)
    return torch.autograd.grad(y, [x, *model.parameters()], v, is_grads_batched=True)


def vmapped_backward(model, x):
    x.requires_grad_()
    y = model(x)
    return torch.func.vmap(lambda v: torch.autograd.grad(y, x, v, retain_graph=True)[0])(numbers(5, 4, *y.shape))


def dual(model, x):
    with forward_ad.dual_level():
        y = model(forward_ad.make_dual(x, numbers(5, *x.shape)))
        return forward_ad.unpack_dual(y)


def of_weights_by_func(model, x):
    weights = {name: w.detach() for name, w in model.named_parameters()}
    return list(torch.func.grad(lambda weights: loss(functional_call(model, weights, (x,))))(weights).values())


def ensemble(model, x):
    """torch.func's models that run side by side."""
    models = [model, copy.deepcopy(model)]
    with torch.no_grad():
        for w in models[1].parameters():
            w.mul_(0.5)
    weights, buffers = torch.func.stack_module_state(models)
    run = torch.func.vmap(lambda w, b: functional_call(model, (w, b), (x,)), randomness="same")
    return [run(weights, buffers)]


DIFFERENTIATE = {
    "first derivatives": first,
    "`grad(create_graph=True)`, a penalty with a head": penalty,
    "`grad(create_graph=True)`, a penalty without a head": penalty_without_head,
    "`backward(create_graph=True)`": twice_backward,
    "second derivatives of the weights alone": of_weights_alone,
    "second derivatives of the input alone": of_the_input_alone,
    "second derivatives of one weight": one_weight,
    "third derivatives": third,
    "MAML": maml,
    "`functional.jacobian`": lambda m, x: AF.jacobian(m, x),
    "`functional.jacobian(vectorize=True)`": lambda m, x: AF.jacobian(m, x, vectorize=True),
    "`functional.jacobian(strategy='forward-mode')`": lambda m, x: AF.jacobian(m, x, vectorize=True, strategy="forward-mode"),
    "`functional.hessian`": lambda m, x: AF.hessian(lambda x: loss(m(x)), x),
    "`functional.hessian(vectorize=True)`": lambda m, x: AF.hessian(lambda x: loss(m(x)), x, vectorize=True),
    "`functional.vjp`": lambda m, x: AF.vjp(lambda x: loss(m(x)), x),
    "`functional.jvp`": lambda m, x: AF.jvp(m, x, 2 * x),
    "`functional.hvp`": lambda m, x: AF.hvp(lambda x: loss(m(x)), x, 2 * x),
    "`functional.vhp`": lambda m, x: AF.vhp(lambda x: loss(m(x)), x, 2 * x),
    "`is_grads_batched=True`": batched_grads,
    "`vmap` over `autograd.grad`": vmapped_backward,
    "`autograd.forward_ad`": dual,
    "`func.grad`": lambda m, x: [torch.func.grad(lambda x: loss(m(x)))(x)],
    "`func.grad` of the weights": of_weights_by_func,
    "`func.vjp`": lambda m, x: [torch.func.vjp(m, x)[1](m(x).detach())[0]],
    "`func.jvp`": lambda m, x: torch.func.jvp(m, (x,), (2 * x,)),
    "`func.vmap`": lambda m, x: [torch.func.vmap(m, randomness="same")(torch.stack([x, 2 * x, -x]))],
    "`func.vmap` over weights (ensemble)": ensemble,
    "`func.jacrev`": lambda m, x: [torch.func.jacrev(m)(x)],
    "`func.jacfwd`": lambda m, x: [torch.func.jacfwd(m, randomness="same")(x)],
    "`func.hessian`": lambda m, x: [torch.func.hessian(lambda x: loss(m.eval()(x)))(x)],
}


# --- the ways to trace: what is made with one input computes for another --------------------------------------------------------


class Plain(nn.Module):
    """For what compiles the source, or does not see types."""

    def __init__(self, recurrent):
        super().__init__()
        self.recurrent = recurrent

    def forward(self, x):
        return self.recurrent(x)


def with_gradients(function, model, x):
    y = function(x)
    y = y if isinstance(y, torch.Tensor) else y[0]
    return [y, *torch.autograd.grad(loss(y), list(model.recurrent.parameters()))]


def plain(model):
    return Plain(model.recurrent).eval()


def scripted(model, x):
    return with_gradients(torch.jit.script(plain(model)), model, 2 * x)


def symbolic(model, x):
    traced = torch.fx.symbolic_trace(plain(model))
    assert [node.op for node in traced.graph.nodes] == ["placeholder", "call_module", "output"]
    return with_gradients(traced, model, 2 * x)


def made_by(**options):
    from torch.fx.experimental.proxy_tensor import make_fx

    return lambda model, x: [make_fx(model.eval(), **options)(x)(2 * x)]


def made_of_gradients(model, x):
    from torch.fx.experimental.proxy_tensor import make_fx

    weights = dict(model.eval().named_parameters())

    def gradients(x):
        given = {name: w.detach().requires_grad_() for name, w in weights.items()}
        return torch.autograd.grad(loss(functional_call(model, given, (x,))), list(given.values()))

    return make_fx(gradients)(x)(2 * x)


def fake(model, x):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        y = model(mode.from_tensor(x))
    assert type(y) is not torch.Tensor
    return torch.tensor(y.shape), torch.tensor(y.stride())


def meta(model, x):
    y = model.to("meta")(x.to("meta"))
    loss(y).backward()
    return torch.tensor(y.shape), torch.tensor([w.grad.is_meta for w in model.parameters()])


def exported(strict):
    return lambda model, x: [torch.export.export(model.eval(), (x,), strict=strict).module()(2 * x)]


def compiled(**options):
    def way(model, x):
        torch._dynamo.reset()
        with torch._dynamo.config.patch(allow_rnn=True):
            return with_gradients(torch.compile(model.eval(), **options), model, 2 * x)

    return way


def ahead_of_time(model, x):
    from functorch.compile import aot_module, nop

    compiled = aot_module(model.eval(), fw_compiler=nop)
    return with_gradients(compiled, model, 2 * x)


def counted(model, x):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        loss(model(x)).backward()
    return torch.tensor(counter.get_total_flops()), model.head.weight.grad


class Seen(torch.overrides.TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names.append(getattr(function, "__name__", ""))
        return function(*args, **kwargs or {})


def function_mode(model, x):
    with Seen() as seen:
        y = model(x)
    return y, torch.tensor([len(seen.names)])


class Marked(torch.Tensor):
    """A subclass: what is computed of it is of it."""


def subclass(model, x):
    y = model(x.as_subclass(Marked))
    return y.as_subclass(torch.Tensor), torch.tensor(type(y) is Marked)


def lower(dtype):
    def way(model, x):
        model.to(dtype)
        y = model(x.to(dtype))
        loss(y).backward()
        return [y, *(w.grad for w in model.parameters())]

    return way


def autocast(model, x):
    model.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model.recurrent(x.float()) if model.lengths is None else model(x.float())
        y = y[0] if isinstance(y, tuple) else y
    loss(y.float()).backward()
    return [y, *(w.grad for w in model.parameters() if w.grad is not None)]


def quantised(model, x):
    kinds = {nn.LSTM, nn.GRU, nn.RNNCell, nn.GRUCell, nn.LSTMCell}
    quantised = torch.ao.quantization.quantize_dynamic(model.float().eval(), kinds, dtype=torch.qint8)
    assert "quantized" in type(quantised.recurrent).__module__
    return [quantised(x.float())]


TRACE = {
    "`jit.trace`": lambda m, x: with_gradients(torch.jit.trace(m.eval(), (x,)), m, 2 * x),
    "`jit.script` of what is around": scripted,
    "`fx.symbolic_trace` (a leaf)": symbolic,
    "`make_fx`": made_by(),
    "`make_fx(tracing_mode='fake')`": made_by(tracing_mode="fake", _allow_non_fake_inputs=True),
    "`make_fx(tracing_mode='symbolic')`": made_by(tracing_mode="symbolic", _allow_non_fake_inputs=True),
    "`make_fx(pre_dispatch=True)`": made_by(pre_dispatch=True),
    "`make_fx` of gradients": made_of_gradients,
    "`FakeTensorMode`": fake,
    "the meta device": meta,
    "`export`": exported(False),
    "`export(strict=True)`": exported(True),
    "`compile(backend='eager')`": compiled(backend="eager"),
    "`compile(backend='aot_eager', fullgraph=True)`": compiled(backend="aot_eager", fullgraph=True),
    "AOTAutograd": ahead_of_time,
    "`func.functionalize`": lambda m, x: [torch.func.functionalize(m.eval())(x)],
    "`FlopCounterMode`": counted,
    "`TorchFunctionMode`": function_mode,
    "a subclass of Tensor": subclass,
    "a module in bfloat16": lower(torch.bfloat16),
    "a module in half precision": lower(torch.half),
    "autocast to bfloat16": autocast,
    "`quantize_dynamic`": quantised,
}


# --- the table ------------------------------------------------------------------------------------------------------------------

WAYS = DIFFERENTIATE | TRACE


def tensors_of(found):
    if isinstance(found, torch.Tensor):
        return [found.detach()]
    return [t for member in found for t in tensors_of(member)]


# What torch.nn refuses too: pack_padded_sequence wants to see its lengths, and there are operations without rules for vmap.
REFUSED = {
    "`functional.jacobian(strategy='forward-mode')`": set(CASES) - {"RNNCell"},
    "`func.vmap`": set(CASES) - {"RNNCell", "GRUCell"},
    "`func.vmap` over weights (ensemble)": set(CASES) - {"RNNCell", "GRUCell"},
    "`quantize_dynamic`": {"RNN"},
}
OF_PACKED = """autograd.forward_ad, func.grad, func.grad of the weights, func.vjp, func.jvp, func.jacrev, func.jacfwd, func.hessian,
    func.functionalize, make_fx, make_fx(tracing_mode='fake'), make_fx(tracing_mode='symbolic'), make_fx(pre_dispatch=True),
    make_fx of gradients, FakeTensorMode, export, export(strict=True), compile(backend='aot_eager', fullgraph=True), AOTAutograd"""
for way in WAYS:
    if way.replace("`", "") in re.split(r",\s+(?!fullgraph)", OF_PACKED):
        REFUSED[way] = {"packed GRU"}


def result(way, case, make):
    model = make(case)
    torch.manual_seed(7)
    return tensors_of(WAYS[way](model, x_of(case)))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", WAYS)
def test_a_way_has_torchs_values(way, case):
    if case in REFUSED.get(way, ()):
        with pytest.raises(Exception):  # noqa: B017
            result(way, case, torchs)
        return
    expected = result(way, case, torchs)
    for make in (accelerated, of_own):
        if (way, make) == ("`quantize_dynamic`", of_own):  # it quantises what is of torch.nn's own classes
            continue
        found = result(way, case, make)
        off = 0.02 if way == "autocast to bfloat16" else 1e-9  # both round, at different places
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=off, atol=off)


def table():
    lines = ["|  | " + " | ".join(CASES) + " |", "|---" * (1 + len(CASES)) + "|"]
    for way in WAYS:
        lines.append(f"| {way} | " + " | ".join("–" if case in REFUSED.get(way, ()) else "=" for case in CASES) + " |")
    return "\n".join(lines)


def test_the_documentation_has_the_table():
    assert table() in (Path(ROOT) / "docs" / "pytorch.md").read_text("utf-8")


@pytest.mark.parametrize("case", CASES)
def test_first_derivatives_are_computed_here(case, monkeypatch):
    """Forward and backward, none of PyTorch's recurrences is called."""
    for make in (accelerated, of_own):
        model = make(case)
        with monkeypatch.context() as patched:
            patched.setattr(nn.modules.rnn, "_VF", None)
            found = first(model, x_of(case))
            with pytest.raises(AttributeError, match="NoneType"):
                penalty(model, x_of(case))
        assert all(t.any() for t in found[:3])


def test_a_default_device_is_no_reason_to_leave_it_to_torch():
    """torch.set_default_device is a mode, too."""
    model = accelerated("GRU")
    with torch.device("cpu"):
        y, _ = model.recurrent(x_of("GRU"))
    assert "Recorded" in y.grad_fn.name()


def test_compiled_autograd_has_torchs_values():
    found = []
    for make in (torchs, accelerated):
        torch._dynamo.reset()
        model = make("GRUCell")
        with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
            loss(model(x_of("GRUCell")[:1])).backward()
        found.append([w.grad for w in model.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_autocast_around_backward_alone_changes_nothing():
    """What was computed in single precision is differentiated in it, also by PyTorch's operations."""
    found = []
    for inside in (False, True):
        model, x = accelerated("LSTM").float(), x_of("LSTM").float().requires_grad_()
        y, _ = model.recurrent(x)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside):
            (g,) = torch.autograd.grad(loss(y), x, create_graph=True)
        found.append([g, *torch.autograd.grad((g**2).sum(), list(model.recurrent.parameters()))])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)
