"""The formats: how other systems store the weights of a recurrent network. See Cell for the notation."""

from __future__ import annotations

from typing import Any

from .cell import Cell
from .containers import Container, Flat, Named, Stacked, Tree
from .format import Format, each
from .trees import CUDNN, Aliased, Rearranged
from .variants import paddle, textbook, tf1


def _numbered(gates: str) -> dict[str, str]:
    """Chainer's w0, w1, ...: those of the input gate by gate, then those of the hidden state; and b0, b1, ... likewise."""
    every = [(kind, gate) for kind in "xh" for gate in gates]
    weights = {f"w{k}": f"un {kind}.{gate}" for k, (kind, gate) in enumerate(every)}
    return weights | {f"b{k}": f"u b{kind}.{gate}" for k, (kind, gate) in enumerate(every)}


_TORCH = {"weight_ih": "(gu)n x", "weight_hh": "(gu)n h", "bias_ih?": "(gu) bx", "bias_hh?": "(gu) bh"}
_ONNX = {"W": "(gu)n x", "R": "(gu)n h", "B?": "(ngu) bx,bh"}
_KERAS = {"kernel": "n(gu) x", "recurrent_kernel": "n(gu) h"}
_ONE_BIAS = {"Wx": "n(gu) x", "Wh": "n(gu) h", "b": "(gu) b"}
_ONEDNN = {"weights_layer": "ngu x", "weights_iter": "ngu h"}
_MADMOM = {"{}/weights": "nu x", "{}/bias": "u b", "{}/recurrent_weights": "nu h"}
_LASAGNE = {"W_in_to_{}": "nu x", "W_hid_to_{}": "nu h", "b_{}?": "u b"}
_LASAGNE_LSTM = {"i": "ingate", "f": "forgetgate", "g": "cell", "o": "outgate"}
_D2L = {"W_x{}": "nu x", "W_h{}": "nu h", "b_{}": "u b"}
_TFLITE = {"i": "input", "f": "forget", "g": "cell", "o": "output"}
_TFLITE_NAMES = {  # 1, 2, ...: the places of the operator's inputs
    **{f"{k}": f"input_to_{gate}_weights" for k, gate in enumerate(_TFLITE.values(), 1)},
    **{f"{k}": f"recurrent_to_{gate}_weights" for k, gate in enumerate(_TFLITE.values(), 5)},
    **{f"{k}": f"cell_to_{gate}_weights" for k, gate in enumerate(("input", "forget", "output"), 9)},
    **{f"{k}": f"{gate}_gate_bias" for k, gate in enumerate(_TFLITE.values(), 12)},
    "16": "projection_weights",
    "cell_bias": "cell_gate_bias",
}
_INVERTED = {"z": -1.0}  # h = (1 - u) h + u n, and u = 1 - z = logistic(-a)


def _format(name: str, container: Container, also: tuple[str, ...] = (), **cells: Cell) -> tuple[str, Format]:
    return name, Format(name, container, cells, also)


