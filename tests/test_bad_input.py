"""Every argument of every public function, in every wrapping and every wrong form.

The rule: the right answer, bit for bit that of a plain array with the same numbers, or exactly one error that begins with the
argument's name and says what was expected and what came. No input is ever modified, and the next call works.
"""

import array
import functools
import inspect
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import fastrnn
from cases import CELLS, Case, gradients, outputs, problem

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
FAILS = (TypeError, ValueError, MemoryError)
HUGE = 2**50  # more elements than any address space of today holds

# --- operations: a function or a layer, forward and backward, as one call of named arguments -----------------------------


class Operation:
    """`arguments` are the right ones; `run(arguments)` gives all results by name. dstate[0] is a member of dstate."""

    arguments: dict[str, Any]
    required: tuple[str, ...]

    def run(self, arguments: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    @functools.cached_property
    def expected(self) -> dict[str, Any]:
        return self.run(self.arguments)


def members(name: str, value: Any) -> dict[str, Any]:
    return {f"{name}[{i}]": v for i, v in enumerate(value)} if isinstance(value, tuple) else {name: value}


def joined(name: str, arguments: dict[str, Any]) -> Any:
    """The argument `name`, or the pair of its members."""
    if name in arguments:
        return arguments[name]
    pair = (arguments[f"{name}[0]"], arguments[f"{name}[1]"])
    return None if pair[0] is pair[1] is None else pair


OF_ROWS = ("lengths", "reset", "mask")


class Function(Operation):
    """fastrnn.rnn, gru or lstm, in inference and training, and the tape's backward."""

    required = ("x", "w_ih", "w_hh")

    def __init__(self, cell: str, **options: Any) -> None:
        ragged = {"lengths": True, "reset": True, "mask": True, "hold": True}
        case = Case(cell, **(options or {"T": 5, "B": 3, "I": 4, "H": 7}), **ragged, through="yhcs")
        p = problem(case, np.float32)
        options = {k: v for k, v in p.keywords.items() if k not in OF_ROWS}
        name, fixed = CELLS[cell]
        self.call = functools.partial(getattr(fastrnn, name), **fixed, **options)
        self.arguments = {**p.arrays, **{k: p.keywords[k] for k in OF_ROWS}}
        self.arguments |= {"dy": p.dy, **members("dstate", p.dstate), **({} if p.dc is None else {"dc": p.dc})}

    def run(self, arguments: dict[str, Any]) -> dict[str, Any]:
        of_call = {k: v for k, v in arguments.items() if not k.startswith("d")}
        y, state, _ = self.call(**of_call)
        inference = {f"{k} of inference": v for k, v in outputs(y, state).items()}
        y, state, tape = self.call(**of_call, record=True)
        grads = tape.backward(arguments["dy"], joined("dstate", arguments), arguments.get("dc"))
        return {**inference, **outputs(y, state), **gradients(grads)}


class Layer(Operation):
    """A layer's inference, forward, and the tape's backward."""

    required = ("x",)

    def __init__(self, make: Any, **options: Any) -> None:
        unbatched = options.pop("unbatched", False)
        self.layer = make(4, 7, rng=0, **options)
        rng = np.random.default_rng(1)
        T, B = 5, 3
        sequence = (T,) if unbatched else (B, T) if self.layer.batch_first else (T, B)
        D = 2 if self.layer.bidirectional else 1
        one_state = (self.layer.num_layers * D, *(() if unbatched else (B,)), 7)

        def normal(*shape: int) -> Any:
            return rng.standard_normal(shape).astype(np.float32)

        def state() -> Any:
            return (normal(*one_state), normal(*one_state)) if make is fastrnn.LSTM else normal(*one_state)

        self.arguments = {"x": normal(*sequence, 4), **members("state", state())}
        self.arguments["lengths"] = np.array([4]) if unbatched else np.array([3, 5, 0])
        self.arguments["reset"] = rng.random(sequence) < 0.3
        self.arguments["mask"] = rng.random(sequence) < 0.7
        self.arguments |= {"dy": normal(*sequence, D * 7), **members("dstate", state())}

    def run(self, arguments: dict[str, Any]) -> dict[str, Any]:
        given = [joined(name, arguments) for name in ("x", "state", *OF_ROWS)]
        y, state = self.layer(*given, masked="hold")
        inference = {f"{k} of inference": v for k, v in outputs(y, state).items()}
        y, state, tape = self.layer.forward(*given, masked="hold")
        grads = tape.backward(arguments["dy"], joined("dstate", arguments))
        return {**inference, **outputs(y, state), "dx": grads.x, "dflat": grads.flat, **members("dstate", grads.state)}


class Load(Operation):
    """load_state_dict."""

    def __init__(self) -> None:
        self.arguments = fastrnn.LSTM(4, 7, peephole=True, rng=0).state_dict()
        self.required = tuple(self.arguments)

    def run(self, arguments: dict[str, Any]) -> dict[str, Any]:
        layer = fastrnn.LSTM(4, 7, peephole=True, rng=1)
        layer.load_state_dict(arguments)
        return layer.state_dict()


OPERATIONS: dict[str, Operation] = {  # an IRNN is an RNN in all but its constructor
    "rnn": Function("tanh"),
    "gru": Function("gru-after"),
    "lstm": Function("lstm-peephole"),
    "lstm-batch-first": Function("lstm-peephole", T=5, B=3, I=4, H=7, reverse=True, batch_first=True),
    "lstm-projected": Function("lstm-projected"),
    "lstm-unbatched": Function("lstm-peephole", T=5, B=1, I=4, H=7, unbatched=True),
    "RNN": Layer(fastrnn.RNN),
    "GRU": Layer(fastrnn.GRU),
    "LSTM": Layer(fastrnn.LSTM),
    "LSTM-batch-first": Layer(fastrnn.LSTM, batch_first=True, peephole=True),
    "LSTM-unbatched": Layer(fastrnn.LSTM, unbatched=True),
    "GRU-stack": Layer(fastrnn.GRU, num_layers=2, bidirectional=True),
    "LSTM-stack": Layer(fastrnn.LSTM, num_layers=3, bidirectional=True, batch_first=True),
    "load_state_dict": Load(),
}


# One of each kind that has checks of its own: the functions share theirs, and so do the layers.
THOROUGH = ("lstm", "LSTM", "load_state_dict")


def thorough(operation: str, name: str) -> bool:
    """Is this the operation whose argument meets everything? w_hr is one of the projected LSTM alone."""
    return operation in THOROUGH or (operation, name) == ("lstm-projected", "w_hr")


ARGUMENTS = [(o, name) for o, op in OPERATIONS.items() for name in op.arguments]


def assert_same(results: dict[str, Any], expected: dict[str, Any]) -> None:
    """All of them, bit for bit."""
    assert results.keys() == expected.keys()
    for name, value in results.items():
        assert value.dtype == expected[name].dtype and value.shape == expected[name].shape, name
        assert value.tobytes() == expected[name].tobytes(), name


def memory_of(arguments: dict[str, Any]) -> list[bytes]:
    """The bytes of every array, and of the whole array that it is a view of."""
    arrays = [v for v in arguments.values() if isinstance(v, np.ndarray)]
    for a in arrays:
        if isinstance(a.base, np.ndarray):
            arrays.append(a.base)
    return [a.tobytes() for a in arrays if a.size < 10**6 and a.dtype.char != "T"]


# --- the right numbers in every wrapping ------------------------------------------------------------------------------------


class Subclass(np.ndarray):
    """An array on whose own methods nothing may rely."""

    __array_ufunc__ = None

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("a subclass's own indexing was used")


def poison(shape: tuple[int, ...], dtype: Any) -> Any:
    """What is to stand around the numbers: NaN, or all bits set."""
    return np.full(shape, np.nan, dtype) if np.dtype(dtype).kind == "f" else np.ones(shape, dtype)


def inside(a: Any, places: tuple[slice, ...]) -> Any:
    """The numbers of `a` at these places of a larger array."""
    large = poison(tuple(2 * n + 3 for n in a.shape), a.dtype)
    view = large[tuple(slice(p.start, p.start + (p.step or 1) * n, p.step) for p, n in zip(places, a.shape))]
    view[...] = a
    return view


def misaligned(a: Any) -> Any:
    view = np.frombuffer(bytearray(a.nbytes + 1), np.uint8, offset=1).view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def record_field(a: Any) -> Any:
    """A field of records of odd size: strides that are no multiple of the item's size."""
    records = np.zeros(a.shape, [("before", "u1"), ("value", a.dtype), ("behind", "u1")])
    records["value"] = a
    return records["value"]


def record_rows(a: Any) -> Any:
    """Whole rows as fields of records of odd size: only the strides between rows are no multiple of the item's size."""
    records = np.zeros(a.shape[:-1], [("before", "u1"), ("value", a.dtype, a.shape[-1:])])
    records["value"] = a
    return records["value"]


def read_only(a: Any) -> Any:
    a = a.copy()
    a.flags.writeable = False
    return a


def backwards(a: Any, axes: Any = None) -> Any:
    return np.flip(np.flip(a, axes).copy(), axes)


WRAPPINGS = {
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder("S")),
    "other byte order, Fortran": lambda a: np.asfortranarray(a).astype(a.dtype.newbyteorder("S")),
    "misaligned": misaligned,
    "misaligned, backwards": lambda a: backwards(misaligned(a))[...],
    "read-only": read_only,
    "part of a larger array": lambda a: inside(a, (slice(1, None),) * a.ndim),
    "every other": lambda a: inside(a, (slice(1, None, 2),) * a.ndim),
    "every other along the first axis": lambda a: inside(a, (slice(1, None, 2), *[slice(0, None)] * (a.ndim - 1))),
    "backwards": backwards,
    "backwards along the first axis": lambda a: backwards(a, 0),
    "backwards along the last axis": lambda a: backwards(a, -1),
    "Fortran": np.asfortranarray,
    "record field": record_field,
    "rows of records": record_rows,
    "subclass": lambda a: a.copy().view(Subclass),
    "subclass, every other": lambda a: inside(a, (slice(1, None, 2),) * a.ndim).view(Subclass),
    "matrix": lambda a: np.matrix(a) if a.ndim == 2 else a.view(np.recarray),
}
ARRAY_LIKE = {
    "list": lambda a: a.tolist(),
    "tuple": lambda a: tuple(a.tolist()),
    "memoryview": memoryview,
}
INTEGERS = {
    **{dtype: (lambda a, dtype=dtype: a.astype(dtype)) for dtype in ("u1", "i1", "i4", "u8", ">i2", "i8")},
    "array.array": lambda a: array.array("q", a.tolist()),
    "NumPy's scalars": lambda a: list(a),
}


