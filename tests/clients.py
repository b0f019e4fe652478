"""Other people's packages with a recurrent network in them, and the same work on fastrnn: what tests compare and benches time.

CLIENTS maps a package to a function that returns its pieces of Work, and raises ModuleNotFoundError where the package is not
installed. The weights are the package's own trained ones, where it ships some. STUDENTS maps code that is no package, but that many
have, to the same; "theirs" are then its equations, step by step.
"""

import collections
import collections.abc
import copy
import pickle
import warnings
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

import fastrnn
import originals
from fastrnn.formats import Cell, Format, Tree

# Two packages' own layouts, written down as any user can.
G2P_EN = Format(
    "g2p-en", Tree(), {"gru_after": Cell("rzn", {"w_ih": "(gu)n x", "w_hh": "(gu)n h", "b_ih": "(gu) bx", "b_hh": "(gu) bh"})}
)
NAGISA = Format("nagisa", Tree(), {"lstm": Cell("ifog", {"WxT": "n(gu) x", "WhT": "n(gu) h", "b": "(gu) b"})})


@dataclass
class Work:
    """theirs() and ours() return the same: an array or a list of whatever can be compared. tolerance: of the largest number."""

    what: str
    theirs: Callable[[], Any]
    ours: Callable[[], Any]
    tolerance: float = 2e-6
    note: str = ""


def assert_same(result, expected, tolerance):
    """Lists are compared item by item, and what is not floating point exactly."""
    if isinstance(expected, list):
        assert len(result) == len(expected)
        for one, other in zip(result, expected):
            assert_same(one, other, tolerance)
    elif np.asarray(expected).dtype.kind != "f":
        assert np.array_equal(result, expected)
    else:
        assert np.shape(result) == np.shape(expected)
        assert np.abs(result - expected).max() <= tolerance * np.abs(expected).max()


# --- g2p-en: letters to phonemes ------------------------------------------------------------------------------------------


class Speaker:
    """g2p-en's network: a GRU that reads a word, and one that speaks it."""

    def __init__(self, encoder, decoder, embedding, fc_w, fc_b):
        self.encoder = fastrnn.GRU.from_weights(encoder, G2P_EN, batch_first=True).frozen()
        self.decoder = fastrnn.GRU.from_weights(decoder, G2P_EN).frozen()
        self.embedding, self.fc_w, self.fc_b = embedding, fc_w, fc_b
        self.stream = self.decoder.stream()

    def speak(self, h, start, end):
        """The greedy decoder from a state (1, 1, H): its inputs and outputs (T, 1, .), and the indices it chose."""
        xs, hs, chosen = [], [], [start]
        self.stream.state = h
        while chosen[-1] != end and len(hs) < 20:
            xs.append(self.embedding[chosen[-1:]])
            hs.append(self.stream(xs[-1]).copy())
            chosen.append(int((hs[-1] @ self.fc_w.T + self.fc_b).argmax()))
        return np.stack(xs), np.stack(hs), [i for i in chosen[1:] if i != end]

    def speak_all(self, h, start, end):
        """The same from many states (1, B, H): the indices chosen for each."""
        stream, chosen = self.decoder.stream(h.shape[1]), [np.full(h.shape[1], start)]
        stream.state = h
        while len(chosen) <= 20 and not (np.array(chosen) == end).any(axis=0).all():
            chosen.append((stream(self.embedding[chosen[-1]]) @ self.fc_w.T + self.fc_b).argmax(axis=1))
        rows = np.array(chosen[1:]).T
        return [row[: np.append(row == end, True).argmax()].tolist() for row in rows]


def load_g2p_en():
    """Its network, without the dictionaries of nltk, which it would download."""
    import nltk

    with mock.patch.object(nltk.data, "find"):
        from g2p_en import g2p
    with mock.patch.object(g2p, "cmudict", SimpleNamespace(dict=dict)):
        return g2p.G2p()


