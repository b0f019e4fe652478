"""Draws, samples and beam search, against counts, exact enumeration, and loops over layers."""

import itertools
import math

import numpy as np
import pytest

import fastrnn
from fastrnn.train import Linear, beam_search, draw, sample
from fastrnn.train.beam import _Beams
from wrong import names_the_argument

F32 = np.float32
V, H = 4, 6
LOGITS = np.array([0.5, 2.0, -1.0, 1.0])


def softmax(o):
    p = np.exp(o - o.max())
    return p / p.sum()


def shares(n=40_000, **options):
    """How often each class was drawn."""
    return np.bincount(draw(np.tile(LOGITS, (n, 1)), rng=0, **options), minlength=V) / n


@pytest.mark.parametrize(
    "options, allowed",
    [
        ({}, [0, 1, 2, 3]),
        ({"temperature": 0.5}, [0, 1, 2, 3]),
        ({"temperature": 3.0}, [0, 1, 2, 3]),
        ({"top_k": 1}, [1]),
        ({"top_k": 2}, [1, 3]),
        ({"top_k": 3, "temperature": 2.0}, [0, 1, 3]),
        ({"top_k": 9}, [0, 1, 2, 3]),
        ({"top_p": 0.5}, [1]),  # 0.60, 0.22, 0.13, 0.03
        ({"top_p": 0.7}, [1, 3]),
        ({"top_p": 0.9}, [0, 1, 3]),
        ({"top_p": 1.0}, [0, 1, 2, 3]),
        ({"top_k": 2, "top_p": 0.7}, [1]),  # 0.73 of the two
        ({"temperature": 0}, [1]),
        ({"temperature": 0, "top_k": 3}, [1]),
    ],
)
def test_classes_come_with_their_probabilities(options, allowed):
    wanted = np.zeros(V)
    wanted[allowed] = softmax(LOGITS[allowed] / (options.get("temperature") or 1))
    got = shares(**options)
    assert (got[wanted == 0] == 0).all()
    np.testing.assert_allclose(got, wanted, atol=4 * math.sqrt(0.25 / 40_000))


def test_draws_of_any_shape():
    logits = np.random.default_rng(0).standard_normal((3, 2, 50)).astype(F32)
    assert np.array_equal(draw(logits, temperature=0), logits.argmax(axis=-1))
    for options in ({}, {"top_k": 5}, {"top_p": 0.5}, {"top_k": 5, "top_p": 0.9}):
        ids = draw(logits, rng=1, **options)
        assert ids.shape == (3, 2)
        assert np.array_equal(ids, draw(logits, rng=1, **options))
        assert not np.array_equal(ids, draw(logits, rng=2, **options))
    assert draw(logits[0, 0]).shape == ()
    assert draw(logits[:0]).shape == (0, 2)
    forbidden = np.array([-math.inf, 0.0, -math.inf])
    assert all(draw(forbidden, rng=seed) == 1 for seed in range(20))
    ties = np.zeros((1000, 5))
    assert len(np.unique(draw(ties, top_k=2, rng=0))) == 2  # two, not all of the equally likely


# --- samples ------------------------------------------------------------------------------------------------


def model_of(kind=fastrnn.LSTM, seed=0, inputs=V):
    layer, readout = kind(inputs, H, rng=seed), Linear(H, V, rng=seed)
    layer.flat[:] *= 3
    readout.flat[:] *= 5
    return layer, readout


@pytest.mark.parametrize("kind", [fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM])
@pytest.mark.parametrize("B", [1, 3])
def test_a_greedy_sample_is_what_the_layer_answers(kind, B):
    layer, readout = model_of(kind)
    prompt = np.random.default_rng(0).integers(0, V, (3, B))
    ids, state = sample(layer, readout, prompt, 20, temperature=0)
    assert ids.shape == (20, B)
    seen = np.concatenate([prompt, ids])
    y, final = layer(np.eye(V, dtype=F32)[seen[:-1]])
    answers = readout(y).argmax(axis=-1)
    assert np.array_equal(answers[2:], ids)
    for ours, theirs in zip(np.atleast_1d(state), np.atleast_1d(final), strict=True):
        assert np.array_equal(ours, theirs)


