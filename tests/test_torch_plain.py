"""fastrnn.torch's plain calls: the bits of the general way; the graph of the steps of a loop; PyTorch's threads; frozen modules."""

import copy
import os
import threading

import pytest

if os.environ.get("FASTRNN_SANITIZED") == "1":
    pytest.skip("PyTorch is not run under sanitizers", allow_module_level=True)
torch = pytest.importorskip("torch", reason="PyTorch is not installed; `pip install 'fastrnn[torch]'` brings it")

import fastrnn.torch  # noqa: E402
from building import IMPORTED_FROM, run_python  # noqa: E402
from fastrnn import _core  # noqa: E402
from fastrnn.torch import plain, steps  # noqa: E402

CELLS = ["RNNCell", "GRUCell", "LSTMCell"]
pytestmark = pytest.mark.skipif(not plain._can_look, reason="this PyTorch does not show its tensors in C")


def made(kind, *sizes, dtype=torch.float64, **options):
    """A module of torch.nn, and an accelerated copy."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(*sizes, dtype=dtype, **options)
    ours = copy.deepcopy(theirs)
    fastrnn.torch.accelerate(ours)
    return theirs, ours


def loop(cell, x, state=None, between=lambda t: None):
    """The states of all steps."""
    states = []
    for t, x_t in enumerate(x):
        state = cell(x_t, state)
        states.append(state)
        between(t)
    return states


def h_of(state):
    return state[0] if isinstance(state, tuple) else state


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def data(T=5, B=2, dtype=torch.float64):
    return torch.randn(T, B, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)


def general(monkeypatch):
    """From here on nothing is plain."""
    monkeypatch.setattr(plain, "nothing_special", lambda: False)


# --- the same bits ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"bias": False}])
@pytest.mark.parametrize("B", [1, 7, None])
@pytest.mark.parametrize("kind", CELLS)
def test_a_plain_step_has_the_bits_of_the_general_way(kind, B, options, dtype, monkeypatch):
    """One step, as the general way sums the parameters' gradients step by step; unbatched, and with an input that has gaps."""
    _, cell = made(kind, 5, 9, dtype=dtype, **options)
    shape = () if B is None else (B,)
    numbers = torch.Generator().manual_seed(2)
    x, h, c = (torch.randn(*shape, n, generator=numbers, dtype=dtype).requires_grad_() for n in (8, 9, 9))
    given = x[..., 1:6], (h, c) if kind == "LSTMCell" else h

    def results():
        with torch.no_grad():
            inferred = cell(*given)
        state = cell(*given)
        wanted = [x, h, *([c] if kind == "LSTMCell" else []), *cell.parameters()]
        loss = sum(s.square().sum() for s in (state if kind == "LSTMCell" else (state,)))
        return [*(inferred if kind == "LSTMCell" else (inferred,)), h_of(state), *torch.autograd.grad(loss, wanted)]

    first = results()
    general(monkeypatch)
    for a, b in zip(first, results(), strict=True):
        same(a, b)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "batch_first": True}, {"bias": False, "proj_size": 4}])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_a_plain_layer_has_the_bits_of_the_general_way(kind, options, monkeypatch):
    if "proj_size" in options and kind != "LSTM":
        options = {"bias": False}
    _, layer = made(kind, 3, 6, **options)
    x = data(4, 2)
    state = layer(x)[1]
    for given in ((x,), (x, state), (x[:, 0],), (x.transpose(0, 1).contiguous().transpose(0, 1),)):
        with monkeypatch.context() as context, torch.no_grad():
            first = layer(*given)
            general(context)
            y, final = layer(*given)
        same(first[0], y)
        same(first[1], final)


@pytest.mark.parametrize("kind", CELLS)
def test_what_does_not_stand_in_memory_as_it_is_goes_the_general_way(kind):
    """A negated view, a state with gaps, a gradient that is expanded, weights with gaps."""
    theirs, ours = made(kind, 4, 4)
    x = torch.randn(2, 4, dtype=torch.complex128).conj().imag
    h = torch.randn(2, 8, dtype=torch.float64)[:, ::2]
    state = (h, h) if kind == "LSTMCell" else h
    for cell in (theirs, ours):
        cell.weight_hh.data = torch.stack([cell.weight_hh.data, torch.zeros_like(cell.weight_hh)], -1)[..., 0]
    results = []
    for cell in (theirs, ours):
        y = h_of(cell(x, state))
        results.append([y, *torch.autograd.grad(y.sum(), list(cell.parameters()))])
    for a, b in zip(*results, strict=True):
        close(a, b)


