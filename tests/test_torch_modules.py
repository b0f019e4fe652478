"""fastrnn.torch's modules against torch.nn's, in all that a module of PyTorch is expected to do."""

import copy
import io
import multiprocessing
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from building import IMPORTED_FROM, ROOT, run_python

if os.environ.get("FASTRNN_SANITIZED") == "1":
    pytest.skip("PyTorch is not run under sanitizers", allow_module_level=True)
torch = pytest.importorskip("torch", reason="PyTorch is not installed; `pip install 'fastrnn[torch]'` brings it")
hypothesis = pytest.importorskip("hypothesis")
from hypothesis import strategies as st  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

import fastrnn.torch  # noqa: E402
from fastrnn.torch import calls, tensors  # noqa: E402
from torch_options import OPTIONS, Numbers, by_module, check_equal, kind_of, sweep  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
LAYERS = [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("GRU", {}), ("LSTM", {}), ("LSTM", {"proj_size": 2})]
CELLS = [("RNNCell", {}), ("RNNCell", {"nonlinearity": "relu"}), ("GRUCell", {}), ("LSTMCell", {})]


def both(kind, *arguments, dtype=torch.float64, **options):
    """A module of torch.nn and ours, with the same weights."""
    theirs, ours = (getattr(package, kind)(*arguments, **options, dtype=dtype) for package in (torch.nn, fastrnn.torch))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def gru():
    return fastrnn.torch.GRU(3, 4)


def members(state):
    return state if isinstance(state, tuple) else (state,)


# --- outputs and gradients ------------------------------------------------------------------------------------------------------


@sweep(OPTIONS, st.sampled_from([0.0, 0.0, 0.3, 1.0]), st.booleans(), examples=120)
def test_a_layer_is_torchs_layer(o, p, training):
    """With dropout too: the masks are the same from the same seed."""
    n, arguments = Numbers(o), o.arguments() | {"dtype": getattr(torch, o.dtype), "dropout": p if o.L > 1 else 0.0}
    torch.manual_seed(o.seed)
    theirs, ours = kind_of(torch.nn, o)(**arguments), kind_of(fastrnn.torch, o)(**arguments)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    results = []
    for layer in (ours.train(training), theirs.train(training)):
        torch.manual_seed(o.seed)
        results.append(by_module(o, n, layer))
    check_equal(o, *results)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4, 3), (3,)])
@pytest.mark.parametrize("kind, options", CELLS)
def test_a_cell_is_torchs_cell(kind, options, shape, bias):
    """Over three steps, without and with a state from outside."""
    results = []
    for cell in both(kind, 3, 5, bias, **options):
        x, h, c = (numbers(*shape[:-1], n, seed=n).requires_grad_() for n in (3, 5, 6))
        c = c[..., :5]
        for state in (None, (h, c) if kind == "LSTMCell" else h):
            total = 0
            for _ in range(3):
                state = cell(x, state)
                total = total + sum((s**2).sum() for s in members(state))
            total.backward()
        results.append([*members(state), x.grad, h.grad, *(w.grad for w in cell.parameters())])
    for a, b in zip(*results, strict=True):
        close(a, b)


@pytest.mark.parametrize("kind, options", [*LAYERS, *CELLS])
def test_gradients_are_those_of_differences(kind, options):
    layer = kind in ("RNN", "GRU", "LSTM")
    module = getattr(fastrnn.torch, kind)(
        2, 3, **options, **({"num_layers": 2, "dropout": 0.5} if layer else {}), dtype=torch.float64
    )
    x = numbers(*((3, 2, 2) if layer else (2, 2))).requires_grad_()

    def run(x, *parameters):
        torch.manual_seed(0)
        y, *state = module(x) if layer else (module(x),)
        return (*members(y), *(s for member in state for s in members(member)))

    assert torch.autograd.gradcheck(run, (x, *module.parameters()))


