"""The promises that hold bit for bit: equality of bytes, never closeness."""

import ctypes
import ctypes.util
import platform
import statistics
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import fastrnn
from building import IMPORTED_FROM, run_python
from cases import CELLS, FLOATS, Case, Problem, call, outputs, problem, results, table, table_of_options
from fastrnn import _core, config
from fastrnn._engine import schedule

each_cell = pytest.mark.parametrize("cell", CELLS)
each_dtype = pytest.mark.parametrize("dtype", FLOATS)
each_way = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])

WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh", "peephole", "w_hr")
RAGGED = {"lengths": True, "reset": True, "mask": True, "hold": True}
# Tiles of every height, a narrow last vector, several vectors in every instruction set, and no multiple of anything.
SMALL = {"T": 7, "B": 11, "I": 9, "H": 37}

SAME_ARITHMETIC = [pair for pair in (("scalar", "sse2"), ("v3", "v4")) if set(pair) <= set(config.available_isas())]


def assert_same_bits(got, expected):
    """Two mappings of names to arrays, or two arrays."""
    if isinstance(got, np.ndarray):
        got, expected = {"": got}, {"": expected}
    assert got.keys() == expected.keys()
    for name, a in got.items():
        b = expected[name]
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        wrong = np.argwhere(_bits(a) != _bits(b))
        assert a.tobytes() == b.tobytes(), f"{name}: {len(wrong)} of {a.size} differ, the first at {wrong[:1].tolist()}"


def _bits(a):
    return np.ascontiguousarray(a).view(f"u{a.itemsize}")


def select(p: Problem, rows, start=0, stop=None) -> Problem:
    """These rows of a time-major problem, from time start to time stop or at the times `start`; without lengths, resets, masks."""
    times = slice(start, stop) if isinstance(start, int) else start
    arrays = {name: p.arrays[name] for name in WEIGHTS if name in p.arrays}
    arrays["x"] = p.arrays["x"][times, rows]
    arrays |= {name: p.arrays[name][rows] for name in ("h0", "c0") if name in p.arrays}
    keywords = {"reverse": True} if p.case.reverse else {}
    dstate = tuple(d[rows] for d in p.dstate) if p.case.is_lstm else p.dstate[rows]
    return replace(p, arrays=arrays, keywords=keywords, dy=p.dy[times, rows], dstate=dstate)


def by_row(all_results, rows, start=0, stop=None):
    """Of all results, those that belong to these rows: what does not sum over the batch."""
    over_time = {n: all_results[n][start:stop, rows] for n in ("y", "c", "dx") if n in all_results}
    return over_time | {n: all_results[n][rows] for n in ("h_n", "c_n", "dh0", "dc0") if n in all_results}


def infer(p: Problem, **keywords):
    y, state, _ = call(fastrnn, p.case.cell, p.arrays, **p.keywords, **keywords)
    return outputs(y, state)


# --- one row is one row ---------------------------------------------------------------------------------------


@each_cell
@each_dtype
@pytest.mark.parametrize("B", [2, 3, 4, 5, 6, 7, 8, 9, 13, 17])
def test_a_row_alone_is_the_row_in_a_batch(cell, dtype, B, isa):
    p = problem(Case(cell, **{**SMALL, "B": B}), dtype)
    together = results(fastrnn, p)
    for b in range(B):
        alone = results(fastrnn, select(p, slice(b, b + 1)))
        assert_same_bits(by_row(alone, slice(None)), by_row(together, slice(b, b + 1)))


@each_cell
@each_dtype
@pytest.mark.parametrize("H, I", [(2, 0), (8, 16), (64, 3), (133, 70)])
def test_a_row_alone_is_the_row_in_a_batch_of_other_sizes(cell, dtype, H, I, isa):
    p = problem(Case(cell, T=3, B=5, I=I, H=H), dtype)
    together = results(fastrnn, p)
    for rows in (slice(1, 2), slice(2, 5)):
        assert_same_bits(by_row(results(fastrnn, select(p, rows)), slice(None)), by_row(together, rows))


