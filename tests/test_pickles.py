"""Pickles that another NumPy reads: nothing in them is named after NumPy's private modules, which differ between versions."""

import copy
import enum
import inspect
import pickle
import pickletools

import numpy as np
import pytest

import fastrnn.onnx
from fastrnn import diagnostics, train
from fastrnn._core import InUse
from fastrnn.compat import madmom

X = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


def averaged():
    layer = fastrnn.GRU(3, 4, rng=0)
    average = train.Average([layer.flat], decay=0.9)
    for _ in range(2):
        layer.flat += 1
        average.update()
    return layer, average


def gradients():
    y, _, tape = fastrnn.LSTM(3, 4, rng=0).forward(X)
    return tape.backward(y)


def networks():
    """One of madmom's layers of each kind."""
    one = np.ones(4, np.float32)
    gate = madmom.Gate(np.ones((3, 4)), one, np.eye(4), peephole_weights=one)
    plain, cell = madmom.Gate(np.ones((3, 4)), one, np.eye(4)), madmom.Cell(np.ones((3, 4)), one, np.eye(4))
    gru = madmom.GRUCell(np.ones((3, 4)), one, np.eye(4))
    recurrent = madmom.RecurrentLayer(np.ones((3, 4)), one, np.eye(4))
    layers = [madmom.LSTMLayer(gate, gate, cell, gate), madmom.GRULayer(plain, plain, gru), recurrent]
    return [*layers, madmom.BidirectionalLayer(recurrent, recurrent)]


def beam():
    return train.beam_search(fastrnn.GRU(5, 4, rng=0), train.Linear(4, 5, rng=0), 0, 1, 3)