@pytest.mark.parametrize("gemm", ["own", "blas"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_gradients_go_where_they_are_wanted_and_nowhere_else(kind, bidirectional, gemm, use):
    use(gemm=gemm)
    theirs, ours = both(kind, 3, 4, 2, bidirectional=bidirectional)
    results = []
    for module in (ours, theirs):
        module.weight_hh_l0.requires_grad_(False)
        y, state = module(numbers(5, 2, 3))
        assert y.requires_grad and all(s.requires_grad for s in members(state))
        members(state)[-1].sum().backward()
        results.append([w.grad for w in module.parameters()])
    assert results[0][1] is results[1][1] is None
    for a, b in zip(*results, strict=True):
        close(a, b)


def test_a_tape_is_kept_for_gradients_alone():
    layer, x = gru(), numbers(5, 2, 3, dtype=torch.float32)
    assert layer(x)[0].grad_fn is not None
    with torch.no_grad():
        y, _ = layer(x)
    assert y.grad_fn is None and not y.requires_grad
    with torch.inference_mode():
        assert layer(x)[0].is_inference() and torch.equal(layer(x)[0], y)
        assert layer(layer.weight_hh_l0[None, :, :3])[0].shape == (1, 12, 4)
    layer.requires_grad_(False)
    assert layer(x)[0].grad_fn is None
    assert torch.equal(layer(x)[0], y)
    assert layer(x.requires_grad_())[0].requires_grad


def test_inference_is_training_bit_for_bit_and_a_cell_is_a_layer():
    layer, x = fastrnn.torch.LSTM(3, 4, 2), numbers(5, 2, 3, dtype=torch.float32)
    y, state = layer(x)
    layer.eval()
    with torch.no_grad():
        again, final = layer(x)
    assert torch.equal(y, again) and torch.equal(state[1], final[1])


def test_tensors_and_arrays_are_the_same_memory():
    layer = fastrnn.torch.LSTM(3, 4)
    w = layer.weight_ih_l0
    assert np.shares_memory(tensors.parameter("w", w, torch.float32, (16, 3)), w.detach().numpy())
    a = np.zeros((2, 3), np.float32)
    assert np.shares_memory(tensors.tensors([a])[0].numpy(), a)
    assert np.shares_memory(tensors.array(w), w.detach().numpy())


VIEWS = [lambda x: x.permute(2, 1, 0), lambda x: x[::2, :, :3], torch._neg_view, lambda x: x[:1].expand(4, 3, 3)]


@pytest.mark.parametrize("change", VIEWS)
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "LSTMCell"])
def test_inputs_states_and_weights_may_be_views_of_any_kind(kind, change):
    theirs, ours = both(kind, 3, 3)
    x, h, c = (change(numbers(3, 3, 3, seed=seed)) for seed in range(3))
    x, h, c = (x[0], h[0], c[0]) if kind.endswith("Cell") else (x[:, :2], h[:1, :2], c[:1, :2])
    results = []
    for module in (ours, theirs):
        for w in module.parameters():
            w.data = torch.stack([w.data, w.data], dim=-1)[..., 0]
        output = module(x, h if kind == "RNN" else (h, c))
        results.append([t for member in output for t in members(member)])
    for a, b in zip(*results, strict=True):
        close(a, b)


def test_an_empty_batch_has_outputs_and_gradients():
    layer = fastrnn.torch.LSTM(3, 4, 2, bidirectional=True)
    y, (h, c) = layer(torch.zeros(5, 0, 3, requires_grad=True))
    y.sum().backward()
    assert y.shape == (5, 0, 8) and h.shape == c.shape == (4, 0, 4)
    assert not layer.weight_ih_l0.grad.any()


# --- being a module -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, options", [*LAYERS, *CELLS])
def test_it_is_torchs_module_in_all_but_forward(kind, options):
    made = []
    for package in (torch.nn, fastrnn.torch):
        torch.manual_seed(0)
        made.append(getattr(package, kind)(5, 6, **options, bias=False))
    theirs, ours = made
    assert isinstance(ours, getattr(torch.nn, kind)) and repr(ours) == repr(theirs)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    theirs.load_state_dict(ours.state_dict(), strict=True)