def g2p_en():
    theirs = load_g2p_en()
    weights = ({name: getattr(theirs, f"{part}_{name}") for name in ("w_ih", "w_hh", "b_ih", "b_hh")} for part in ("enc", "dec"))
    ours = Speaker(*weights, theirs.dec_emb, theirs.fc_w, theirs.fc_b)
    words = ["incomprehensible", "fastrnn", "anthropomorphise", "zyzzyva"]
    many = [*words, "recurrent", "gradients", "vanish", "through", "sixty", "backpropagated", "layers", "when", "nobody"]
    many += ["clips", "exploding", "sequences"]
    x = theirs.encode(words[0])
    own = (theirs.enc_w_ih, theirs.enc_w_hh, theirs.enc_b_ih, theirs.enc_b_hh)

    def predict(word):
        *_, chosen = ours.speak(ours.encoder(theirs.encode(word))[1], 2, 3)
        return [theirs.idx2p.get(i, "<unk>") for i in chosen]

    def predict_all(words):
        """Each row is what it is alone, so words may share a batch."""
        letters = [theirs.encode(word)[0] for word in words]
        lengths = [len(rows) for rows in letters]
        x = np.zeros((len(words), max(lengths), letters[0].shape[1]), letters[0].dtype)
        for row, rows in zip(x, letters):
            row[: len(rows)] = rows
        spoken = ours.speak_all(ours.encoder(x, lengths=lengths)[1], 2, 3)
        return [[theirs.idx2p.get(i, "<unk>") for i in chosen] for chosen in spoken]

    return [
        Work("encoder, T 17, I = H 256", lambda: theirs.gru(x, x.shape[1], *own), lambda: ours.encoder(x)[0], 1e-5),
        Work(
            "four words, read and spoken",
            lambda: [theirs.predict(word) for word in words],
            lambda: [predict(word) for word in words],
        ),
        Work(
            "16 words, which can only go one after the other in its own code",
            lambda: [theirs.predict(word) for word in many],
            lambda: predict_all(many),
        ),
    ]


# --- g2pM: Chinese characters to pinyin ------------------------------------------------------------------------------------


def g2pm():
    import g2pM

    theirs = g2pM.G2pM()
    state_dict = pickle.loads(Path(g2pM.__file__).with_name("np_ckpt.pkl").read_bytes())
    weights = {name.removeprefix("lstm."): array for name, array in state_dict.items() if name.startswith("lstm.")}
    layer = fastrnn.LSTM.from_weights(weights, batch_first=True, bidirectional=True).frozen()
    sentence = np.random.default_rng(0).integers(4, len(theirs.embeddings), (1, 30))
    several = np.repeat(sentence, 8, axis=0) * (np.arange(30) < np.arange(30, 14, -2)[:, None])  # 0 is padding

    def work(what, words, rows, at):
        def ours():
            y, _ = layer(theirs.get_embedding(words), lengths=np.count_nonzero(words, axis=1))
            return theirs.fc_layer(y[rows, at]).argmax(axis=1)

        return Work(what, lambda: theirs.predict(words, at), ours)

    every, one = np.arange(30), np.arange(8)
    return [work("LSTM both ways, T 30 B 1 I 64 H 32", sentence, 0, every), work("the same, B 8, ragged", several, one, one)]


# --- nagisa: Japanese words and their classes -----------------------------------------------------------------------------


def nagisa_layer(both):
    """The layer with the weights of a pair of its _LSTM."""
    return fastrnn.LSTM.from_weights(tuple({name: getattr(way, name) for name in ("WxT", "WhT", "b")} for way in both), NAGISA)


def nagisa():
    import nagisa
    import nagisa_utils

    model, rng = nagisa.tagger._model, np.random.default_rng(0)
    found = []
    for what, birnn, T in (("words", model.ws_model, 92), ("words", model.ws_model, 572), ("classes", model.pos_model, 59)):
        f, b = birnn.layers[0]
        layer, x = nagisa_layer((f, b)).frozen(), rng.standard_normal((T, len(f.WxT)), dtype=np.float32)
        theirs = partial(nagisa_utils.birnn_transduce, x, f.WxT, f.b, f.WhT, b.WxT, b.b, b.WhT)
        size = f"{what}: LSTM both ways, T {T} I {x.shape[1]} H {f.h_dim}"
        found.append(Work(size, theirs, lambda layer=layer, x=x: layer(x)[0], 1e-5, "compiled C"))
    return found


# --- Thinc: ragged batches in Cython and BLAS -----------------------------------------------------------------------------


def thinc():
    return [thinc_work(*sizes) for sizes in ((40, 32, 96, 128, 1, 1), (34, 12, 48, 32, 2, 2))]


