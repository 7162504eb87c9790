"""Tasks that run one after the other and can be interrupted. A finished task is not run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Literal, TypeVar

import msgspec

from ditzoo.errors import DitzooError

R = TypeVar("R")


class Task(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """A task. `find` returns the result if the task is finished already, else None.

    `make` runs the task and returns the result. It raises DitzooError if the task fails.
    """

    name: str
    find: Callable[[], R | None]
    make: Callable[[], R]


class Finished(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """The outcome of a task: its result, or the error if it failed, and its duration in seconds."""

    name: str
    state: Literal["made", "found", "failed"]
    seconds: float
    result: R | None = None
    error: DitzooError | None = None


def run_tasks(tasks: Iterable[Task[R]], *, stop_at_failure: bool) -> Iterator[Finished[R]]:
    """Runs the tasks in their order, except finished ones, and yields the outcome of every task.

    With `stop_at_failure`, no task runs after one that failed.
    """
    for task in tasks:
        finished = _run(task)
        yield finished
        if stop_at_failure and finished.state == "failed":
            return


def _run(task: Task[R]) -> Finished[R]:
    started = time.perf_counter()
    try:
        found = task.find()
        result = task.make() if found is None else found
    except DitzooError as error:
        return Finished(name=task.name, state="failed", seconds=time.perf_counter() - started, error=error)
    state: Literal["made", "found"] = "made" if found is None else "found"
    return Finished(name=task.name, state=state, seconds=time.perf_counter() - started, result=result)