def wrappings(name: str) -> dict[str, Any]:
    more = {"lengths": {**ARRAY_LIKE, **INTEGERS}, "reset": ARRAY_LIKE, "mask": ARRAY_LIKE}
    return {**WRAPPINGS, **more.get(name, {})}


@pytest.mark.parametrize(
    "operation, name, wrapping",
    [(o, name, w) for o, name in ARGUMENTS if thorough(o, name) for w in wrappings(name)],
)
def test_the_right_numbers_in_any_wrapping(operation, name, wrapping):
    op = OPERATIONS[operation]
    wrapped = wrappings(name)[wrapping](op.arguments[name])
    arguments = {**op.arguments, name: wrapped}
    before = memory_of(arguments)
    assert_same(op.run(arguments), op.expected)
    assert memory_of(arguments) == before


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_all_arguments_in_one_wrapping(operation, wrapping):
    op = OPERATIONS[operation]
    arguments = {name: WRAPPINGS[wrapping](a) for name, a in op.arguments.items()}
    before = memory_of(arguments)
    assert_same(op.run(arguments), op.expected)
    assert memory_of(arguments) == before


BROADCAST = ("all", "first", "last")


@pytest.mark.parametrize(
    "operation, name, axes", [(o, name, axes) for o, name in ARGUMENTS for axes in BROADCAST[: None if thorough(o, name) else 1]]
)
def test_broadcast_inputs(operation, name, axes):
    """Strides of 0."""
    op = OPERATIONS[operation]
    a = op.arguments[name]
    one = a[:1] if axes == "first" else a[..., :1] if axes == "last" else a.reshape(-1)[0]
    view = np.broadcast_to(one, a.shape)
    before = memory_of({name: view})
    assert_same(op.run({**op.arguments, name: view}), op.run({**op.arguments, name: view.copy()}))
    assert memory_of({name: view}) == before


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o != "load_state_dict"])
def test_none_is_zeros_and_full_length_and_no_cut(operation):
    op = OPERATIONS[operation]
    optional = [name for name in op.arguments if name not in (*op.required, "peephole", "w_hr")]
    for name in optional:
        a = op.arguments[name]
        neutral = np.full_like(a, {"lengths": 5, "mask": True}.get(name, 0))
        got, expected = op.run({**op.arguments, name: None}), op.run({**op.arguments, name: neutral})
        for result in got:
            assert np.array_equal(got[result], expected[result]), (name, result)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_results_are_no_views_of_inputs(operation):
    op = OPERATIONS[operation]
    for result, value in op.run(op.arguments).items():
        for name, a in op.arguments.items():
            assert not np.shares_memory(value, a), (result, name)


