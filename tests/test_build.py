"""Each compiler builds the package without a warning, and neither it nor CFLAGS changes a bit of a result."""

import os
import shutil

import pytest

from building import copy_tree, run_python

pytestmark = pytest.mark.skipif(
    os.environ.get("FASTRNN_SANITIZED") == "1", reason="compilers run ten times slower under the sanitizers"
)

# Forward and backward of an LSTM, hashed; a sum of denormals, which a module linked for fast-math makes 0.
RESULTS = """
import hashlib
import numpy as np
import fastrnn
rng = np.random.default_rng(1)
T, B, I, H = 7, 5, 9, 19
shapes = (T, B, I), (4 * H, I), (4 * H, H), (4 * H,), (4 * H,)
for dtype in np.float32, np.float64:
    y, state, tape = fastrnn.lstm(*(rng.standard_normal(s).astype(dtype) for s in shapes), record=True)
    grads = tape.backward(np.ones_like(y))
    results = y, *state, grads.x, grads.w_ih, grads.w_hh, grads.b_ih, grads.h0, grads.c0
    print(hashlib.sha256(b"".join(a.tobytes() for a in results)).hexdigest())
print(np.float64(5e-324) + np.float64(5e-324))
"""


@pytest.mark.parametrize("compiler, cflags", [("gcc", "-O0 -ffast-math"), ("clang", "-O0")])
def test_builds_without_warnings_and_with_the_same_results(compiler, cflags, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    tree = copy_tree(tmp_path / "tree")
    flags = {"CC": compiler, "CFLAGS": cflags, "FASTRNN_WERROR": "1"}
    said = run_python("setup.py", "--quiet", "build_ext", "--inplace", cwd=tree, **flags)
    assert "warning" not in said.lower()
    here = f"import fastrnn; assert fastrnn.__file__.startswith({str(tree)!r})\n"
    built = run_python("-c", here + RESULTS, cwd=tree, PYTHONPATH=str(tree))
    assert built == run_python("-c", RESULTS, cwd=tmp_path)
