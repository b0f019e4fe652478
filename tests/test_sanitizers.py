"""Each sanitizer sees the faults planted for it, so that a quiet `make sanitize` means something."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    os.environ.get("FASTRNN_SANITIZED") != "1", reason="no planted faults in the module: see make sanitize"
)

# The numbers lie in an array of NumPy's, as those that the kernels read and write do.
CALL = """
from ctypes import CDLL, c_ssize_t, c_void_p
import numpy as np
import fastrnn._core
core = CDLL(fastrnn._core.__file__)
array = np.zeros(1000, np.float32)
x = c_void_p(array.ctypes.data)
core.{}
"""


def call(expression: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CALL.format(expression)], capture_output=True, text=True)


@pytest.mark.parametrize(
    "harmless, fault, report",
    [
        ("planted_read(x, c_ssize_t(999))", "planted_read(x, c_ssize_t(1000))", "heap-buffer-overflow"),
        ("planted_read(x, c_ssize_t(0))", "planted_read(x, c_ssize_t(-1))", "heap-buffer-overflow"),
        ("planted_write(x, c_ssize_t(999))", "planted_write(x, c_ssize_t(1000))", "heap-buffer-overflow"),
        ("planted_load(x, c_ssize_t(8))", "planted_load(x, c_ssize_t(4))", "misaligned address"),
        ("planted_add(-(2**31), 1)", "planted_add(-(2**31), -1)", "signed integer overflow"),
    ],
)
def test_a_planted_fault_is_reported(harmless, fault, report):
    right = call(harmless)
    assert right.returncode == 0, right.stderr
    wrong = call(fault)
    assert wrong.returncode != 0
    assert report in wrong.stderr