# --- wrong forms ------------------------------------------------------------------------------------------------------------


@dataclass
class Wrong:
    """A wrong value, the error it deserves, and words that the message must hold."""

    value: Any
    error: type[Exception]
    says: str = ""


FLOAT_TYPES = ("f2", "g", "F", "D", "i4", "i8", "u1", "?", "O", "U3", "S3", "M8[s]", "m8[s]", "V4", "f4,f4")


def wrong_floats(a: Any, required: bool) -> dict[str, Wrong]:
    """Instead of a float32 array: things of other types, and arrays of other dtypes and shapes."""
    things = {
        "list": a.tolist(),
        "tuple": tuple(a.tolist()),
        "empty list": [],
        "float": 1.0,
        "NumPy's scalar": np.float32(1),
        "string": "x",
        "bytes": a.tobytes(),
        "memoryview": memoryview(a),
        "array.array": array.array("f", a.reshape(-1)),
        "masked": np.ma.array(a, mask=a > 0),
        "masked, nothing hidden": np.ma.array(a),
        "dict": {"x": a},
        "object": object(),
        "dtype": np.float32,
        **({"None": None} if required else {}),
    }
    wrong = {k: Wrong(v, TypeError, type(v).__name__) for k, v in things.items()}
    for kind in FLOAT_TYPES:
        wrong[kind] = Wrong(np.zeros(a.shape, kind), TypeError, str(np.dtype(kind)))
    if hasattr(np.dtypes, "StringDType"):
        wrong["StringDType"] = Wrong(np.full(a.shape, "x", np.dtypes.StringDType()), TypeError, "StringDType")
    wrong["float64"] = Wrong(a.astype(np.float64), TypeError, "float64")
    wrong["float64, other byte order"] = Wrong(a.astype(np.dtype("f8").newbyteorder("S")), TypeError, "float64")
    return wrong | {f"shape {b.shape}": Wrong(b, ValueError, str(b.shape)) for b in wrong_shapes(a)}


def wrong_shapes(a: Any) -> list[Any]:
    shapes = [(), (0,), a.shape[1:], (1, *a.shape), (*a.shape, 1), (1, 1, *a.shape), a.shape[::-1], (a.size,)]
    for k, n in enumerate(a.shape):
        shapes += [(*a.shape[:k], m, *a.shape[k + 1 :]) for m in (0, n - 1, n + 1, 2 * n)]
    return [np.resize(a, shape) for shape in dict.fromkeys(shapes) if shape != a.shape]


def wrong_lengths(a: Any, T: int) -> dict[str, Wrong]:
    def at_the_end(value: Any, dtype: Any = None) -> Any:
        return np.array([*a[:-1].tolist(), value], dtype)

    B = len(a)
    values = {"negative": -1, "above T": T + 1, "far above T": 2**62, "far below 0": -(2**63)}
    wrong = {k: Wrong(at_the_end(v), ValueError, str(v)) for k, v in values.items()}
    wrong["uint64"] = Wrong(at_the_end(2**64 - 1, np.uint64), ValueError, str(2**64 - 1))
    wrong["int8"] = Wrong(at_the_end(-128, np.int8), ValueError, "-128")
    wrong["list, negative"] = Wrong(at_the_end(-3).tolist(), ValueError, "-3")
    for shape in ((B + 1,), (B + 2,), (B, 1), (1, B), (0,), (2, B), *([()] if B > 1 else [])):
        wrong[f"shape {shape}"] = Wrong(np.resize(a, shape), ValueError, str(shape))
    for kind in ("f4", "f8", "?", "F", "O", "U1", "M8[s]", "m8[s]"):
        wrong[kind] = Wrong(np.zeros(B, kind), TypeError, str(np.dtype(kind)))
    things = {
        "floats": [1.0] * B,
        "a fraction": [1.5] * B,
        "NaN": [float("nan")] * B,
        "booleans": [True] * B,
        "strings": ["1"] * B,
        "with None": [None] * B,
        "beyond 64 bits": [2**70] * B,
        "ragged": [[1], [1, 2], 1],
        "string": "5",
        "dict": {0: 1},
        "set": {1, 2, 3},
        "object": object(),
        "float": 1.5,
        "bool": True,
        "masked": np.ma.array(a, mask=True),
        "generator": (n for n in a),
    }
    return wrong | {k: Wrong(v, TypeError) for k, v in things.items()}


def wrong_booleans(a: Any) -> dict[str, Wrong]:
    wrong = {f"shape {b.shape}": Wrong(b, ValueError, str(b.shape)) for b in wrong_shapes(a)}
    for kind in ("i1", "u1", "i8", "f4", "F", "O", "U5"):
        wrong[kind] = Wrong(a.astype(kind), TypeError, str(np.dtype(kind)))
    things = {
        "integers": a.astype(int).tolist(),
        "ragged": [[True], [True, False]],
        "string": "no",
        "strings": a.astype(str).tolist(),
        "int": 0,
        "object": object(),
        "masked": np.ma.array(a, mask=a),
        "dict": {},
    }
    wrong |= {k: Wrong(v, TypeError) for k, v in things.items()}
    return {**wrong, "bool": Wrong(True, ValueError, "()")}


@functools.cache
def wrong_values(operation: str, name: str) -> dict[str, Wrong]:
    op = OPERATIONS[operation]
    if name == "lengths":
        return wrong_lengths(op.arguments[name], T=5)
    if name in ("reset", "mask"):
        return wrong_booleans(op.arguments[name])
    return wrong_floats(op.arguments[name], name in op.required)


# These meet every wrong thing and dtype; the other arguments go through the same checks.
MODELS = ("x", "h0", "dy", "dstate[0]", "state[0]", "lengths", "reset", "weight_hh_l0")


def wrong_forms(operation: str, name: str) -> list[str]:
    """All of them where the operation and the argument are models of others; else one thing, a dtype that no array may have, one
    that others have, and shapes: all, or too few dimensions and a number too many along each of them."""
    forms, a = wrong_values(operation, name), OPERATIONS[operation].arguments[name]
    if thorough(operation, name) and name in MODELS:
        return [*forms]
    longer = ((*a.shape[:k], n + 1, *a.shape[k + 1 :]) for k, n in enumerate(a.shape))
    shapes = [form for form in forms if form.startswith("shape")]
    if not thorough(operation, name):
        shapes = [form for form in shapes if form in {f"shape {shape}" for shape in (a.shape[1:], *longer)}]
    kinds = ("string", "None", "f4" if name == "lengths" else "u1", "float64")
    if name == "x" and "unbatched" in operation:
        kinds = (*kinds[:2], "?", "float64")  # integers of two axes are tokens: tests/test_tokens.py
    return [*(kind for kind in kinds if kind in forms), *shapes]


