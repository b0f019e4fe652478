"""The examples of docs/ run, and say what they should."""

import re

import numpy as np
import pytest

from building import ROOT
from fastrnn import reference
from fastrnn._engine.activations import KINDS


def examples(page):
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)


EXAMPLES = examples("sequences.md")


@pytest.fixture(scope="module")
def page():
    """What the examples leave behind, one after the other."""
    names: dict = {}
    for example in EXAMPLES:
        exec(example, names)
    return names


def test_the_examples_run(page):
    assert len(EXAMPLES) == 9
    assert page["total"].any() and page["grads"].flat.any()


@pytest.mark.parametrize("k1, k2, truncate", [(10, 10, 10), (7, 7, 7), (10, 50, None), (7, 70, None), (50, 50, None)])
def test_the_loop_of_truncated_gradients(page, k1, k2, truncate):
    """k2 = k1 is truncate=k1, and a k2 of all steps is the whole gradient."""
    names, loop = dict(page), EXAMPLES[-1]
    assert "k1, k2 = 10, 30" in loop
    exec(loop.replace("k1, k2 = 10, 30", f"k1, k2 = {k1}, {k2}"), names)
    y, _, tape = names["layer"].forward(names["x"])
    expected = tape.backward(y - names["target"], truncate=truncate).flat
    np.testing.assert_allclose(names["total"], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(names["y"][-1], y[-1])


def test_the_loop_goes_back_k2_steps(page):
    """Neither fewer nor more: the gradients of x in its last piece."""
    names = dict(page)
    exec(EXAMPLES[-1].replace("total += tape.backward(dy).flat", "dx = tape.backward(dy).x"), names)
    assert names["dx"].shape[0] == 30 and names["dx"].any(axis=(1, 2)).all()


def test_the_example_of_activations_runs():
    (example,), names = examples("activations.md"), {}
    exec(example, names)
    layer, keras3, x = (names[name] for name in ("layer", "keras3", "x"))
    assert names["grads"].x.any() and not np.array_equal(keras3(x)[0], layer(x)[0])
    table = re.findall(r"^\| `(\w+)` \|.*\| ?([^|]*?) ?\|$", (ROOT / "docs" / "activations.md").read_text(), re.MULTILINE)
    said = {name: tuple(float(number) for number in parameters.split(",") if number.strip()) for name, parameters in table}
    assert said == {name: activation.parameters for name, activation in reference.ACTIVATIONS.items()}
    assert said == {name: kind.parameters for name, kind in KINDS.items()}
def test_the_examples_of_files_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for example in examples("files.md"):
        exec(example, names)
    assert repr(names["layer"]) == "LSTM(3, 4, dtype=float64)" and names["y"].shape == (100, 8)


def test_the_examples_of_single_steps_run():
    """The gradient that the last one takes a step along is that of its loss."""
    names: dict = {}
    for example in examples("steps.md"):
        exec(example, names)
    cell, x, mix, target = (names[name] for name in ("cell", "x", "mix", "target"))
    cell, moved = cell.astype(np.float64), cell.flat.astype(np.float64)
    start = moved + 0.01 * names["steps"].grads.flat

    def loss(flat):
        cell.flat[:] = flat
        x_t, state, total = x[0].astype(np.float64), None, 0.0
        for target_t in target:
            state = cell(x_t, state)
            total += ((state[0] - target_t) ** 2).sum() / 2
            x_t = np.tanh(state[0] @ mix)
        return total

    slope = (loss(start + 1e-6 * (start - moved)) - loss(start - 1e-6 * (start - moved))) / 2e-6
    np.testing.assert_allclose(slope, 0.01 * (names["steps"].grads.flat.astype(np.float64) ** 2).sum(), rtol=1e-3)
