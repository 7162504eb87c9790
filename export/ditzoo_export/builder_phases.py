"""The phases of a TensorRT build: what the builder does now, how much is done, and stopping it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ditzoo.progress import Report

log = logging.getLogger(__name__)


class Phases:
    """The phases of a build that run now. Phases are inside each other, and each has a number of steps.

    `report` is called with the name of the innermost phase, and with the part of the build that is done, from 0 to 1. That part
    counts steps, which take different times.
    """

    def __init__(self, report: Report) -> None:
        self._report, self._reached = report, 0.0
        self._running: dict[str, tuple[int, int]] = {}

    def start(self, name: str, steps: int) -> None:
        """Begins a phase inside the phase that began last."""
        self._running[name] = (0, max(steps, 1))
        self._tell()

    def step(self, name: str, step: int) -> None:
        """Says that a phase has finished its step number `step`, counted from 0."""
        if name in self._running:
            self._running[name] = (step + 1, self._running[name][1])
            self._tell()

    def finish(self, name: str) -> None:
        """Ends a phase."""
        self._running.pop(name, None)
        self._tell()

    def _tell(self) -> None:
        if self._running:
            self._reached = max(self._reached, min(self._done(), 1.0))
            self._report(next(reversed(self._running)), self._reached)

    def _done(self) -> float:
        """The part of the build that is done: the outermost phase counts its steps, and the phase inside it a part of one."""
        done = 0.0
        for finished, steps in reversed(self._running.values()):
            done = min((finished + done) / steps, 1.0)
        return done


def monitor(trt: Any, report: Report, stopped: Callable[[], bool]) -> Any:
    """A progress monitor of TensorRT. It logs and reports the phases, and ends the build once `stopped()` is True."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # mypy does not know the module
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phases = Phases(report)

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            log.info("%s: %s (%d steps)", trt.__name__, name, steps)
            self._phases.start(name, steps)

        def step_complete(self, name: str, step: int) -> bool:
            self._phases.step(name, step)
            return not stopped()

        def phase_finish(self, name: str) -> None:
            log.debug("%s: %s is done", trt.__name__, name)
            self._phases.finish(name)

    return Monitor()


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Puts off KeyboardInterrupt to the end of the block. The block gets a function that tells whether the user pressed Ctrl-C.

    TensorRT would report an exception in the monitor as an error of the build. A second Ctrl-C is not put off. In a thread
    other than the main one, the block runs as it is, because only the main thread gets KeyboardInterrupt.
    """
    before, pressed = signal.getsignal(signal.SIGINT), threading.Event()
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield pressed.is_set
        return

    def press(number: int, frame: FrameType | None) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed.is_set():
            raise KeyboardInterrupt