@each_cell
@each_dtype
@each_way
def test_pieces_of_time_are_the_whole(cell, dtype, reverse, isa):
    p = problem(Case(cell, T=9, B=5, I=17, H=19, reverse=reverse), dtype)
    whole, x = infer(p), p.arrays["x"]
    pieces, arrays = [], p.arrays
    for start, stop in [(4, 9), (3, 4), (0, 3)] if reverse else [(0, 3), (3, 4), (4, 9)]:
        piece = infer(replace(p, arrays={**arrays, "x": x[start:stop]}))
        arrays = {**arrays, "h0": piece["h_n"], **({"c0": piece["c_n"]} if "c_n" in piece else {})}
        pieces.append(piece["y"])
    y = np.concatenate(pieces[::-1] if reverse else pieces)
    assert_same_bits({**piece, "y": y}, whole)


@pytest.mark.parametrize(
    "case, engine", [(c, "own") for c in table() if c.T * c.B] + [(c, "blas") for c in table_of_options() if c.T * c.B], ids=str
)
def test_inference_is_the_training_forward(case, engine, use):
    if engine == "blas" and not fastrnn._engine.blas.known():
        pytest.skip("this BLAS does not tell its number of threads")
    use(gemm=engine)
    p = problem(case, np.float32)
    y, state, _ = call(fastrnn, case.cell, p.arrays, **p.keywords, record=True)
    assert_same_bits(infer(p), outputs(y, state))


@pytest.mark.skipif(not SAME_ARITHMETIC, reason="here no two instruction sets do the same arithmetic")
@each_dtype
@pytest.mark.parametrize("case", [c for c in table() if c.T * c.B], ids=str)
def test_the_width_of_a_vector_does_not_matter(case, dtype, use, own):
    """Only whether multiply-adds are fused does."""
    p = problem(case, dtype)
    for isas in SAME_ARITHMETIC:
        use(isas[0])
        expected = results(fastrnn, p)
        use(isas[1])
        assert_same_bits(results(fastrnn, p), expected)


# --- threads and schedules --------------------------------------------------------------------------------------

ALONE = schedule.Schedule(1, False, False, 10**6)
SCHEDULES = [
    schedule.Schedule(*choice)
    for choice in (
        # threads, split_units, input_first, chunk
        (1, False, True, 1),
        (1, False, False, 200),
        (2, False, False, 1),
        (2, False, True, 200),
        (2, True, False, 200),
        (2, True, True, 1),
        (3, False, True, 1),
        (3, True, False, 1),
        (7, False, False, 200),
        (7, False, True, 1),
        (7, True, True, 10**6),
        # and patience, row_blocks, direct
        (2, False, False, 1, 10**5, 3),
        (2, False, True, 20, 10**5, 2),
        (3, False, False, 200, 10**5, 7),
        (1, False, True, 200, 10**5, 0, True),
        (2, True, False, 200, 10**5, 0, True),
        (3, False, False, 1, 10**5, 2, True),
    )
]


def choose(monkeypatch, how, *directions):
    """This schedule for all calls of these directions."""
    for direction in directions or ("forward", "recompute", "backward"):
        monkeypatch.setattr(schedule, direction, lambda *sizes: how)
    _core.forget_schedules()


def results_under(how, p, monkeypatch):
    choose(monkeypatch, how)
    return results(fastrnn, p)


@each_cell
@each_dtype
@pytest.mark.parametrize("options", [{}, RAGGED, {**RAGGED, "reverse": True}], ids=["dense", "ragged", "reversed"])
def test_no_schedule_changes_a_bit(cell, dtype, isa, options, monkeypatch):
    """All outputs and all gradients, also when rows or units are fewer than threads, in one chunk and in several."""
    p = problem(Case(cell, **{**SMALL, "T": 60, "B": 5, "H": 19}, **options), dtype)
    expected = results_under(ALONE, p, monkeypatch)
    for how in SCHEDULES:
        assert_same_bits(results_under(how, p, monkeypatch), expected)


@each_cell
@pytest.mark.parametrize(
    "split_units, row_blocks, lengths", [(False, 0, False), (False, 5, False), (False, 0, True), (True, 0, True)]
)
def test_threads_that_really_run_together_do_not_change_a_bit(cell, split_units, row_blocks, lengths, monkeypatch, own):
    """More work, again and again: a thread that finds no core in time is not waited for, so no single call says much."""
    p = problem(Case(cell, T=40, B=14, I=20, H=70, lengths=lengths), np.float32)
    expected = results_under(ALONE, p, monkeypatch)
    for threads in (2, 3) * 4:
        how = schedule.Schedule(threads, split_units, True, 1, row_blocks=row_blocks)
        assert_same_bits(results_under(how, p, monkeypatch), expected)


