"""The jobs of the page: a queue of bounded length, and one thread that draws one job after the other."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from ditzoo.errors import DitzooError
from ditzoo.progress import Report
from ditzoo.ui.orders import Order
from ditzoo.ui.states import Drawn, Phase, State, Summary

log = logging.getLogger(__name__)

MOST_WAITING = 8
"""The largest number of jobs that wait while another one runs."""

KEPT = 4
"""The number of ended jobs whose pictures are kept."""


class QueueFullError(DitzooError):
    """The queue of the page is full. The cure is to wait, or to cancel a job."""


class CancelledError(BaseException):
    """The user has cancelled the job. It is no `Exception`, so that no library takes it for an error of its own."""


class Job:
    """An order in the queue. It is also the display of the work: each of its functions raises CancelledError if it was
    cancelled.

    `state` is replaced as a whole, so that any thread can read it. `previews` has the last preview of each backend as a PNG.
    """

    def __init__(self, order: Order) -> None:
        self.id, self.order, self.state = secrets.token_hex(8), order, State()
        self.previews: dict[int, bytes] = {}
        self.drawn: Drawn | None = None
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Makes the next step of the work raise CancelledError."""
        self._cancelled.set()

    def enter(self, phase: Phase, *, error: str = "", summary: Summary | None = None) -> None:
        """Enters another phase. One that failed has an error, and one that finished a summary."""
        self.state = msgspec.structs.replace(self.state, phase=phase, error=error, summary=summary)

    def expect(self, steps: int) -> None:
        """Says how many steps there will be."""
        self.state = msgspec.structs.replace(self.state, total=steps)

    def say(self, doing: str) -> None:
        """Says what the work does now. Raises CancelledError if the job was cancelled."""
        self.check()
        self.state = msgspec.structs.replace(self.state, doing=doing)

    def check(self) -> None:
        """Raises CancelledError if the job was cancelled."""
        if self._cancelled.is_set():
            raise CancelledError

    def step(self) -> None:
        """Counts a step."""
        self.check()
        self.state = msgspec.structs.replace(self.state, done=self.state.done + 1)

    def preview(self, side: int, picture: bytes) -> None:
        """Shows a picture of the latents of a backend, as a PNG."""
        self.previews[side] = picture
        counts = [*self.state.previews, 0][: max(len(self.state.previews), side + 1)]
        counts[side] += 1
        self.state = msgspec.structs.replace(self.state, previews=tuple(counts))

    @contextmanager
    def status(self, description: str) -> Iterator[None]:
        """Shows `description`."""
        self.say(description)
        yield

    @contextmanager
    def stage(self, description: str) -> Iterator[Report]:
        """Shows `description`, and what the stage does."""
        self.say(description)

        def report(doing: str, done: float) -> None:
            self.say(f"{description}: {doing}")

        yield report

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[[], object]]:
        """Shows `description`."""
        self.say(description)
        yield self.check


class Jobs:
    """The queue, and its thread. `work` draws one job. `stop` and `join` end it."""

    def __init__(self, work: Callable[[Job], Drawn]) -> None:
        self._work = work
        self._changed = threading.Condition()
        self._waiting, self._known = deque[Job](), dict[str, Job]()
        self._ended = deque[str]()  # ids, in the order in which the jobs ended
        self.stopping = False
        self._thread = threading.Thread(target=self._run, name="ditzoo-ui", daemon=True)
        self._thread.start()

    def submit(self, order: Order) -> Job:
        """Puts an order into the queue. Raises QueueFullError if `MOST_WAITING` jobs wait already, or after `stop`."""
        with self._changed:
            if self.stopping:
                raise QueueFullError("the page ends; start `ditzoo ui` again")
            if len(self._waiting) >= MOST_WAITING:
                raise QueueFullError(f"{len(self._waiting)} drawings wait already; wait until one is finished, or cancel one")
            job = Job(order)
            self._waiting.append(job)
            self._known[job.id] = job
            self._changed.notify()
        return job

    def find(self, name: str) -> Job | None:
        """The job with this id, or None if there is none or if it is no longer kept."""
        return self._known.get(name)

    def ahead(self, job: Job) -> int:
        """The number of jobs that are drawn before a job that waits."""
        waiting = list(self._waiting)
        return waiting.index(job) + 1 if job in waiting else 0

    def cancel(self, job: Job) -> None:
        """Cancels a job. One that waits leaves the queue at once, and one that runs stops after its step."""
        job.cancel()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                job.enter("cancelled")
                self._keep(job)

    def stop(self) -> None:
        """Cancels all jobs, and refuses new ones."""
        with self._changed:
            self.stopping = True
            self._changed.notify()
        for job in list(self._known.values()):
            self.cancel(job)

    def join(self, seconds: float) -> None:
        """Waits for the thread to end after `stop`."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            self._draw(job)
            with self._changed:
                self._keep(job)

    def _next(self) -> Job | None:
        """The next job as soon as there is one, or None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.stopping)
            if not self._waiting:
                return None
            job = self._waiting.popleft()
            job.enter("running")
            return job

    def _draw(self, job: Job) -> None:
        try:
            job.check()
            drawn = self._work(job)
        except CancelledError:
            job.enter("cancelled")
        except (DitzooError, OSError) as error:
            job.enter("failed", error=str(error))
        except Exception as error:  # the page has to say it, and the next job has to run
            log.exception("a drawing failed")
            job.enter("failed", error=f"{type(error).__name__}: {error}")
        else:
            job.drawn = drawn
            job.enter("finished", summary=drawn.summary)

    def _keep(self, job: Job) -> None:
        """Keeps a job that has just ended, and forgets those that ended long before it."""
        self._ended.append(job.id)
        while len(self._ended) > KEPT:
            del self._known[self._ended.popleft()]
