"""The examples run, say what they should, and compare what they say they compare."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from building import ROOT, run_python

ADDING = ROOT / "examples" / "adding.py"
PACKAGE = str(Path(fastrnn.__file__).parents[1])


@pytest.fixture(scope="module")
def adding():
    with pytest.MonkeyPatch.context() as environment:  # which the program sets for its own process
        environment.setenv("OPENBLAS_NUM_THREADS", "1")
        environment.setenv("MKL_NUM_THREADS", "1")
        environment.syspath_prepend(ADDING.parent)
        yield importlib.import_module("adding")


def test_the_quickstart_learns(tmp_path):
    out = run_python(str(ADDING.with_name("quickstart.py")), cwd=tmp_path, PYTHONPATH=PACKAGE, PYTHONWARNINGS="error")
    errors = [float(line.split()[-1]) for line in out.splitlines()]
    assert len(errors) == 5
    assert errors[-1] < 0.05 < 0.2 < errors[0]  # always answering the mean has 0.29


def test_the_adding_problem_without_matplotlib(tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not in this test')\n")
    path = f"{tmp_path}:{PACKAGE}"
    out = run_python(str(ADDING), "--quick", cwd=tmp_path, PYTHONPATH=path, COLUMNS="120", PYTHONWARNINGS="error")
    assert "The adding problem, T = 20" in out
    cells = {}
    for line in out.splitlines():
        if line.startswith("│"):
            name, *rest = (cell.strip() for cell in line.strip("│").split("│"))
            cells[name] = rest
    assert set(cells) == {"IRNN", "tanh RNN"}
    solved, error, *times, ratio = cells["IRNN"]
    assert 0 < int(solved) <= 800
    assert float(error) < 0.01
    solved, error, *_ = cells["tanh RNN"]
    assert solved == "not in 800" if float(error) >= 0.01 else int(solved) <= 800
    assert len(times) == 3
    assert all(re.fullmatch(r"\d+\.\d\d ms", time) for time in times)
    assert float(ratio) > 0
    assert "always answering 1 has 0.1667" in out
    assert "No picture: matplotlib is not installed." in out
    assert not (tmp_path / "adding.png").exists()


def test_the_picture(tmp_path):
    pytest.importorskip("matplotlib")
    out = run_python(
        str(ADDING), "--quick", "--steps", "30", "--out", "other.png", cwd=tmp_path, PYTHONPATH=PACKAGE, COLUMNS="120"
    )
    assert "Picture: other.png" in out
    assert (tmp_path / "other.png").read_bytes().startswith(b"\x89PNG")


def test_the_data_are_the_adding_problem(adding):
    x, target = adding.adding_problem(np.random.default_rng(0), 20, 1000)
    numbers, marks = x[:, :, 0], x[:, :, 1]
    assert x.dtype == target.dtype == np.float32
    assert ((numbers >= 0) & (numbers <= 1)).all()
    assert (marks[:10].sum(axis=0) == 1).all()
    assert (marks[10:].sum(axis=0) == 1).all()
    assert (marks.sum(axis=1) > 0).all()  # every step is marked sometimes
    np.testing.assert_allclose(target[:, 0], (numbers * marks).sum(axis=0), rtol=1e-6)
    assert np.mean((target - 1) ** 2) == pytest.approx(1 / 6, rel=0.1)


def test_the_two_networks_start_from_the_same_weights(adding):
    irnn, tanh = adding.new_networks(3, ["irnn", "tanh"])
    assert np.array_equal(irnn.layer.flat, tanh.layer.flat)
    assert np.array_equal(irnn.readout.flat, tanh.readout.flat)
    assert (irnn.layer.nonlinearity, tanh.layer.nonlinearity) == ("relu", "tanh")


@pytest.mark.parametrize("which", ["irnn", "tanh"])
def test_the_numpy_loop_that_is_timed_computes_the_same_step(adding, which):
    x, target = adding.adding_problem(np.random.default_rng(0), 20, 8)
    ours, plain = (adding.new_networks(0, [which])[0] for _ in range(2))
    plain.layer = adding.NumpyLoop(plain.layer)
    y, h, tape = ours.layer.forward(x)
    y_plain, h_plain, tape_plain = plain.layer.forward(x)
    np.testing.assert_allclose(y_plain, y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(h_plain, h, rtol=1e-4, atol=1e-5)
    dh = np.random.default_rng(1).standard_normal(h.shape).astype(np.float32)
    wanted = tape.backward(dstate=dh).flat
    np.testing.assert_allclose(tape_plain.backward(dstate=dh).flat, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
    for network in (ours, plain):
        network.step(x, target)
    np.testing.assert_allclose(plain.readout.flat, ours.readout.flat, atol=1e-4)


def test_a_step_whose_gradient_is_not_finite_is_skipped(adding):
    (network,) = adding.new_networks(0, ["irnn"])
    x, target = adding.adding_problem(np.random.default_rng(0), 20, 8)
    before = network.layer.flat.copy()
    target[3] = np.nan
    network.step(x, target)
    assert np.array_equal(network.layer.flat, before)
    target[3] = 1
    network.step(x, target)
    assert not np.array_equal(network.layer.flat, before)
    assert np.isfinite(network.layer.flat).all()


@pytest.mark.parametrize("option, value", [("--T", "1"), ("--steps", "0"), ("--seed", "-1")])
def test_an_option_that_makes_no_sense_is_an_error(adding, monkeypatch, capsys, option, value):
    monkeypatch.setattr(sys, "argv", ["adding.py", option, value])
    with pytest.raises(SystemExit):
        adding.arguments()
    assert option in capsys.readouterr().err
