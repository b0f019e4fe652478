"""AMX's tiles belong to the processes that ask for them: when this one asks, what a fork has of it, and what signals make of it.

Only on processors with AMX; elsewhere test_cross.py runs the same kernels with its instructions in C.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

import fastrnn
from building import IMPORTED_FROM
from cases import problem, results, table_of_options
from fastrnn import _core, config

pytestmark = pytest.mark.skipif("amx" not in fastrnn.available_isas(), reason="the processor has no AMX")

BEFORE = """
import ctypes, os, sys
import numpy as np, fastrnn

def permitted():  # to use the tiles: bit 18
    mask = ctypes.c_uint64()
    assert ctypes.CDLL(None).syscall(158, 0x1022, ctypes.byref(mask)) == 0  # arch_prctl(ARCH_GET_XCOMP_PERM)
    return bool(mask.value >> 18 & 1)

layer = fastrnn.LSTM(40, 70, rng=0, precision="bf16")
x = np.random.default_rng(0).standard_normal((9, 5, 40), np.float32)
"""


def said_by(program, **environment):
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + program],
        env={**os.environ, "PYTHONPATH": IMPORTED_FROM, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.split()


def test_the_first_bf16_call_asks():
    program = "print(permitted()); layer.astype('float32'); fastrnn.show_config; print(permitted()); layer(x); print(permitted())"
    assert said_by(program) == ["False", "False", "True"]
    assert said_by(program, FASTRNN_ISA="v4") == ["False", "False", "False"]


def test_a_fork_has_what_its_parent_has():
    program = """
y = layer(x)[0]
child = os.fork()
if child == 0:
    os._exit(not np.array_equal(layer(x)[0], y))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert said_by(program) == ["0"]


def test_a_signal_stack_that_is_too_small_is_no_crash():
    """The system refuses, or a handler may run in the midst of a call: either way the bits are the same."""
    program = """
import signal
class Stack(ctypes.Structure):
    _fields_ = [("p", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
memory = ctypes.create_string_buffer(4096)
ctypes.CDLL(None).sigaltstack(ctypes.byref(Stack(ctypes.addressof(memory), 0, 4096)), None)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
ys = [layer(x)[0] for _ in range(300)]
print(all(np.array_equal(y, ys[0]) for y in ys), ys[0].sum())
"""
    assert said_by(program) == said_by(program, FASTRNN_ISA="v4")


@pytest.mark.parametrize("case", table_of_options()[::7], ids=str)
def test_its_bits_are_those_of_avx512(case, use):
    p = problem(case, np.float32)
    use(isa="amx", gemm="own")
    found = results(fastrnn, p, precision="bf16")
    if _core.amx_answer() != "given":
        pytest.skip("the system refuses AMX's tiles")
    use(isa="v4")
    for name, value in results(fastrnn, p, precision="bf16").items():
        np.testing.assert_array_equal(found[name], value, name)


def test_show_config_says_so(capsys, use):
    use(isa="amx")
    fastrnn.rnn(np.ones((1, 1, 1), np.float32), *np.ones((2, 1, 1), np.float32), precision="bf16")
    config.show_config()
    name = "amx" if _core.amx_answer() == "given" else "v4, because the system refuses"
    assert f"bf16              {name}" in capsys.readouterr().out
