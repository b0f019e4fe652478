"""Work as a row of tasks: a generator that gives out one, and when it is asked for the next counts on that to be done. So a row can
go alone, and rows that do not need each other side by side."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from ._core import Task, run_together

Result = TypeVar("Result")
Tasks = Generator[Task, None, Result]


def go(tasks: Tasks[Result]) -> Result:
    """Run all tasks of a row, each on its own number of threads."""
    try:
        while True:
            next(tasks).run()
    except StopIteration as end:
        return end.value


def go_all(rows: list[Tasks[Result]], side_by_side: bool) -> list[Result]:
    """Run all tasks of several rows. side_by_side: each on one thread, beside the other rows' next; else row after row."""
    if not side_by_side:
        return [go(row) for row in rows]
    results: dict[int, Result] = {}
    while len(results) < len(rows):
        tasks = []
        for i, row in enumerate(rows):
            try:
                if i not in results:
                    tasks.append(next(row))
            except StopIteration as end:
                results[i] = end.value
        if tasks:
            run_together(tasks)
    return [results[i] for i in range(len(rows))]
