"""Tasks that can be interrupted: what is found is not made, and a failure stops the others or does not."""

from __future__ import annotations

import pytest

from ditzoo.errors import UsageError
from ditzoo.tasks import Task, run_tasks


def tasks(done: dict[str, int], *, broken: str = "") -> list[Task[int]]:
    """Three tasks that note their results in `done`; the one called `broken` fails."""

    def make(name: str) -> int:
        if name == broken:
            raise UsageError(f"{name} cannot be")
        done[name] = len(done)
        return done[name]

    return [Task(name=name, find=lambda name=name: done.get(name), make=lambda name=name: make(name)) for name in "abc"]


@pytest.mark.parametrize("stop", [True, False])
def test_after_a_failure_the_same_tasks_go_on_where_they_stopped(stop: bool) -> None:
    done: dict[str, int] = {}
    first = list(run_tasks(tasks(done, broken="b"), stop_at_failure=stop))
    assert [(task.name, task.state) for task in first] == [("a", "made"), ("b", "failed"), *([] if stop else [("c", "made")])]
    assert str(first[1].error) == "b cannot be"
    assert first[1].result is None
    second = list(run_tasks(tasks(done), stop_at_failure=stop))
    assert [task.state for task in second] == ["found", "made", "made" if stop else "found"]
    assert {task.name: task.result for task in second} == done


def test_an_error_that_is_not_ours_is_not_swallowed() -> None:
    def make() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(run_tasks([Task(name="a", find=lambda: None, make=make)], stop_at_failure=False))
