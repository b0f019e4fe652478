"""Trained networks of other people's packages, whose weights, inputs and results lie in ../shared/cases.

Each test replays a package's work by the public functions, converts its layout in passing, and compares every result
that its file offers. `meta` in a file states the layout, the equations and where the numbers come from.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import fastrnn

FOLDER = Path(__file__).parents[2] / "shared" / "cases"

pytestmark = [
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the folder of the cases, ../shared/cases, is not here"),
    pytest.mark.usefixtures("isa"),
]


class Cases:
    """A file of cases that knows which of its arrays nobody has asked for yet."""

    def __init__(self, name, dtype):
        with np.load(FOLDER / name, allow_pickle=False) as file:
            self.arrays = dict(file)
        self.meta = json.loads(str(self.arrays.pop("meta")))
        self.unread = set(self.arrays)
        self.dtype = dtype

    def given(self, name):
        """An array for a function to take, in the dtype of the test."""
        return self.expected(name).astype(self.dtype)

    def expected(self, name):
        """An array as it is in the file."""
        self.unread.discard(name)
        return self.arrays[name]


def assert_close(name, result, expected, tolerance):
    """tolerance: relative to the largest value of the array."""
    assert result.shape == expected.shape, name
    error = np.abs(result - expected).max() / np.abs(expected).max()
    assert error <= tolerance, f"{name}: off by {error:.1e} of its largest value"


def gates(a, order):
    """The row blocks of an LSTM's weights in another order."""
    return np.concatenate([np.split(a, 4)[gate] for gate in order])


# --- g2p-en: letters to phonemes, by a GRU that reads a word and one that speaks it -----------------------------

PHONEMES = """
    <pad> <unk> <s> </s> AA0 AA1 AA2 AE0 AE1 AE2 AH0 AH1 AH2 AO0 AO1 AO2 AW0 AW1 AW2 AY0 AY1 AY2 B CH D DH EH0 EH1 EH2
    ER0 ER1 ER2 EY0 EY1 EY2 F G HH IH0 IH1 IH2 IY0 IY1 IY2 JH K L M N NG OW0 OW1 OW2 OY0 OY1 OY2 P R S SH T TH
    UH0 UH1 UH2 UW UW0 UW1 UW2 V W Y Z ZH
""".split()  # noqa: SIM905 -- as a list it would fill a page
START, END = PHONEMES.index("<s>"), PHONEMES.index("</s>")


# The recorded float32 states are up to 3e-6 off themselves: these networks amplify rounding from step to step.
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-5), (np.float64, 4e-6)])
def test_g2p_en_speaks_its_words(dtype, tolerance):
    cases = Cases("g2p_en.npz", dtype)
    names = ("w_ih", "w_hh", "b_ih", "b_hh")
    encoder, decoder = ([cases.given(f"w/{part}_{name}") for name in names] for part in ("enc", "dec"))
    embedding, fc_w, fc_b = (cases.given(f"w/{name}") for name in ("dec_emb", "fc_w", "fc_b"))
    words = [name.removeprefix("enc") for name in cases.meta["cases"] if name.startswith("enc")]
    assert len(words) == 24
    for enc, dec in ((f"enc{word}", f"dec{word}") for word in words):
        y, h_n, _ = fastrnn.gru(cases.given(f"{enc}/x"), *encoder, batch_first=True)
        assert_close(f"{enc}/y", y, cases.expected(f"{enc}/y"), tolerance)
        assert_close(f"{dec}/h0", h_n, cases.expected(f"{dec}/h0"), tolerance)
        xs, hs, spoken = speak(h_n, decoder, embedding, fc_w, fc_b)
        assert np.array_equal(xs, cases.given(f"{dec}/x"))  # the same choice at each step
        assert_close(f"{dec}/y", hs, cases.expected(f"{dec}/y"), tolerance)
        assert spoken == cases.meta["cases"][enc]["pron"]
    assert not cases.unread


def speak(h, weights, embedding, fc_w, fc_b):
    """The greedy decoder, one step at a time: its inputs and states (T, 1, H), and the phonemes."""
    xs, hs, chosen = [], [], [START]
    while chosen[-1] != END and len(hs) < 20:
        x = embedding[chosen[-1:]]
        _, h, _ = fastrnn.gru(x[None], *weights, h)
        xs.append(x)
        hs.append(h)
        chosen.append(int((h @ fc_w.T + fc_b).argmax()))
    return np.stack(xs), np.stack(hs), [PHONEMES[i] for i in chosen[1:] if i != END]


