"""The documentation where it stands: all examples run, and what is public has sections that fit its signature."""

import doctest
import importlib
import inspect
import os
import re
from itertools import accumulate
from pathlib import Path

import pytest

import fastrnn

os.environ.setdefault("KERAS_BACKEND", "numpy")  # fastrnn.keras is for it
PACKAGE = Path(fastrnn.__file__).parent
MODULES = sorted(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))
NEEDS = {
    "fastrnn.torch": "torch",
    "fastrnn.torch.lightning": "lightning",
    "fastrnn.torch.skorch": "skorch",
    "fastrnn.jax": "jax",
    "fastrnn.keras": "keras",
    "fastrnn.autograd": "autograd",
    "fastrnn.compat.autograd": "autograd",
    "fastrnn.onnx.model": "onnx",
    "fastrnn.onnx.export": "onnx",
    "fastrnn.diagnostics.picture": "matplotlib",
}
METHODS = (type(lambda: None), classmethod, staticmethod, property)
PUBLIC = ["fastrnn"]
PUBLIC += [f"fastrnn.{name}" for name in ("gradcheck", "packed", "schedule", "reference", "diagnostics", "formats", "onnx")]
PUBLIC += [f"fastrnn.train{name}" for name in ("", ".initialisers", ".schedules")]
PUBLIC += [f"fastrnn.compat.{name}" for name in ("cs231n", "karpathy", "coursera", "numpy_ml", "madmom")]
RETURNED = {  # classes that users meet as results alone: their methods have examples, they need none
    "fastrnn._api.tape": ["Gradients", "Tape"],
    "fastrnn._api.layer_tape": ["LayerTape"],
    "fastrnn._api.parameters": ["Parameters"],
    "fastrnn.cells": ["CellTape"],
    "fastrnn.unrolled": ["UnrolledTape"],
    "fastrnn.train.embedding": ["EmbeddingTape"],
    "fastrnn.train.readout": ["LinearTape"],
    "fastrnn.train.recurrences": ["PreactivationTape", "OutputTape"],
    "fastrnn.diagnostics": ["Finding", "JacobianNorms", "Spectrum"],
    "fastrnn.reference": ["Grads", "Tape"],
    "fastrnn.schedule": ["Schedule"],
    "fastrnn.train": ["Beam"],
    "fastrnn.onnx": ["Node"],
    "fastrnn.files": ["Model", "Skipped"],
}
WITHOUT_EXAMPLE = {
    "GradcheckError": "see gradcheck",
    "GradcheckEntry.ok": "see GradcheckEntry",
    "GradcheckEntry.badness": "see GradcheckEntry",
    "Stream.batch_size": "a number",
    "Parameters.flat": "see Module.flat",
    "Parameters.views": "for who distrusts others",
    "Average.update": "see Average",
    "Optimizer": "see its subclasses",
    "DataParallel": "needs MPI",
    "DataParallel.rows": "needs MPI",
    "DataParallel.average": "needs MPI",
    "PreactivationTape.h": "see PreactivationRNN.forward",
    "Node.path": "see nodes",
    "Node.refusal": "an error",
    "Node.check_start": "an error",
}
PARTS_OF_FORMATS = "fastrnn.formats.c"  # cell and containers: a notation of its own, explained there; users name a format


def module(name):
    """Skips the test where a package is absent."""
    for part in accumulate(name.split("."), "{}.{}".format):
        if part in NEEDS:
            pytest.importorskip(NEEDS[part], reason=f"the package {NEEDS[part]} is not installed")
    return importlib.import_module(name.removesuffix(".__init__"))


def documented():
    """(module, name, thing): the functions and classes, and of these the methods and properties that are ours."""
    found = {}
    wheres = [(where, getattr(importlib.import_module(where), "__all__", ())) for where in PUBLIC]
    for where, names in [*wheres, *RETURNED.items()]:
        for thing in (getattr(importlib.import_module(where), name) for name in names):
            if (inspect.isclass(thing) or inspect.isfunction(thing)) and not thing.__module__.startswith(PARTS_OF_FORMATS):
                found |= {id(part): (where, name, part) for name, part in parts_of(thing)}
    return list(found.values())


def parts_of(thing):
    yield thing.__name__, thing
    for owner in thing.__mro__ if inspect.isclass(thing) else ():
        if owner.__module__.startswith("fastrnn") and not owner.__name__.startswith("_"):
            for name, member in vars(owner).items():
                if isinstance(member, METHODS) and (name == "__call__" or not name.startswith("_")):
                    yield f"{owner.__name__}.{name}", member


def needs_example(where, name):
    """Of the functions of one step in fastrnn.compat, and of its methods, the examples of sequences and classes show enough."""
    return name not in WITHOUT_EXAMPLE and name not in RETURNED.get(where, ()) and not where.startswith("fastrnn.compat.")


def sections(doc):
    """The parts of a docstring, by their headings."""
    parts = re.split(r"^(\w+)\n-+\n", doc, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name, use):
    if name == "fastrnn.keras" and module(name).keras.backend.backend() != "numpy":
        pytest.skip("Keras has another backend")
    assert doctest.testmod(module(name)).failed == 0


@pytest.mark.parametrize("where, name, thing", documented(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_sections_fit_the_signature(where, name, thing):
    doc = inspect.getdoc(thing)
    assert doc and doc.partition("\n")[0]
    parts = sections(doc)
    assert list(parts) == [part for part in ("Parameters", "Attributes", "Returns", "Raises", "Notes", "Examples") if part in parts]
    assert ">>>" in parts.get("Examples", "") or not needs_example(where, name)
    function = getattr(thing, "__func__", thing)
    if inspect.isfunction(function) or "Parameters" in parts:
        given = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
        named = re.findall(r"^(\*{0,2}\w[\w, *]*)(?: :|$)", parts.get("Parameters", ""), re.MULTILINE)
        assert sorted(n.strip("* ") for line in named for n in line.split(",")) == sorted(given)
    if inspect.isfunction(function):
        returned = function.__annotations__["return"]
        assert ("Returns" in parts) == (returned != "None" and not returned.startswith("Iterator"))


def test_the_exceptions_are_still_there():
    assert set(WITHOUT_EXAMPLE) <= {name for _, name, _ in documented()}


def test_the_parts_of_formats_say_what_they_are():
    things = [thing for thing in vars(fastrnn.formats).values() if getattr(thing, "__module__", "").startswith(PARTS_OF_FORMATS)]
    assert things and all(inspect.getdoc(part) for thing in things for _, part in parts_of(thing))


def test_what_the_functions_share_they_say_in_the_same_words():
    docs = map(inspect.getdoc, (fastrnn.rnn, fastrnn.gru, fastrnn.lstm))
    shared = [sections(doc)["Parameters"].partition("\nlengths :")[2] for doc in docs]
    assert "threads :" in shared[0] and shared[0] == shared[1] == shared[2]


@pytest.mark.parametrize("name", ["fastrnn.jax", "fastrnn.autograd"])
def test_the_functions_for_frameworks_take_what_ours_take(name):
    for function in (getattr(module(name), kind) for kind in ("rnn", "gru", "lstm")):
        ours = inspect.signature(getattr(fastrnn, function.__name__)).parameters
        assert list(inspect.signature(function).parameters) == [p for p in ours if p != "record"]
        assert ">>>" in sections(inspect.getdoc(function))["Examples"]