def thinc_work(T, B, I, H, L, D):
    from thinc.api import NumpyOps

    ops, rng = NumpyOps(), np.random.default_rng(T)
    lengths = np.sort(rng.integers(1, T + 1, B))[::-1]
    lengths[0] = T
    sizes = np.count_nonzero(np.arange(T)[:, None] < lengths, axis=1).astype(np.int32)
    X = rng.standard_normal((sizes.sum(), I), dtype=np.float32)
    dY = rng.standard_normal((sizes.sum(), D * H), dtype=np.float32)
    layer = fastrnn.LSTM(I, H, L, bidirectional=D == 2, rng=1)
    params, zeros = layer.export_weights("thinc"), np.zeros((L, D, H), np.float32)

    def theirs():
        Y, states = ops.lstm_forward_training(params, zeros, zeros, X, sizes)
        ops.backprop_lstm(dY, sizes, params, states)
        return Y

    def ours():
        Y, _, tape = layer.forward(fastrnn.Packed(X, sizes, None, None))
        tape.backward(fastrnn.Packed(dY, sizes, None, None))
        return Y.data

    size = f"T {T} B {B} ragged I {I} H {H}" + (", 2 layers both ways" if L > 1 else "")
    note = "Cython and BLAS; its gradients are not those of its outputs"
    return Work(f"LSTM forward and backward, {size}", theirs, ours, note=note)


# --- madmom: beats, notes and onsets in music -----------------------------------------------------------------------------


@contextmanager
def madmom_names():
    """The names that madmom 0.16 asks for, and Python and NumPy have dropped since."""
    with ExitStack() as stack:
        for name in ("Callable", "Iterable", "Mapping", "MutableMapping", "MutableSequence", "Sequence"):
            stack.enter_context(mock.patch.object(collections, name, getattr(collections.abc, name), create=True))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for kind in (float, int, bool, object):
            stack.enter_context(mock.patch.object(np, kind.__name__, kind, create=True))
        yield


def madmom_network(name):
    """A trained network out of madmom's wheel."""
    from madmom.ml import nn

    return nn.NeuralNetwork.load(str(Path(nn.__file__).parents[2] / "models" / f"{name}.pkl"))


def madmom():
    from fastrnn.compat.madmom import accelerate

    found = []
    with madmom_names():
        for what, name, I in (
            ("LSTM, 3 layers of 25 both ways", "beats/2015/beats_blstm_1", 266),
            ("RNN, 3 layers of 25 both ways", "onsets/2013/onsets_brnn_1", 266),
        ):
            network = madmom_network(name)
            fast, x = accelerate(copy.deepcopy(network)), np.random.default_rng(I).random((1000, I), dtype=np.float32)
            found.append(Work(f"{what}, 1,000 frames", partial(network, x), partial(fast, x), 2e-5))
    return found


# --- numpy-ml: cells for reading ------------------------------------------------------------------------------------------


def numpy_ml():
    with mock.patch.object(collections, "Hashable", collections.abc.Hashable, create=True):
        from numpy_ml.neural_nets.layers import LSTMCell
    from fastrnn.compat.numpy_ml import LSTM

    rng = np.random.default_rng(0)
    X, dY = rng.standard_normal((32, 64, 50)), rng.standard_normal((32, 64, 50))
    cell, layer = LSTMCell(64), LSTM(64)
    cell.forward(X[:, :, 0])
    layer.set_params({"parameters": cell.parameters})

    def theirs():
        cell.flush_gradients()
        cell.derived_variables |= {"dLdA_accumulator": None, "dLdC_accumulator": None}  # the release makes them lists
        Y = [cell.forward(X[:, :, t])[0] for t in range(50)]
        dX = [cell.backward(dY[:, :, t]) for t in reversed(range(50))]
        return np.stack([*Y, *dX[::-1]], axis=2)

    def ours():
        layer.flush_gradients()
        return np.concatenate([layer.forward(X), layer.backward(dY)], axis=2)

    return [Work("LSTMCell forward and backward, T 50 B 32 I = H 64", theirs, ours, 1e-12)]


# --- code that is no package: its equations, step by step -------------------------------------------------------------------