@pytest.mark.parametrize("how", ["deepcopy", "save"])
def test_a_copy_computes_the_same_and_is_apart(how):
    layer, x = fastrnn.torch.LSTM(3, 4, 2), numbers(5, 2, 3, dtype=torch.float32)
    y, _ = layer(x)
    if how == "deepcopy":
        new = copy.deepcopy(layer)
    else:
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        new = torch.load(file, weights_only=False)
    assert type(new) is fastrnn.torch.LSTM
    assert torch.equal(new(x)[0], y)
    with torch.no_grad():
        new.weight_hh_l1.zero_()
    assert torch.equal(layer(x)[0], y) and not torch.equal(new(x)[0], y)


def test_hooks_are_called():
    layer, seen = fastrnn.torch.LSTM(3, 4), []
    layer.register_forward_pre_hook(lambda module, args: seen.append("before"))
    layer.register_forward_hook(lambda module, args, output: seen.append("behind"))
    layer.register_full_backward_hook(lambda module, dx, dy: seen.append((dx[0].shape, dy[0].shape)))
    layer.weight_hh_l0.register_hook(lambda gradient: seen.append(gradient.shape))
    layer(torch.zeros(5, 2, 3, requires_grad=True))[0].sum().backward()
    assert seen == ["before", "behind", (16, 4), ((5, 2, 3), (5, 2, 4))]


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "GRUCell"])
def test_changes_of_the_weights_are_seen_at_the_next_call(kind):
    """By an optimiser, by hand, and through .data, which no counter notices."""
    theirs, ours = both(kind, 3, 4)
    x = numbers(2, 3) if kind.endswith("Cell") else numbers(5, 2, 3)
    for module in (theirs, ours):
        optimiser = torch.optim.Adam(module.parameters(), lr=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            members(module(x))[0].square().sum().backward()
            optimiser.step()
        for w in module.parameters():
            w.data = w.data * 2
    close(members(ours(x))[0], members(theirs(x))[0], 1e-9)


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "GRUCell"])
def test_parameters_may_be_passed_by_functional_call(kind):
    theirs, ours = both(kind, 3, 4)
    x = numbers(2, 3) if kind.endswith("Cell") else numbers(5, 2, 3)
    given = {name: numbers(*w.shape, seed=len(name)).requires_grad_() for name, w in ours.named_parameters()}
    results = []
    for module in (ours, theirs):
        y = members(torch.func.functional_call(module, given, (x,)))[0]
        results.append([y, *torch.autograd.grad(y.sum(), list(given.values()))])
    for a, b in zip(*results, strict=True):
        close(a, b)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("how", ["weight_norm", "parametrizations.weight_norm", "prune", "subclass"])
def test_weights_may_be_made_of_other_parameters(how):
    theirs, ours = both("LSTM", 3, 4)
    x, results = numbers(5, 2, 3), []
    for module in (ours, theirs):
        if how == "weight_norm":
            torch.nn.utils.weight_norm(module, "weight_hh_l0")
        elif how == "parametrizations.weight_norm":
            torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
        elif how == "prune":
            prune.l1_unstructured(module, "weight_hh_l0", amount=0.5)
        else:
            module = type("Own", (type(module),), {"forward": lambda self, x: super(type(self), self).forward(x.flip(0))})(3, 4)
            module.double().load_state_dict(theirs.state_dict())
        y, _ = module(x)
        y.sum().backward()
        results.append([y, *(w.grad for _, w in sorted(module.named_parameters()))])
    for a, b in zip(*results, strict=True):
        close(a, b)