def test_a_sample_has_the_probabilities_of_the_model():
    """The first two classes of 20,000 rows, against the product of their probabilities."""
    layer, readout = model_of()
    n = 20_000
    ids, _ = sample(layer, readout, np.full((1, n), 2), 2, temperature=1.5, rng=0)
    one_hot = np.eye(V, dtype=F32)
    counts = np.zeros((V, V))
    np.add.at(counts, (ids[0], ids[1]), 1)
    for first, second in itertools.product(range(V), repeat=2):
        o = readout(layer(one_hot[[2, first]])[0]) / 1.5
        p = softmax(o[0])[first] * softmax(o[1])[second]
        assert counts[first, second] / n == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / n) + 1e-4)


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"top_p": 0.8}, {"temperature": 0}], ids=str)
def test_a_sample_may_come_in_pieces(options):
    layer, readout = model_of()
    prompt = np.array([[0, 1], [2, 3]])
    whole, _ = sample(layer, readout, prompt, 200, rng=7, **options)
    rng = np.random.default_rng(7)
    pieces, state = [], None
    for steps in (1, 90, 109):
        ids, state = sample(layer, readout, prompt, steps, rng=rng, state=state, **options)
        pieces.append(ids)
        prompt = ids[-1:]
    assert np.array_equal(np.concatenate(pieces), whole)
    nothing, _ = sample(layer, readout, prompt, 0, **options)
    assert nothing.shape == (0, 2)


def test_one_row_and_a_table():
    layer, readout = model_of()
    ids, _ = sample(layer, readout, [0, 3], 10, rng=1)
    assert ids.shape == (10,)
    table = np.eye(V, dtype=F32)
    assert np.array_equal(sample(layer, readout, [0, 3], 10, rng=1, table=table)[0], ids)
    small, readout = model_of(inputs=2)
    table = np.random.default_rng(0).standard_normal((V, 2)).astype(F32)
    ids, _ = sample(small, readout, [1], 30, temperature=0, table=table)
    y, _ = small(table[np.append(1, ids[:-1])][:, None])
    assert np.array_equal(readout(y)[:, 0].argmax(axis=-1), ids)


# --- beam search ----------------------------------------------------------------------------------------------


def every_sequence(layer, readout, start, end, steps, state):
    """The log probability of each sequence that ends within so many steps."""
    found = {}
    for n in range(1, steps + 1):
        for ids in itertools.product(range(V), repeat=n):
            if ids[-1] != end or end in ids[:-1]:
                continue
            y, _ = layer(np.eye(V, dtype=F32)[[start, *ids[:-1]]][:, None], state)
            o = readout(y)[:, 0].astype(np.float64)
            found[ids] = sum(math.log(softmax(line)[k]) for line, k in zip(o, ids, strict=True))
    return found


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_the_best_of_all_sequences(seed, penalty):
    layer, readout = model_of(seed=seed)
    rng = np.random.default_rng(seed)
    state = tuple(rng.standard_normal((1, 1, H)).astype(F32) for _ in range(2))
    steps, width = 5, 4 * 3**4  # as many as there are prefixes and classes
    found = every_sequence(layer, readout, 0, 3, steps, state)

    def rank(ids):
        return found[ids] / ((5 + len(ids)) / 6) ** penalty

    beams = beam_search(layer, readout, 0, 3, steps, width=width, length_penalty=penalty, state=state)
    wanted = sorted(found, key=rank, reverse=True)
    for beam, ids in zip(beams[:10], wanted[:10], strict=True):
        assert beam.ended
        assert tuple(beam.ids) == ids
        assert beam.log_probability == pytest.approx(found[ids], rel=1e-5)


def test_beams_that_end_make_room_for_others():
    beams = _Beams(width=2, start=0, end=1, steps=3, length_penalty=0.0)
    beams.extend(np.log([[0.05, 0.6, 0.25, 0.1]] * 2))
    assert beams.last.tolist() == [2, 3] and np.allclose(np.exp(beams.scores), [0.25, 0.1])
    assert [beam.ids.tolist() for beam in beams.ended] == [[1]]


@pytest.mark.parametrize("penalty, settled", [(0.0, True), (1.0, False)])
def test_a_penalty_leaves_hope_for_longer_sequences(penalty, settled):
    """At the full length, what goes on with 0.4 may still overtake what has ended with 0.6."""
    beams = _Beams(width=1, start=0, end=1, steps=100, length_penalty=penalty)
    beams.extend(np.log([[0.4, 0.6]]))
    assert beams.settled() == settled


def test_a_beam_of_one_is_greedy():
    for seed in range(5):
        layer, readout = model_of(fastrnn.GRU, seed)
        ids, _ = sample(layer, readout, [0], 12, temperature=0)
        (beam,) = beam_search(layer, readout, 0, 3, 12, width=1)
        stop = list(ids).index(3) + 1 if 3 in ids else 12
        assert np.array_equal(beam.ids, ids[:stop])
        assert beam.ended == (3 in ids)


