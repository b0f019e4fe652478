"""The compiled module: what fastrnn/_core.pyx gives to the Python around it."""

from typing import Any

from numpy.typing import NDArray

from .schedule import Schedule

Array = NDArray[Any]

def after_fork() -> None: ...
def isas() -> list[str]: ...
def use_isa(index: int) -> None: ...
def isa_in_use() -> str: ...
def lanes(double: bool) -> int: ...
def vmath(function: str, x: Array, isa: str | None = None) -> Array: ...
def free_waiting() -> None: ...
def kept(shape: tuple[int, int, int], double: bool) -> Array: ...

class Task:
    def __init__(
        self,
        cell: int,
        double: bool,
        plan: Any,
        x: Array,
        w: Any,
        h0: Array | None,
        c0: Array | None,
    ) -> None: ...
    def prepare_forward(
        self,
        y: Array,
        c: Array | None,
        gates: Array | None,
        how: Schedule,
    ) -> None: ...
    def input_width(self) -> int: ...
    def input_matrix(self, matrix: Array, bias: Array) -> None: ...
    def forward(self, s0: int, s1: int, pre: Array | None) -> None: ...
    def release(self) -> None: ...
    def prepare_backward(
        self,
        dy: Array | None,
        dcs: Array | None,
        dh: Array,
        dc: Array | None,
        dx: Array | None,
        dw: Any,
        truncate: int,
        how: Schedule,
    ) -> None: ...
    def dgates_layout(self) -> tuple[int, int]: ...
    def backward(self, s0: int, s1: int, first: bool, last: bool, dgates: Array | None) -> None: ...

class Stepper:
    h: Array
    c: Array | None
    def __init__(
        self,
        cell: int,
        double: bool,
        w: Any,
        h: Array,
        c: Array | None,
        chunk: int,
    ) -> None: ...
    def __call__(self, x: Array, out: Array | None = None) -> Array: ...
