"""Gradients through time, Jacobians and their bound, spectra, and where numbers stop being numbers."""

import math

import numpy as np
import pytest

import fastrnn
from fastrnn.diagnostics import gradient_norms, jacobian_norms, plot, spectra, spectrum, step_jacobians, watch
from wrong import names_the_argument

F32, F64 = np.float32, np.float64
T, B, I, H = 6, 3, 2, 4
LENGTHS = np.array([6, 0, 4])
KINDS = {
    "tanh": (fastrnn.RNN, {}),
    "relu": (fastrnn.RNN, {"nonlinearity": "relu"}),
    "gru": (fastrnn.GRU, {}),
    "gru-before": (fastrnn.GRU, {"reset_after": False}),
    "lstm": (fastrnn.LSTM, {}),
    "lstm-peephole": (fastrnn.LSTM, {"peephole": True}),
    "lstm-proj": (fastrnn.LSTM, {"proj_size": 3}),
    "nobias": (fastrnn.GRU, {"bias": False}),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind, hidden=H, **options):
    cls, fixed = KINDS[kind]
    return cls(I, hidden, **fixed, **{"dtype": F64, "rng": 0} | options)


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def pair(state):
    return state if isinstance(state, tuple) else (state,)


def like(state, seed):
    """A gradient of it."""
    found = tuple(normal(*s.shape, seed=seed) for s in pair(state))
    return found if isinstance(state, tuple) else found[0]


# --- dL/dh_t ------------------------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("how", ["plain", "lengths", "reset", "mask"])
def test_the_gradient_of_a_state_is_that_of_where_the_rest_of_the_sequence_begins(kind, how):
    layer, x = make(kind), normal(T, B, I)
    options = {
        "plain": {},
        "lengths": {"lengths": LENGTHS},
        "reset": {"reset": normal(T, B) > 0.5},
        "mask": {"mask": normal(T, B) > -0.5},
    }[how]
    y, final = layer(x, **options)
    dy, dstate, state = normal(*y.shape, seed=1), like(final, 2), like(final, 3)
    norms = gradient_norms(layer, x, dy, dstate, state=state, **options)
    for t in range(T):
        head = {k: np.minimum(v, t + 1) if k == "lengths" else v[: t + 1] for k, v in options.items()}
        tail = {k: np.maximum(v - t - 1, 0) if k == "lengths" else v[t + 1 :] for k, v in options.items()}
        _, here = layer(x[: t + 1], state, **head)
        _, _, tape = layer.forward(x[t + 1 :], here, **tail)
        grads = [g[0] for g in pair(tape.backward(dy[t + 1 :], dstate).state)]
        there = {"lengths": t < LENGTHS, "mask": options.get("mask", np.ones((T, B)))[t]}.get(how, np.ones(B)).astype(bool)
        grads[0] = grads[0] + dy[t]
        for name, g in zip(["h_l0", "c_l0"], grads, strict=False):
            np.testing.assert_allclose(norms[name][t], np.where(there, np.linalg.norm(g, axis=1), 0), rtol=1e-10, atol=1e-15)