def test_a_wider_beam_does_better_and_says_who_was_cut_off():
    layer, readout = model_of(seed=4)
    best = [beam_search(layer, readout, 0, 3, 30, width=width)[0] for width in (1, 2, 8, 50)]
    assert all(a.log_probability <= b.log_probability + 1e-9 for a, b in zip(best, best[1:]) if a.ended and b.ended)
    readout.params["bias"][3] = -math.inf  # the end never comes
    beams = beam_search(layer, readout, 0, 3, 6, width=5)
    assert len(beams) == 5
    assert not any(beam.ended for beam in beams)
    assert all(len(beam.ids) == 6 for beam in beams)
    scores = [beam.log_probability for beam in beams]
    assert scores == sorted(scores, reverse=True)
    readout.params["bias"][:] = [-math.inf] * 3 + [0]  # nothing but the end may come
    (beam,) = beam_search(layer, readout, 0, 3, 6, width=5)
    assert tuple(beam.ids) == (3,)
    assert beam.log_probability == 0


layer, readout = model_of()
nan = Linear(H, V)
nan.flat[:] = math.nan
BAD = {
    "logits": (lambda: draw(np.zeros((2, 0))), ValueError, "logits: expected (..., V) with V >= 1, got shape (2, 0)"),
    "nan": (lambda: draw(np.array([0, math.nan])), ValueError, "logits: expected no NaN"),
    "integers": (lambda: draw(np.zeros(3, int)), TypeError, "logits: expected dtype float32 or float64, got int64"),
    "temperature": (lambda: draw(LOGITS, temperature=-1.0), ValueError, "temperature: expected a finite number of at least 0"),
    "top_k": (lambda: draw(LOGITS, top_k=0), ValueError, "top_k: expected an integer of at least 1, got 0"),
    "top_p": (lambda: draw(LOGITS, top_p=0.0), ValueError, "top_p: expected a number above 0, at most 1, got 0.0"),
    "top_p above 1": (lambda: draw(LOGITS, top_p=1.1), ValueError, "top_p: expected a number above 0, at most 1, got 1.1"),
    "rng": (lambda: draw(LOGITS, rng="x"), TypeError, "rng: expected a seed or a numpy.random.Generator"),
    "no prompt": (lambda: sample(layer, readout, [], 3), ValueError, "prompt: expected (n, B) integers with n, B >= 1, got shape"),
    "prompt": (lambda: sample(layer, readout, [0.5], 3), ValueError, "prompt: expected (n, B) integers with n, B >= 1"),
    "class": (lambda: sample(layer, readout, [0, 4], 3), ValueError, "prompt: expected integers from 0 to V-1 = 3, got 0 to 4"),
    "steps": (lambda: sample(layer, readout, [0], -1), ValueError, "steps: expected an integer of at least 0, got -1"),
    "table missing": (
        lambda: sample(fastrnn.GRU(2, H), readout, [0], 3),
        ValueError,
        "table: expected (4, 2), a vector of the layer's input_size for each class, got None",
    ),
    "table": (
        lambda: sample(layer, readout, [0], 3, table=np.zeros((3, 4), F32)),
        ValueError,
        "table: expected (V, I) = (4, 4), got (3, 4)",
    ),
    "outputs": (lambda: sample(layer, nan, [0], 3), ValueError, "layer, readout: expected numbers for outputs, got NaN"),
    "outputs of a beam": (lambda: beam_search(layer, nan, 0, 1, 3), ValueError, "layer, readout: expected numbers"),
    "width": (lambda: beam_search(layer, readout, 0, 1, 3, width=0), ValueError, "width: expected an integer of at least 1"),
    "start": (lambda: beam_search(layer, readout, 4, 1, 3), ValueError, "start: expected an integer from 0 to 3, got 4"),
    "end": (lambda: beam_search(layer, readout, 0, -1, 3), ValueError, "end: expected an integer from 0 to 3, got -1"),
    "penalty": (lambda: beam_search(layer, readout, 0, 1, 3, length_penalty=-1), ValueError, "length_penalty: expected a finite"),
    "state": (
        lambda: beam_search(layer, readout, 0, 1, 3, state=(np.zeros((1, 2, H), F32),) * 2),
        ValueError,
        "state: expected that of one row, (1, 1, H), got (1, 2, 6)",
    ),
}


test_the_argument_that_is_wrong_is_named = names_the_argument(BAD)
