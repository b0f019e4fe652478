"""fastrnn.torch.accelerate: models that others have made."""

import copy
import inspect
import io
import os
import pickle
import weakref
from abc import ABC, abstractmethod

import pytest

if os.environ.get("FASTRNN_SANITIZED") == "1":
    pytest.skip("PyTorch is not run under sanitizers", allow_module_level=True)
torch = pytest.importorskip("torch", reason="PyTorch is not installed; `pip install 'fastrnn[torch]'` brings it")
from torch import nn  # noqa: E402

import fastrnn.torch  # noqa: E402
from fastrnn.torch import accelerate, restore  # noqa: E402

torch.set_num_threads(1)  # they wait for each other in a loop, which takes long where others want the processor too


class Tagger(nn.Module):
    """Embedding, a bidirectional LSTM over packed sequences, a GRU, a cell, and a linear read-out."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8, padding_idx=0)
        self.encoder = nn.LSTM(8, 16, num_layers=2, bidirectional=True, batch_first=True, dropout=0.2)
        self.smoother = nn.GRU(32, 16, batch_first=True)
        self.last = nn.LSTMCell(16, 16)
        self.out = nn.Linear(16, 5)

    def forward(self, tokens, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
        y, _ = self.encoder(packed)
        y, h = self.smoother(y)
        y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True)
        h, _ = self.last(h[0])
        return self.out(torch.relu_(y)), self.out(h)


def train(model, steps):
    """The loss at each step."""
    g = torch.Generator().manual_seed(1)
    tokens, lengths = torch.randint(1, 20, (6, 9), generator=g), torch.tensor([9, 3, 7, 1, 9, 5])
    labels = tokens % 5
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    torch.manual_seed(2)
    for _ in range(steps):
        optimiser.zero_grad()
        y, last = model(tokens, lengths)
        loss = nn.functional.cross_entropy(y.flatten(0, 1), labels.flatten()) + nn.functional.cross_entropy(last, labels[:, 0])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_a_model_trains_along_the_same_losses():
    """With dropout, 100 steps of Adam in float32: the masks are the same, and rounding has not grown beyond 1e-4."""
    torch.manual_seed(0)
    model = Tagger()
    accelerated = copy.deepcopy(model)
    assert accelerate(accelerated).replaced.keys() == {"encoder", "smoother", "last"}
    expected, losses = train(model, 100), train(accelerated, 100)
    assert losses == pytest.approx(expected, abs=1e-4)
    assert losses[-1] < losses[0] / 2
    model.eval(), accelerated.eval()
    tokens, lengths = torch.arange(1, 10)[None], torch.tensor([9])
    with torch.inference_mode():
        for a, b in zip(model(tokens, lengths), accelerated(tokens, lengths)):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_everything_that_holds_a_module_or_its_parameters_sees_no_difference():
    """Tied and twice registered modules, lists outside, optimisers, hooks and the mode."""
    model, seen = nn.ModuleDict({"a": nn.LSTM(3, 4), "b": nn.GRU(3, 4), "c": nn.GRU(3, 4)}), []
    model["again"] = model["a"]
    model["c"].weight_hh_l0 = model["b"].weight_hh_l0
    model["a"].register_forward_hook(lambda module, args, output: seen.append(type(module)))
    model["b"].eval()
    modules, parameters, names = list(model.values()), list(model.parameters()), list(model.state_dict())
    report = accelerate(model)
    assert report.replaced == {"a": "LSTM(3, 4)", "b": "GRU(3, 4)", "c": "GRU(3, 4)"} and not report.left
    assert all(a is b for a, b in zip(model.values(), modules, strict=True))
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert list(model.state_dict()) == names
    assert model["c"].weight_hh_l0 is model["b"].weight_hh_l0
    assert model["a"].training and not model["b"].training
    x = torch.ones(5, 2, 3)
    sum(model[name](x)[0].sum() for name in "abc").backward()
    assert seen == [nn.LSTM]
    twice = model["b"].weight_hh_l0.grad.clone()
    model.zero_grad()
    for name in "bc":
        model[name](x)[0].sum().backward()
    torch.testing.assert_close(model["b"].weight_hh_l0.grad, twice)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"])
def test_the_model_itself_may_be_one(kind):
    module = getattr(nn, kind)(3, 4)
    x = torch.ones(2, 3)
    expected = module(x)[0]
    assert str(accelerate(module)) == f"1 module computes on fastrnn:\n  (the model)  {kind}(3, 4)"
    assert type(module) is getattr(nn, kind)
    torch.testing.assert_close(module(x)[0], expected)
    assert recorded(module(x)[0])


def recorded(y):
    """Was it computed by our kernels?"""
    seen, left = set(), [y.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [before for before, _ in node.next_functions]
    return any("Recorded" in node.name() for node in seen)


class Own(nn.LSTM):
    """Somebody's subclass: its forward calls the inherited one."""

    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(x)[0]