def names_to_blame(operation: str, name: str, label: str) -> tuple[str, ...]:
    """Where an array is right on its own and does not fit the others, the error may name one of those."""
    if name == "w_hr" and label.startswith("shape"):  # it says what P and H are
        return (name, "w_hh", "w_ih")
    if name == "x" and operation.islower():  # it says what dtype and T, B, I are
        return tuple(OPERATIONS[operation].arguments) if label.startswith("shape") else ("x", "w_hh", "w_ih")
    if name == "x":
        return tuple(OPERATIONS[operation].arguments) if label.startswith("shape") else ("x",)
    return {"w_ih": ("w_ih", "x"), "w_hh": ("w_hh", "w_ih")}.get(name, (name,))


def assert_one_error(error: BaseException, names: tuple[str, ...]) -> str:
    """No error behind the error; the message says: name: expected this, got that. Returns the name."""
    assert error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)
    found = re.match(r"([\w\[\]]+): expected .+, got .+", str(error), re.DOTALL)
    assert found, str(error)
    assert found[1] in names, str(error)
    assert len(str(error)) < 400
    return found[1]


@pytest.mark.parametrize(
    "operation, name, wrong",
    [(o, name, form) for o, name in ARGUMENTS for form in wrong_forms(o, name)],
)
def test_a_wrong_form_is_one_error(operation, name, wrong):
    op, case = OPERATIONS[operation], wrong_values(operation, name)[wrong]
    arguments = {**op.arguments, name: case.value}
    before = memory_of(arguments)
    with pytest.raises(case.error) as info:
        op.run(arguments)
    blamed = assert_one_error(info.value, names_to_blame(operation, name, wrong))
    if blamed == name:
        assert case.says in str(info.value)
    assert memory_of(arguments) == before
    assert_same(op.run(op.arguments), op.expected)


@pytest.mark.parametrize("operation, name", [("lstm", "dstate"), ("LSTM", "state"), ("LSTM", "dstate")])
@pytest.mark.parametrize("value", ["array", "one", "three", "string", "dict"])
def test_an_lstms_state_is_a_pair(operation, name, value):
    op = OPERATIONS[operation]
    h, c = op.arguments["dstate[0]"], op.arguments["dstate[1]"]
    wrong = {"array": np.stack([h, c]), "one": (h,), "three": (h, c, c), "string": "hc", "dict": {"h": h, "c": c}}
    arguments = {k: v for k, v in op.arguments.items() if not k.startswith(f"{name}[")}
    with pytest.raises(TypeError) as info:
        op.run({**arguments, name: wrong[value]})
    assert_one_error(info.value, (name,))
    assert "pair" in str(info.value)


@pytest.mark.parametrize("operation", ["rnn", "gru", "lstm", "RNN", "GRU", "LSTM", "LSTM-stack"])
def test_a_refused_gradient_leaves_the_tape_as_it_was(operation):
    op = OPERATIONS[operation]
    given = {k: v for k, v in op.arguments.items() if not k.startswith("d")}
    if isinstance(op, Function):
        _, _, tape = op.call(**given, record=True)
    else:
        _, _, tape = op.layer.forward(*(joined(k, given) for k in ("x", "state", *OF_ROWS)), masked="hold")
    dy, dstate = op.arguments["dy"], joined("dstate", op.arguments)
    for wrong in ((dy[1:], dstate), (dy.tolist(), dstate), (dy, "x"), (None, None), (dy.astype(np.float64), None)):
        with pytest.raises((TypeError, ValueError)):
            tape.backward(*wrong)
    dc = {"dc": op.arguments["dc"]} if "dc" in op.arguments else {}
    assert tape.backward(dy, dstate, **dc).x.tobytes() == op.expected["dx"].tobytes()
    with pytest.raises(RuntimeError, match=r"tape.backward: .*once"):
        tape.backward(dy, dstate)


def test_backward_without_gradients_says_what_it_expects():
    op = OPERATIONS["rnn"]
    _, _, tape = op.call(*(op.arguments[k] for k in ("x", "w_ih", "w_hh")), record=True)
    with pytest.raises(ValueError, match=r"expected one or more of dy, dstate"):
        tape.backward()


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2", [1], float("nan")])
def test_a_wrong_truncation_is_one_error(value):
    op = OPERATIONS["gru"]
    _, _, tape = op.call(*(op.arguments[k] for k in ("x", "w_ih", "w_hh")), record=True)
    with pytest.raises((TypeError, ValueError)) as info:
        tape.backward(op.arguments["dy"], truncate=value)
    assert_one_error(info.value, ("truncate",))
    whole = tape.backward(op.arguments["dy"], truncate=10**30)  # the tape is as it was, and nothing is cut
    _, _, tape = op.call(*(op.arguments[k] for k in ("x", "w_ih", "w_hh")), record=True)
    assert whole.x.tobytes() == tape.backward(op.arguments["dy"]).x.tobytes()


def test_only_an_lstm_has_c():
    op = OPERATIONS["gru"]
    _, _, tape = op.call(*(op.arguments[k] for k in ("x", "w_ih", "w_hh")), record=True)
    with pytest.raises(TypeError, match=r"dc: expected None, .* got ndarray"):
        tape.backward(op.arguments["dy"], dc=op.arguments["dy"])
    with pytest.raises(TypeError, match=r"tape.c: expected the tape of an LSTM"):
        tape.c  # noqa: B018
    tape.backward(op.arguments["dy"])
    with pytest.raises(RuntimeError, match=r"tape.c: this tape has been used"):
        tape.c  # noqa: B018


# --- flags, numbers and names -----------------------------------------------------------------------------------------------

FLAG = (1, 0, None, "yes", 1.0, [True], np.array(True), np.array([True]))
NAME = (None, 1, "", "TANH", b"tanh", ["tanh"], {"tanh"})
ACTIVATION = (*NAME, (), ("elu", 1, 2), ("relu", 1.0), ("elu", "1"), ("elu", float("nan")), np.tanh, np.array(["tanh", "relu"]))
PRECISION = (*NAME, "bfloat16", "float64", np.array(["float32", "bf16"]))
COUNT = (0, -1, 1.5, 2.0, True, np.True_, "2", [1], np.array([1, 2]), np.float64(2), float("nan"), -(10**30), 1j)
NUMBER = ("1", None, 1j, [1.0], np.ones(2), True, float("nan"), float("inf"), -float("inf"), 10**400)
DTYPE = (None, "f2", "int32", int, complex, "nonsense", object, 32, ">f4", ">f8", "f4,f4", np.zeros(3), [1], "S", np.float16)
SEED = (-1, 1.5, "a", object(), [1, -1])

