"""Tasks that are run one after the other and can be interrupted: what is done already is found, and not done again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Literal, TypeVar

import msgspec

from ditzoo.errors import DitzooError

R = TypeVar("R")


class Task(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """One thing to do. `find` gives the result if it is there already, else None; `make` works, or raises DitzooError."""

    name: str
    find: Callable[[], R | None]
    make: Callable[[], R]


class Finished(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """What became of a task: its result, or, where it failed, the message of the error; and how many seconds it took."""

    name: str
    state: Literal["made", "found", "failed"]
    seconds: float
    result: R | None = None
    message: str = ""


def run_tasks(tasks: Iterable[Task[R]], *, stop_at_failure: bool) -> Iterator[Finished[R]]:
    """Runs the tasks that are not done, in their order, and yields what became of each one.

    With `stop_at_failure`, the first task that fails is the last one that runs.
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
        return Finished(name=task.name, state="failed", seconds=time.perf_counter() - started, message=str(error))
    state: Literal["made", "found"] = "made" if found is None else "found"
    return Finished(name=task.name, state=state, seconds=time.perf_counter() - started, result=result)