class Recurrence(ABC, nn.RNNBase):
    """As pytorch-forecasting's: the forward is in one class, the kind is another's."""

    @abstractmethod
    def start(self):
        pass

    def forward(self, x, hx=None, lengths=None):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=self.batch_first, enforce_sorted=False)
        y, state = super().forward(packed, hx=hx)
        return nn.utils.rnn.pad_packed_sequence(y, batch_first=self.batch_first)[0], state


class Packing(Recurrence, nn.GRU):
    def start(self):
        return None


class Fresh(nn.LSTM):
    """Computes on its own."""

    def forward(self, x):
        return torch.tanh(x @ self.weight_ih_l0.T)


class Careless(nn.LSTM):
    def forward(self, x):
        return super(type(self), self).forward(x)


class Unchecked(nn.LSTM):
    """Takes inputs that PyTorch refuses."""

    def check_forward_args(self, *args):
        pass


class Cell(nn.GRUCell):
    """Nothing but a name."""


class LSTM(nn.Module):
    """Somebody's own LSTM, which computes."""


class GRU(nn.Module):
    """Contains one, and is called like it."""

    def __init__(self, inner):
        super().__init__()
        self.rnn = inner


def with_another_forward():
    module = nn.GRU(3, 4)
    module.forward = lambda x: x
    return module


def accelerated():
    module = nn.GRU(3, 4)
    accelerate(module)
    return module


def mixed():
    module = nn.GRU(3, 4)
    module.weight_hh_l0 = nn.Parameter(module.weight_hh_l0.double())
    return module


OF_ITS_OWN = "is derived from torch.nn.LSTM, and its forward does not just call super().forward"
LEFT = {
    "fresh": (lambda: Fresh(3, 4), f"Fresh {OF_ITS_OWN}"),
    "careless": (lambda: Careless(3, 4), f"Careless {OF_ITS_OWN}"),
    "unchecked": (lambda: Unchecked(3, 4), "Unchecked is derived from torch.nn.LSTM, and has a check_forward_args of its own"),
    "forward": (with_another_forward, "its forward was replaced by another"),
    "half": (lambda: nn.LSTM(3, 4).half(), "its parameters are torch.float16, not all torch.float32 or all torch.float64"),
    "mixed": (mixed, "its parameters are torch.float32 and torch.float64, not all torch.float32 or all torch.float64"),
    "device": (lambda: nn.LSTMCell(3, 4, device="meta"), "its parameters are on meta, not on the CPU"),
    "ours": (lambda: fastrnn.torch.LSTM(3, 4), "is fastrnn's already"),
    "accelerated": (accelerated, "is fastrnn's already"),
    "another's": (LSTM, "is a test_torch_accelerate.LSTM, not torch.nn's"),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_is_left_alone_is_said(case):
    make, reason = LEFT[case]
    module = make()
    kind = type(module)
    report = accelerate(nn.Sequential(module, nn.Linear(2, 2)))
    assert type(module) is kind
    assert (report.replaced, report.left) == ({}, {"0": reason})
    assert str(report) == f"no modules compute on fastrnn.\n1 module was left alone:\n  0  {reason}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*quantized tensor creation.*:UserWarning")
def test_what_torch_has_quantised_or_scripted_is_left_alone():
    quantised = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.LSTM(3, 4)), {nn.LSTM})
    scripted = nn.Sequential(torch.jit.script(nn.LSTM(3, 4)))
    for model in (quantised, scripted):
        (reason,) = accelerate(model).left.values()
        assert reason.startswith("is a torch.") and reason.endswith(", not torch.nn's")


def test_a_report_names_what_computes_and_not_what_contains():
    report = accelerate(GRU(GRU(nn.GRU(3, 4))))
    assert (report.replaced, report.left) == ({"rnn.rnn": "GRU(3, 4)"}, {})
    report = accelerate(GRU(GRU(nn.GRU(3, 4).half())))
    assert report.left.keys() == {"rnn.rnn"}