SMALL = OPERATIONS["lstm"].arguments
SHORT_X = np.zeros((5, 3, 4), np.float32)


def of_function(function: Any) -> Any:
    weights = {"rnn": "rnn", "gru": "gru", "lstm": "lstm"}[function.__name__]
    return functools.partial(function, *(OPERATIONS[weights].arguments[k] for k in ("x", "w_ih", "w_hh")))


SETTINGS: dict[str, tuple[Any, dict[str, tuple[Any, ...]]]] = {
    **{
        f.__name__: (
            of_function(f),
            {
                "reverse": FLAG,
                "batch_first": FLAG,
                "record": FLAG,
                "checkpoint": tuple(value for value in COUNT if value is not None),
                "masked": NAME,
                "precision": PRECISION,
                "threads": COUNT,
                **({"nonlinearity": (*NAME, np.array(["tanh", "relu"]))} if f is fastrnn.rnn else {}),
                **({"reset_after": FLAG} if f is fastrnn.gru else {}),
                **({} if f is fastrnn.rnn else {"activation": ACTIVATION, "recurrent_activation": ACTIVATION}),
            },
        )
        for f in (fastrnn.rnn, fastrnn.gru, fastrnn.lstm)
    },
    **{
        layer.__name__: (
            lambda layer=layer, **given: layer(**{"input_size": 2, "hidden_size": 3, **given}),
            {
                "input_size": (*COUNT, None),
                "hidden_size": (*COUNT, None),
                "num_layers": (*COUNT, None, 10_001, HUGE, 10**30),
                "bias": FLAG,
                "batch_first": FLAG,
                "dropout": (*NUMBER, -0.1, 1.5, None),
                "bidirectional": FLAG,
                "dtype": DTYPE,
                "precision": PRECISION,
                "rng": SEED,
                **({"nonlinearity": (*NAME, np.array(["tanh", "relu"]))} if layer is fastrnn.RNN else {}),
                **({"recurrent_scale": NUMBER, "input_std": (*NUMBER, -0.5)} if layer is fastrnn.IRNN else {}),
                **({"reset_after": FLAG} if layer is fastrnn.GRU else {}),
                **({"activation": ACTIVATION, "recurrent_activation": ACTIVATION} if layer in (fastrnn.GRU, fastrnn.LSTM) else {}),
                **({"peephole": FLAG, "proj_size": (*COUNT[1:], None, 3, 4)} if layer is fastrnn.LSTM else {}),
                **({"forget_bias": (*NUMBER, None)} if layer is fastrnn.LSTM else {}),
            },
        )
        for layer in (fastrnn.RNN, fastrnn.IRNN, fastrnn.GRU, fastrnn.LSTM)
    },
    **{
        cell.__name__: (
            lambda cell=cell, **given: cell(**{"input_size": 2, "hidden_size": 3, **given}),
            {
                "input_size": (*COUNT, None),
                "hidden_size": (*COUNT, None),
                "bias": FLAG,
                "dtype": DTYPE,
                "precision": PRECISION,
                "rng": SEED,
                **({"nonlinearity": (*NAME, np.array(["tanh", "relu"]))} if cell is fastrnn.RNNCell else {}),
                **({"reset_after": FLAG} if cell is fastrnn.GRUCell else {}),
                **({} if cell is fastrnn.RNNCell else {"activation": ACTIVATION, "recurrent_activation": ACTIVATION}),
                **({"peephole": FLAG, "forget_bias": (*NUMBER, None)} if cell is fastrnn.LSTMCell else {}),
            },
        )
        for cell in (fastrnn.RNNCell, fastrnn.GRUCell, fastrnn.LSTMCell)
    },
    "LSTM.forward": (
        functools.partial(fastrnn.LSTM(4, 7).forward, SHORT_X),
        {"masked": NAME, "checkpoint": tuple(value for value in COUNT if value is not None)},
    ),
    "LSTM.__call__": (functools.partial(fastrnn.LSTM(4, 7), SHORT_X), {"masked": NAME}),
    "pack": (functools.partial(fastrnn.pack, SHORT_X, [5, 3, 1]), {"batch_first": FLAG}),
    "unpack": (
        functools.partial(fastrnn.unpack, fastrnn.pack(SHORT_X, [5, 3, 1])),
        {"batch_first": FLAG, "total_length": (*COUNT[1:], 4)},
    ),
    "set_num_threads": (fastrnn.set_num_threads, {"n": (*COUNT, None, 257, 10**30)}),
    "set_gemm": (fastrnn.set_gemm, {"engine": (*NAME, "OWN", " own", np.array(["own", "blas"]))}),
    "load_state_dict": (fastrnn.RNN(2, 3).load_state_dict, {"mapping": (None, 1, "x", [], [("weight_ih_l0", 1)], object())}),
    "gradcheck": (fastrnn.gradcheck, {"target": (None, 3, "lstm", np.zeros(3))}),
    "gradcheck of a layer": (
        functools.partial(fastrnn.gradcheck, fastrnn.GRU(4, 7), SHORT_X),
        {
            "eps": (*(n for n in NUMBER if n is not None), 0, -1e-4),
            "rtol": (*(n for n in NUMBER if n is not None), -1e-4),
            "atol": (*(n for n in NUMBER if n is not None), -1e-4),
            "seed": SEED,
            "raise_exception": FLAG,
            "max_entries": tuple(n for n in COUNT if n is not None),
            "outputs": ("h_l0", None, 1, [1], ["h_l1"], ["h_l0", "c_l0"], np.zeros(2)),
        },
    ),
}


KINDS = {("rnn", "gru", "lstm"): "function", ("RNN", "IRNN", "GRU", "LSTM"): "layer", ("RNNCell", "GRUCell", "LSTMCell"): "cell"}


def wrong_settings() -> Iterator[Any]:
    """All values of an argument once for each kind, whose members share their checks, and the first value for each member."""
    kind_of, met = {name: kind for names, kind in KINDS.items() for name in names}, set()
    for name, (_, arguments) in SETTINGS.items():
        for argument, values in arguments.items():
            key = (kind_of.get(name, name), argument)
            for value in values[:1] if key in met else values:
                yield pytest.param(name, argument, value, id=f"{name}-{argument}-{repr(value).split(' at 0x')[0][:24]}")
            met.add(key)