# --- the graph --------------------------------------------------------------------------------------------------------------------


def changed_by_data(cell, t):
    cell.weight_hh.data.mul_(0.9)


def frozen_halfway(cell, t):
    cell.weight_ih.requires_grad_(t % 2 == 0)


def replaced(cell, t):
    if t == 1:
        cell.bias_hh = torch.nn.Parameter(cell.bias_hh.detach() + 1)


@pytest.mark.parametrize("between", [changed_by_data, frozen_halfway, replaced])
@pytest.mark.parametrize("kind", CELLS)
def test_parameters_may_change_between_steps(kind, between):
    """By ways that no counter shows, too: PyTorch's backward reads them as they are then."""
    results = []
    for cell in made(kind, 3, 4):
        first = list(cell.parameters())
        states = loop(cell, data(), between=lambda t, cell=cell: between(cell, t))
        every = [p for p in {id(p): p for p in (*first, *cell.parameters())}.values() if p.requires_grad]
        loss = sum(h_of(s).square().sum() for s in states)
        results.append([loss, *torch.autograd.grad(loss, every, allow_unused=True)])
    for a, b in zip(*results, strict=True):
        close(a, b)


@pytest.mark.parametrize("kind", CELLS)
def test_a_parameter_that_was_modified_in_place_is_noticed(kind):
    _, cell = made(kind, 3, 4)
    states = loop(cell, data())
    with torch.no_grad():
        cell.weight_hh += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        h_of(states[-1]).sum().backward()
    later = h_of(loop(cell, data())[-1])  # of the parameters as they are now
    later.sum().backward()


@pytest.mark.parametrize("kind", CELLS)
def test_a_graph_is_gone_back_through_in_parts_and_repeatedly(kind):
    results = []
    for cell in made(kind, 3, 4):
        x, parameters, found = data().requires_grad_(), list(cell.parameters()), []
        states = loop(cell, x)
        early, late = h_of(states[1]).sum(), h_of(states[-1]).square().sum()
        for wanted in (parameters, [x], [parameters[1]], [x, parameters[0]], parameters):
            for loss in (late, early, late + early):
                found += torch.autograd.grad(loss, wanted, retain_graph=True)
        loss = sum(h_of(s).sum() for s in loop(cell, x[:3], states[-1]))  # goes on where the first loop ended
        found += torch.autograd.grad(loss, [x, *parameters])
        with pytest.raises(RuntimeError, match="second time"):
            late.backward()
        results.append(found)
    for a, b in zip(*results, strict=True):
        close(a, b)


@pytest.mark.parametrize("kind", CELLS)
def test_gradients_are_added_up_over_batches(kind):
    """Of different sizes, with zero_grad before, and an optimiser's step in the end."""
    results = []
    for cell in made(kind, 3, 4):
        optimiser = torch.optim.SGD(cell.parameters(), lr=0.1)
        for _ in range(2):
            optimiser.zero_grad()
            for B in (2, 5, 200, 1):
                h_of(loop(cell, data(B=B))[-1]).mean().backward()
            optimiser.step()
        results.append([*cell.parameters(), *(p.grad for p in cell.parameters())])
    for a, b in zip(*results, strict=True):
        close(a, b)


def test_steps_of_other_sizes_share_one_graph():
    """As where sequences of a batch end one after the other."""
    results = []
    for cell in made("GRUCell", 3, 4):
        h, found = None, []
        for t, x_t in enumerate(data(6, 6)):
            h = cell(x_t[: 6 - t], None if h is None else h[: 6 - t])
            found.append(h)
        results.append(torch.autograd.grad(torch.cat(found).square().sum(), list(cell.parameters())))
    for a, b in zip(*results, strict=True):
        close(a, b)


def test_a_backward_that_failed_leaves_nothing_behind():
    results = []
    for cell in made("LSTMCell", 3, 4):
        x = data()
        states = loop(cell, x, between=lambda t: None)
        fail = [True]

        def hook(d, fail=fail):
            if fail[0]:
                raise ValueError("on purpose")

        states[1][0].register_hook(hook)
        loss = states[-1][0].sum()
        with pytest.raises(ValueError, match="on purpose"):
            loss.backward(retain_graph=True)
        fail[0] = False
        results.append(torch.autograd.grad(loss, list(cell.parameters())))
    for a, b in zip(*results, strict=True):
        close(a, b)


