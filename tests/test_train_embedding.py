"""Embedding: vectors by number, and the gradient that goes back to them."""

import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn.train import SGD, Embedding, load, save

F32, F64 = np.float32, np.float64


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("shape", [(), (5,), (4, 3), (2, 3, 4), (0, 3)])
def test_it_is_a_product_with_one_hot_rows(dtype, shape):
    rng = np.random.default_rng(0)
    layer, index = Embedding(6, 5, dtype=dtype, rng=1), rng.integers(0, 6, shape)
    one_hot = np.eye(6, dtype=dtype)[index]
    y, tape = layer.forward(index)
    assert y.shape == (*shape, 5) and y.dtype == dtype
    assert np.array_equal(y, one_hot @ layer.params["weight"])
    assert np.array_equal(y, layer(index))
    dy = rng.standard_normal(y.shape).astype(dtype)
    grads = tape.backward(dy)
    wanted = one_hot.reshape(-1, 6).T.astype(F64) @ dy.reshape(-1, 5).astype(F64)
    np.testing.assert_allclose(grads.params["weight"], wanted, rtol=1e-5, atol=1e-6)
    assert grads.x is None and np.shares_memory(grads.flat, grads.params["weight"])
    with pytest.raises(RuntimeError, match="used"):
        tape.backward(dy)


def test_sums_go_from_the_first_place_to_the_last():
    _, tape = Embedding(2, 1, rng=0).forward(np.zeros(4, int))
    dy = np.array([[1.0], [2.0**25], [1.0], [-(2.0**25)]], F32)  # 1 is lost in 2**25, whichever comes first
    assert tape.backward(dy).flat.tolist() == [0, 0]
    _, tape = Embedding(2, 1, rng=0).forward(np.zeros(4, int))
    assert tape.backward(dy[[1, 3, 0, 2]]).flat.tolist() == [2, 0]


def test_what_was_called_stays_as_it_was():
    layer, index = Embedding(4, 3, rng=0), np.array([1, 1])
    y, tape = layer.forward(index)
    index[:] = 2
    y[:] = 0  # a copy
    assert layer.flat.all()
    dy = np.ones((2, 3), F32)
    assert tape.backward(dy.T.copy().T).params["weight"].tolist() == [[0] * 3, [2] * 3, [0] * 3, [0] * 3]


def test_padding_stays_zero():
    layer, other = Embedding(4, 3, padding_index=2, rng=0), Embedding(4, 3, rng=0)
    rows = [0, 1, 3]
    assert not layer.params["weight"][2].any()
    assert np.array_equal(layer.params["weight"][rows], other.params["weight"][rows])
    _, tape = layer.forward(np.array([2, 1, 2]))
    grads = tape.backward(np.ones((3, 3), F32))
    assert grads.params["weight"].sum(axis=1).tolist() == [0, 3, 0, 0]
    SGD(layer.flat, lr=0.1).step(grads.flat)
    assert not layer.params["weight"][2].any()
    assert repr(layer) == "Embedding(4, 3, padding_index=2)"


def test_it_starts_from_a_normal_distribution_as_in_pytorch():
    torch = pytest.importorskip("torch")
    layer, theirs = Embedding(400, 50, rng=0), torch.nn.Embedding(400, 50)
    assert abs(layer.flat.mean()) < 0.03 and abs(layer.flat.std() - 1) < 0.02
    layer.load_state_dict({name: w.numpy() for name, w in theirs.state_dict().items()})
    index = np.array([[3, 399], [0, 3]])
    y, tape = layer.forward(index)
    out = theirs(torch.from_numpy(index))
    assert np.array_equal(y, out.detach().numpy())
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(F32)
    out.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(tape.backward(dy).params["weight"], theirs.weight.grad.numpy(), rtol=1e-6)


def test_files_pickles_and_other_dtypes(tmp_path):
    layer, other = Embedding(4, 3, padding_index=1, rng=0), Embedding(4, 3, padding_index=1, rng=1)
    save(tmp_path / "it.npz", embedding=layer)
    load(tmp_path / "it.npz", embedding=other)
    assert np.array_equal(layer.flat, other.flat)
    again = pickle.loads(pickle.dumps(layer))
    assert np.array_equal(again(np.arange(4)), layer.params["weight"]) and again.padding_index == 1
    assert layer.astype(F64)(np.arange(4)).dtype == F64
    with pytest.raises(TypeError, match="a tape"):
        pickle.dumps(layer.forward(np.arange(4))[1])


RANGE = "index: expected integers from 0 to num_embeddings - 1 = 3, got "
NO_INTEGERS = "index: expected a NumPy array of integers, got "
ZEROS = np.zeros(2, int)
BAD = {
    "too large": (lambda e: e(np.array([[0, 4]])), ValueError, RANGE + "4 at (0, 1)"),
    "negative": (lambda e: e.forward(np.array([-1])), ValueError, RANGE + "-1 at 0"),
    "one too large": (lambda e: e(np.array(4)), ValueError, RANGE + "4"),
    "floats": (lambda e: e(np.ones(2)), TypeError, NO_INTEGERS + "an array of float64"),
    "booleans": (lambda e: e(np.ones(2, bool)), TypeError, NO_INTEGERS + "an array of bool"),
    "list": (lambda e: e([0]), TypeError, NO_INTEGERS + "list"),
    "masked": (lambda e: e(np.ma.array([0, 1], mask=[0, 1])), TypeError, NO_INTEGERS + "MaskedArray"),
    "dy": (lambda e: e.forward(ZEROS)[1].backward(np.ones((3, 3), F32)), ValueError, "dy: expected (..., D) = (2, 3), got (3, 3)"),
    "dtype of dy": (lambda e: e.forward(ZEROS)[1].backward(np.ones((2, 3))), TypeError, "dy: expected dtype float32"),
    "size": (lambda e: Embedding(0, 3), ValueError, "num_embeddings: expected an integer greater than zero, got 0"),
    "dim": (lambda e: Embedding(3, 2.0), TypeError, "embedding_dim: expected an integer, got 2.0"),
    "padding": (lambda e: Embedding(3, 2, padding_index=3), ValueError, "padding_index: expected an integer from 0 to 2, got 3"),
    "memory": (lambda e: Embedding(2**62, 2**62), MemoryError, "num_embeddings, embedding_dim: "),
    "names": (lambda e: e.load_state_dict({"w": e.flat}), KeyError, '"mapping: expected the names of params'),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_it_names_the_argument_that_is_wrong(case):
    call, error, message = BAD[case]
    with pytest.raises(error) as caught:
        call(Embedding(4, 3, rng=0))
    assert str(caught.value).startswith(message)


def test_a_layer_learns_through_it():
    rng = np.random.default_rng(0)
    embedding, layer = Embedding(7, 3, dtype=F64, rng=rng), fastrnn.GRU(3, 4, dtype=F64, rng=rng)
    index = rng.integers(0, 7, (5, 2))

    def loss():
        return 0.5 * ((layer(embedding(index))[0] - 1) ** 2).sum()

    x, embedding_tape = embedding.forward(index)
    y, _, tape = layer.forward(x)
    grads = embedding_tape.backward(tape.backward(y - 1).x)
    for k in range(0, embedding.flat.size, 4):
        embedding.flat[k] += 1e-6
        above = loss()
        embedding.flat[k] -= 2e-6
        numeric = (above - loss()) / 2e-6
        embedding.flat[k] += 1e-6
        assert grads.flat[k] == pytest.approx(numeric, rel=1e-5, abs=1e-8)
