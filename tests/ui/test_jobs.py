"""The queue of the page: its order, its errors, and what cancelling does to running work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ditzoo.errors import BackendError
from ditzoo.ui.jobs import KEPT, MOST_WAITING, CancelledError, Job, Jobs, QueueFullError
from ditzoo.ui.orders import Form, Order, read_form
from ditzoo.ui.states import Drawn, Summary

PATIENCE = 30.0


@pytest.fixture(scope="module")
def order() -> Order:
    return read_form(Form(model="dit-digits", backend="onnxruntime", steps="2", classes="3"))


def nothing() -> Drawn:
    summary = Summary(images=1, evaluations=2, labels=("3",), sides=(), decoding=0.0, measured=None)
    return Drawn(summary=summary, pictures=(), difference=None)


@pytest.fixture
def queue() -> Iterator[Callable[[Callable[[Job], Drawn]], Jobs]]:
    made = []

    def make(work: Callable[[Job], Drawn]) -> Jobs:
        made.append(Jobs(work))
        return made[-1]

    yield make
    for jobs in made:
        jobs.stop()
        jobs.join(PATIENCE)


def wait(job: Job) -> Job:
    """Waits until the job has ended."""
    for _ in range(1000):
        if job.state.final:
            return job
        threading.Event().wait(PATIENCE / 1000)
    raise AssertionError(job.state)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BackendError("try less"), "try less"),
        (OSError("the disk is full"), "the disk is full"),
        (ValueError("who knows"), "ValueError: who knows"),
    ],
)
def test_an_error_ends_its_own_job_only(queue: Any, order: Order, error: Exception, told: str) -> None:
    def work(job: Job) -> Drawn:
        if job is first:
            raise error
        return nothing()

    gate = threading.Lock()
    with gate:
        jobs = queue(lambda job: (gate.acquire(), gate.release(), work(job))[2])
        first, second = jobs.submit(order), jobs.submit(order)
    assert (wait(first).state.phase, first.state.error) == ("failed", told)
    assert wait(second).state.phase == "finished"


def test_one_job_runs_and_the_others_wait_in_their_order(queue: Any, order: Order) -> None:
    gate, begun, seen = threading.Event(), threading.Event(), []

    def work(job: Job) -> Drawn:
        begun.set()
        gate.wait(PATIENCE)
        seen.append(job)
        return nothing()

    jobs = queue(work)
    running = jobs.submit(order)
    begun.wait(PATIENCE)
    waiting = [jobs.submit(order) for _ in range(MOST_WAITING)]
    with pytest.raises(QueueFullError, match="8 drawings wait already"):
        jobs.submit(order)
    assert [jobs.ahead(job) for job in (running, *waiting)] == list(range(MOST_WAITING + 1))
    jobs.cancel(waiting[0])
    assert waiting[0].state.phase == "cancelled"
    assert jobs.ahead(waiting[1]) == 1
    late = jobs.submit(order)
    gate.set()
    wait(late)
    assert seen == [running, *waiting[1:], late]


def test_a_cancelled_job_stops_at_whatever_it_reports_next(order: Order) -> None:
    job = Job(order)
    with job.status("loading"), job.stage("exporting") as report:
        report("writing", 0.5)
        assert job.state.doing == "exporting: writing"
        job.cancel()
        with pytest.raises(CancelledError):
            report("verifying", 0.9)
    for block in (job.status("x"), job.stage("x"), job.progress("x", 2)):
        with pytest.raises(CancelledError), block:
            pass
    with pytest.raises(CancelledError):
        job.step()


def test_no_library_takes_a_cancellation_for_an_error() -> None:
    assert not issubclass(CancelledError, Exception)


def test_stopping_cancels_all_jobs_and_refuses_new_ones(queue: Any, order: Order) -> None:
    begun = threading.Event()

    def work(job: Job) -> Drawn:
        begun.set()
        while True:
            job.check()

    jobs = queue(work)
    running, waiting = jobs.submit(order), jobs.submit(order)
    begun.wait(PATIENCE)
    jobs.stop()
    jobs.join(PATIENCE)
    assert (running.state.phase, waiting.state.phase) == ("cancelled", "cancelled")
    with pytest.raises(QueueFullError):
        jobs.submit(order)


def test_the_jobs_that_ended_last_are_kept(queue: Any, order: Order) -> None:
    """The first job ends after others that were cancelled as they waited: it is the last one, not the oldest."""
    gate, begun = threading.Event(), threading.Event()

    def work(job: Job) -> Drawn:
        begun.set()
        gate.wait(PATIENCE)
        return nothing()

    jobs = queue(work)
    running, waiting = jobs.submit(order), [jobs.submit(order) for _ in range(KEPT + 2)]
    begun.wait(PATIENCE)
    for job in waiting:
        jobs.cancel(job)
    gate.set()
    last = wait(jobs.submit(order))  # the thread has put the first job away
    kept = [job for job in (running, *waiting, last) if jobs.find(job.id) is job]
    assert running in kept
    assert len(kept) in (KEPT, KEPT + 1)  # the thread may not have put the last one away yet
    assert waiting[0] not in kept


def test_previews_are_counted_for_each_backend(order: Order) -> None:
    job = Job(order)
    job.preview(0, b"a")
    job.preview(0, b"b")
    job.preview(1, b"c")
    assert job.state.previews == (2, 1)
    assert job.previews == {0: b"b", 1: b"c"}