def total_of(layer, x, dy, dstate, cell, t, shift):
    """L of a stack, with `shift` (B, H) added to the state of a cell behind step t; by functions, cell after cell."""
    L, suffixes = 0.0, layer._suffixes
    D = 2 if layer.bidirectional else 1
    for first in range(0, len(suffixes), D):
        ys = []
        for k in range(first, first + D):
            w = [layer.params[name + suffixes[k]] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            h, y = np.zeros((B, H)), np.zeros((T, B, H))
            for s in range(T) if not suffixes[k].endswith("reverse") else reversed(range(T)):
                _, h, _ = fastrnn.gru(x[s : s + 1], *w, h)
                h = h + shift if (k, s) == (cell, t) else h
                y[s] = h
            L += (h * dstate[k]).sum()
            ys.append(y)
        x = np.concatenate(ys, axis=2)
    return L + (x * dy).sum()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_gradients_of_the_states_inside_a_stack(bidirectional):
    layer, x = make("gru", num_layers=2, bidirectional=bidirectional), normal(T, B, I)
    y, final = layer(x)
    dy, dstate = normal(*y.shape, seed=1), like(final, 2)
    norms = gradient_norms(layer, x, dy, dstate)
    assert list(norms) == ["h" + suffix for suffix in sorted(layer._suffixes, key=lambda s: (s[2] != "1", s))]
    for cell, suffix in enumerate(layer._suffixes):
        for t in (0, 2, T - 1):
            gradient = np.zeros((B, H))
            for index in np.ndindex(B, H):
                shift = np.zeros((B, H))
                shift[index] = 1e-5
                values = [total_of(layer, x, dy, dstate, cell, t, s) for s in (shift, -shift)]
                gradient[index] = (values[0] - values[1]) / 2e-5
            np.testing.assert_allclose(norms["h" + suffix][t], np.linalg.norm(gradient, axis=1), rtol=1e-6)


def test_a_cut_is_between_two_steps_from_either_side():
    layer, x, dy, reset = make("gru", bidirectional=True), normal(T, B, I), np.zeros((T, B, 2 * H)), np.zeros((T, B), bool)
    dy[2], reset[3] = 1, True
    norms = gradient_norms(layer, x, dy, reset=reset)
    assert norms["h_l0"].any(axis=1).nonzero()[0].tolist() == [0, 1, 2]
    assert norms["h_l0_reverse"].any(axis=1).nonzero()[0].tolist() == [2]


def test_batch_first_and_float32():
    layer = make("lstm", dtype=F32, batch_first=True)
    other = make("lstm", dtype=F32)
    x, dy = normal(T, B, I).astype(F32), normal(T, B, H, seed=1).astype(F32)
    turned = gradient_norms(layer, x.swapaxes(0, 1), dy.swapaxes(0, 1), mask=(normal(T, B) > 0).T)
    plain = gradient_norms(other, x, dy, mask=normal(T, B) > 0)
    for name in plain:
        assert plain[name].dtype == F64
        assert np.array_equal(turned[name], plain[name])


def test_vanishing_and_an_irnn_side_by_side():
    """What the picture is for: over 100 steps a tanh network keeps next to nothing, an IRNN at its start keeps it all."""
    x = np.random.default_rng(0).random((100, 5, 2))
    kept = {}
    for name, layer in {
        "tanh": fastrnn.RNN(2, 50, dtype=F64, rng=0),
        "IRNN": fastrnn.IRNN(2, 50, input_std=0.01, dtype=F64, rng=0),
    }.items():
        _, h_n = layer(x)
        norms = gradient_norms(layer, x, dstate=np.ones_like(h_n))["h_l0"]
        kept[name] = norms[0] / norms[-1]
    assert (kept["tanh"] < 1e-6).all()
    assert (kept["IRNN"] > 0.1).all()


# --- d h_t / d h_k --------------------------------------------------------------------------------------------


@each_kind
def test_the_jacobian_of_a_step_is_its_difference_quotient(kind):
    layer, x = make(kind), normal(T, B, I)
    _, final = layer(x)
    state = like(final, 3)
    jacobians = step_jacobians(layer, x, row=2, state=state)
    _, here = layer(x[:3, 2:], tuple(s[:, 2:] for s in state) if isinstance(state, tuple) else state[:, 2:])
    flat = np.concatenate([s.ravel() for s in pair(here)])
    cuts = np.cumsum([s.size for s in pair(here)])[:-1]

    def step(vector):
        parts = tuple(v[None, None] for v in np.split(vector, cuts))
        _, after = layer(x[3:4, 2:], parts if isinstance(here, tuple) else parts[0])
        return np.concatenate([s.ravel() for s in pair(after)])

    h = 1e-6
    numeric = np.stack([(step(flat + h * e) - step(flat - h * e)) / (2 * h) for e in np.eye(len(flat))], axis=1)
    np.testing.assert_allclose(jacobians[3], numeric, rtol=1e-6, atol=1e-9)


@each_kind
def test_the_norms_are_those_of_the_products(kind):
    layer, x = make(kind), normal(T, B, I)
    jacobians = step_jacobians(layer, x, row=1)
    for t in (0, 1, T):
        norms, _ = jacobian_norms(layer, x, t, row=1)
        product = np.eye(jacobians.shape[1])
        wanted = [1.0]
        for j in jacobians[:t][::-1]:
            product = product @ j
            wanted.insert(0, np.linalg.norm(product, 2))
        np.testing.assert_allclose(norms, wanted, rtol=1e-8)


@pytest.mark.parametrize("phi", ["tanh", "relu"])
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_bound_of_the_simple_network_holds_at_every_step(phi, scale):
    layer = fastrnn.RNN(I, 20, nonlinearity=phi, rng=0)
    layer.flat *= scale
    x = normal(60, 1, I).astype(F32)
    norms, bound = jacobian_norms(layer, x)
    w = layer.params["weight_hh_l0"].astype(F64)
    np.testing.assert_allclose(bound, np.linalg.norm(w, 2) ** (60 - np.arange(61.0)), rtol=1e-12)
    assert norms[-1] == bound[-1] == 1
    assert (norms <= bound * (1 + 1e-9)).all()
    slopes = 1 - layer(x)[0][:, 0].astype(F64) ** 2 if phi == "tanh" else (layer(x)[0][:, 0] > 0)
    np.testing.assert_allclose(step_jacobians(layer, x), slopes[:, :, None] * w, rtol=1e-4, atol=1e-6)


def test_the_bound_is_met_by_an_identity_and_gated_cells_have_none():
    layer = fastrnn.IRNN(1, 8, recurrent_scale=0.9, input_std=0, rng=0)
    layer.params["bias_ih_l0"][:] = 1  # all units are on
    norms, bound = jacobian_norms(layer, np.zeros((1000, 1, 1), F32), t=900)
    np.testing.assert_allclose(norms, bound, rtol=1e-9)
    np.testing.assert_allclose(bound, float(F32(0.9)) ** np.arange(900, -1, -1.0), rtol=1e-9)
    assert jacobian_norms(make("gru"), normal(T, 1, I)).bound is None
    dead = fastrnn.RNN(1, 3, nonlinearity="relu", rng=0)
    dead.params["bias_ih_l0"][:] = -100
    norms, _ = jacobian_norms(dead, np.zeros((5, 1, 1), F32))
    assert np.array_equal(norms, [0, 0, 0, 0, 0, 1])


def test_a_cell_of_a_stack_and_long_products():
    layer, x = make("gru", num_layers=2, bidirectional=True), normal(T, B, I)
    for cell, suffix in enumerate(layer._suffixes):
        below = x if cell < 2 else gradient_norms and layer.forward(x)[2].outputs
        if cell >= 2:
            below = np.concatenate([below["h_l0"], below["h_l0_reverse"]], axis=2)
        below = below[::-1] if suffix.endswith("reverse") else below
        single = fastrnn.GRU(below.shape[2], H, dtype=F64)
        single.load_state_dict({n.replace(suffix, "_l0"): w for n, w in layer.params.items() if n[n.index("_l") :] == suffix})
        ours, alone = step_jacobians(layer, x, row=1, cell=cell), step_jacobians(single, below.copy(), row=1)
        np.testing.assert_allclose(ours, alone, rtol=1e-12, atol=1e-15)
    wide = fastrnn.LSTM(1, 40, rng=0)  # more rows than one call takes
    assert np.isfinite(jacobian_norms(wide, normal(250, 1, 1).astype(F32)).norms).all()


# --- spectra --------------------------------------------------------------------------------------------------


def test_spectra():
    assert spectrum(np.diag([3.0, -4.0])) == (4.0, 4.0)
    radius, norm = spectrum(np.array([[0.0, 100.0], [0.0, 0.0]]))
    assert (radius, norm) == (0.0, pytest.approx(100.0))
    assert math.isnan(spectrum(np.ones((2, 3))).radius)
    w = make("lstm", num_layers=2, bidirectional=True)
    found = spectra(w)
    assert len(found) == 16
    block = w.params["weight_hh_l1_reverse"][2 * H : 3 * H]
    assert found["weight_hh_l1_reverse[g]"].norm == pytest.approx(np.linalg.svd(block)[1][0])
    assert found["weight_hh_l1_reverse[g]"].radius == pytest.approx(np.abs(np.linalg.eigvals(block)).max())
    assert spectra(fastrnn.IRNN(2, 5)) == {"weight_hh_l0": (1.0, 1.0)}


# --- where numbers stop being numbers -------------------------------------------------------------------------


@each_kind
def test_sound_numbers_are_found_sound(kind):
    layer, x = make(kind, num_layers=2), normal(T, B, I)
    y, _ = layer(x)
    assert watch(layer, x) is None
    assert watch(layer, x, np.ones_like(y), lengths=LENGTHS) is None


@pytest.mark.parametrize(
    "kind, gate, name", [("lstm", k, g) for k, g in enumerate("ifgo")] + [("gru", k, g) for k, g in enumerate("rzn")]
)
def test_a_gate_that_overflows_is_named_though_its_sigmoid_hides_it(kind, gate, name):
    layer, x = make(kind, dtype=F32, num_layers=2), normal(T, B, I).astype(F32)
    layer.params["weight_ih_l1"][gate * H, 1] = 3e38
    layer.params["weight_ih_l0"][:] = layer.params["bias_ih_l0"][:] = layer.params["bias_hh_l0"][:] = 0  # h of layer 0 is 0
    layer.params["weight_ih_l0"][-H if kind == "gru" else 2 * H] = 0
    assert watch(layer, x) is None
    layer.params["bias_ih_l1"][gate * H] = 3e38
    layer.params["bias_hh_l1"][gate * H] = 3e38
    assert np.isfinite(layer(x)[0]).all()
    found = watch(layer, x)
    assert (found.step, found.cell, found.where, found.kind, found.rows) == (0, "l1", name, "overflow", (0, 1, 2))
    assert str(found) == f"overflow at step 0 in l1, {name}, rows [0, 1, 2]"


def test_a_network_that_explodes():
    layer = fastrnn.RNN(1, 2, nonlinearity="relu", rng=0)
    layer.params["weight_hh_l0"][:] = 100 * np.eye(2)
    layer.params["weight_ih_l0"][:] = 1
    layer.params["bias_ih_l0"][:] = layer.params["bias_hh_l0"][:] = 0
    x = np.zeros((50, 3, 1), F32)
    x[0, 1] = 1  # 100^t: beyond 3.4e38 at t = 20
    x[3, 2] = 1
    found = watch(layer, x)
    assert (found.step, found.cell, found.where, found.kind, found.rows) == (20, "l0", "h", "overflow", (1,))
    assert watch(layer, x[:20]) is None
    assert watch(layer, x, lengths=[50, 20, 23]) is None
    assert watch(layer, x, limit=1e6).step == 4
    reset = np.zeros((50, 3), bool)
    reset[10::10] = True
    assert watch(layer, x, reset=reset) is None
    y, _ = layer(x[:20])
    dy = np.zeros_like(y)
    dy[19, 1] = 1e20  # 1e20 * 100^(19 - t): beyond float32 at t = 9
    found = watch(layer, x[:20], dy)
    assert (found.step, found.cell, found.where, found.kind, found.rows) == (9, "l0", "dh", "overflow", (1,))


def test_a_nan_comes_from_where_it_came_from():
    layer, x = make("lstm", num_layers=2, bidirectional=True), normal(T, B, I)
    x[3, 2] = math.nan
    found = watch(layer, x)
    assert (found.step, found.cell, found.where, found.kind, found.rows) == (3, "l0", "x", "NaN", (2,))
    assert watch(layer, x, lengths=[6, 6, 3]) is None
    layer, x = make("lstm", num_layers=2), normal(T, B, I)
    layer.params["bias_hh_l1"][H + 1] = math.nan
    found = watch(layer, x)
    assert (found.step, found.cell, found.where, found.kind) == (0, "l1", "f", "NaN")
    state = (np.zeros((1, B, H)), np.zeros((1, B, H)))
    state[1][0, 1] = math.inf
    found = watch(make("lstm"), x, state=state)
    assert (found.step, found.where, found.kind, found.rows) == (0, "c", "overflow", (1,))


# --- bad input, the picture, the package ------------------------------------------------------------------------


BAD = {
    "layer": (lambda: gradient_norms(1, normal(T, B, I)), TypeError, "layer: expected an RNN, GRU or LSTM, got int"),
    "x": (lambda: gradient_norms(make("gru"), normal(T, I)), ValueError, "x: expected 3 dimensions, got shape (6, 2)"),
    "width": (lambda: watch(make("gru"), normal(T, B, 5)), ValueError, "x: "),
    "nothing": (
        lambda: gradient_norms(make("gru"), normal(T, B, I)),
        ValueError,
        "dy, dstate: expected one of them or both, got neither",
    ),
    "dy": (
        lambda: gradient_norms(make("gru"), normal(T, B, I), normal(T, B, I)),
        ValueError,
        "dy: expected (T, B, D*H) = (6, 3, 4), got (6, 3, 2)",
    ),
    "dstate": (
        lambda: gradient_norms(make("lstm"), normal(T, B, I), None, (normal(1, B, H),)),
        ValueError,
        "dstate: expected a pair (h, c), got 1 members",
    ),
    "state": (
        lambda: watch(make("gru"), normal(T, B, I), state=normal(B, H)),
        ValueError,
        "state: expected (L*D, B, H) = (1, 3, 4), got (3, 4)",
    ),
    "lengths": (
        lambda: watch(make("gru"), normal(T, B, I), lengths=[7, 0, 0]),
        ValueError,
        "lengths: expected integers from 0 to T",
    ),
    "mask": (lambda: watch(make("gru"), normal(T, B, I), mask=normal(T, B)), TypeError, "mask: expected booleans"),
    "t": (lambda: jacobian_norms(make("gru"), normal(T, B, I), T + 1), ValueError, "t: expected an integer from 0 to 6, got 7"),
    "row": (lambda: step_jacobians(make("gru"), normal(T, B, I), row=3), ValueError, "row: expected an integer from 0 to 2, got 3"),
    "cell": (
        lambda: step_jacobians(make("gru"), normal(T, B, I), cell=1),
        ValueError,
        "cell: expected an integer from 0 to 0, got 1",
    ),
    "no layer": (lambda: step_jacobians(None, normal(T, B, I)), TypeError, "layer: expected an RNN, GRU or LSTM, got NoneType"),
    "w": (lambda: spectrum(np.array([[math.nan]])), ValueError, "w: expected finite numbers, got NaN or infinity"),
}


test_the_argument_that_is_wrong_is_named = names_the_argument(BAD)


def test_the_picture(tmp_path):
    pytest.importorskip("matplotlib")
    layer = fastrnn.RNN(2, 10, rng=0)
    x = normal(30, 5, 2).astype(F32)
    norms, bound = jacobian_norms(layer, x)
    _, h_n = layer(x)
    gradients = gradient_norms(layer, x, dstate=np.ones_like(h_n))["h_l0"]
    path = tmp_path / "norms.png"
    figure = plot({"tanh": norms, "gradients": gradients, "none": np.zeros(30)}, path, bounds={"tanh": bound})
    assert path.read_bytes().startswith(b"\x89PNG")
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["tanh", "tanh: bound", "gradients", "none"]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), norms)
    np.testing.assert_allclose(axes.lines[2].get_ydata(), np.median(gradients, axis=1))
    with pytest.raises(ValueError, match=r"norms\['x'\]: expected \(n,\) or \(n, B\), got \(1, 1, 1\)"):
        plot({"x": np.zeros((1, 1, 1))})


def test_a_step_in_reverse_is_counted_from_the_start():
    layer = make("gru", bidirectional=True)
    layer.params["bias_ih_l0_reverse"][0] = np.inf
    found = watch(layer, normal(T, B, I))
    assert (found.step, found.cell) == (T - 1, "l0_reverse")