@pytest.mark.parametrize("how", ["itself", "deepcopy", "pickle", "parametrized before", "parametrized after"])
@pytest.mark.parametrize("kind, arguments", [(Own, ()), (Packing, (None, torch.tensor([2, 5]))), (Cell, ())])
def test_a_subclass_computes_here_where_the_inherited_forward_works(kind, arguments, how):
    module = kind(3, 4)
    x = torch.randn(2, 3) if kind is Cell else torch.randn(5, 2, 3)
    if how == "parametrized before":
        nn.utils.parametrizations.weight_norm(module, "weight_hh" if kind is Cell else "weight_hh_l0")
    expected = module(x, *arguments)
    report = accelerate(module)
    if how == "parametrized after":
        nn.utils.parametrizations.weight_norm(module, "weight_hh" if kind is Cell else "weight_hh_l0")
    assert report.replaced.keys() == {""} and not report.left
    if how in ("deepcopy", "pickle"):
        module = copy.deepcopy(module) if how == "deepcopy" else pickle.loads(pickle.dumps(module))
    assert type(module) is kind or (type(module).__name__ == f"Parametrized{kind.__name__}" and isinstance(module, kind))
    y = module(x, *arguments)
    torch.testing.assert_close(y, expected)
    assert recorded(y[0] if isinstance(y, tuple) else y)
    if kind is Own:
        assert module.calls == 2


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"])
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "save"])
def test_a_copy_of_an_accelerated_module_is_one(kind, how):
    """And stands alone: with its own weights and mode, and when the first is gone."""
    model = nn.Sequential(getattr(nn, kind)(3, 4))
    accelerate(model)
    if how == "save":
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        new = torch.load(file, weights_only=False)
    else:
        new = copy.deepcopy(model) if how == "deepcopy" else pickle.loads(pickle.dumps(model))
    x = torch.randn(2, 3)
    expected = model(x)[0]
    old = weakref.ref(model[0])
    del model
    assert old() is None, "a model is freed when it is let go"
    assert type(new[0]) is getattr(nn, kind)
    torch.testing.assert_close(new(x)[0], expected)
    assert recorded(new(x)[0])


def test_a_forward_says_when_its_module_is_gone():
    module = accelerated()
    forward = module.forward
    del module
    with pytest.raises(ReferenceError, match="the module of this forward is gone"):
        forward(torch.ones(5, 2, 3))


def test_who_looks_at_a_forward_sees_the_method():
    module = accelerated()
    assert inspect.ismethod(module.forward) and module.forward.__func__ is nn.GRU.forward
    assert inspect.signature(module.forward) == inspect.signature(nn.GRU(3, 4).forward)
    assert module.forward.__module__ == nn.GRU.__module__


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ours_can_be_scripted_and_go_on_computing_here():
    """As torch.nn's modules: TorchScript knows those by their class."""
    model, x = nn.Sequential(fastrnn.torch.LSTM(3, 4)), torch.randn(5, 2, 3)
    module = model[0]
    scripted = torch.jit.script(model)
    assert model[0] is module and type(module) is nn.LSTM
    torch.testing.assert_close(scripted(x)[0], model(x)[0])
    assert recorded(model(x)[0]) and not recorded(scripted(x)[0])


def test_a_report_lines_up_its_names():
    model = nn.ModuleDict({"rnn": nn.RNN(3, 4, nonlinearity="relu"), "encoder": nn.LSTM(3, 4, 2), "narrow": nn.GRU(3, 4).half()})
    assert str(accelerate(model)) == "\n".join(
        [
            "2 modules compute on fastrnn:",
            "  rnn      RNN(3, 4)",
            "  encoder  LSTM(3, 4, num_layers=2)",
            "1 module was left alone:",
            "  narrow   its parameters are torch.float16, not all torch.float32 or all torch.float64",
        ]
    )
    assert str(accelerate(nn.Linear(2, 2))) == "no modules compute on fastrnn."


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_weights_that_a_hook_makes_are_taken():
    model = nn.utils.weight_norm(nn.LSTM(3, 4), "weight_hh_l0")
    x = torch.ones(5, 2, 3)
    expected, _ = model(x)
    assert accelerate(model).replaced
    torch.testing.assert_close(model(x)[0], expected)


def test_restore_gives_a_model_back():
    """Into files that load without fastrnn."""
    model = nn.Sequential(nn.GRU(3, 4, 2), fastrnn.torch.GRU(4, 4))
    x = torch.ones(5, 2, 3)
    expected, _ = model[0](x)
    accelerate(model)
    restore(model)
    assert type(model[0]) is type(model[1]) is nn.GRU
    assert torch.equal(model[0](x)[0], expected) and not recorded(model[0](x)[0])
    file = io.BytesIO()
    torch.save(model, file)
    assert b"fastrnn" not in file.getvalue()