@each_cell
@pytest.mark.parametrize("input_first", [False, True])
def test_a_thread_far_ahead_of_another_does_not_change_a_bit(cell, input_first, monkeypatch, own):
    """One has more rows than another, or no core for a while. Rows end, so that items change their places in the next chunks."""
    p = problem(Case(cell, T=300, B=7, H=40), np.float32)
    lengths = np.arange(300, 160, -20)
    choose(monkeypatch, ALONE, "forward")
    expected = infer(p, lengths=lengths)
    for threads in (2, 3) * 20:
        choose(monkeypatch, schedule.Schedule(threads, False, input_first, 1), "forward")
        assert_same_bits(infer(p, lengths=lengths), expected)


@each_cell
def test_threads_by_the_schedule_itself(cell, isa):
    case = Case(cell, T=60, B=14, I=60, H=80)
    p = problem(replace(case, T=case.T * 4 // case.gates), np.float32)
    sizes = (*p.arrays["x"].shape, case.H, case.gates)
    assert [schedule.forward(*sizes, n).threads for n in (1, 2, 3, 7)] == [1, 2, 3, 7]
    expected = results(fastrnn, p, threads=1)
    for threads in (2, 3, 7):
        assert_same_bits(results(fastrnn, p, threads=threads), expected)


# --- lengths, resets, directions, layouts -------------------------------------------------------------------------


@each_cell
@each_dtype
@each_way
def test_lengths_cut_each_row(cell, dtype, reverse, isa):
    """Padding gets a gradient of exactly 0 and is never read, not even by a NaN."""
    p = problem(Case(cell, **SMALL, lengths=True, reverse=reverse), dtype)
    lengths = p.keywords["lengths"]
    padding = np.arange(p.case.T)[:, None] >= lengths
    p.arrays["x"][padding] = p.dy[padding] = np.nan
    together = results(fastrnn, p)
    assert not together["y"][padding].any() and not together["dx"][padding].any()
    assert not any(np.isnan(a).any() for a in together.values())
    for b, n in enumerate(lengths):
        row = slice(b, b + 1)
        alone = results(fastrnn, select(p, row, 0, n))
        assert_same_bits(by_row(together, row, 0, n), by_row(alone, slice(None)))


@each_cell
@each_dtype
def test_an_infinite_weight_reaches_no_row_that_has_ended(cell, dtype, isa):
    """0 times it is NaN: the gradient of a row's last step does not come by the next step of the rows beside it."""
    p = problem(Case(cell, **SMALL, lengths=True), dtype)
    p.arrays["w_hh"][2, 1] = np.inf
    lengths = p.keywords["lengths"] = np.arange(p.case.B) % (p.case.T + 1)
    together = results(fastrnn, p)
    for b, n in enumerate(lengths):
        row = slice(b, b + 1)
        alone, mine = by_row(results(fastrnn, select(p, row, 0, n)), slice(None)), by_row(together, row, 0, n)
        for name in alone:
            np.testing.assert_array_equal(mine[name], alone[name], err_msg=name)


@each_cell
@each_dtype
@each_way
def test_resets_cut_a_row_into_pieces(cell, dtype, reverse, isa):
    p = problem(Case(cell, **{**SMALL, "T": 12}, reset=True, reverse=reverse), dtype)
    reset = p.keywords["reset"]
    reset[0, :2] = True, False
    assert reset[1:].any()
    together = results(fastrnn, p)
    for b in range(p.case.B):
        row = slice(b, b + 1)
        edges = [0, *(t for t in range(1, p.case.T) if reset[t, b]), p.case.T]
        pieces = list(zip(edges, edges[1:]))
        for start, stop in pieces:
            piece = select(p, row, start, stop)
            first, last = (start == 0, stop == p.case.T)[:: -1 if reverse else 1]
            if not first or (reset[0, b] and not reverse):  # starts from zero
                for name in {"h0", "c0"} & piece.arrays.keys():
                    del piece.arrays[name]
            if not last:  # nothing flows back into its end
                piece = replace(piece, dstate=None)
            alone = results(fastrnn, piece)
            mine = by_row(together, row, start, stop)
            names = ["y", "dx"] + ["h_n", "c_n"] * last
            if "h0" in piece.arrays:
                names += ["dh0", "dc0"]
            elif first:
                assert not together["dh0"][b].any() and not together.get("dc0", np.zeros(p.case.B))[b].any()
            names = [name for name in names if name in mine]
            assert_same_bits({n: mine[n] for n in names}, {n: alone[n] for n in names})


@each_cell
@each_dtype
@each_way
def test_a_masked_step_is_as_if_it_were_not_there(cell, dtype, reverse, isa):
    """It is never read, not even a NaN, and has an output and a gradient of exactly 0."""
    p = problem(Case(cell, **{**SMALL, "T": 12}, mask=True, lengths=True, reverse=reverse), dtype)
    live = p.keywords["mask"] & (np.arange(12)[:, None] < p.keywords["lengths"])
    p.arrays["x"][~live] = p.dy[~live] = np.nan
    together = results(fastrnn, p)
    assert not together["y"][~live].any() and not together["dx"][~live].any()
    for b in range(p.case.B):
        row, times = slice(b, b + 1), np.flatnonzero(live[:, b])
        alone = by_row(results(fastrnn, select(p, row, times)), slice(None))
        mine = {n: together[n][times, row] if n in ("y", "c", "dx") else together[n][row] for n in alone}
        assert_same_bits(mine, alone)


@each_cell
@each_way
def test_a_held_output_is_the_last_one(cell, reverse, isa):
    """And its gradient is the gradient of that."""
    p = problem(Case(cell, **{**SMALL, "T": 12}, mask=True, hold=True, reverse=reverse, through="y"))
    mask = p.keywords["mask"]
    p.dy[...] = np.round(p.dy * 8)  # so that sums are exact
    got = results(fastrnn, p)
    dy, dh0 = p.dy.copy(), np.zeros_like(p.arrays["h0"])
    for b in range(p.case.B):
        y, d = p.arrays["h0"][b], dh0[b]
        for t in range(12)[:: -1 if reverse else 1]:
            if mask[t, b]:
                y, d = got["y"][t, b], dy[t, b]
            else:
                assert_same_bits(got["y"][t, b], y)
                d += p.dy[t, b]
    expected = results(fastrnn, replace(p, keywords={**p.keywords, "masked": "zero"}, dy=dy))
    expected["dh0"] += dh0
    both = ({n: a for n, a in every.items() if n not in ("y", "c")} for every in (got, expected))
    assert_same_bits(*both)


@each_cell
@each_dtype
def test_a_reset_holds_back_a_nan(cell, dtype, isa):
    p = problem(Case(cell, **SMALL), dtype)
    reset = np.zeros((p.case.T, p.case.B), bool)
    reset[3, :] = True
    y = {}
    for poison in (False, True):
        p.arrays["x"][2] = np.nan if poison else 0
        y[poison] = call(fastrnn, cell, p.arrays, reset=reset)[0]
    assert np.isnan(y[True][2]).all()
    assert_same_bits(y[True][3:], y[False][3:])


@each_cell
@each_dtype
def test_reversed_is_reversed_by_hand(cell, dtype, isa):
    p = problem(Case(cell, **SMALL, reverse=True), dtype)
    by_hand = replace(p, arrays={**p.arrays, "x": p.arrays["x"][::-1]}, keywords={}, dy=p.dy[::-1])
    expected = results(fastrnn, by_hand)
    expected |= {name: expected[name][::-1] for name in ("y", "c", "dx") if name in expected}
    assert_same_bits(results(fastrnn, p), expected)


@each_cell
@each_dtype
@pytest.mark.parametrize("options", [{}, RAGGED], ids=["dense", "ragged"])
def test_batch_first_is_the_transpose(cell, dtype, options, isa):
    p = problem(Case(cell, **SMALL, batch_first=True, **options), dtype)
    turned = {**p.arrays, "x": np.ascontiguousarray(p.arrays["x"].swapaxes(0, 1))}
    keywords = {name: value.T if name in ("reset", "mask") else value for name, value in p.keywords.items()}
    del keywords["batch_first"]
    expected = results(fastrnn, replace(p, arrays=turned, keywords=keywords, dy=p.dy.swapaxes(0, 1)))
    expected |= {name: expected[name].swapaxes(0, 1) for name in ("y", "c", "dx") if name in expected}
    got = results(fastrnn, p)
    assert got["y"].flags.c_contiguous and got["dx"].flags.c_contiguous
    assert_same_bits(got, expected)


@each_cell
@pytest.mark.parametrize("options", [{}, RAGGED], ids=["dense", "ragged"])
def test_unbatched_is_a_batch_of_one(cell, options, isa):
    p = problem(Case(cell, **{**SMALL, "B": 1}, unbatched=True, **options))
    arrays = {name: a if name in WEIGHTS else a[None] for name, a in p.arrays.items()}
    arrays["x"] = p.arrays["x"][:, None]
    keywords = {n: v[:, None] if n in ("reset", "mask") else v for n, v in p.keywords.items()}
    dstate = tuple(d[None] for d in p.dstate) if p.case.is_lstm else p.dstate[None]
    expected = results(fastrnn, replace(p, arrays=arrays, keywords=keywords, dy=p.dy[:, None], dstate=dstate))
    expected |= {name: expected[name][:, 0] for name in ("y", "c", "dx") if name in expected}
    expected |= {name: expected[name][0] for name in ("h_n", "c_n", "dh0", "dc0") if name in expected}
    assert_same_bits(results(fastrnn, p), expected)


@each_cell
@each_dtype
def test_absent_arguments_are_zeros(cell, dtype, isa):
    absent = ("b_ih", "b_hh", "h0", "c0", "peephole")
    p = problem(Case(cell, **SMALL), dtype)
    bare = {name: a for name, a in p.arrays.items() if name not in absent}
    zeros = {name: np.zeros_like(a) if name in absent else a for name, a in p.arrays.items()}
    got, expected = (results(fastrnn, replace(p, arrays=arrays)) for arrays in (bare, zeros))
    assert_same_bits(got, {name: a for name, a in expected.items() if name in got})
    assert {name for name in expected if name not in got} <= {"db_ih", "db_hh", "dpeephole"}


# --- what flows back ----------------------------------------------------------------------------------------------


@each_cell
@each_dtype
@pytest.mark.parametrize("B", [1, 3])
@pytest.mark.parametrize("options", [{}, RAGGED, {**RAGGED, "reverse": True}], ids=["dense", "ragged", "reversed"])
def test_what_is_made_again_is_what_was_there(cell, dtype, isa, B, options, monkeypatch):
    """From checkpoints, all results have the bits of a tape that keeps everything, however the work is shared out."""
    p = problem(Case(cell, T=300, B=B, I=5, H=21, **options, through="yhcs"), dtype)
    if options:
        p.keywords["lengths"][0] = 290  # several segments
    expected = results(fastrnn, p)
    expected.pop("c", None)
    for how in (ALONE, SCHEDULES[4], SCHEDULES[6], SCHEDULES[11]):
        choose(monkeypatch, how)
        for k in (1, 130, 10**30):
            assert_same_bits(results(fastrnn, p, checkpoint=k), expected)


@each_cell
@each_dtype
@each_way
def test_truncated_is_chunks_with_the_state_carried_over(cell, dtype, reverse, isa):
    """dx bit for bit; the weights' gradients are sums of the chunks', in another order."""
    p = problem(Case(cell, **{**SMALL, "T": 12}, reverse=reverse, truncate=5), dtype)
    whole, pieces, arrays, weights = results(fastrnn, p), [], dict(p.arrays), {}
    for i, (start, stop) in enumerate([(7, 12), (2, 7), (0, 2)] if reverse else [(0, 5), (5, 10), (10, 12)]):
        chunk = select(replace(p, arrays=arrays), slice(None), start, stop)
        chunk = replace(chunk, case=replace(p.case, truncate=0), dstate=p.dstate if i == 2 else None)
        pieces.append(results(fastrnn, chunk))
        weights = {n: weights.get(n, 0) + a for n, a in pieces[-1].items() if n[0] == "d" and n[1:] in WEIGHTS}
        arrays |= {f"{n[0]}0": pieces[-1][n] for n in ("h_n", "c_n") if n in whole}
    for name in ("y", "dx"):
        assert_same_bits(np.concatenate([piece[name] for piece in pieces[:: -1 if reverse else 1]]), whole[name])
    first = {name: pieces[0][name] for name in ("dh0", "dc0") if name in whole}
    assert_same_bits(first, {name: whole[name] for name in first})
    for name, dw in weights.items():
        assert np.abs(dw - whole[name]).max() <= 20 * np.finfo(dtype).eps * np.abs(dw).max(), name


# --- NaN and infinity ---------------------------------------------------------------------------------------------


@each_cell
@each_dtype
@pytest.mark.parametrize("value, b", [(np.nan, 0), (np.nan, 10), (np.inf, 4), (-np.inf, 0)])
def test_what_is_not_finite_stays_in_its_row(cell, dtype, value, b, isa):
    p, t = problem(Case(cell, **SMALL), dtype), 3
    clean = results(fastrnn, p)
    p.arrays["x"][t, b, 4] = value
    got = results(fastrnn, p)
    others = np.arange(p.case.B) != b
    assert_same_bits(by_row(got, others), by_row(clean, others))
    assert_same_bits(got["y"][:t], clean["y"][:t])
    if np.isnan(value):
        assert np.isnan(got["y"][t:, b]).all() and np.isnan(got["h_n"][b]).all()
    else:
        with np.errstate(all="ignore"):
            expected = results(fastrnn.reference, p)
        assert not np.isclose(got["y"][t, b], clean["y"][t, b]).all()
        np.testing.assert_allclose(got["y"][:, b], expected["y"][:, b], rtol=1e-4, atol=1e-5)


@each_cell
@each_dtype
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_in_dy_stays_in_its_row(cell, dtype, value, isa):
    p, t, b = problem(Case(cell, **SMALL), dtype), 3, 4
    clean = results(fastrnn, p)
    p.dy[t, b] = value
    got = results(fastrnn, p)
    others = np.arange(p.case.B) != b
    assert_same_bits(by_row(got, others), by_row(clean, others))
    assert_same_bits(got["dx"][t + 1 :], clean["dx"][t + 1 :])
    assert not np.isfinite(got["dx"][: t + 1, b]).any() and not np.isfinite(got["dh0"][b]).all()


# --- denormals ----------------------------------------------------------------------------------------------------


@each_dtype
def test_denormals_are_zeros(dtype, every_isa):
    """They come in through x, h0 and the weights, arise by decay, and leave nowhere."""
    tiny = np.finfo(dtype).smallest_normal
    one, small = np.ones((1, 1), dtype), np.full((1, 1), tiny / 4, dtype)
    large = one / tiny  # of which a product with a denormal number would not be denormal
    for x, w_ih, h0 in [(small, large, None), (large, small, None), (0 * one, one, small)]:
        y, _, _ = fastrnn.rnn(x[None], w_ih, large, h0=h0, nonlinearity="relu")
        assert not y.any()
    y, _, tape = fastrnn.rnn(np.zeros((6, 1, 1), dtype), one, one / 2, h0=one * tiny * 4, nonlinearity="relu", record=True)
    assert (y.ravel() / tiny).tolist() == [2, 1, 0, 0, 0, 0]
    assert not tape.backward(np.full_like(y, tiny / 4)).x.any()


def seconds(p: Problem) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        results(fastrnn, p, threads=1)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def decayed(p: Problem) -> Problem:
    """The same problem once everything but the weights has decayed into denormals."""

    def decay(a):
        return (np.sign(a) * np.finfo(a.dtype).smallest_normal / 7).astype(a.dtype)

    arrays = {name: a if name in ("w_ih", "w_hh") else decay(a) for name, a in p.arrays.items()}
    return replace(p, arrays=arrays, dy=decay(p.dy), dstate=None)


@each_cell
@each_dtype
def test_denormals_do_not_slow_a_call_down(cell, dtype, own):
    normal = problem(Case(cell, T=40, B=8, I=64, H=64), dtype)
    denormal, ratios = decayed(normal), []
    for _ in range(5):
        ratios.append(seconds(denormal) / seconds(normal))
        if ratios[-1] <= 3:
            return
    pytest.fail(f"slower by {ratios}")


# --- the caller's floating-point state ------------------------------------------------------------------------------

libm = ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6")
X86, ARM = platform.machine() == "x86_64", platform.machine() == "aarch64"
UPWARD = 0x800 if X86 else 0x400000  # FE_UPWARD of fenv.h
INVALID_TO_UNDERFLOW = 0x1D if X86 else 0x0F  # invalid, division by 0, overflow, underflow; not inexact
needs_fenv = pytest.mark.skipif(sys.platform != "linux" or not (X86 or ARM), reason="knows fenv.h of Linux")


def environment() -> bytes:
    """All of it: rounding, traps, denormals, sticky flags."""
    buffer = ctypes.create_string_buffer(64)
    libm.fegetenv(buffer)
    return buffer.raw


def raising_everything(cell):
    """Overflows and invalid operations in forward and backward, and numbers that underflow."""
    p = problem(Case(cell, **SMALL), np.float32)
    p.arrays["x"][1, 0], p.arrays["x"][2, 1], p.arrays["x"][3, 2] = 3e38, np.inf, 1e-40
    p.arrays["w_ih"] *= 3
    p.dy[4, 3] = np.inf
    return p


@needs_fenv
@each_cell
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.usefixtures("small_work_is_shared_out")
def test_rounding_is_kept_and_has_no_influence(cell, threads, every_isa):
    p = problem(Case(cell, **SMALL), np.float32)
    expected = results(fastrnn, p, threads=threads)
    libm.fesetround(UPWARD)
    try:
        got = results(fastrnn, p, threads=threads)
        kept = libm.fegetround()
    finally:
        libm.fesetround(0)
    assert kept == UPWARD
    assert_same_bits(got, expected)


@needs_fenv
@each_cell
def test_no_exception_flag_is_raised_or_lost(cell, every_isa):
    p = raising_everything(cell)
    for flags in (0, INVALID_TO_UNDERFLOW):
        libm.feclearexcept(INVALID_TO_UNDERFLOW)
        libm.feraiseexcept(flags)
        _, _, tape = call(fastrnn, cell, p.arrays, record=True)
        tape.backward(p.dy)
        kept = libm.fetestexcept(INVALID_TO_UNDERFLOW)
        libm.feclearexcept(INVALID_TO_UNDERFLOW)
        assert kept == flags


@needs_fenv
@each_cell
def test_the_environment_is_what_it_was(cell, every_isa):
    p = problem(Case(cell, **SMALL), np.float32)
    before = environment()
    results(fastrnn, p)
    assert environment() == before


def test_denormals_are_still_numbers_behind_a_call(every_isa):
    results(fastrnn, problem(Case("lstm")))
    assert np.float32(1e-45) * np.float32(1) != 0
    assert np.float64(5e-324) + np.float64(5e-324) == 1e-323


@each_cell
def test_numpy_sees_no_floating_point_error(cell, every_isa):
    p = raising_everything(cell)
    with np.errstate(all="raise"):
        results(fastrnn, p)
        np.float64(1) * np.float64(2)


TRAPS = """
import ctypes
import numpy as np
import fastrnn
libm = ctypes.CDLL("libm.so.6")
big, infinite = np.full((3, 2, 4), 3e38, np.float32), np.full((3, 2, 4), np.inf, np.float32)
weights = [np.full(shape, 1.5, np.float32) for shape in ((12, 4), (12, 3), (12,), (12,))]
traps = 1 | 4 | 8 | 16  # invalid, division by 0, overflow, underflow
for x in big, infinite, -infinite:
    libm.feenableexcept(traps)
    y, state, tape = fastrnn.lstm(x, *weights, record=True)
    tape.backward(y * 0 + 1)
    enabled = libm.fedisableexcept(traps)
    print(enabled == traps)
"""


@pytest.mark.skipif(not X86 or platform.libc_ver()[0] != "glibc", reason="traps are there on x86 with glibc")
def test_nothing_traps_and_traps_are_kept(tmp_path):
    """In a process of its own, which a trap would end."""
    assert run_python("-c", TRAPS, cwd=tmp_path, PYTHONPATH=IMPORTED_FROM).split() == ["True"] * 3