# --- autograd -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GRU", "LSTMCell"])
def test_a_graph_can_be_gone_back_through_again_if_retained(kind):
    options = {} if kind.endswith("Cell") else {"num_layers": 2, "dropout": 0.5}
    x, results = numbers(5, 3) if kind.endswith("Cell") else numbers(5, 2, 3), []
    for module in both(kind, 3, 4, **options):
        torch.manual_seed(0)
        total = members(module(x))[0].square().sum()
        total.backward(retain_graph=True)
        total.backward()
        results.append([w.grad for w in module.parameters()])
    for a, b in zip(*results, strict=True):
        close(a, b)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        total.backward()


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "GRUCell"])
def test_nothing_is_held_after_backward(kind):
    """A loss that is kept for a plot must not keep its inputs."""
    module = getattr(fastrnn.torch, kind)(3, 4, **({} if kind.endswith("Cell") else {"num_layers": 2, "dropout": 0.5}))
    data = np.zeros((5, 3) if kind.endswith("Cell") else (5, 2, 3), np.float32)
    alone = sys.getrefcount(data)
    loss = members(module(torch.from_numpy(data)))[0].sum()
    assert sys.getrefcount(data) > alone
    loss.backward()
    assert sys.getrefcount(data) == alone


def test_outputs_may_be_modified_in_place():
    """As a ReLU behind the layer does, or an attention mask; y is what backward reads."""
    results = []
    for module in both("GRU", 3, 4, 2, batch_first=True):
        x = numbers(2, 5, 3).requires_grad_()
        y, h = module(x)
        y.mul_(3).relu_()
        h[0].zero_()
        (y.sum() + h.sum()).backward()
        results.append([y, h, x.grad, *(w.grad for w in module.parameters())])
    for a, b in zip(*results, strict=True):
        close(a, b)


@pytest.mark.parametrize("what", ["input", "weight"])
def test_what_backward_reads_must_not_be_modified_before_it(what):
    layer, x = gru(), torch.zeros(5, 2, 3)
    y, _ = layer(x)
    with torch.no_grad():
        (x if what == "input" else layer.weight_hh_l0).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("kind, options", [*LAYERS, *CELLS])
def test_second_derivatives_are_torchs(kind, options):
    """With respect to the input, the state, which depends on the input, the weights, and the gradients that come in."""
    layer, lstm = kind in ("RNN", "GRU", "LSTM"), kind.startswith("LSTM")
    more = {"num_layers": 2, "bidirectional": True, "dropout": 0.5, "batch_first": True} if layer else {}
    x = numbers(*((2, 2, 2) if layer else (2, 2)), seed=9).requires_grad_()
    rows, results = (4, 2) if layer else (2,), []
    for module in both(kind, 2, 3, **options, **more):
        torch.manual_seed(0)
        h, c = (x.sum() * numbers(*rows, n, seed=n) for n in (options.get("proj_size", 3), 3))
        outputs = [t for member in members(module(x, (h, c) if lstm else h)) for t in members(member)]
        incoming = [numbers(*y.shape).requires_grad_() for y in outputs]
        first = torch.autograd.grad(outputs, [x, *module.parameters()], incoming, create_graph=True)
        second = torch.autograd.grad(sum((g**2).sum() for g in first), [x, *module.parameters(), *incoming])
        results.append([*first, *second])
    for a, b in zip(*results, strict=True):
        close(a, b, 1e-10)


def test_where_the_way_back_is_differentiated_inputs_must_not_have_been_modified():
    layer, x = gru(), torch.ones(5, 2, 3, requires_grad=True)
    given = x * 1
    y, _ = layer(given)
    given.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


def test_a_way_back_by_torch_draws_nothing_from_its_generator():
    layer, x = fastrnn.torch.GRU(3, 4, 2, dropout=0.5), torch.ones(5, 2, 3, requires_grad=True)
    y, _ = layer(x)
    torch.rand(1)
    before = torch.get_rng_state()
    torch.autograd.grad(y.square().sum(), x, create_graph=True)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_of_torch_give_the_same_gradients(reentrant):
    theirs, ours = both("LSTM", 3, 4, 2, dropout=0.5)
    results = []
    for module in (ours, theirs):
        torch.manual_seed(0)
        x = numbers(5, 2, 3).requires_grad_()
        y = torch.utils.checkpoint.checkpoint(lambda x, module=module: module(x)[0], x, use_reentrant=reentrant)
        y.sum().backward()
        results.append([x.grad, *(w.grad for w in module.parameters())])
    for a, b in zip(*results, strict=True):
        close(a, b)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize("kind", ["GRU", "GRUCell"])
