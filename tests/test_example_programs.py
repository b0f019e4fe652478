"""Each example in its short form: it does what it says, and goes on exactly where it stopped."""

import argparse
import gzip
import importlib
import io
import pickle
import sys

import numpy as np
import pytest

from building import ROOT

EXAMPLES = ROOT / "examples"
OPTIONS = {  # beside --quick, so that each is done in a second or two
    "adding": ["--steps", "40", "--networks", "irnn", "tanh", "lstm", "gru"],
    "addition": ["--sums", "200", "--epochs", "4"],
    "characters": ["--steps", "40", "--characters", "30000"],
    "parity": ["--steps", "40"],
    "pixels": ["--epochs", "2", "--data", "digits"],
    "rows": ["--epochs", "2", "--data", "digits"],
    "series": ["--steps", "40"],
}


@pytest.fixture(scope="module", autouse=True)
def path():
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENBLAS_NUM_THREADS", "1")  # adding.py sets them for its own process
        environment.setenv("MKL_NUM_THREADS", "1")
        environment.syspath_prepend(EXAMPLES)
        yield


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run("parity", "--seed", "1"): what the program prints; it works in tmp_path, and draws no picture unless told to."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str, picture: bool = False) -> str:
        program = importlib.import_module(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--quick", *arguments])
        with monkeypatch.context() as context:
            if not picture:
                context.setattr(program, "picture", lambda *arguments, **options: None)
            program.main()
        return capsys.readouterr().out

    return run


def bars(rng, n, size=8):
    """Pictures of a bright column or row, and which of them it is."""
    y = rng.integers(0, 10, n)
    x = rng.integers(0, 60, (n, size, size), dtype=np.uint8)
    for picture, k in zip(x, y):
        (picture if k < 5 else picture.T)[k % 5 + 1] = 255
    return x, y.astype(np.uint8)


@pytest.fixture
def digits(tmp_path):
    """A folder "digits" of IDX files, one of them compressed."""
    (tmp_path / "digits").mkdir()
    rng = np.random.default_rng(0)
    for kind, n in (("train", 300), ("t10k", 100)):
        for (name, array), head in zip(zip(("images-idx3-ubyte", "labels-idx1-ubyte"), bars(rng, n)), (3, 1)):
            raw = bytes([0, 0, 8, head]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()
            if (kind, head) == ("train", 3):
                (tmp_path / "digits" / f"{kind}-{name}.gz").write_bytes(gzip.compress(raw))
            else:
                (tmp_path / "digits" / f"{kind}-{name}").write_bytes(raw)
    return tmp_path / "digits"


# --- what each shows ----------------------------------------------------------------------------------------


def test_parity_is_learned_for_any_length(run):
    out = run("parity")
    shares = [float(word) for line in out.splitlines() if line.startswith("length") for word in line.split() if "." in word]
    assert len(shares) == 4
    assert min(shares) > 99


def test_the_characters_are_told_better_than_by_bigrams(run):
    out = run("characters")
    (line,) = (line for line in out.splitlines() if "bits for each:" in line)
    words = line.split("bits for each: ")[1].split()
    assert 1 < float(words[0]) < float(words[-1]) < 4
    assert len(out.split(line)[1]) > 500  # of a prompt, and of a sample


def test_the_bigram_entropy_of_texts():
    characters = importlib.import_module("characters")
    assert characters.bigram_entropy(np.array([0, 1, 2] * 50 + [0]), 3) == pytest.approx(0)
    coins = np.random.default_rng(0).integers(0, 4, 100_000)
    assert characters.bigram_entropy(coins, 4) == pytest.approx(2, abs=1e-3)
    text = np.array([0, 0, 1, 0, 1, 1, 0])  # the pairs 00, 01 (twice), 10 (twice), 11
    assert characters.bigram_entropy(text, 2) == pytest.approx(np.log2(3) - 2 / 3)


def test_the_series_is_told_better_than_by_a_line(run):
    errors = [float(line.split()[-1]) for line in run("series").splitlines() if line.startswith("root")]
    network, stays, linear = errors
    assert network < linear < stays


def test_a_series_from_a_file(run, tmp_path):
    t = np.arange(400)
    lines = [f"{k};{3 + np.sin(k / 5):.6f}" for k in t]
    (tmp_path / "waves.csv").write_text("\n".join(["day;value", *lines, ""]))
    out = run("series", "--data", "waves.csv", "--column", "2")
    network, stays, _ = (float(line.split()[-1]) for line in out.splitlines() if line.startswith("root"))
    assert network < stays / 3
    (tmp_path / "gap.csv").write_text("\n".join([*lines[:9], "9;?", *lines[10:]]))
    with pytest.raises(SystemExit, match=r"expected a number in column 2, got '9;\?'"):
        run("series", "--data", "gap.csv", "--column", "2")


def test_sums_are_of_different_pairs_and_right():
    addition = importlib.import_module("addition")
    data = addition.sums(np.random.default_rng(0), 1000, 2)
    asked = [addition.text(ids[:n]) for ids, n in zip(data.source.T, data.lengths)]
    pairs = {tuple(sorted(map(int, text.split("+")))) for text in asked}
    assert len(pairs) == 1000
    assert [int(addition.text(ids)) for ids in data.answer.T] == [sum(map(int, text.split("+"))) for text in asked]
    assert (data.answer[-1] == addition.BLANK).all()


@pytest.mark.parametrize("reverse", [True, False])
def test_the_two_lstms_learn_to_add_one_digit(reverse):
    addition = importlib.import_module("addition")
    data = addition.sums(np.random.default_rng(0), 54, 1)
    network = addition.Network(reverse, argparse.Namespace(seed=0, lr=1e-2), steps=150)
    assert network.accuracy(data) < 0.5
    for _ in range(150):
        network.step(data)
    assert network.accuracy(data) > 0.95


def test_the_addition_tells_both_ways_and_a_few_answers(run):
    out = run("addition", "--digits", "1", "--sums", "54", "--epochs", "2")
    shares = [line for line in out.splitlines() if line.startswith("source ") and "% of characters after 2 epochs" in line]
    assert [line.split(":")[0] for line in shares] == ["source reversed", "source as it is"]
    assert sum(" = " in line and line.count("%") == 3 for line in out.splitlines()) == 3


def test_what_vanishes_and_what_does_not(run, tmp_path):
    pytest.importorskip("matplotlib")
    found = {line.split(":")[0].strip(): line for line in run("vanishing", "--out", "other.png", picture=True).splitlines()}
    left = {name: float(found[name].split("dh_T/dh_0 ")[1].split()[0].rstrip(",")) for name in ("tanh RNN", "IRNN", "LSTM", "GRU")}
    assert left["IRNN"] == 1
    assert max(left["tanh RNN"], left["LSTM"], left["GRU"]) < 0.1
    assert all(found[name].endswith("it holds at every step: True") for name in ("tanh RNN", "IRNN"))
    assert (tmp_path / "other.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name, least", [("pixels", 25), ("rows", 90)])
def test_digits_are_read(run, digits, name, least):
    out = run(name, "--data", str(digits), "--epochs", "12")
    epochs = [line for line in out.splitlines() if line.startswith("epoch")]
    assert float(epochs[-1].split("right ")[1].split()[0]) > least


@pytest.mark.parametrize("name", ["pixels", "rows"])
def test_the_small_digits_of_scikit_learn(run, name):
    pytest.importorskip("sklearn")
    out = run(name, "--epochs", "1")
    assert "epoch   1" in out


@pytest.mark.parametrize("name", ["parity", "series"])  # with two panels; the others draw in the next test
def test_the_picture_is_drawn(run, tmp_path, name):
    pytest.importorskip("matplotlib")
    assert "Picture: other.png" in run(name, "--steps", "5", "--out", "other.png", picture=True)
    assert (tmp_path / "other.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["adding", "characters", "pixels", "rows"])
def test_bf16_trains_as_float32_does(run, digits, monkeypatch, name):
    monkeypatch.setattr(importlib.import_module("adding"), "quickest_steps", lambda args, threads: np.ones((len(args.networks), 3)))
    curves = {}
    for precision in ("float32", "bf16"):
        run(name, *OPTIONS[name], "--stop", "15", "--precision", precision, "--state", f"{precision}.npz")
        state = np.load(f"{precision}.npz")
        curves[precision] = {key: state[key] for key in state.files if key.startswith("curve of ")}
    assert len(curves["float32"]) == (4 if name == "adding" else 1)  # a curve for each network
    for key, curve in curves["float32"].items():
        # Of the mean: an IRNN's first steps are large, and after them values differ by more.
        assert curves["bf16"][key][:, 1].mean() == pytest.approx(curve[:, 1].mean(), rel=0.1), key
        assert not np.array_equal(curves["bf16"][key], curve), key  # each of the layers was told


def test_digits_are_read_row_by_row_in_bf16(run, digits):
    out = run("rows", "--data", str(digits), "--epochs", "12", "--precision", "bf16")
    epochs = [line for line in out.splitlines() if line.startswith("epoch")]
    assert float(epochs[-1].split("right ")[1].split()[0]) > 90


# --- stopping and going on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIONS)
def test_what_was_stopped_goes_on_bit_for_bit(run, digits, tmp_path, monkeypatch, name):
    adding = importlib.import_module("adding")
    # Timing takes longer than all else.
    monkeypatch.setattr(adding, "quickest_steps", lambda args, threads: np.ones((len(args.networks), 3)))
    options = OPTIONS[name]
    run(name, *options, "--state", "whole.npz")
    run(name, *options, "--state", "parts.npz", "--stop", "17")
    assert int(np.load("parts.npz")["step"]) == 17
    assert "going on behind step 17" in run(name, *options, "--state", "parts.npz")
    whole, parts = np.load("whole.npz"), np.load("parts.npz")
    assert set(whole.files) == set(parts.files)
    assert int(whole["step"]) > 17
    for key in whole.files:
        if key != "seconds":
            np.testing.assert_array_equal(parts[key], whole[key], err_msg=key)


def test_the_state_of_another_training_is_refused(run):
    run("parity", "--steps", "3", "--state", "a.npz")
    with pytest.raises(SystemExit, match=r'--state a\.npz: expected a training with .*"hidden": 8.*, got one with .*"hidden": 16'):
        run("parity", "--steps", "5", "--state", "a.npz", "--hidden", "8")


def test_the_precision_is_a_setting_that_files_in_float32_leave_out(run, digits):
    options = ["--data", str(digits), "--stop", "3", "--state", "a.npz"]
    run("rows", *options)
    assert "precision" not in str(np.load("a.npz")["settings"])  # so that files from before there was a choice are gone on with
    with pytest.raises(SystemExit, match=r'--state a\.npz: expected a training with .*"precision": "bf16"'):
        run("rows", *options, "--precision", "bf16")


def test_ctrl_c_waits_for_the_end_of_the_step(run, monkeypatch):
    parity = importlib.import_module("parity")
    steps = []
    step = parity.Network.step

    def interrupted(network, *arguments):
        steps.append(step(network, *arguments))
        if len(steps) == 3:
            import signal

            signal.raise_signal(signal.SIGINT)
            steps.append("behind the signal")
        return steps[0]

    monkeypatch.setattr(parity.Network, "step", interrupted)
    run("parity", "--state", "a.npz")
    assert steps[3:] == ["behind the signal"]
    assert int(np.load("a.npz")["step"]) == 3


# --- digits from where they are -----------------------------------------------------------------------------


def test_digits_of_idx_files_and_npz_are_the_same(digits, tmp_path):
    module = importlib.import_module("digits")
    found = module.digits(str(digits))
    rng = np.random.default_rng(0)
    for ours, wanted in zip(found, (*bars(rng, 300), *bars(rng, 100))):
        assert np.array_equal(ours, wanted)
    np.savez(tmp_path / "all.npz", **found._asdict())
    for ours, wanted in zip(module.digits(str(tmp_path / "all.npz")), found):
        assert np.array_equal(ours, wanted)


@pytest.mark.parametrize("name, raw, message", [
    ("train-labels-idx1-ubyte", b"\0\0\x0d\1\0\0\0\0", "starts with 00 00 08, got 00 00 0d"),
    ("t10k-images-idx3-ubyte", bytes([0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0, 8, 1, 2]), "IDX file of 576 numbers, got 2 in"),
    ("t10k-labels-idx1-ubyte", b"\0\0\x08\3\0", "IDX file of 1 numbers, got -11 in"),
    ("t10k-labels-idx1-ubyte", bytes([0, 0, 8, 1]) + np.array([100], ">i4").tobytes() + bytes([77] * 100), "of 0 to 9"),
])  # fmt: skip
def test_a_file_that_is_broken_is_named(digits, name, raw, message):
    module = importlib.import_module("digits")
    (digits / name).write_bytes(raw)
    with pytest.raises(SystemExit, match=message):
        module.digits(str(digits))


def test_a_folder_without_the_files(tmp_path):
    module = importlib.import_module("digits")
    with pytest.raises(SystemExit, match="expected a file train-images-idx3-ubyte"):
        module.digits(str(tmp_path))


def test_the_pickle_may_hold_arrays_and_nothing_else():
    module = importlib.import_module("digits")
    arrays = ((np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(2)), (np.zeros(0), np.float64([1.5])))
    for protocol in (3, 4):  # what later ones call besides is not let in
        read = module.OnlyArrays(io.BytesIO(pickle.dumps(arrays, protocol)), encoding="latin1").load()
        for ours, wanted in zip([a for pair in read for a in pair], [a for pair in arrays for a in pair]):
            assert ours.dtype == wanted.dtype
            assert np.array_equal(ours, wanted)
    for bad in (print, np.load, importlib.import_module, np.testing.assert_equal, pickle.Unpickler):
        with pytest.raises(pickle.UnpicklingError, match="expected nothing but arrays, got"):
            module.OnlyArrays(io.BytesIO(pickle.dumps(bad))).load()


# --- options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, arguments, message", [
    ("parity", ["--hidden", "0"], "--hidden: expected at least 1, got 0"),
    ("parity", ["--seed", "-1"], "--seed: expected at least 0, got -1"),
    ("addition", ["--digits", "1", "--sums", "60"], "10 to 99 % of the pairs that there are, 55"),
    ("characters", ["--characters", "500"], "expected at least 20480 characters, got 500"),
    ("series", ["--column", "0"], "--column: expected at least 1, got 0"),
])  # fmt: skip
def test_an_option_that_makes_no_sense_is_an_error(run, monkeypatch, capsys, name, arguments, message):
    with pytest.raises(SystemExit):
        run(name, *arguments)
    assert message in capsys.readouterr().err