@pytest.mark.parametrize("name, argument, value", [*wrong_settings()])
def test_a_wrong_setting_is_one_error(name, argument, value):
    threads, call = fastrnn.get_num_threads(), SETTINGS[name][0]
    with pytest.raises((TypeError, ValueError)) as info:
        call(**{argument: value})
    assert_one_error(info.value, (argument,))
    assert fastrnn.get_num_threads() == threads


@pytest.mark.parametrize(
    "name, argument, value, plain",
    [
        ("rnn", "reverse", np.True_, True),
        ("rnn", "nonlinearity", np.str_("relu"), "relu"),
        ("gru", "reset_after", np.False_, False),
        ("gru", "precision", np.str_("float32"), "float32"),
        ("lstm", "threads", np.int8(2), 2),
        ("lstm", "threads", np.array(2), 2),
        ("lstm", "threads", 10**30, 2),
        ("lstm", "batch_first", np.False_, False),
    ],
)
def test_settings_in_other_types(name, argument, value, plain):
    call = SETTINGS[name][0]
    results = [outputs(*call(**{argument: v})[:2]) for v in (value, plain)]
    assert_same(*results)


@pytest.mark.parametrize("value", ["float64", "d", float, np.float64, np.dtype("f8"), "f8"])
def test_dtypes_as_numpy_takes_them(value):
    assert fastrnn.GRU(2, 3, dtype=value).flat.dtype == np.float64


@pytest.mark.parametrize("seed", [3, np.int64(3), [1, 2], np.random.SeedSequence(3)])
def test_a_seed_is_a_generator(seed):
    expected = fastrnn.LSTM(2, 3, rng=np.random.default_rng(seed)).flat
    assert fastrnn.LSTM(2, 3, rng=seed).flat.tobytes() == expected.tobytes()


def test_the_names_of_a_state_dict():
    layer = fastrnn.RNN(2, 3, rng=0)
    before, given = layer.flat.copy(), layer.state_dict()
    for wrong in ({}, {**given, "more": 1}, {k: v for k, v in given.items() if k != "bias_hh_l0"}, {1: 2}):
        with pytest.raises(KeyError, match=r"mapping: expected the names of params, missing .*, unexpected"):
            layer.load_state_dict(wrong)
    with pytest.raises(ValueError):  # the last one is wrong: none is taken
        layer.load_state_dict({**{k: v + 1 for k, v in given.items()}, "bias_hh_l0": np.zeros(4, np.float32)})
    assert layer.flat.tobytes() == before.tobytes()


def test_every_argument_is_in_a_table():
    """A new argument of a public function is not forgotten here."""
    for name in ("rnn", "gru", "lstm"):
        operations = [OPERATIONS[o].arguments for o in OPERATIONS if o.partition("-")[0] == name]
        tested = {*itertools.chain(*operations), *SETTINGS[name][1]} - {"dy", "dstate", "dstate[0]", "dstate[1]", "dc"}
        assert tested == {*inspect.signature(getattr(fastrnn, name)).parameters}
    for name in ("RNN", "IRNN", "GRU", "LSTM"):
        layer = getattr(fastrnn, name)
        assert SETTINGS[name][1].keys() == {*inspect.signature(layer).parameters}
        for method in (layer.forward, layer.__call__):
            arguments = {name.split("[")[0] for name in OPERATIONS["LSTM"].arguments}
            tested = {"self", *arguments, *SETTINGS[f"LSTM.{method.__name__}"][1]}
            assert {*inspect.signature(method).parameters} == tested - {"dy", "dstate"}
    for name in ("RNNCell", "GRUCell", "LSTMCell"):
        assert SETTINGS[name][1].keys() == {*inspect.signature(getattr(fastrnn, name)).parameters}
    for name in ("set_num_threads", "set_gemm"):
        assert SETTINGS[name][1].keys() == {*inspect.signature(getattr(fastrnn, name)).parameters}


# --- no time, no rows, no inputs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [fastrnn.rnn, fastrnn.gru, fastrnn.lstm])
@pytest.mark.parametrize("T, B, I", [(0, 3, 4), (5, 0, 4), (5, 3, 0), (0, 0, 0), (0, 3, 0), (5, 0, 0)])
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"lengths": True, "reset": True}, {"batch_first": True}])
def test_empty_sizes(function, T, B, I, options):
    G, H = {"rnn": 1, "gru": 3, "lstm": 4}[function.__name__], 7
    rng = np.random.default_rng(0)
    if "lengths" in options:
        options = {"lengths": [T] * B, "reset": np.ones((T, B), bool)}

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    first = (B, T) if "batch_first" in options else (T, B)
    x, w_ih, w_hh, h0 = normal(*first, I), normal(G * H, I), normal(G * H, H), normal(B, H)
    y, state, tape = function(x, w_ih, w_hh, h0=h0, record=True, **options)
    h_n = state[0] if isinstance(state, tuple) else state
    dy, dh = normal(*first, H), normal(B, H)
    grads = tape.backward(dy, (dh, None) if isinstance(state, tuple) else dh)
    assert y.shape == (*first, H) and h_n.shape == (B, H)
    assert [grads.x.shape, grads.w_ih.shape, grads.w_hh.shape, grads.h0.shape] == [x.shape, w_ih.shape, w_hh.shape, (B, H)]
    if T == 0:
        assert h_n.tobytes() == h0.tobytes() and grads.h0.tobytes() == dh.tobytes()
    if T * B == 0:
        assert not grads.w_ih.any() and not grads.w_hh.any()
    elif "reset" not in options:  # without inputs, an input of zeros
        y0, _, _ = function(np.zeros((*first, 2), np.float32), normal(G * H, 2), w_hh, h0=h0, **options)
        assert y.tobytes() == y0.tobytes()


@pytest.mark.parametrize("make", [fastrnn.RNN, fastrnn.IRNN, fastrnn.GRU, fastrnn.LSTM])
@pytest.mark.parametrize("T, B", [(0, 3), (5, 0), (0, 0)])
def test_empty_sizes_of_layers(make, T, B):
    layer = make(4, 7, rng=0)
    y, state, tape = layer.forward(np.zeros((T, B, 4), np.float32), lengths=[T] * B, reset=np.ones((T, B), bool))
    h_n = state[0] if isinstance(state, tuple) else state
    assert y.shape == (T, B, 7) and h_n.shape == (1, B, 7) and not h_n.any()
    grads = tape.backward(np.zeros((T, B, 7), np.float32))
    assert grads.x.shape == (T, B, 4) and not grads.flat.any()


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_a_layer_without_units_is_an_error(shape):
    with pytest.raises(ValueError, match=r"w_hh: expected \(H, H\) .* with H >= 1, got"):
        fastrnn.rnn(np.zeros((2, 1, 4), np.float32), np.zeros((0, 4), np.float32), np.zeros(shape, np.float32))


