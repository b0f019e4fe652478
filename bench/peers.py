"""The contestants: one class each, with the same few methods.

    contestant = Torch(cell, arrays, dy, threads)    arrays: x (T, B, I), w_ih, w_hh, b_ih, b_hh, of one dtype; cell as in cases.py
    contestant.forward()                             y, for inference
    contestant.train()                               (y, (dx, dw_ih, dw_hh, db_ih, db_hh)), where `trains` is true

Both return what the package itself returns; what is not part of a call in its daily use (copies of weights, compiling, making a
session) is done before. The initial state is zero.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

import numpy as np
import numpy_loop

from cases import CELLS, call

Array = Any
NAMES = ("x", "w_ih", "w_hh", "b_ih", "b_hh")
LONG_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # of the weights in PyTorch and in our layers and cells


class Contestant:
    """What the contestants have in common."""

    name = ""
    modules: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("float32", "float64")
    trains = True

    @classmethod
    def missing(cls) -> list[str]:
        """The modules that it needs and that are not installed."""
        return [name for name in cls.modules if importlib.util.find_spec(name) is None]

    def __init__(self, cell: str, arrays: dict[str, Array], dy: Array, threads: int) -> None:
        raise NotImplementedError

    def forward(self) -> Any:
        raise NotImplementedError

    def train(self) -> Any:
        raise NotImplementedError


class Fastrnn(Contestant):
    name, modules, precision = "fastrnn", ("fastrnn",), "float32"

    def __init__(self, cell: str, arrays: dict[str, Array], dy: Array, threads: int) -> None:
        import fastrnn

        options = {"record": False, "threads": threads, "precision": self.precision}
        self.call = lambda record: call(fastrnn, cell, arrays, **{**options, "record": record})
        self.dy = dy

    def forward(self) -> Any:
        return self.call(False)[0]

    def train(self) -> Any:
        y, _, tape = self.call(True)
        grads = tape.backward(self.dy)
        return y, tuple(getattr(grads, name) for name in NAMES)


class FastrnnBf16(Fastrnn):
    dtypes, precision = ("bf16",), "bf16"


class FastrnnBesideBf16(Fastrnn):
    """What the precision brings."""

    name, dtypes = "fastrnn, float32", ("bf16",)


class Layer(Contestant):
    """fastrnn as most programs call it: a layer that owns its weights, which it packs in each call."""

    name, modules = "layer", ("fastrnn",)

    def __init__(self, cell: str, arrays: dict[str, Array], dy: Array, threads: int) -> None:
        self.layer, self.x, self.dy = fastrnn_module("", cell, arrays, threads), arrays["x"], dy
        self.weights = [f"{name}_l0" for name in LONG_NAMES]

    def forward(self) -> Any:
        return self.layer(self.x)[0]

    def train(self) -> Any:
        y, _, tape = self.layer.forward(self.x)
        grads = tape.backward(self.dy)
        return y, (grads.x, *(grads.params[name] for name in self.weights))


class FrozenLayer(Contestant):
    """A layer whose weights were packed once, for inference."""

    name, modules, trains = "frozen", ("fastrnn",), False

    def __init__(self, cell: str, arrays: dict[str, Array], dy: Array, threads: int) -> None:
        self.frozen, self.x = fastrnn_module("", cell, arrays, threads).frozen(), arrays["x"]

    def forward(self) -> Any:
        return self.frozen(self.x)[0]


def fastrnn_module(suffix: str, cell: str, arrays: dict[str, Array], threads: int) -> Any:
    """A layer of fastrnn, or with the suffix "Cell" a cell, with these weights."""
    import fastrnn

    fastrnn.set_num_threads(threads)
    function, options = CELLS[cell]
    I, H = arrays["w_ih"].shape[1], arrays["w_hh"].shape[1]
    module = getattr(fastrnn, function.upper() + suffix)(I, H, dtype=arrays["w_ih"].dtype, **options)
    for name, long in zip(NAMES[1:], LONG_NAMES):
        module.params[long if suffix else f"{long}_l0"][...] = arrays[name]
    return module


class NumPy(Contestant):
    name = "NumPy"  # its threads are those of its BLAS: OPENBLAS_NUM_THREADS, set before the process starts

    def __init__(self, cell: str, arrays: dict[str, Array], dy: Array, threads: int) -> None:
        self.cell, self.arrays, self.dy = cell, [arrays[name] for name in NAMES], dy

    def forward(self) -> Any:
        return numpy_loop.forward(self.cell, *self.arrays)[0]

    def train(self) -> Any:
        y, saved = numpy_loop.forward(self.cell, *self.arrays)
        return y, numpy_loop.backward(self.cell, self.dy, saved)


class Torch(Contestant):
    name, modules = "PyTorch", ("torch",)

    def __init__(self, cell: str, arrays: dict[str, Array], dy: Array, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch, self.x, self.dy = torch, torch.tensor(arrays["x"]), torch.tensor(dy)
        kind = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[CELLS[cell][0]]
        options = {"nonlinearity": cell} if kind is torch.nn.RNN else {}
        self.layer = kind(self.x.shape[2], self.dy.shape[2], dtype=self.x.dtype, **options)
        self.layer.load_state_dict({f"{long}_l0": torch.tensor(arrays[name]) for name, long in zip(NAMES[1:], LONG_NAMES)})
        self.x_with_grad = self.x.clone().requires_grad_()

    def forward(self) -> Any:
        with self.torch.inference_mode():
            return self.layer(self.x)[0]

    def train(self) -> Any:
        y = self.layer(self.x_with_grad)[0]
        wanted = [self.x_with_grad, *self.layer.parameters()]  # in the order of NAMES
        return y.detach(), self.torch.autograd.grad(y, wanted, self.dy.to(y.dtype))


class TorchBf16(Torch):
    """Under autocast; the weights stay in float32."""

    dtypes = ("bf16",)

    def forward(self) -> Any:
        with self.torch.autocast("cpu", self.torch.bfloat16):
            return super().forward()

    def train(self) -> Any:
        with self.torch.autocast("cpu", self.torch.bfloat16):
            return super().train()


class Jax(Contestant):
    name, modules = "JAX", ("jax",)  # one thread per core that the process may use

    def __init__(self, cell: str, arrays: dict[str, Array], dy: Array, threads: int) -> None:
        os.environ["JAX_PLATFORMS"] = "cpu"
        import jax

        jax.config.update("jax_enable_x64", dy.dtype == np.float64)
        self.ready = jax.block_until_ready
        self.arrays, self.dy = jax.device_put([arrays[name] for name in NAMES]), jax.device_put(dy)

        def forward(*arrays: Any) -> Any:
            return jax_layer(cell, *arrays)

        def train(dy: Any, *arrays: Any) -> Any:
            y, back = jax.vjp(forward, *arrays)
            return y, back(dy)

        self.jit_forward, self.jit_train = jax.jit(forward), jax.jit(train)

    def forward(self) -> Any:
        return self.ready(self.jit_forward(*self.arrays))

    def train(self) -> Any:
        return self.ready(self.jit_train(self.dy, *self.arrays))


def jax_layer(cell: str, x: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
    """y; the product with x for all steps first, then a scan."""
    import jax
    from jax import numpy as jnp

    def lstm(state: Any, a: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(a + h @ w_hh.T + b_hh, 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def gru(h: Any, a: Any) -> Any:
        (r, z, n), (hr, hz, hn) = jnp.split(a, 3, axis=1), jnp.split(h @ w_hh.T + b_hh, 3, axis=1)
        r, z = jax.nn.sigmoid(r + hr), jax.nn.sigmoid(z + hz)
        n = jnp.tanh(n + r * hn)
        h = (1 - z) * n + z * h
        return h, h

    def rnn(h: Any, a: Any) -> Any:
        a = a + h @ w_hh.T + b_hh
        h = jnp.tanh(a) if cell == "tanh" else jax.nn.relu(a)
        return h, h

    zero = jnp.zeros((x.shape[1], w_hh.shape[1]), x.dtype)
    step, state = {"lstm": (lstm, (zero, zero)), "gru-after": (gru, zero)}.get(cell, (rnn, zero))
    return jax.lax.scan(step, state, x @ w_ih.T + b_ih)[1]


def onnx_model(cell: str, arrays: dict[str, Array]) -> bytes:
    """A model of one node, x -> y (T, 1, B, H), the weights inside. ONNX's gates: LSTM i, o, f, c; GRU z, r, h."""
    from onnx import TensorProto, helper, numpy_helper

    operator, order, options = {
        "lstm": ("LSTM", (0, 3, 1, 2), {}),
        "gru-after": ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
        "relu": ("RNN", (0,), {"activations": ["Relu"]}),
        "tanh": ("RNN", (0,), {"activations": ["Tanh"]}),
    }[cell]

    def permuted(name: str) -> Array:
        blocks = np.split(arrays[name], len(order))
        return np.concatenate([blocks[k] for k in order])

    bias = np.concatenate([permuted("b_ih"), permuted("b_hh")])
    weights = {"W": permuted("w_ih"), "R": permuted("w_hh"), "B": bias}
    (T, B, I), H = arrays["x"].shape, arrays["w_hh"].shape[1]
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", *weights], ["y"], hidden_size=H, **options)],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, B, I])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [T, 1, B, H])],
        [numpy_helper.from_array(w[None], name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


class OnnxRuntime(Contestant):
    name, modules = "ONNX Runtime", ("onnxruntime", "onnx")
    dtypes, trains = ("float32",), False

    def __init__(self, cell: str, arrays: dict[str, Array], dy: Array, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = onnxruntime.InferenceSession(onnx_model(cell, arrays), options, ["CPUExecutionProvider"])
        # Bound once: no copies and no look-up of names in a call.
        T, B, H = dy.shape
        self.x = onnxruntime.OrtValue.ortvalue_from_numpy(arrays["x"])
        self.y = onnxruntime.OrtValue.ortvalue_from_shape_and_type([T, 1, B, H], np.float32)
        self.binding = self.session.io_binding()
        self.binding.bind_ortvalue_input("x", self.x)
        self.binding.bind_ortvalue_output("y", self.y)

    def forward(self) -> Any:
        self.session.run_with_iobinding(self.binding)
        return self.y


class OpenVino(Contestant):
    name, modules = "OpenVINO", ("openvino", "onnx")
    dtypes, trains, precision = ("float32",), False, "f32"

    def __init__(self, cell: str, arrays: dict[str, Array], dy: Array, threads: int) -> None:
        sys.modules["openvino_telemetry"] = None  # cannot be imported: it would fork this process, to report its use
        import openvino

        core = openvino.Core()
        model = core.read_model(onnx_model(cell, arrays), b"")
        # On some processors it would compute in bfloat16 unless told not to.
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self.precision}
        self.compiled = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, **hints})
        self.request = self.compiled.create_infer_request()
        self.request.set_input_tensor(openvino.Tensor(arrays["x"], shared_memory=True))

    def forward(self) -> Any:
        self.request.infer()
        return self.request.get_output_tensor(0).data


class OpenVinoBf16(OpenVino):
    dtypes, precision = ("bf16",), "bf16"


ALL: tuple[type[Contestant], ...] = (
    *(Fastrnn, NumPy, Torch, Jax, OnnxRuntime, OpenVino),
    *(FastrnnBf16, FastrnnBesideBf16, TorchBf16, OpenVinoBf16),
)


def to_numpy(value: Any, shape: tuple[int, ...]) -> Array:
    """A tensor of any of the packages, or a list of one for each step, as an array of that shape."""
    if isinstance(value, list):
        return np.stack([to_numpy(member, shape[1:]) for member in value])
    if hasattr(value, "detach"):  # PyTorch's
        value = value.detach().float() if str(value.dtype) == "torch.bfloat16" else value.detach()
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value).reshape(shape)
