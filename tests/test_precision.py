"""precision="bf16": who takes it, carries it and refuses it; and the promises about bits, which hold for it, too."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest

import fastrnn
from cases import CELLS, Case, call, gradients, outputs, problem, results, table_of_options
from fastrnn import _core
from fastrnn._engine import blas, blas_products, schedule
from stacks import Setup, Stack, table
from test_plain import KINDS, not_plain, parts
from test_promises import ALONE, RAGGED, SCHEDULES, SMALL, assert_same_bits, by_row, choose, infer, select
from test_single_steps import MAKERS, members
from test_unrolled import arrays, by_steps, loop

BF16 = {"precision": "bf16"}
each_cell = pytest.mark.parametrize("cell", CELLS)
each_kind = pytest.mark.parametrize("kind", KINDS)
each_maker = pytest.mark.parametrize("kind", MAKERS)

X = np.random.default_rng(0).standard_normal((7, 2, 3), np.float32)
W = tuple(np.random.default_rng(1).standard_normal(shape).astype(np.float32) for shape in ((12, 3), (12, 4)))
ROUNDS = parts(fastrnn.gru(X, *W, **BF16)[0]) != parts(fastrnn.gru(X, *W)[0])
rounding = pytest.mark.skipif(not ROUNDS, reason="the kernels of bf16 are float32's")


def bf16_problem(case):
    p = problem(case, np.float32)
    return replace(p, keywords={**p.keywords, **BF16})


def lower(stack):
    setup = Setup(stack, np.float32)
    setup.layer.precision = "bf16"
    return setup


# --- what is refused --------------------------------------------------------------------------------------------------------------

NO_SUCH_NAME = r"^precision: expected 'float32' or 'bf16', got "
NOT_OF_DOUBLE = r"^precision: 'bf16' rounds the operands of products to 16 bits, so it is for float32; got float64"
OWNERS = {"RNN": fastrnn.RNN, "IRNN": fastrnn.IRNN, "GRU": fastrnn.GRU, "LSTM": fastrnn.LSTM}
OWNERS |= {"RNNCell": fastrnn.RNNCell, "GRUCell": fastrnn.GRUCell, "LSTMCell": fastrnn.LSTMCell}
each_owner = pytest.mark.parametrize("make", OWNERS.values(), ids=OWNERS)


@each_owner
@pytest.mark.parametrize("wrong", ["bfloat16", "float64", "BF16", "", None, 16, np.float32, ["bf16"], np.array("x")], ids=repr)
def test_another_name(make, wrong):
    owner = make(3, 4, rng=0)
    attempts = [lambda: make(3, 4, precision=wrong), lambda: setattr(owner, "precision", wrong)]
    if wrong is not None:  # the owner's
        attempts += [lambda: owner.frozen(wrong)]
        attempts += [lambda: owner.stream(precision=wrong)] if isinstance(owner, fastrnn.layers.Recurrent) else []
    for attempt in attempts:
        with pytest.raises(ValueError, match=NO_SUCH_NAME):
            attempt()
    assert owner.precision == "float32"


@each_owner
def test_float64(make):
    owner = make(3, 4, dtype=np.float64, rng=0)
    for attempt in (
        lambda: make(3, 4, dtype=np.float64, **BF16),
        lambda: setattr(owner, "precision", "bf16"),
        lambda: owner.frozen("bf16"),
        lambda: make(3, 4, **BF16).astype(np.float64),
    ):
        with pytest.raises(TypeError, match=NOT_OF_DOUBLE):
            attempt()
    assert owner.precision == "float32"
    assert make(3, 4, dtype=np.float64, precision="float32").precision == "float32"


def test_a_wrong_argument_of_a_function():
    for wrong in ("half", None, 16, np.array(["bf16", "x"])):
        for lengths in (None, [7, 5]):  # the compiled way and the general one
            with pytest.raises(ValueError, match=NO_SUCH_NAME):
                fastrnn.gru(X, *W, precision=wrong, lengths=lengths)
    with pytest.raises(TypeError, match=NOT_OF_DOUBLE):
        fastrnn.gru(X.astype(float), *(w.astype(float) for w in W), **BF16)
    with pytest.raises(TypeError, match=NOT_OF_DOUBLE):
        fastrnn.LSTM.from_weights(fastrnn.LSTM(3, 4, dtype=np.float64, rng=0).state_dict(), **BF16)


def test_a_name_of_numpy_s():
    name = np.str_("bf16")
    assert parts(fastrnn.gru(X, *W, precision=name)) == parts(fastrnn.gru(X, *W, **BF16))
    assert repr(fastrnn.GRU(3, 4, precision=name)) == "GRU(3, 4, precision='bf16')"


def test_there_is_no_gradcheck_of_a_function_that_rounds():
    layer = fastrnn.LSTM(3, 4, rng=0, **BF16)
    for target, given in (
        (layer, (X,)),
        (fastrnn.GRUCell(3, 4, rng=0, **BF16), (X[0],)),
        (lambda x, w_ih, w_hh, record, precision="bf16": fastrnn.gru(x, w_ih, w_hh, record=record, precision=precision), (X, *W)),
    ):
        with pytest.raises(ValueError, match=r"^target: expected precision='float32', got 'bf16', which rounds"):
            fastrnn.gradcheck(target, *given)
    with pytest.raises(ValueError, match="got 'bf16', which rounds"):
        fastrnn.gradcheck(fastrnn.gru, X, *W, **BF16)
    layer.precision = "float32"
    assert fastrnn.gradcheck(layer, X, max_entries=2)


# --- who carries it ---------------------------------------------------------------------------------------------------------------


@each_owner
def test_who_owns_weights_has_a_precision_that_can_be_assigned(make):
    plain, lower = make(3, 4, rng=0), make(3, 4, rng=0, **BF16)
    assert (plain.precision, lower.precision) == ("float32", "bf16")
    assert "precision" not in repr(plain)
    assert repr(lower) == repr(plain)[:-1] + ", precision='bf16')"
    plain.precision = "bf16"
    assert repr(plain) == repr(lower)
    x = X if isinstance(plain, fastrnn.layers.Recurrent) else X[0]
    assert parts(plain(x)) == parts(lower(x))
    plain.precision = "float32"
    assert parts(plain(x)) == parts(make(3, 4, rng=0)(x))


@each_owner
def test_copies_and_pickles_carry_it(make):
    owner = make(3, 4, rng=0, **BF16)
    x = X if isinstance(owner, fastrnn.layers.Recurrent) else X[0]
    expected = parts(owner(x))
    for again in (copy.copy(owner), copy.deepcopy(owner), pickle.loads(pickle.dumps(owner)), owner.astype(np.float32)):
        assert again.precision == "bf16" and parts(again(x)) == expected
        again.precision = "float32"
    assert owner.precision == "bf16" and parts(owner(x)) == expected
    frozen = owner.frozen()
    for again in (copy.copy(frozen), copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):
        assert again.precision == "bf16" and parts(again(x)) == expected


@each_owner
def test_an_old_pickle_is_of_float32(make):
    owner = make(3, 4, rng=0)
    state = owner.__getstate__()
    del state["_precision"]
    old = object.__new__(make)
    old.__setstate__(state)
    assert old.precision == "float32" and repr(old) == repr(owner) and old.astype(np.float64).precision == "float32"
    assert pickle.loads(pickle.dumps(old)).precision == "float32"


@each_owner
def test_what_is_frozen_keeps_its_own(make):
    owner, kept = make(3, 4, rng=0), {}
    x = X if isinstance(owner, fastrnn.layers.Recurrent) else X[0]
    for name in ("float32", "bf16"):
        owner.precision = name
        expected = parts(owner(x))
        kept[owner.frozen()] = name, expected
        owner.precision = "bf16" if name == "float32" else "float32"
        kept[owner.frozen(name)] = name, expected
    for frozen, (name, expected) in kept.items():
        for owner.precision in ("float32", "bf16"):
            assert frozen.precision == name and parts(frozen(x)) == expected
            assert ("precision" in repr(frozen)) == (name == "bf16")
        with pytest.raises(AttributeError):
            frozen.precision = "float32"


@each_kind
def test_a_stream_keeps_its_own(kind):
    layer = KINDS[kind](3, 18, num_layers=2, rng=0)
    for name, other in (("float32", "bf16"), ("bf16", "float32")):
        layer.precision = name
        expected = parts(layer(X)[0])
        streams = [layer.stream(2), layer.frozen().stream(2)]
        layer.precision = other
        streams += [layer.stream(2, precision=name), layer.frozen(name).stream(2)]
        assert layer.stream(2).precision == other
        for stream in streams:
            assert stream.precision == name
            stream.refresh()
            assert parts(np.stack([stream(x_t) for x_t in X])) == expected
            with pytest.raises(AttributeError):
                stream.precision = other


def test_weights_of_other_systems_are_read_into_a_layer_of_a_precision():
    layer = fastrnn.LSTM(3, 4, rng=0, **BF16)
    made = fastrnn.LSTM.from_weights(layer.state_dict(), **BF16)
    assert repr(made) == repr(layer) and parts(made(X)) == parts(layer(X))


@each_owner
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "general"])
def test_a_tape_keeps_the_precision_of_its_forward(make, plain):
    owner = make(3, 4, rng=0)
    is_layer = isinstance(owner, fastrnn.layers.Recurrent)
    x = X if is_layer else X[0]

    def backward(before, after):
        owner.precision = before
        *_, state, tape = owner.forward(x if plain else not_plain(x))
        owner.precision = after
        grads = tape.backward(None, state) if is_layer else tape.backward(state)
        return parts((grads.x, grads.state, grads.flat))

    assert backward("float32", "bf16") == backward("float32", "float32")
    assert backward("bf16", "float32") == backward("bf16", "bf16")
    assert not ROUNDS or backward("bf16", "bf16") != backward("float32", "float32")


@each_kind
def test_a_plain_tape_that_goes_the_general_way_keeps_it_too(kind):
    layer = KINDS[kind](3, 18, num_layers=2, rng=0, **BF16)

    def backward(**options):
        y, _, tape = layer.forward(X)
        assert isinstance(tape._kept, _core.Recorded)
        layer.precision = "float32"
        grads = tape.backward(y, **options)
        layer.precision = "bf16"
        return parts((grads.x, grads.flat))

    assert backward(truncate=100) == backward()  # the compiled way has no truncation, and nothing is that long


@each_maker
def test_unrolled_steps_keep_it(kind):
    cell = MAKERS[kind](3, 18, rng=0, **BF16)
    x, dys = arrays(np.float32, 7, 2, 3, 18)
    *expected, grads = loop(cell, x, None, dys)

    def changing():
        cell.precision = "float32"
        yield from x

    *got, of_changing = loop(cell, changing(), None, dys)
    assert cell.precision == "float32"
    assert parts(got) == parts(expected) and parts(of_changing.flat) == parts(grads.flat)


# --- whose kernels ----------------------------------------------------------------------------------------------------------------


@rounding
@each_cell
@pytest.mark.parametrize("options", [{}, RAGGED], ids=["plain", "general"])
def test_it_changes_all_results(cell, options, isa):
    case = Case(cell, **SMALL, **options)
    lower, full = results(fastrnn, bf16_problem(case)), results(fastrnn, problem(case, np.float32))
    assert all(parts(lower[name]) != parts(full[name]) for name in full)
    for name, a in full.items():
        np.testing.assert_allclose(lower[name], a, rtol=0.1, atol=0.1 * np.abs(a).max(), err_msg=name)


@pytest.mark.parametrize("checkpoint", [{}, {"checkpoint": 2}], ids=["whole", "checkpoints"])
@pytest.mark.parametrize("options", [{}, RAGGED], ids=["plain", "general"])
@each_cell
def test_no_product_goes_to_blas(cell, options, checkpoint, use, monkeypatch):
    if not blas.known():
        pytest.skip("this BLAS does not tell its number of threads")
    p = bf16_problem(Case(cell, **SMALL, **options))
    for isa in ("best", "scalar"):
        use(isa=isa, gemm="own")
        expected = results(fastrnn, p, **checkpoint)
        with monkeypatch.context() as patched:
            for name in ("Inputs", "Gradients"):
                patched.setattr(blas_products, name, None)
            use(gemm="blas")
            assert_same_bits(results(fastrnn, p, **checkpoint), expected)
            _core.use_gemm(0)
            assert_same_bits(results(fastrnn, p, **checkpoint), expected)


@each_kind
def test_a_plain_call_stays_plain_beside_blas(kind, use):
    if not blas.known():
        pytest.skip("this BLAS does not tell its number of threads")
    use(gemm="blas")
    layer = KINDS[kind](3, 18, rng=0, **BF16)
    assert layer._plain.infer(X, None, False) is not None
    layer.precision = "float32"
    assert layer._plain.infer(X, None, False) is None


def test_show_config_says_whose_products_they_are(capsys, every_isa):
    fastrnn.show_config()
    assert f"\nbf16              {_core.isa_in_use('bf16')} " in capsys.readouterr().out


# --- the promises -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [c for c in table_of_options() if c.T * c.B], ids=str)
def test_inference_is_the_training_forward(case, own):
    p = bf16_problem(case)
    y, state, tape = call(fastrnn, case.cell, p.arrays, **p.keywords, record=True)
    assert_same_bits(infer(p), outputs(y, state))
    assert all(np.isfinite(d).all() for d in gradients(p.backward(tape)).values())


@each_cell
@pytest.mark.parametrize("B", [2, 5, 8, 17])
def test_a_row_alone_is_the_row_in_a_batch(cell, B, isa):
    p = problem(Case(cell, **{**SMALL, "B": B}), np.float32)
    together = results(fastrnn, p, **BF16)
    for b in range(B):
        alone = results(fastrnn, select(p, slice(b, b + 1)), **BF16)
        assert_same_bits(by_row(alone, slice(None)), by_row(together, slice(b, b + 1)))


@each_cell
def test_pieces_of_time_are_the_whole(cell, isa):
    p = bf16_problem(Case(cell, T=9, B=5, I=33, H=37))
    whole, x, given, ys = infer(p), p.arrays["x"], p.arrays, []
    for start, stop in ((0, 3), (3, 4), (4, 9)):
        piece = infer(replace(p, arrays={**given, "x": x[start:stop]}))
        given = {**given, "h0": piece["h_n"], **({"c0": piece["c_n"]} if "c_n" in piece else {})}
        ys.append(piece["y"])
    assert_same_bits({**piece, "y": np.concatenate(ys)}, whole)


@each_cell
@pytest.mark.parametrize("options", [{}, {**RAGGED, "reverse": True}], ids=["dense", "ragged"])
def test_no_schedule_changes_a_bit(cell, options, isa, monkeypatch):
    p = bf16_problem(Case(cell, **{**SMALL, "T": 60, "B": 5, "H": 19}, **options))
    choose(monkeypatch, ALONE)
    expected = results(fastrnn, p)
    for how in SCHEDULES:
        choose(monkeypatch, how)
        assert_same_bits(results(fastrnn, p), expected)


@each_cell
def test_threads_do_not_change_a_bit(cell, isa, small_work_is_shared_out):
    p = bf16_problem(Case(cell, T=20, B=14, I=40, H=48))
    assert schedule.backward(20, 14, 40, 48, p.case.gates, 3).threads == 3
    expected = results(fastrnn, p, threads=1)
    for threads in (2, 3, 7):
        assert_same_bits(results(fastrnn, p, threads=threads), expected)


@each_cell
@pytest.mark.parametrize("options", [{}, RAGGED], ids=["dense", "ragged"])
def test_checkpoints_do_not_change_a_bit(cell, options, isa):
    p = bf16_problem(Case(cell, **{**SMALL, "T": 60}, **options))
    expected = {name: a for name, a in results(fastrnn, p).items() if name != "c"}
    for k in (1, 13, 25):
        assert_same_bits(results(fastrnn, p, checkpoint=k), expected)


@pytest.mark.parametrize("stack", table(), ids=str)
def test_a_frozen_layer_has_the_layer_s_bits(stack, own):
    setup = lower(stack)
    y, state, _ = setup.forward()
    expected = parts((y, state))
    assert parts(setup.layer(**setup.arguments)) == expected
    assert parts(setup.layer.frozen()(**setup.arguments)) == expected


@each_kind
@pytest.mark.parametrize("T, B, L", [(1, 1, 1), (2, 2, 1), (6, 3, 3), (40, 9, 1)])
def test_the_compiled_way_has_the_bits_of_the_general_one(kind, T, B, L, isa):
    layer = KINDS[kind](17, 33, num_layers=L, rng=0, **BF16)
    x = np.random.default_rng(0).standard_normal((T, B, 17), np.float32)
    (y, state, tape), (general_y, general_state, general) = layer.forward(x), layer.forward(not_plain(x))
    grads, expected = tape.backward(y, state), general.backward(general_y, general_state)
    assert parts((y, state)) == parts((general_y, general_state)) == parts(layer(x)) == parts(layer(not_plain(x)))
    assert parts((grads.x, grads.state, grads.flat)) == parts((expected.x, expected.state, expected.flat))


@each_kind
@pytest.mark.parametrize("B", [1, 2, 9])
def test_a_stream_step_by_step_and_in_blocks_is_the_whole(kind, B, isa):
    layer = KINDS[kind](17, 33, num_layers=2, rng=0, **BF16)
    x = np.random.default_rng(0).standard_normal((7, B, 17), np.float32)
    y, state = layer(x)
    for cuts in ([*range(1, 7)], [3], [1, 5]):
        stream = layer.stream(B)
        assert parts(np.concatenate([stream(piece) for piece in np.split(x, cuts)])) == parts(y)
        assert parts(stream.state) == parts(state)
    stream = layer.stream(B)
    assert parts(np.stack([stream(x_t) for x_t in x])) == parts(y)


@each_maker
@pytest.mark.parametrize("B", [1, 3, 20])
def test_a_cell_step_by_step_is_the_layer(kind, B, isa):
    cell, layer = MAKERS[kind](17, 33, rng=0, **BF16), KINDS[kind](17, 33, rng=0, **BF16)
    cell.flat[:] = layer.flat
    x = np.random.default_rng(0).standard_normal((5, B, 17), np.float32)
    frozen = cell.frozen()
    y, _ = layer(x)
    states = [None] * 3
    for t, x_t in enumerate(x):
        states = [cell(x_t, states[0]), frozen(x_t, states[1]), cell.forward(x_t, states[2])[0]]
        assert parts([members(state)[0] for state in states]) == parts([y[t]] * 3)


@each_maker
@pytest.mark.parametrize("T, B", [(1, None), (5, 1), (7, 3), (3, 150)])
def test_unrolled_steps_are_those_of_the_cell(kind, T, B, isa):
    """dx and states bit for bit; the parameters' gradients up to rounding."""
    cell, (x, dys) = MAKERS[kind](17, 33, rng=0, **BF16), arrays(np.float32, T, B, 17, 33)
    *got, grads = loop(cell, x, None, dys)
    *expected, flat = by_steps(cell, x, None, dys)
    assert parts(got) == parts(expected)
    np.testing.assert_allclose(grads.flat, flat, rtol=1e-3, atol=1e-3 * np.abs(flat).max())


@pytest.mark.parametrize("B", [1, 200])
@each_maker
def test_one_unrolled_step_has_the_gradients_of_a_layer(kind, B, own):
    layer, cell = KINDS[kind](6, 21, rng=0, **BF16), MAKERS[kind](6, 21, rng=0, **BF16)
    cell.flat[:] = layer.flat
    x, dy = arrays(np.float32, 1, B, 6, 21)
    grads = layer.forward(x)[2].backward(dy)
    _, dx, _, got = loop(cell, x, None, dy)
    assert parts((dx, got.flat)) == parts((grads.x, grads.flat))


def test_a_packed_sequence(own):
    setup = lower(Stack("lstm", lengths=True))
    layer, x = setup.layer, setup.arguments["x"]
    packed = fastrnn.pack(x, [3, 7, 2, 5])
    (y, state), (padded, expected) = layer(packed), layer(x, lengths=[3, 7, 2, 5])
    assert parts(state) == parts(expected) and parts(fastrnn.unpack(y)[0]) == parts(padded)