# --- nagisa: Japanese words and their classes, by a bidirectional LSTM --------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nagisa_reads_both_ways(dtype):
    cases = Cases("nagisa.npz", dtype)
    assert len(cases.meta["cases"]) == 8
    for name, case in cases.meta["cases"].items():
        x, weights = cases.given(f"{name}/x"), f"w/{case['weights']}"
        f, (f_end, _), _ = fastrnn.lstm(x, *from_nagisa(cases, weights, "f"))
        b, (b_end, _), _ = fastrnn.lstm(x, *from_nagisa(cases, weights, "b"), reverse=True)
        assert_close(f"{name}/y", np.concatenate([f, b], axis=1), cases.expected(f"{name}/y"), 4e-6)
        assert np.array_equal(f_end, f[-1])
        assert np.array_equal(b_end, b[0])
    assert not cases.unread


def from_nagisa(cases, weights, direction):
    """w_ih, w_hh, b_ih of transposed weights with gates i, f, o, g; the forget bias is in the one bias already."""
    arrays = [cases.given(f"{weights}/{name}_{direction}") for name in ("WxT", "WhT", "b")]
    return [gates(a.T, (0, 1, 3, 2)) for a in arrays]


# --- thinc: ragged batches through LSTMs of one and two layers and directions, and their gradients ----------------


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-13)])
def test_thinc_layers_and_gradients(dtype, tolerance):
    cases = Cases("thinc.npz", dtype)
    assert list(cases.meta["cases"]) == ["uni", "bi", "bi2"]
    for name in cases.meta["cases"]:
        sizes = cases.expected(f"{name}/size_at_t")
        packed = np.arange(sizes[0]) < sizes[:, None]  # (T, B): a packed array has its rows in this order
        fields = ("X", "dY", "params", "H0", "C0")
        X, dY, params, h0, c0 = (cases.given(f"{name}/{field}") for field in fields)
        weights = from_thinc(params, X.shape[1], *h0.shape)
        y, tapes = thinc_forward(padded(X, packed), weights, h0, c0, packed.sum(axis=0))
        dx, grads = thinc_backward(padded(dY, packed), tapes)
        assert not y[~packed].any()
        assert not dx[~packed].any()
        # The package computed Y in float32; the gradients come from a float64 oracle.
        assert_close(f"{name}/Y", y[packed], cases.expected(f"{name}/Y"), 2e-6)
        assert_close(f"{name}/dX", dx[packed], cases.expected(f"{name}/dX"), tolerance)
        assert_close(f"{name}/dparams", to_thinc(grads), cases.expected(f"{name}/dparams"), tolerance)
    assert not cases.unread


def padded(rows, packed):
    """(T, B, .) from packed rows."""
    full = np.zeros((*packed.shape, rows.shape[1]), rows.dtype)
    full[packed] = rows
    return full


def from_thinc(params, I, layers, directions, H):
    """[layer][direction] of w_ih, w_hh, b_ih, b_hh from a flat vector of Wx, bx, Wh, bh with gates f, i, o, g."""
    weights = []
    for _ in range(layers):
        weights.append([])
        for _ in range(directions):
            w_ih, b_ih, w_hh, b_hh, params = np.split(params, np.cumsum([4 * H * I, 4 * H, 4 * H * H, 4 * H]))
            arrays = (w_ih.reshape(4 * H, I), w_hh.reshape(4 * H, H), b_ih, b_hh)
            weights[-1].append([gates(a, (1, 0, 3, 2)) for a in arrays])
        I = directions * H
    assert params.size == 0
    return weights


def to_thinc(grads):
    """The flat vector that from_thinc takes, from a list of grads of every layer and direction."""
    arrays = [a for g in grads for a in (g.w_ih, g.b_ih, g.w_hh, g.b_hh)]
    return np.concatenate([gates(a, (1, 0, 3, 2)).ravel() for a in arrays])


def thinc_forward(x, weights, h0, c0, lengths):
    """y of the last layer, and tapes as [layer][direction]. h0 and c0 (layers, directions, H) are those of every row."""
    tapes = []
    for both, *states in zip(weights, h0, c0, strict=True):
        runs = []
        for w, h, c, reverse in zip(both, *states, (False, True), strict=False):
            start = [np.tile(state, (x.shape[1], 1)) for state in (h, c)]
            runs.append(fastrnn.lstm(x, *w, *start, lengths=lengths, reverse=reverse, record=True))
        x = np.concatenate([y for y, _, _ in runs], axis=2)
        tapes.append([tape for _, _, tape in runs])
    return x, tapes


def thinc_backward(dy, tapes):
    """dx, and the grads of every layer and direction in order."""
    grads = []
    for both in reversed(tapes):
        halves = np.split(dy, len(both), axis=2)
        found = [tape.backward(half) for tape, half in zip(both, halves, strict=True)]
        grads = found + grads
        dy = sum(g.x for g in found)
    return dy, grads
