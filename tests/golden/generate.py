"""Write torch.npz: what PyTorch computes, forward and backward, for tests/test_golden.py to compare with.

PyTorch is needed here alone; the tests read the file. To write it anew, from the project's root:

    python3 -m venv /path/to/scratch
    /path/to/scratch/bin/pip install torch==2.13.0 numpy
    /path/to/scratch/bin/python tests/golden/generate.py

The file has one record per case, named cell-T-B-I-H or cell-T-B-I-H-nobias, with the fields
    inputs              x, h0, c0, the parameters by torch's names, and the incoming gradients dy, dh_n, dc_n,
                        all in float32;
    float32, float64    torch's results in that dtype: y, h_n, c_n, and the gradients of
                        sum(y * dy) + sum(h_n * dh_n) + sum(c_n * dc_n): dx, dh0, dc0, dweight_ih_l0, ...
States have torch's shape, (1, B, H). The inputs are numbers of few bits, which compress well.
"""

from pathlib import Path

import numpy as np
import torch

CELLS = {  # by name: the gates, and the layer
    "tanh": (1, lambda *size, **options: torch.nn.RNN(*size, nonlinearity="tanh", **options)),
    "relu": (1, lambda *size, **options: torch.nn.RNN(*size, nonlinearity="relu", **options)),
    "gru": (3, torch.nn.GRU),
    "lstm": (4, torch.nn.LSTM),
}
# H: one unit, whole vectors, and twice the widest vector plus one, of float64 (17) and of float32 (33).
SHAPES = [  # T, B, I, H, bias
    (1, 1, 1, 1, True),
    (1, 1, 1, 1, False),
    (5, 3, 4, 8, True),
    (5, 3, 4, 8, False),
    (7, 2, 3, 17, True),
    (3, 2, 2, 33, True),
    (12, 5, 2, 3, True),
]


def draw_inputs(cell, T, B, I, H, bias, rng):
    """x, the initial state, the parameters (as large as torch's initial ones) and the incoming gradients."""
    rows, state = CELLS[cell][0] * H, (1, B, H)
    parameters = {"weight_ih_l0": (rows, I), "weight_hh_l0": (rows, H)}
    if bias:
        parameters |= {"bias_ih_l0": (rows,), "bias_hh_l0": (rows,)}
    others = {"x": (T, B, I), "h0": state, "dy": (T, B, H), "dh_n": state}
    if cell == "lstm":
        others |= {"c0": state, "dc_n": state}
    limit = 2.0 ** -np.round(np.log2(np.sqrt(H)))
    drawn = {name: draw(shape, 1.0, rng) for name, shape in others.items()}
    return drawn | {name: draw(shape, limit, rng) for name, shape in parameters.items()}


def draw(shape, limit, rng):
    """Multiples of limit / 128 between -limit and limit, which float32 and float64 hold exactly."""
    return (rng.integers(-127, 128, shape) * (limit / 128)).astype(np.float32)


def run(cell, inputs, I, H, bias, dtype):
    """torch's results and gradients by name, as arrays."""
    layer = CELLS[cell][1](I, H, bias=bias, dtype=dtype)
    tensors = {name: torch.tensor(array).to(dtype) for name, array in inputs.items()}
    layer.load_state_dict({name: tensors[name] for name in layer.state_dict()})
    leaves = {name: tensors[name].requires_grad_() for name in ("x", "h0", "c0") if name in tensors}
    state = (leaves["h0"], leaves["c0"]) if cell == "lstm" else leaves["h0"]
    y, final = layer(leaves["x"], state)
    results = {"y": y} | ({"h_n": final[0], "c_n": final[1]} if cell == "lstm" else {"h_n": final})
    torch.autograd.backward(list(results.values()), [tensors["d" + name] for name in results])
    results |= {"d" + name: leaf.grad for name, leaf in {**leaves, **dict(layer.named_parameters())}.items()}
    return {name: tensor.detach().numpy() for name, tensor in results.items()}


def as_record(arrays):
    """A mapping of names to arrays, or to such mappings, as one structured value.

    A file of a few of these is much smaller than one of many arrays.
    """
    arrays = {name: as_record(a) if isinstance(a, dict) else a for name, a in arrays.items()}
    record = np.zeros((), [(name, array.dtype, array.shape) for name, array in arrays.items()])
    for name, array in arrays.items():
        record[name] = array
    return record


def main():
    if torch.__version__.split("+")[0] != "2.13.0":
        raise SystemExit(f"torch: expected 2.13.0, got {torch.__version__}")
    torch.set_num_threads(1)
    rng, records = np.random.default_rng(2013), {}
    for cell in CELLS:
        for *shape, bias in SHAPES:
            inputs = draw_inputs(cell, *shape, bias, rng)
            record = {"inputs": inputs}
            for dtype in (torch.float32, torch.float64):
                record[str(dtype).removeprefix("torch.")] = run(cell, inputs, *shape[2:], bias, dtype)
            name = "-".join([cell, *map(str, shape)] + ([] if bias else ["nobias"]))
            records[name] = as_record(record)
    np.savez_compressed(Path(__file__).with_name("torch.npz"), **records)


if __name__ == "__main__":
    main()