def cs231n():
    from fastrnn.compat import cs231n

    rng = np.random.default_rng(0)
    N, T, D, H = 25, 16, 256, 256  # of the assignment's small training run
    x, h0, Wx, Wh, b, dh = (rng.standard_normal(s) / 16 for s in ((N, T, D), (N, H), (D, 4 * H), (H, 4 * H), 4 * H, (N, T, H)))

    def theirs():
        h, c, caches, hs = h0, np.zeros_like(h0), [], []
        for t in range(T):
            h, c, cache = originals.lstm_step_forward(x[:, t], h, c, Wx, Wh, b)
            hs.append(h)
            caches.append(cache)
        dx, dprev_h, dprev_c, grads = np.zeros_like(x), np.zeros_like(h), np.zeros_like(c), list(map(np.zeros_like, (Wx, Wh, b)))
        for t in reversed(range(T)):
            dx[:, t], dprev_h, dprev_c, *step = originals.lstm_step_backward(dh[:, t] + dprev_h, dprev_c, caches[t])
            for total, one in zip(grads, step):
                total += one
        return [np.stack(hs, axis=1), dx, dprev_h, *grads]

    def ours():
        h, cache = cs231n.lstm_forward(x, h0, Wx, Wh, b)
        return [h, *cs231n.lstm_backward(dh, cache)]

    return [Work(f"lstm_forward and lstm_backward, N {N} T {T} D {D} H {H}", theirs, ours, 1e-12)]


def karpathy():
    from fastrnn.compat.karpathy import lossFun

    rng = np.random.default_rng(0)
    V, H, T = 65, 100, 25
    shapes = {"Wxh": (H, V), "Whh": (H, H), "Why": (V, H), "bh": (H, 1), "by": (V, 1)}
    model = {name: rng.standard_normal(shape) * 0.1 for name, shape in shapes.items()}
    words, hprev = rng.integers(V, size=T + 1).tolist(), np.zeros((H, 1))
    inputs, targets = words[:-1], words[1:]

    def theirs():
        xs, hs, ps, loss = np.eye(V)[:, inputs].T[:, :, None], {-1: hprev}, [], 0
        for t, target in enumerate(targets):
            hs[t] = np.tanh(model["Wxh"] @ xs[t] + model["Whh"] @ hs[t - 1] + model["bh"])
            e = np.exp(model["Why"] @ hs[t] + model["by"])
            ps.append(e / e.sum())
            loss -= np.log(ps[t][target, 0])
        d, dh_next = {name: np.zeros_like(array) for name, array in model.items()}, np.zeros((H, 1))
        for t in reversed(range(T)):
            dy = ps[t].copy()
            dy[targets[t]] -= 1
            dh = (model["Why"].T @ dy + dh_next) * (1 - hs[t] ** 2)
            for name, step in (("Why", dy @ hs[t].T), ("by", dy), ("Wxh", dh @ xs[t].T), ("Whh", dh @ hs[t - 1].T), ("bh", dh)):
                d[name] += step
            dh_next = model["Whh"].T @ dh
        return [loss, *(np.clip(d[name], -5, 5) for name in shapes), hs[T - 1]]

    return [Work(f"lossFun, T {T} V {V} H {H}", theirs, lambda: list(lossFun(inputs, targets, hprev, model)), 1e-12)]


def coursera():
    from fastrnn.compat import coursera

    rng = np.random.default_rng(0)
    n_x, n_a, n_y, m, T = 78, 64, 78, 60, 30  # of the course's exercise with jazz
    p = {f"W{gate}": rng.standard_normal((n_a, n_a + n_x)) / 12 for gate in "fico"}
    p |= {f"b{gate}": np.zeros((n_a, 1)) for gate in "fico"}
    p |= {"Wy": rng.standard_normal((n_y, n_a)), "by": np.zeros((n_y, 1))}
    x, a0, da = rng.standard_normal((n_x, m, T)), np.zeros((n_a, m)), rng.standard_normal((n_a, m, T))

    def theirs():
        a, c, caches, every = a0, np.zeros_like(a0), [], []
        for t in range(T):
            a, c, _, cache = originals.lstm_cell_forward(x[:, :, t], a, c, p)
            caches.append(cache)
            every.append(a)
        da_prev, dc_prev, dx = np.zeros_like(a), np.zeros_like(c), np.zeros_like(x)
        sums = {f"d{name}": np.zeros_like(array) for name, array in p.items() if name[1] in "fico"}
        for t in reversed(range(T)):
            step = originals.lstm_cell_backward(da[:, :, t] + da_prev, dc_prev, caches[t])
            da_prev, dc_prev, dx[:, :, t] = (step[name] for name in ("da_prev", "dc_prev", "dxt"))
            for name, total in sums.items():
                total += step[name]
        return [np.stack(every, axis=2), dx, da_prev, *sums.values()]

    def ours():
        a, _, _, caches = coursera.lstm_forward(x, a0, p)
        grads = coursera.lstm_backward(da, caches)
        return [a, grads["dx"], grads["da0"], *(grads[f"d{name}"] for name in p if name[1] in "fico")]

    return [Work(f"lstm_forward and lstm_backward, T {T} m {m} n_x {n_x} n_a {n_a}", theirs, ours, 1e-12)]