FORMATS: dict[str, Format] = dict(
    [
        # torch.nn.RNN, GRU, LSTM: the state_dict, of arrays or of tensors.
        _format(
            "pytorch",
            Named("{name}_l{layer}{reverse}"),
            rnn=Cell("a", _TORCH),
            gru_after=Cell("rzn", _TORCH),
            lstm=Cell("ifgo", {**_TORCH, "weight_hr?": "un p"}),
        ),
        # keras.layers.SimpleRNN, GRU, LSTM, Bidirectional: layer.get_weights().
        _format(
            "keras",
            Tree(positional=True, joined=True),
            ("cudnn-keras",),
            rnn=Cell("a", {**_KERAS, "bias?": "(gu) b"}),
            gru_after=Cell("zrn", {**_KERAS, "bias?": "n(gu) bx,bh"}),
            gru_before=Cell("zrn", {**_KERAS, "bias?": "(gu) b"}),
            lstm=Cell("ifgo", {**_KERAS, "bias?": "(gu) b"}),
        ),
        # keras.layers.CuDNNGRU, CuDNNLSTM of Keras 2, Bidirectional: layer.get_weights(), or the arrays of a file.
        _format(
            "cudnn-keras",
            Rearranged(CUDNN, positional=True, joined=True),
            gru_after=Cell("zrn", {**_KERAS, "bias": "(ngu) bx,bh"}),
            lstm=Cell("ifgo", {**_KERAS, "bias": "(ngu) bx,bh"}),
        ),
        # The operators RNN, GRU (linear_before_reset or not), LSTM: inputs W, R, B, P by name.
        _format(
            "onnx",
            Stacked("d"),
            rnn=Cell("a", _ONNX),
            gru_after=Cell("zrn", _ONNX),
            gru_before=Cell("zrn", _ONNX),
            lstm=Cell("iofg", {**_ONNX, "P?": "(gu) c.iof"}),
        ),
        # flax.linen.SimpleCell, GRUCell, LSTMCell, OptimizedLSTMCell: the cell's params.
        _format(
            "flax-linen",
            Tree(),
            rnn=Cell("a", {"i/kernel": "nu x", "i/bias": "u b", "h/kernel": "nu h"}),
            gru_after=Cell(
                "rzn",
                {
                    **each({g: g for g in "rzn"}, {"i{}/kernel": "nu x", "i{}/bias": "u b", "h{}/kernel": "nu h"}),
                    "hn/bias": "u bh.n",
                },
            ),
            lstm=Cell("ifgo", each({g: g for g in "ifgo"}, {"i{}/kernel": "nu x", "h{}/kernel": "nu h", "h{}/bias": "u b"})),
        ),
        # flax.nnx.SimpleCell, GRUCell, OptimizedLSTMCell: nnx.to_pure_dict(nnx.state(cell)).
        _format(
            "flax-nnx",
            Tree(),
            rnn=Cell("a", {"dense_i/kernel": "nu x", "dense_i/bias": "u b", "dense_h/kernel": "nu h"}),
            gru_after=Cell("rzn", {"dense_i/kernel": "n(gu) x", "dense_i/bias": "(gu) b", "dense_h/kernel": "n(gu) h"}),
            lstm=Cell("ifgo", {"dense_i/kernel": "n(gu) x", "dense_h/kernel": "n(gu) h", "dense_h/bias": "(gu) b"}),
        ),
        # jax.experimental.rnn.lstm: the flat vector of weights, as cuDNN's.
        _format(
            "jax",
            Flat(("weight_ih", "weight_hh"), ("bias_ih", "bias_hh")),
            lstm=Cell("ifgo", {name.removesuffix("?"): text for name, text in _TORCH.items()}),
        ),
        # oneDNN's vanilla RNN, GRU, LBR GRU, LSTM: ldigo, ldgo; weights_projection ldio.
        _format(
            "onednn",
            Stacked("ld"),
            rnn=Cell("a", {**_ONEDNN, "bias?": "gu b"}),
            gru_after=Cell("zrn", {**_ONEDNN, "bias?": "gu b+bh.n"}),
            gru_before=Cell("zrn", {**_ONEDNN, "bias?": "gu b"}),
            lstm=Cell("ifgo", {**_ONEDNN, "bias?": "gu b", "weights_peephole?": "gu c.ifo", "weights_projection?": "nu p"}),
        ),
        # haste_pytorch.GRU, LSTM and haste_tf's: their parameters by name.
        _format(
            "haste",
            Tree(),
            gru_after=Cell("zrn", {**_KERAS, "bias": "(gu) bx", "recurrent_bias": "(gu) bh"}),
            lstm=Cell("igfo", {**_KERAS, "bias": "(gu) b"}),
        ),
        # mlx.nn.RNN, GRU, LSTM: layer.parameters().
        _format(
            "mlx",
            Tree(),
            rnn=Cell("a", {"Wxh": "un x", "Whh": "un h", "bias?": "u b"}),
            gru_after=Cell("rzn", {"Wx": "(gu)n x", "Wh": "(gu)n h", "b?": "(gu) b", "bhn?": "u bh.n"}),
            lstm=Cell("ifgo", {"Wx": "(gu)n x", "Wh": "(gu)n h", "bias?": "(gu) b"}),
        ),
        # chainer.links.NStepRNNTanh, NStepGRU, NStepLSTM and their NStepBi forms: as serializers.save_npz stores them. The gates of
        # the LSTM are those that it computes (7.8); its documentation has the last two the other way round.
        _format(
            "chainer",
            Named("{unit}/{name}"),
            rnn=Cell("a", _numbered("a")),
            gru_after=Cell("rzn", _numbered("rzn")),
            lstm=Cell("ifgo", _numbered("ifgo")),
        ),
        # chainer.links.LSTM, StatelessLSTM: the gates of a unit stand side by side.
        _format(
            "chainer-lstm",
            Tree(),
            lstm=Cell("gifo", {"upward/W": "(ug)n x", "upward/b": "(ug) b", "lateral/W": "(ug)n h"}),
        ),
        # dynet.SimpleRNNBuilder, GRUBuilder, VanillaLSTMBuilder (forget_bias=1): builder.get_parameters() as arrays.
        _format(
            "dynet",
            Tree(positional=True),
            rnn=Cell("a", {"x2h": "un x", "h2h": "un h", "hb": "u b"}),
            gru_before=Cell(
                "zrn",
                each({"z": "z", "r": "r", "n": "h"}, {"x2{}": "un x", "h2{}": "un h", "b{}": "u b"}),
                scale=_INVERTED,
            ),
            lstm=Cell("ifog", {"x2i": "(gu)n x", "h2i": "(gu)n h", "bi": "(gu) b"}, offset={"f": 1.0}),
        ),
        # lasagne.layers.RecurrentLayer, GRULayer, LSTMLayer: {p.name: p.get_value() for p in layer.get_params()}.
        _format(
            "lasagne",
            Tree(),
            rnn=Cell("a", {"input_to_hidden.W": "nu x", "input_to_hidden.b?": "u b", "hidden_to_hidden.W": "nu h"}),
            gru_after=Cell("rzn", each({"z": "updategate", "r": "resetgate", "n": "hidden_update"}, _LASAGNE), scale=_INVERTED),
            lstm=Cell(
                "ifgo",
                {
                    **each(_LASAGNE_LSTM, _LASAGNE),
                    **each({g: _LASAGNE_LSTM[g] for g in "ifo"}, {"W_cell_to_{}?": "u c"}),
                },
            ),
        ),
        # TensorFlow 1's cells: variables by name.
        ("tf1", tf1()),
        # TensorFlow Lite's UNIDIRECTIONAL_SEQUENCE_LSTM: its tensors by the names of the operator's inputs, or
        # by their places.
        _format(
            "tflite",
            Aliased(_TFLITE_NAMES),
            lstm=Cell(
                "ifgo",
                {
                    **each(_TFLITE, {"input_to_{}_weights": "un x", "recurrent_to_{}_weights": "un h"}),
                    **each({g: _TFLITE[g] for g in "ifo"}, {"cell_to_{}_weights?": "u c"}),
                    **each(_TFLITE, {"{}_gate_bias": "u b"}),
                    "projection_weights?": "un p",
                },
            ),
        ),
        # PaddlePaddle's dynamic_gru with the fc before it.
        ("paddle", paddle()),
        # madmom.ml.nn.layers.RecurrentLayer, GRULayer, LSTMLayer: the layer itself, or the same as a dictionary.
        _format(
            "madmom",
            Tree(),
            rnn=Cell("a", {"weights": "nu x", "bias": "u b", "recurrent_weights": "nu h"}),
            gru_after=Cell("rzn", each({"r": "reset_gate", "z": "update_gate", "n": "cell"}, _MADMOM), scale=_INVERTED),
            lstm=Cell(
                "ifgo",
                {
                    **each({"i": "input_gate", "f": "forget_gate", "g": "cell", "o": "output_gate"}, _MADMOM),
                    **each({"i": "input_gate", "f": "forget_gate", "o": "output_gate"}, {"{}/peephole_weights?": "u c"}),
                },
            ),
        ),
        # Stanford CS231n, assignment 3: rnn_layers.py.
        _format("cs231n", Tree(), rnn=Cell("a", _ONE_BIAS), lstm=Cell("ifog", _ONE_BIAS)),
        # Karpathy's min-char-rnn.py, and his batched LSTM (one array, WLSTM).
        _format(
            "karpathy",
            Tree(),
            rnn=Cell("a", {"Wxh": "un x", "Whh": "un h", "bh": "un b"}),
            lstm=Cell("ifog", {"": "n(gu) b,x,h"}),
        ),
        # Coursera's Deep Learning Specialization, course 5, week 1.
        _format(
            "coursera",
            Tree(),
            rnn=Cell("a", {"Wax": "un x", "Waa": "un h", "ba": "un b"}),
            lstm=Cell("figo", each({"f": "f", "i": "i", "g": "c", "o": "o"}, {"W{}": "un h,x", "b{}": "un b"})),
        ),
        # One matrix per gate on [h, x], in either orientation, with the names of many texts and scripts.
        ("textbook", textbook()),
        # numpy_ml.neural_nets.layers.RNNCell, LSTMCell: cell.parameters.
        _format(
            "numpy-ml",
            Tree(),
            rnn=Cell("a", {"Wax": "nu x", "Waa": "nu h", "bx": "un bx", "ba": "un bh"}),
            lstm=Cell("figo", each({"f": "f", "i": "u", "g": "c", "o": "o"}, {"W{}": "nu h,x", "b{}": "nu b"})),
        ),
        # HIPS autograd, examples/rnn.py and lstm.py, whose sigmoid(y) is logistic(2 y).
        _format(
            "autograd",
            Tree(),
            rnn=Cell("a", {"change": "nu x,h,b"}),
            lstm=Cell(
                "gfio",
                each({"g": "change", "f": "forget", "i": "ingate", "o": "outgate"}, {"{}": "nu x,h,b"}),
                scale=dict.fromkeys("ifo", 2.0),
            ),
        ),
        # Dive into Deep Learning's RNNScratch, GRUScratch, LSTMScratch: the module itself, or the same as a dictionary.
        _format(
            "d2l",
            Tree(),
            rnn=Cell("a", each({"a": "h"}, _D2L)),
            gru_before=Cell("zrn", each({"z": "z", "r": "r", "n": "h"}, _D2L)),
            lstm=Cell("ifog", each({"i": "i", "f": "f", "o": "o", "g": "c"}, _D2L)),
        ),
        # thinc.layers.LSTM: its flat vector of parameters.
        _format(
            "thinc",
            Flat(("Wx", "bx", "Wh", "bh")),
            lstm=Cell("fiog", {"Wx": "(gu)n x", "bx": "(gu) bx", "Wh": "(gu)n h", "bh": "(gu) bh"}),
        ),
    ]
)


def lookup(format: Any) -> Format:
    """A format by its name, or the caller's own."""
    if isinstance(format, Format):
        return format
    if not isinstance(format, str) or format not in FORMATS:
        raise ValueError(f"format: expected a fastrnn.formats.Format or one of {', '.join(FORMATS)}, got {format!r}")
    return FORMATS[format]


# The systems whose layers have their activations as an option, so that weights say all the same; by family.
_EVERY = ("rnn", "gru", "lstm")
_ACTIVATIONS = {
    **dict.fromkeys(("keras", "onnx", "flax-linen", "flax-nnx", "lasagne", "madmom"), _EVERY),
    "mlx": ("rnn",),
    "numpy-ml": ("rnn", "lstm"),
}


def has_activations(format: str | Format, family: str) -> bool:
    """Can a layer of this system have other activations than the usual ones? Of a format of the caller's own: yes."""
    found = lookup(format)
    return FORMATS.get(found.name) is not found or family in _ACTIVATIONS.get(found.name, ())