# --- arrays that share memory -----------------------------------------------------------------------------------------------


def square(function: Any, T: int = 5, B: int = 3, H: int = 7) -> dict[str, Any]:
    """Arguments with I = H."""
    G = {"rnn": 1, "gru": 3, "lstm": 4}[function.__name__]
    rng = np.random.default_rng(2)
    shapes = {"x": (T, B, H), "w_ih": (G * H, H), "w_hh": (G * H, H), "b_ih": (G * H,), "b_hh": (G * H,), "h0": (B, H)}
    if G == 4:
        shapes |= {"c0": (B, H), "peephole": (3, H)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def train(function: Any, arguments: dict[str, Any], dy: Any, dstate: Any = None) -> dict[str, Any]:
    before = memory_of(arguments)
    y, state, tape = function(**arguments, record=True)
    results = {**outputs(y, state), **gradients(tape.backward(dy, dstate))}
    assert memory_of(arguments) == before
    return results


def unshared(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: a.copy() for name, a in arguments.items()}


each_function = pytest.mark.parametrize("function", [fastrnn.rnn, fastrnn.gru, fastrnn.lstm])


@each_function
def test_one_array_for_several_arguments(function):
    arguments = square(function)
    arguments["w_hh"], arguments["b_hh"] = arguments["w_ih"], arguments["b_ih"]
    arguments["h0"] = arguments["x"][2]
    if "c0" in arguments:
        arguments["c0"] = arguments["h0"]
        arguments["peephole"] = arguments["w_ih"][:3]
    x, h0 = arguments["x"], arguments["h0"]
    dstate = (h0, h0) if function is fastrnn.lstm else h0
    got = train(function, arguments, x, dstate)
    copies = (h0.copy(), h0.copy()) if function is fastrnn.lstm else h0.copy()
    assert_same(got, train(function, unshared(arguments), x.copy(), copies))


@each_function
@pytest.mark.parametrize("strides", [(1, 2, 1), (0, 1, 1), (3, 0, 2), (2, 5, 0)])
def test_overlapping_views(function, strides):
    """Windows of one signal as x and dy, of one vector as the states."""
    arguments = square(function)
    signal = np.random.default_rng(3).standard_normal(100).astype(np.float32)
    x = np.lib.stride_tricks.as_strided(signal, (5, 3, 7), [4 * s for s in strides])
    arguments["x"], arguments["h0"] = x, np.lib.stride_tricks.sliding_window_view(signal, 7)[:3]
    assert_same(train(function, arguments, x), train(function, unshared(arguments), x.copy()))


@each_function
def test_the_results_of_one_call_go_into_the_next(function):
    arguments = square(function)
    y, state, tape = function(**arguments, record=True)
    names = ("h0", "c0") if function is fastrnn.lstm else ("h0",)
    chained = {**arguments, "x": y, **dict(zip(names, state if isinstance(state, tuple) else (state,)))}
    copies = unshared(chained)
    second = train(function, chained, y)  # y is x and dy
    assert_same(second, train(function, copies, copies["x"]))
    dx, dh = second["dx"], second["dh0"]
    dstate = (dh, second["dc0"]) if function is fastrnn.lstm else dh
    grads = tape.backward(dx, dstate)  # backward goes on with the gradients as they came
    assert_same(train(function, arguments, dx.copy(), dstate), {**outputs(y, state), **gradients(grads)})


def test_a_recorded_y_cannot_be_written_to():
    arguments = square(fastrnn.rnn)
    y, _, _ = fastrnn.rnn(**arguments, record=True)
    with pytest.raises(ValueError, match="read-only"):
        y[0] = 0


def test_load_state_dict_of_its_own_parameters():
    """Also when they change places."""
    layer = fastrnn.RNN(3, 3, rng=0)
    p, expected = layer.params, layer.state_dict()
    layer.load_state_dict(p)
    assert_same(layer.state_dict(), expected)
    swap = {"weight_ih_l0": "weight_hh_l0", "weight_hh_l0": "weight_ih_l0", "bias_ih_l0": "bias_hh_l0", "bias_hh_l0": "bias_ih_l0"}
    layer.load_state_dict({name: p[other] for name, other in swap.items()})
    assert_same(layer.state_dict(), {name: expected[other] for name, other in swap.items()})


# --- more than there is memory for ------------------------------------------------------------------------------------------

unsanitized = pytest.mark.skipif(
    os.environ.get("FASTRNN_SANITIZED") == "1", reason="a sanitizer ends the process where malloc would return NULL"
)


def constant(*shape: int, dtype: Any = np.float32) -> Any:
    """Any number of zeros in a few bytes."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def tiny(**given: Any) -> dict[str, Any]:
    """An RNN of 7 units without inputs, and what is given."""
    return {"w_ih": constant(7, 0), "w_hh": np.eye(7, dtype=np.float32), **given}


SHORT = np.zeros((5, 3, 0), np.float32)
TOO_MUCH: dict[str, tuple[str, Any]] = {
    "T": ("x", lambda: fastrnn.rnn(**tiny(x=constant(HUGE, 1, 0)))),
    "T, recorded": ("x", lambda: fastrnn.rnn(**tiny(x=constant(HUGE, 1, 0)), record=True)),
    "T without a batch": ("x", lambda: fastrnn.rnn(**tiny(x=constant(HUGE, 0)))),
    "T B H overflows": ("x", lambda: fastrnn.rnn(**tiny(x=constant(2**31, 2**29, 0)))),
    "T B H wraps around to 0": ("x", lambda: fastrnn.rnn(constant(2**32, 2**27, 0), constant(8, 0), constant(8, 8))),
    "T of inputs": ("x", lambda: fastrnn.rnn(**tiny(x=constant(HUGE, 1, 4), w_ih=constant(7, 4)))),
    "T in the other byte order": ("x", lambda: fastrnn.rnn(**tiny(x=constant(HUGE, 1, 4, dtype=">f4"), w_ih=constant(7, 4)))),
    "I": ("w_ih", lambda: fastrnn.rnn(**tiny(x=constant(1, 1, HUGE), w_ih=constant(7, HUGE)))),
    "H": ("w_hh", lambda: fastrnn.rnn(SHORT, constant(2**25, 0), constant(2**25, 2**25))),
    "H of an LSTM": ("w_hh", lambda: fastrnn.lstm(SHORT, constant(2**26, 0), constant(2**26, 2**24))),
    "B": ("x", lambda: fastrnn.rnn(**tiny(x=constant(1, HUGE, 0)))),
    "B, batch first": ("x", lambda: fastrnn.rnn(**tiny(x=constant(HUGE, 1, 0)), batch_first=True)),
    "B of no steps": ("x", lambda: fastrnn.rnn(**tiny(x=constant(0, HUGE, 0)))),
    "B of no steps, recorded": ("x", lambda: fastrnn.rnn(**tiny(x=constant(0, HUGE, 0)), record=True)),
    "B and h0": ("h0", lambda: fastrnn.rnn(**tiny(x=constant(1, HUGE, 0), h0=constant(HUGE, 7)))),
    "B and lengths": ("lengths", lambda: fastrnn.rnn(**tiny(x=constant(1, HUGE, 0)), lengths=constant(HUGE, dtype="i1"))),
    "lengths beyond all": ("x", lambda: fastrnn.rnn(**tiny(x=constant(HUGE, 1, 0)), lengths=[5])),
    "long lengths": ("lengths", lambda: fastrnn.rnn(**tiny(x=constant(HUGE, 1, 0)), lengths=[HUGE - 1])),
    "uncountable lengths": ("lengths", lambda: fastrnn.rnn(**tiny(x=constant(2**60, 1, 0)), lengths=[2**60 - 1])),
    "reset": ("reset", lambda: fastrnn.rnn(**tiny(x=constant(HUGE, 1, 0)), reset=constant(HUGE, 1, dtype="?"))),
    "uncountable reset": ("reset", lambda: fastrnn.rnn(**tiny(x=constant(2**60, 1, 0)), reset=constant(2**60, 1, dtype="?"))),
    "T of a layer": ("x", lambda: fastrnn.GRU(4, 7)(constant(HUGE, 1, 4))),
    "T of a layer, forward": ("x", lambda: fastrnn.LSTM(4, 7).forward(constant(HUGE, 1, 4))),
    "B of a layer of no steps": ("x", lambda: fastrnn.LSTM(4, 7)(constant(0, HUGE, 4))),
    "state of a layer": ("state", lambda: fastrnn.RNN(4, 7)(constant(0, HUGE, 4), constant(1, HUGE, 7))),
    "input_size": ("input_size", lambda: fastrnn.RNN(HUGE, 1)),
    "input_size beyond an index": ("input_size", lambda: fastrnn.RNN(10**30, 1)),
    "hidden_size": ("hidden_size", lambda: fastrnn.GRU(1, 2**25)),
    "hidden_size beyond an index": ("hidden_size", lambda: fastrnn.LSTM(1, 2**40)),
    "hidden_size of an IRNN": ("hidden_size", lambda: fastrnn.IRNN(1, 2**25)),
}


@unsanitized
@pytest.mark.parametrize("what", TOO_MUCH)
def test_more_than_there_is_memory_for(what):
    name, call = TOO_MUCH[what]
    with pytest.raises(MemoryError) as info:
        call()
    error = info.value
    assert re.match(r"[\w, ]+: \S", str(error)), str(error)
    assert name in str(error).split(":")[0].split(", ")
    assert error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)
    assert_same(OPERATIONS["lstm"].run(SMALL), OPERATIONS["lstm"].expected)


def test_many_steps_of_no_rows_are_nothing():
    y, h_n, tape = fastrnn.rnn(**tiny(x=constant(HUGE, 0, 0)), record=True)
    assert y.shape == (HUGE, 0, 7) and h_n.shape == (0, 7)
    assert tape.backward(constant(HUGE, 0, 7)).x.shape == (HUGE, 0, 0)


# Each allocation of a call fails once: the limit of the address space rises in small steps until the call succeeds.
LIMITED = """
import resource, sys
import numpy as np
import fastrnn
from fastrnn import _core

def limit(more):
    _core.empty_free_list()  # else the memory of the call before is there without being asked for
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, -1))

