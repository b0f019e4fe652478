"""Calls that must raise, and leave everything as it was: tables of {what is wrong: the call}."""

from typing import Any

import numpy as np

import fastrnn
from fastrnn import config

ERRORS = (TypeError, ValueError, KeyError, IndexError, RuntimeError)


def _other_float(layer: Any) -> Any:
    return np.float32 if layer.dtype == np.float64 else np.float64


def _last_of_another_dtype(layer: Any) -> Any:
    """The parameters, of which all but the last could be loaded."""
    *names, last = layer.params
    return {**{n: layer.params[n] for n in names}, last: layer.params[last].astype(_other_float(layer))}


# Of a layer, its x (T, B, I), and the arguments of a right call.
CALLS = {
    "x of another width": lambda layer, x, given: layer(**{**given, "x": np.zeros((*x.shape[:2], x.shape[2] + 1), x.dtype)}),
    "x of integers": lambda layer, x, given: layer(**{**given, "x": x.astype(int)}),
    "x of another dtype": lambda layer, x, given: layer.forward(**{**given, "x": x.astype(_other_float(layer))}),
    "x as a list": lambda layer, x, given: layer.forward(**{**given, "x": x.tolist()}),
    "x of four dimensions": lambda layer, x, given: layer.forward(**{**given, "x": x[None]}),
    "checkpoint": lambda layer, x, given: layer.forward(**given, checkpoint=0),
    "masked": lambda layer, x, given: layer.forward(**{**given, "masked": "none"}),
    "lengths too large": lambda layer, x, given: layer.forward(**{**given, "lengths": [len(x) + 1] * max(1, x.shape[1])}),
    "lengths of floats": lambda layer, x, given: layer.forward(**{**given, "lengths": [0.5] * max(1, x.shape[1])}),
    "reset of integers": lambda layer, x, given: layer.forward(**{**given, "reset": np.ones(x.shape[:2], int)}),
    "mask of another shape": lambda layer, x, given: layer.forward(**{**given, "mask": np.ones((*x.shape[:2], 1), bool)}),
    "state of another width": lambda layer, x, given: layer.forward(**{**given, "state": np.zeros((1, 1, 99), layer.dtype)}),
    "state of three": lambda layer, x, given: layer.forward(**{**given, "state": (x,) * 3}),
    "no names": lambda layer, x, given: layer.load_state_dict({}),
    "a wrong shape": lambda layer, x, given: layer.load_state_dict({n: a[..., None] for n, a in layer.params.items()}),
    "a wrong dtype": lambda layer, x, given: layer.load_state_dict(_last_of_another_dtype(layer)),
    "flat too long": lambda layer, x, given: setattr(layer, "flat", np.zeros(len(layer.flat) + 1, layer.dtype)),
    "no such parameter": lambda layer, x, given: layer.params.__setitem__("weight", layer.flat),
    "no such format": lambda layer, x, given: layer.export_weights("kears"),
    "wrong weights": lambda layer, x, given: layer.load_weights({"weight_ih_l0": layer.flat}),
    "stream of no rows": lambda layer, x, given: layer.stream(0),
    "threads": lambda layer, x, given: fastrnn.set_num_threads(0),
    "instruction set": lambda layer, x, given: config.use_isa("v5"),
    "engine": lambda layer, x, given: fastrnn.set_gemm("mkl"),
}
# Of a tape that has not been used, or has, and its y.
BACKWARDS = {
    "nothing": lambda tape, y: tape.backward(),
    "dy of another shape": lambda tape, y: tape.backward(np.zeros((7, 7, 7, 7), y.dtype)),
    "dy of integers": lambda tape, y: tape.backward(np.zeros(y.shape, int)),
    "dstate": lambda tape, y: tape.backward(y, np.zeros(3)),
    "doutputs": lambda tape, y: tape.backward(y, None, {"h_l99": y}),
    "truncate": lambda tape, y: tape.backward(y, truncate=0),
    "another output": lambda tape, y: tape.outputs["y_l0"],
}
# Of a stream and a right block x (2, B, I).
STREAMS = {
    "x of another width": lambda stream, x: stream(np.concatenate([x, x], axis=-1)),
    "x of integers": lambda stream, x: stream(x.astype(int)),
    "rows": lambda stream, x: stream(np.concatenate([x, x], axis=-2)),
    "out is too small": lambda stream, x: stream(x, out=np.zeros((1, 0, 1), x.dtype)),
    "out is x": lambda stream, x: stream(x, out=x),
    "no such row": lambda stream, x: stream.reset(stream.batch_size),
    "reset of floats": lambda stream, x: stream.reset([0.5]),
    "state": lambda stream, x: setattr(stream, "state", np.zeros((1, 1, 1, 1))),
}