def test_several_threads_go_back_through_one_graph():
    _, cell = made("GRUCell", 3, 4)
    states = loop(cell, data(40))
    losses = [h.square().sum() for h in states[::10]]
    parameters = list(cell.parameters())
    expected = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    found = [[] for _ in losses]

    def work(k):
        for _ in range(20):
            found[k].append(torch.autograd.grad(losses[k], parameters, retain_graph=True))

    workers = [threading.Thread(target=work, args=(k,)) for k in range(len(losses))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for mine, one in zip(found, expected, strict=True):
        assert len(mine) == 20
        for other in mine:
            for a, b in zip(other, one, strict=True):
                same(a, b)


@pytest.mark.parametrize("kind", CELLS)
def test_first_and_second_derivatives_of_one_graph(kind):
    """The parameters' gradients of plain steps, as products and as a graph of PyTorch's operations."""
    results = []
    for cell in made(kind, 3, 4):
        parameters = list(cell.parameters())
        loss = h_of(loop(cell, data(3))[-1]).square().sum()
        first = torch.autograd.grad(loss, parameters, retain_graph=True)
        again = torch.autograd.grad(loss, parameters, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in again), parameters)
        results.append([*first, *again, *second])
    for a, b in zip(*results, strict=True):
        close(a, b)


def test_hooks_on_what_is_saved_and_autocast_go_the_general_way(monkeypatch):
    _, cell = made("GRUCell", 3, 4)
    monkeypatch.setattr(steps, "_apply_step", None)
    packed = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
        cell(data()[0]).sum().backward()
    assert packed
    with torch.autocast("cpu"):
        cell.float()(data(dtype=torch.float32)[0])


# --- threads ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def teams():
    """Two threads, and teams of them whatever else the machine does."""
    before = torch.get_num_threads(), fastrnn.get_num_threads()
    _core.always_form_teams(True)
    torch.set_num_threads(2)
    fastrnn.set_num_threads(2)
    yield
    _core.always_form_teams(False)
    torch.set_num_threads(before[0])
    fastrnn.set_num_threads(before[1])


def large(cell, rows=96):
    """A step that is worth two threads, and its gradients."""
    x = torch.randn(rows, 128, generator=torch.Generator().manual_seed(3))
    h = cell(x)
    return [h, *torch.autograd.grad(torch.tanh(h).sum(), list(cell.parameters()))]


@pytest.mark.skipif(not plain._borrows, reason="this PyTorch lends no threads")
def test_a_team_of_pytorchs_threads_has_the_bits_of_one_thread(teams):
    _, cell = made("GRUCell", 128, 128, dtype=torch.float32)
    found = [large(cell) for _ in range(20)]
    torch.set_num_threads(1)
    expected = large(cell)
    for one in found:
        for a, b in zip(one, expected, strict=True):
            same(a, b)


