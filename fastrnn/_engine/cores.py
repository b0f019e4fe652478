"""The number of threads of a call if nobody says one: what affinity, control groups and environment leave to this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import ceil, inf
from operator import itemgetter

_ROOT = "/"  # of the files that the system tells with


def count(text: str) -> int:
    """The number that a variable of the environment says; 0 if it does not say one."""
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def default() -> tuple[int, str]:
    """The number of threads, and what it is bound by."""
    bounds = [
        (_affinity(), "the cores that this process may use"),
        (_python(), "PYTHON_CPU_COUNT"),
        (_quota(), "the control group's quota"),
        (_openmp(), "OMP_NUM_THREADS"),
    ]
    return min((bound for bound in bounds if bound[0]), key=itemgetter(0))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _python() -> int:
    """Python's own count from 3.13 on, for which -X cpu_count may stand in the place of PYTHON_CPU_COUNT."""
    return (os.process_cpu_count() or 0) if hasattr(os, "process_cpu_count") else 0


def _openmp() -> int:
    """Of a list, one number for each level of nesting, the first. What is no number is ignored without a word, as OpenBLAS does."""
    return count(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip())


def _quota() -> int:
    """Processors' time that the control groups allow, as a number of processors, rounded up; 0 if they allow all."""
    try:
        folders = set(_control_groups())
    except (OSError, ValueError):  # another system, or files of a kind that is not known
        return 0
    least = min((_allowed(kind, folder) for kind, folder in folders), default=inf)
    return 0 if least == inf else ceil(least)


def _control_groups() -> Iterator[tuple[str, str]]:
    """Kind ("cgroup", version 1, or "cgroup2") and folder of the groups of this process, and of their parents as far as it can
    see them."""
    paths = {}
    for line in _lines("proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            paths["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            paths["cgroup"] = path
    for line in _lines("proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        top, mount = before.split()[3:5]  # the group that is mounted, and where
        kind = after.split()[0]  # those of other controllers have no quotas of this kind
        if kind not in paths:
            continue
        below = os.path.relpath(paths[kind], top)
        if ".." in f"{paths[kind]}/{below}".split("/"):  # another group's
            continue
        folder = os.path.normpath(_ROOT + mount)
        for part in ["."] + below.split("/"):
            folder = os.path.normpath(os.path.join(folder, part))
            yield kind, folder


def _allowed(kind: str, folder: str) -> float:
    """Processors' time that one group may use, as a number of processors; inf for all."""
    names = ("cpu.max",) if kind == "cgroup2" else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    try:
        quota, period = " ".join(line for name in names for line in _lines(os.path.join(folder, name))).split()
        return int(quota) / int(period) if quota not in ("max", "-1") else inf
    except (OSError, ValueError, ZeroDivisionError):  # the topmost group has no such file
        return inf


def _lines(path: str) -> list[str]:
    with open(os.path.join(_ROOT, path), encoding="utf-8", errors="surrogateescape") as file:
        return file.read().splitlines()