# --- single steps ---------------------------------------------------------------------------------------------------------


def steps_of(make):
    """The steps that make(N, H, rng) has, by name the original and ours, for each number of rows and units."""
    rng = np.random.default_rng(0)
    for N in (1, 16):
        for H in (8, 32, 64, 128, 256, 512):
            for what, (theirs, ours) in make(N, H, rng).items():
                yield Work(f"{what}, N {N} H {H}", theirs, ours, 1e-10)


def cs231n_steps(N, H, rng):
    from fastrnn.compat import cs231n

    x, h, c, dh, dc = rng.standard_normal((5, N, H))
    found = {}
    for form, G, state, gradients in (("rnn", 1, (h,), (dh,)), ("lstm", 4, (h, c), (dh, dc))):
        weights = [rng.standard_normal(shape) / H**0.5 for shape in ((H, G * H), (H, G * H), G * H)]
        both = [(getattr(m, f"{form}_step_forward"), getattr(m, f"{form}_step_backward")) for m in (originals, cs231n)]
        found |= pairs(f"{form}_step", both, (x, *state, *weights), gradients)
    return found


def coursera_steps(N, H, rng):
    from fastrnn.compat import coursera

    x, a, c, da, dc = rng.standard_normal((5, H, N))
    shapes = {"Wax": (H, H), "Waa": (H, H), "ba": (H, 1), "Wya": (10, H), "Wy": (10, H), "by": (10, 1)}
    shapes |= {f"W{gate}": (H, 2 * H) for gate in "fico"} | {f"b{gate}": (H, 1) for gate in "fico"}
    p = {name: rng.standard_normal(shape) / H**0.5 for name, shape in shapes.items()}
    found = {}
    for form, state, gradients in (("rnn", (a,), (da,)), ("lstm", (a, c), (da, dc))):
        both = [(getattr(m, f"{form}_cell_forward"), getattr(m, f"{form}_cell_backward")) for m in (originals, coursera)]
        found |= pairs(f"{form}_cell", both, (x, *state, p), gradients)
    return found


def pairs(what, both, arguments, gradients):
    """Forward and backward of the original and of ours; the last that forward returns is for backward."""
    calls = {f"{what}_forward": [], f"{what}_backward": []}
    for forward, backward in both:
        cache = forward(*arguments)[-1]
        calls[f"{what}_forward"].append(lambda forward=forward: list(forward(*arguments)[:-1]))
        calls[f"{what}_backward"].append(lambda backward=backward, cache=cache: in_order(backward(*gradients, cache)))
    return calls


def in_order(results):
    return [results[name] for name in sorted(results)] if isinstance(results, dict) else list(results)


def numpy_ml_steps(N, H, rng):
    with mock.patch.object(collections, "Hashable", collections.abc.Hashable, create=True):
        from numpy_ml.neural_nets import layers as theirs
    from fastrnn.compat import numpy_ml as ours

    x, dy = rng.standard_normal((2, N, H))
    found = {}
    for kind in ("RNNCell", "LSTMCell"):
        original, cell = getattr(theirs, kind)(H), getattr(ours, kind)(H)
        original.forward(x)
        cell.set_params({"parameters": original.parameters})
        found[f"{kind} forward, backward"] = [partial(there_and_back, c, x, dy) for c in (original, cell)]
    return found


def there_and_back(cell, x, dy):
    cell.flush_gradients()
    cell.derived_variables |= {"dLdA_accumulator": None, "dLdC_accumulator": None}
    cell.forward(x)
    return [cell.backward(dy), *(cell.gradients[name] for name in sorted(cell.gradients))]


STEPS = {
    "cs231n": partial(steps_of, cs231n_steps),
    "coursera": partial(steps_of, coursera_steps),
    "numpy-ml": partial(steps_of, numpy_ml_steps),
}
CLIENTS = {"g2p-en": g2p_en, "g2pM": g2pm, "nagisa": nagisa, "thinc": thinc, "madmom": madmom, "numpy-ml": numpy_ml}
STUDENTS = {"cs231n": cs231n, "min-char-rnn": karpathy, "coursera": coursera}
