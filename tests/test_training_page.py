"""The code in docs/training.md runs, and its first block trains."""

import re

import numpy as np
import pytest

import fastrnn
from building import ROOT
from fastrnn import diagnostics, train
from fastrnn.train import initialisers

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text("utf-8"), flags=re.DOTALL)


@pytest.fixture(scope="module")
def names():
    """What the snippets take for granted, and the step of the first one."""
    found = {name: getattr(module, name) for module in (train, initialisers, diagnostics) for name in module.__all__}
    exec(BLOCKS[0], found)
    return found


def test_the_first_block_is_a_training(names):
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 13, 16)
    target = rng.integers(0, 5, (12, 16))
    x = np.eye(20, dtype=np.float32)[target]  # the answer stands in the question
    losses = [names["step"](x, target, lengths) for _ in range(200)]
    assert losses[0] > 1.5
    assert losses[-1] < 0.5


def test_every_other_block_runs(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("matplotlib")
    T, B, rng = 12, 4, np.random.default_rng(0)
    layer, readout, adam = names["layer"], names["readout"], names["adam"]
    x = rng.standard_normal((T, B, 20), dtype=np.float32)
    y, _, tape = layer.forward(x)
    decoder, of_decoder = fastrnn.LSTM(5, 8, rng=0), train.Linear(8, 5, rng=0)
    lengths = np.array([3, 12, 1, 0])
    before = {
        "x": x, "y": y, "T": T, "B": B, "rng": rng, "lengths": lengths, "grads": tape.backward(y),
        "readout_grads": readout.forward(y)[1].backward(np.ones((T, B, 5), np.float32)), "judge": lambda *parts: None,
        "dh": tuple(np.ones((1, B, 64), np.float32) for _ in range(2)), "do": np.ones((B, 5), np.float32),
    }  # fmt: skip
    special = {
        "sigmoid_cross_entropy": {"o": readout(y), "notes": rng.random((T, B, 5)) < 0.5},
        "sample(": {"layer": decoder, "readout": of_decoder, "prompt": [3], "decoder": decoder, "state": None},
        "OutputRNN": {"x": x[..., :3].copy(), "targets": np.zeros((T, B, 2), np.float32)},
        "jacobian_norms": {"layer": layer.astype(np.float64), "x": x.astype(np.float64)},
    }
    ran = 0
    for block in BLOCKS[1:]:
        if "DataParallel" in block:  # it has tests of its own, with MPI
            continue
        space = names | before | {"layer": layer, "readout": readout, "adam": adam}
        for mark, values in special.items():
            space |= values if mark in block else {}
        if "jacobian_norms" in block:
            space["dh"] = tuple(np.ones((1, B, 64)) for _ in range(2))
        if "beam_search" in block:
            block = block.replace("beam_search(decoder, readout", "beam_search(decoder, of_decoder")
            space["of_decoder"] = of_decoder
        exec(block, space)
        ran += 1
    assert ran == len(BLOCKS) - 2
    assert (tmp_path / "training.npz").exists()
    assert (tmp_path / "memory.png").exists()