def test_transforms_go_through_torchs_own_operations(kind):
    theirs, ours = both(kind, 3, 4)
    x = numbers(2, 3) if kind.endswith("Cell") else numbers(5, 2, 3)
    results = []
    for module in (ours, theirs):

        def run(x, module=module):
            return members(module(x))[0]

        found = [torch.func.jvp(run, (x,), (torch.ones_like(x),))[1], torch.func.grad(lambda x: run(x).sum())(x)]
        with torch.autograd.forward_ad.dual_level(), torch.no_grad():
            dual = run(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))
            found.append(torch.autograd.forward_ad.unpack_dual(dual).tangent)
        results.append(found)
    for a, b in zip(*results, strict=True):
        close(a, b)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["GRU", "GRUCell"])
def test_what_is_traced_is_torchs_own(kind):
    """A trace of our forward would be a constant."""
    theirs, ours = both(kind, 3, 4)
    x = numbers(2, 3) if kind.endswith("Cell") else numbers(5, 2, 3)
    traced = torch.jit.trace(ours, (x,))
    close(members(traced(2 * x))[0], members(theirs(2 * x))[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_what_is_compiled_computes_the_same():
    theirs, ours = both("GRU", 3, 4)
    compiled = torch.compile(torch.nn.Sequential(ours), backend="eager")
    for seed in (1, 2):
        x = numbers(5, 2, 3, seed=seed)
        close(compiled(x)[0], theirs(x)[0])


def test_an_input_of_another_dtype_is_brought_to_torchs_in_autocast_alone():
    layer, x = fastrnn.torch.GRU(3, 4), numbers(5, 2, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x)[0].dtype == torch.bfloat16
        with torch.autocast("cpu", enabled=False), pytest.raises(ValueError, match=r"^input: expected dtype torch.float32"):
            layer(x)


@pytest.mark.parametrize("kind", ["GRU", "LSTMCell"])
def test_a_module_that_is_moved_away_and_back_is_computed_there_and_here(kind):
    """Made where Lightning's precision="bf16-true" makes models; and on the meta device, as models are that are loaded later."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        layer = getattr(fastrnn.torch, kind)(3, 4)
    finally:
        torch.set_default_dtype(torch.float32)
    shape = (2, 3) if kind.endswith("Cell") else (5, 2, 3)
    y = members(layer(torch.ones(shape, dtype=torch.bfloat16)))[0]
    assert y.dtype == torch.bfloat16
    assert "Recorded" in members(layer.float()(torch.ones(shape)))[0].grad_fn.name()
    with torch.device("meta"):
        assert members(getattr(fastrnn.torch, kind)(3, 4)(torch.ones(shape)))[0].is_meta


# --- errors ---------------------------------------------------------------------------------------------------------------------

X = torch.zeros(5, 2, 3)


def _with_weight(w):
    layer = gru()
    layer.weight_hh_l0 = torch.nn.Parameter(w)
    return layer


def _without_weight():
    layer = gru()
    layer.weight_hh_l0 = None
    layer(X)


BAD = {
    "proj_size": (lambda: fastrnn.torch.GRU(3, 4, proj_size=2), ValueError, "proj_size argument is only supported for LSTM"),
    "mixed": (
        lambda: _with_weight(torch.zeros(12, 4).double())(X),
        TypeError,
        "weight_hh_l0: expected a tensor of torch.float32 on the CPU",
    ),
    "shape": (
        lambda: _with_weight(torch.zeros(4, 12))(X),
        ValueError,
        r"weight_hh_l0: expected its shape = \(12, 4\), got \(4, 12\)",
    ),
    "no tensor": (lambda: gru()(X.numpy()), TypeError, "input: expected a tensor of torch.float32, got ndarray"),
    "other dtype": (
        lambda: gru()(X.double()),
        ValueError,
        "input: expected dtype torch.float32, got torch.float64",
    ),
    "meta x": (lambda: gru()(X.to("meta")), ValueError, "input: expected a tensor on the CPU, got one on meta"),
    "dimensions": (
        lambda: gru()(X[None]),
        ValueError,
        r"input: expected 2 or 3 dimensions, got shape \(1, 5, 2, 3\)",
    ),
    "input_size": (lambda: fastrnn.torch.GRU(7, 4)(X), ValueError, "input: expected the last axis to be input_size = 7, got"),
    "state": (lambda: gru()(X, X), ValueError, r"hx: expected the last axis to be hidden_size = 4, got shape"),
    "rows": (
        lambda: gru()(X, torch.zeros(1, 3, 4)),
        ValueError,
        r"hx: expected \(L\*D, B, hidden_size\) = \(1, 2, 4\)",
    ),
    "2-D": (lambda: gru()(X, torch.zeros(1, 4)), ValueError, r"hx: expected 3 dimensions, got shape \(1, 4\)"),
    "pair": (lambda: fastrnn.torch.LSTM(3, 4)(X, X), TypeError, r"hx: expected a pair \(h_0, c_0\) of tensors, got Tensor"),
    "cell dimensions": (
        lambda: fastrnn.torch.GRUCell(3, 4)(X),
        ValueError,
        r"input: expected 1 or 2 dimensions, got shape \(5, 2, 3\)",
    ),
    "cell rows": (
        lambda: fastrnn.torch.LSTMCell(3, 4)(X[0], (torch.zeros(1, 4), torch.zeros(2, 4))),
        ValueError,
        r"hx\[0\]: expected \(B, hidden_size\) = \(2, 4\), got \(1, 4\)",
    ),
    "nonlinearity": (lambda: fastrnn.torch.RNNCell(3, 4, nonlinearity="sin")(X[0]), ValueError, "nonlinearity: expected 'tanh' or"),
    "model": (lambda: fastrnn.torch.accelerate("model"), TypeError, "model: expected a torch.nn.Module, got str"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name(case):
    call, kind, message = BAD[case]
    with pytest.raises(kind, match="^" + message):
        call()


# --- processes and threads ------------------------------------------------------------------------------------------------------


def test_threads_are_as_many_as_both_packages_allow(monkeypatch):
    before = fastrnn.get_num_threads()
    try:
        fastrnn.set_num_threads(4)
        assert calls.threads() == torch.get_num_threads() == 1
        monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
        assert calls.threads() == 4
    finally:
        fastrnn.set_num_threads(before)


class Encoded(torch.utils.data.Dataset):
    """Sequences that are encoded where they are loaded."""

    def __init__(self, layer):
        self.layer, self.x = layer, numbers(4, 5, 2, 3, dtype=torch.float32)

    def __len__(self):
        return len(self.x)

    @torch.no_grad()
    def __getitem__(self, i):
        return self.layer(self.x[i])[0]


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_it_works_in_the_workers_of_a_dataloader():
    """They are forks of a process that has computed, and hand out the parent's numbers."""
    data = Encoded(gru())
    expected = torch.stack([data[i] for i in range(4)])
    loader = torch.utils.data.DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context="fork")
    assert torch.equal(torch.cat(list(loader)), expected)


def _train_in_another_process(layer, x):
    torch.set_num_threads(1)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(x)[0].sum().backward()
    optimiser.step()


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
def test_shared_parameters_that_another_process_has_trained_are_seen_here():
    theirs, ours = both("GRU", 3, 4)
    x = numbers(5, 2, 3)
    ours.share_memory()
    before = ours(x)[0]
    worker = multiprocessing.get_context("fork").Process(target=_train_in_another_process, args=(ours, x))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    _train_in_another_process(theirs, x)
    close(ours(x)[0], theirs(x)[0])
    assert not torch.equal(ours(x)[0], before)


def test_fastrnn_alone_imports_no_torch():
    code = "import sys, fastrnn; print('torch' in sys.modules, 'fastrnn.torch' in sys.modules)"
    assert run_python("-c", code, cwd=Path(IMPORTED_FROM)).split() == ["False", "False"]


def test_the_documentation_runs():
    """docs/pytorch.md, block after block."""
    text = (Path(ROOT) / "docs" / "pytorch.md").read_text("utf-8")
    blocks = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    assert blocks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec("\n".join(blocks), {})