def unlimit():
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))

T, B, I, H = 48, 48, 48, 40
rng = np.random.default_rng(0)
lengths = rng.integers(1, T, B)
if sys.argv[1] == "function":
    shapes = [(T, B, I), (4 * H, I), (4 * H, H), (4 * H,), (4 * H,), (B, H), (B, H)]
    given = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    given[0] = given[0][::-1, :, ::-1]
    call = lambda: fastrnn.lstm(*given, lengths=lengths, record=True)
else:
    layer, x = fastrnn.GRU(I, H, rng=0), rng.standard_normal((T, B, I)).astype(">f4")
    call = lambda: layer.forward(x, lengths=lengths)
dy = rng.standard_normal((T, B, H)).astype(np.float32)[..., ::-1]

def run():
    y, state, tape = call()
    grads = tape.backward(dy)
    return y, grads.x, getattr(grads, "flat", grads.x)

def equal(a, b):
    return all(np.array_equal(*pair) for pair in zip(a, b))

fastrnn.set_num_threads(2)
limit(6 << 20)  # too little for the stack of a second thread
expected = run() if sys.argv[2] == "no threads" else None
unlimit()
reference = run()
assert expected is None or equal(expected, reference), "a thread that cannot start changes the result"

failed, succeeded, text = {}, 0, ""
for more in range(0, 8 << 20, 128 << 10):
    limit(more)
    try:
        result = run()
    except MemoryError as error:
        unlimit()
        text = str(error)
        name = text.split(":")[0]
        assert name in ("x", "w_ih", "w_hh", "h0", "c0", "lengths", "dy", "dstate[0]"), repr(text)
        failed[text] = failed.get(text, 0) + 1
    else:
        unlimit()
        succeeded += 1
        assert equal(result, reference), "less memory changes the result"
        del result
assert equal(run(), reference)
assert succeeded and len(failed) >= 4, (succeeded, failed)
print(len(failed), "kinds of failure")
"""


@unsanitized
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind, threads", [("function", "threads"), ("layer", "no threads")])
def test_each_allocation_fails_once(kind, threads):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, kind, threads],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "kinds of failure" in done.stdout


def test_a_projection_makes_h_narrower():
    """A square w_hr fits w_hh, and is refused all the same."""
    x, w_ih, w_hh, w_hr = (np.ones(shape) for shape in ((2, 1, 2), (12, 2), (12, 3), (3, 3)))
    with pytest.raises(ValueError, match=r"w_hr: expected \(P, H\) with 1 <= P < H, got \(3, 3\)"):
        fastrnn.lstm(x, w_ih, w_hh, w_hr=w_hr)