MAKERS = {
    "RNN": lambda: fastrnn.RNN(3, 4, 2, rng=0),
    "IRNN": lambda: fastrnn.IRNN(3, 4, rng=0),
    "GRU": lambda: fastrnn.GRU(3, 4, bidirectional=True, dtype=np.float64, rng=0),
    "LSTM": lambda: fastrnn.LSTM(3, 4, 2, dropout=0.5, peephole=True, rng=0),
    "RNNCell": lambda: fastrnn.RNNCell(3, 4, rng=0),
    "GRUCell": lambda: fastrnn.GRUCell(3, 4, rng=0),
    "LSTMCell": lambda: fastrnn.LSTMCell(3, 4, rng=0),
    "FrozenLayer": lambda: fastrnn.LSTM(3, 4, 2, peephole=True, rng=0).frozen(),
    "FrozenCell": lambda: fastrnn.GRUCell(3, 4, rng=0).frozen(),
    "params": lambda: fastrnn.RNN(3, 4, rng=0).params,
    "Packed": lambda: fastrnn.pack(X, [3, 5]),
    "Gradients": gradients,
    "Linear": lambda: train.Linear(3, 4, rng=0),
    "Embedding": lambda: train.Embedding(3, 4, padding_index=1, rng=0),
    "PreactivationRNN": lambda: train.PreactivationRNN(3, 4, 2, rng=0),
    "OutputRNN": lambda: train.OutputRNN(3, 4, 2, rng=0),
    "Average": averaged,
    "Beam": beam,
    "JacobianNorms": lambda: diagnostics.jacobian_norms(fastrnn.RNN(3, 4, rng=0), X, 3),
    "spectra": lambda: diagnostics.spectra(fastrnn.LSTM(3, 4, rng=0)),
    "Finding": lambda: diagnostics.watch(fastrnn.GRU(3, 4, rng=0), X * np.inf),
    "gradcheck": lambda: fastrnn.gradcheck(fastrnn.GRU(3, 4, dtype=np.float64, rng=0), X.astype(np.float64)),
    "madmom": networks,
    "Node": lambda: fastrnn.onnx.Node("node", "RNN", {"layout": 1}, ("X", "W"), ("Y",), {"W": np.ones((1, 4, 3))}),
}
GENERATORS = [name for name in ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64") if hasattr(np.random, name)]


def modules_in(pickled):
    """Whatever a pickle may import from."""
    strings, found = [], set()
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL":
            found.add(argument.split(" ")[0])
        elif isinstance(argument, str):
            strings.append(argument)
    return found | {text for text in strings if text.partition(".")[0] in ("numpy", "fastrnn")}


def shown(value):
    """What there is in a value, down to bytes, in a form that can be compared."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes(), value.flags.writeable
    if isinstance(value, np.generic):
        return type(value), value.tobytes()
    if isinstance(value, InUse):
        return value.__reduce__()
    if isinstance(value, np.random.Generator):
        return shown(value.bit_generator.state)
    if isinstance(value, fastrnn._api.parameters.Parameters):
        return shown(dict(value)), shown(value.flat)
    if isinstance(value, dict):
        return {key: shown(member) for key, member in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value), [shown(member) for member in value]
    if hasattr(value, "__dict__") and not isinstance(value, enum.Enum) and not inspect.isroutine(value):
        hidden = getattr(value, "_not_pickled", ())
        return type(value), {key: shown(member) for key, member in vars(value).items() if key not in hidden}
    return type(value), repr(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", MAKERS)
def test_pickles_name_nothing_private_of_numpy(name, protocol):
    value = MAKERS[name]()
    pickled = pickle.dumps(value, protocol)
    assert {module for module in modules_in(pickled) if module.startswith("numpy")} <= {"numpy"}
    assert shown(pickle.loads(pickled)) == shown(value)
    for copied in (copy.copy(value), copy.deepcopy(value)):
        assert shown(copied) == shown(value)


def test_every_public_class_is_in_the_table_or_refuses():
    """A new one is not forgotten here."""
    modules = (fastrnn, train, diagnostics, madmom, fastrnn.onnx)
    public = {name for m in modules for name in m.__all__ if inspect.isclass(getattr(m, name))}
    refusing = {"Stream", "UnrolledCell", "Optimizer", "SGD", "RMSprop", "Adagrad", "Adam", "AdamW"}
    of_process = {"DataParallel", "GradcheckError"}  # a communicator's; an exception
    inside = {"Spectrum", "GradcheckEntry", "GradcheckResult"} | {*madmom.__all__}  # of others in the table
    assert public <= {*MAKERS, *refusing, *of_process, *inside}


def test_optimisers_refuse():
    with pytest.raises(TypeError, match="save state_dict"):
        pickle.dumps(train.Adam(np.zeros(3)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", GENERATORS)
def test_generators_go_on_where_they_stood(name, protocol):
    rng = np.random.Generator(getattr(np.random, name)(3))
    layer = fastrnn.GRU(3, 4, rng=rng)
    rng.bit_generator.seed_seq.spawn(2) if hasattr(rng.bit_generator, "seed_seq") else None
    made = pickle.loads(pickle.dumps(layer, protocol))
    assert type(made.rng.bit_generator) is type(rng.bit_generator)
    assert made.rng.random(9, np.float32).tobytes() == rng.random(9, np.float32).tobytes()
    if hasattr(rng, "spawn"):
        assert made.rng.spawn(1)[0].random() == rng.spawn(1)[0].random()


def test_what_two_share_they_still_share():
    rng = np.random.default_rng(0)
    pair = fastrnn.GRU(3, 4, rng=rng), fastrnn.LSTM(4, 4, rng=rng)
    for first, second in (pickle.loads(pickle.dumps(pair)), copy.deepcopy(pair)):
        assert first.rng is second.rng and first.rng is not rng
    for layer, average in (pickle.loads(pickle.dumps(averaged())), copy.deepcopy(averaged())):
        assert average.params[0] is layer.flat
        with average.swapped():
            assert layer.flat.tobytes() != average.average[0].tobytes()


def test_arrays_travel_outside_of_the_pickle_where_that_is_asked_for():
    layer, buffers = fastrnn.GRU(30, 40, rng=0), []
    pickled = pickle.dumps(layer, 5, buffer_callback=buffers.append)
    assert len(pickled) < 5000 and sum(buffer.raw().nbytes for buffer in buffers) == layer.flat.nbytes
    made = pickle.loads(pickled, buffers=buffers)
    assert made.flat.tobytes() == layer.flat.tobytes() and not np.shares_memory(made.flat, layer.flat)


def test_a_generator_of_the_callers_own_kind_is_left_to_itself():
    class Own(np.random.PCG64):
        pass

    rng = np.random.Generator(Own(3))
    assert fastrnn.GRU(3, 4, rng=rng).__getstate__()["rng"] is rng