@pytest.mark.skipif(not plain._borrows, reason="this PyTorch lends no threads")
def test_a_team_of_pytorchs_threads_from_many_threads_at_once(teams):
    _, cell = made("LSTMCell", 128, 128, dtype=torch.float32)
    x = torch.randn(96, 128)
    with torch.no_grad():
        expected = cell(x)
    wrong = []

    def work():
        with torch.no_grad():
            wrong.extend(1 for _ in range(30) if not torch.equal(cell(x)[0], expected[0]))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_does_not_wait_for_pytorchs_threads():
    """In a process of its own, as a fork may not come where other threads are at work."""
    code = """
import os, torch, fastrnn.torch
torch.set_num_threads(2)
cell, x = fastrnn.torch.LSTMCell(128, 128), torch.ones(96, 128)
with torch.no_grad():
    expected = [cell(x)[0] for _ in range(20)][-1].numpy()
    child = os.fork()
    if child == 0:
        os._exit(0 if (cell(x)[0].numpy() == expected).all() else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    run_python("-c", code, cwd=IMPORTED_FROM)


# --- frozen -----------------------------------------------------------------------------------------------------------------------


def frozen(kind, *sizes, **options):
    """A module of torch.nn in eval mode, and a frozen copy."""
    theirs, ours = made(kind, *sizes, **options)
    print(fastrnn.torch.accelerate(ours.eval(), frozen=True))
    return theirs.eval(), ours


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"num_layers": 2}, {"bidirectional": True}, {"proj_size": 2}])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@torch.no_grad()
def test_a_frozen_layer_computes_what_it_did(kind, options):
    if "proj_size" in options and kind != "LSTM":
        options = {"batch_first": True}
    theirs, ours = frozen(kind, 3, 4, **options)
    packed = torch.nn.utils.rnn.pack_sequence([data()[:n, 0] for n in (5, 3)])
    for given in ((data(),), (data(), theirs(data())[1]), (data()[:, 0],), (packed,)):
        (a, a_n), (b, b_n) = theirs(*given), ours(*given)
        close(*((a, b) if a is not None and not isinstance(a, tuple) else (a.data, b.data)))
        close(a_n, b_n)


@pytest.mark.parametrize("kind", CELLS)
@torch.no_grad()
def test_a_frozen_cell_computes_what_it_did(kind):
    theirs, ours = frozen(kind, 3, 4)
    close(loop(theirs, data())[-1], loop(ours, data())[-1])
    close(theirs(data()[0, 0]), ours(data()[0, 0]))
    close(theirs(data()[0].t().contiguous().t()), ours(data()[0].t().contiguous().t()))


@pytest.mark.parametrize("kind", ["GRU", "LSTMCell"])
def test_a_frozen_module_gives_no_gradients(kind):
    _, module = frozen(kind, 3, 4)
    x = data() if kind == "GRU" else data()[0]
    with pytest.raises(RuntimeError, match=r"frozen; call it within torch\.no_grad\(\).*accelerate\(model\) gives a module"):
        module(x)
    module.requires_grad_(False)
    module(x)
    with pytest.raises(RuntimeError, match=r"frozen; call it within torch\.no_grad"):
        module(x.requires_grad_())
    with pytest.raises(RuntimeError, match=r"training mode; call model\.eval\(\)"):
        module.train()(x)


def loaded(module):
    module.load_state_dict({name: p + 1 for name, p in module.state_dict().items()})


def stepped(module):
    with torch.no_grad():
        next(module.parameters()).add_(1)


def set_by_data(module):
    first = next(module.parameters())
    first.data = first.data + 1


def set_anew(module):
    name = next(name for name, _ in module.named_parameters())
    setattr(module, name, torch.nn.Parameter(getattr(module, name).detach() + 1))


@pytest.mark.parametrize("kind", ["GRU", "LSTMCell"])
@pytest.mark.parametrize("change", [loaded, stepped, set_by_data, set_anew])
def test_a_frozen_module_notices_that_its_parameters_have_changed(kind, change):
    _, module = frozen(kind, 3, 4)
    x = data() if kind == "GRU" else data()[0]
    change(module)
    with torch.no_grad():
        with pytest.raises(RuntimeError, match=r"have changed since it was frozen; call .*accelerate\(model, frozen=True\)"):
            module(x)
        expected = type(module).forward(module, x)
        fastrnn.torch.accelerate(module, frozen=True)
        close(module(x), expected)


@pytest.mark.parametrize("kind", ["GRU", "GRUCell"])
def test_a_frozen_module_is_made_trainable_given_back_and_copied(kind):
    theirs, module = frozen(kind, 3, 4)
    x = data() if kind == "GRU" else data()[0]
    with torch.no_grad():
        new = copy.deepcopy(module)
        next(new.parameters()).add_(1)  # a copy has a snapshot of its own, which is taken when it is first called
        close(new(x), type(new).forward(new, x))
        close(module(x), theirs(x))
    assert fastrnn.torch.accelerate(module).replaced
    y = module.train()(x)
    (y[0] if kind == "GRU" else y).sum().backward()
    fastrnn.torch.accelerate(module.eval(), frozen=True)
    fastrnn.torch.restore(module)
    assert not {"forward", "_fastrnn_snapshot", "_fastrnn_parameters"} & set(vars(module))


def test_modules_of_fastrnn_torch_are_frozen_too():
    layer, x = fastrnn.torch.GRU(3, 4, dtype=torch.float64).eval(), data()
    y = layer(x)[0]
    fastrnn.torch.accelerate(layer, frozen=True)
    with torch.no_grad():
        close(layer(x)[0], y.detach())
    with pytest.raises(RuntimeError, match="frozen"):
        layer(x)
    fastrnn.torch.accelerate(layer)
    assert layer(x)[0].requires_grad


def test_a_module_whose_weights_are_computed_is_not_frozen():
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.GRU(3, 4), "weight_hh_l0")
    report = fastrnn.torch.accelerate(layer.eval(), frozen=True)
    assert report.left == {"": "cannot be frozen, as its weight_hh_l0 is made anew at each call"}
