"""The kernels of precision="bf16" beside fastrnn.reference, which spells the definition out.

What is around the products of a ReLU network rounds nothing, so it agrees to the bit: blocks, chains and groups of items are held.
Of the other cells an activation may be off by an ulp, and then rounds to the next bfloat16 now and then.
"""

import numpy as np
import pytest

import fastrnn
from cases import Case, problem, results, table
from fastrnn import reference

STEP = 2.0**-8  # of bfloat16, relative
# Where outputs are held, gradients of several steps are added, in float32, before they meet a product.
RELU = [case for case in table() if case.cell == "relu" and not case.hold]
OTHERS = [case for case in table() if case.cell != "relu" or case.hold]
# Sums of several blocks, over terms and over items; rows of every kind of tile; gates that end inside a block.
LARGE = [
    Case("relu", T, B, I, H, **options)
    for T, B, I, H, options in (
        (5, 1, 70, 100, {}),
        (9, 2, 33, 65, {"lengths": True}),
        (9, 3, 31, 130, {"reverse": True}),
        (40, 5, 64, 48, {"reset": True}),
        (12, 17, 100, 33, {}),
        (30, 33, 5, 96, {"lengths": True, "reset": True}),
        (4, 40, 129, 64, {"truncate": 2}),
        (300, 1, 3, 17, {}),
        (1, 70, 40, 40, {}),
    )
]


def of_many_magnitudes(case):
    """The problem of a case such that sums are not exact, and so have an order."""
    p = problem(case, np.float32)
    rng = np.random.default_rng(case.T + case.H)
    for a in (p.arrays["x"], *([p.dy] if p.dy is not None else [])):
        a *= np.float32(2) ** rng.integers(-9, 10, a.shape)
    return p


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("case", RELU + LARGE, ids=str)
def test_a_relu_network_has_the_bits_of_the_definition(case):
    p = of_many_magnitudes(case)
    found, expected = (results(module, p, precision="bf16") for module in (fastrnn, reference))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name.startswith("db"):
            atol = 2e-5 * max(1, np.abs(value).max(initial=0))
            np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=atol, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], value, name)


@pytest.mark.parametrize("case", OTHERS, ids=str)
def test_every_cell_is_within_a_few_steps_of_the_definition(case):
    p = problem(case, np.float32)
    found, expected = (results(module, p, precision="bf16") for module in (fastrnn, reference))
    for name, value in expected.items():
        scale = np.sqrt(np.mean(np.square(value))) if value.size else 0
        np.testing.assert_allclose(found[name], value, rtol=STEP, atol=4 * STEP * scale, err_msg=name)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38, -3.39e38, 1.1754942e-38, -1e-44, 0.0, -0.0])
def test_unusual_operands(value):
    """Of a product, a weight or a state: as the definition has them, NaNs where it has any."""
    p = problem(Case("relu", T=2, B=3, I=40, H=9), np.float32)
    for name in ("x", "w_ih", "w_hh", "h0"):
        a = dict(p.arrays)
        a[name] = a[name].copy()
        a[name].flat[3] = value
        for module in (fastrnn, reference):
            with np.errstate(all="ignore"):
                y, _, _ = module.rnn(**a, nonlinearity="relu", precision="bf16")
            if module is fastrnn:
                found = y
        np.testing.assert_array_equal(found, y, name)


# Bits of float32: ties, with the even neighbour below, above and at the next power of two; overflow; NaNs with their bits in the
# lower half alone, or with all bits; the largest denormal number and the least that is none.
EDGES = [0x3F808000, 0x3F808001, 0x3F818000, 0x3FFF8000, 0x7F7F7FFF, 0x7F7F8000, 0x7F800001, 0x7FFFFFFF, 0x007FFFFF, 0x00800000]


@pytest.mark.usefixtures("isa")
def test_inputs_and_weights_are_rounded_as_the_definition_rounds_them():
    """Products with 1, so that the last bit of each is seen."""
    edges = np.array(EDGES, np.uint32).view(np.float32)
    n, expected = len(edges), reference.round_bf16(edges)
    inputs, weights = edges.reshape(1, n, 1), edges.reshape(n, 1)
    for x, w_ih in ((inputs, np.ones((1, 1), np.float32)), (np.ones((1, 1, 1), np.float32), weights)):
        w_hh = np.zeros((len(w_ih), len(w_ih)), np.float32)
        y, *_ = fastrnn.rnn(x, w_ih, w_hh, nonlinearity="relu", precision="bf16")
        np.testing.assert_array_equal(y.ravel(), expected)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("B", [1, 9])
def test_a_sum_that_underflows_is_a_positive_zero(B):
    """The bias and x leave -0, a denormal number; so do both chains of h, which the zeros at the end of their block turn into 0."""
    tiny = np.float32(2) ** np.array([-63, -70, -126], np.float32)
    full = {"x": ((1, B, 1), -1.75 * tiny[0]), "w_ih": ((2, 1), tiny[0]), "h0": ((B, 2), -tiny[1]), "w_hh": ((2, 2), tiny[1])}
    full["b_ih"] = (2, 1.5 * tiny[2])
    given = {"nonlinearity": "relu", **{name: np.full(*shape_and_value, np.float32) for name, shape_and_value in full.items()}}
    for module in (fastrnn, reference):
        y, *_ = module.rnn(**given, precision="bf16")
        assert not y.any() and not np.signbit(y).any()
