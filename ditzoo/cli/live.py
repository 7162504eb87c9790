"""What changes on the terminal while work runs: spinners, stages, progress bars and downloads. Nothing of it goes to stdout."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from ditzoo.cli.terminal import plain, say, stderr
from ditzoo.progress import Report, silent

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress, TextColumn
    from rich.spinner import Spinner

_BEGAN = time.monotonic()

_MINUTES = 120
"""The duration in seconds from which on minutes are shown."""

_SOON, _ESTIMABLE = 3.0, 0.05
"""The time in seconds, and the part of a stage, after which its end is estimated."""


class Bar:
    """A progress bar that is advanced by calling it. It is also a display, for the work inside the block of the bar."""

    def __init__(self, bar: Progress, *, visible: bool) -> None:
        self._bar, self._visible = bar, visible
        self._below: RenderableType = ""

    def __call__(self) -> None:
        """Advances the bar by one part."""
        self._bar.advance(self._bar.task_ids[0])

    @contextmanager
    def status(self, description: str) -> Iterator[None]:
        """Shows `description` below the bar."""
        with self._showing(Stage(description)):
            yield

    @contextmanager
    def stage(self, description: str) -> Iterator[Report]:
        """Shows a stage below the bar, and leaves a line above it, as `stage` does."""
        if not self._visible:
            _tell_begin(description)
        shown = Stage(description)
        with self._showing(shown):
            yield shown.report
        if self._visible:
            say(shown.line())

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Bar]:
        """Shows another bar below this one."""
        inner = Bar(_counting_bar(description, total), visible=self._visible)
        with self._showing(inner):
            yield inner

    def __rich__(self) -> RenderableType:
        from rich.console import Group

        return Group(self._bar.get_renderable(), self._below) if self._below else self._bar.get_renderable()

    @contextmanager
    def _showing(self, below: RenderableType) -> Iterator[None]:
        before, self._below = self._below, below
        try:
            yield
        finally:
            self._below = before


class Stage:
    """A stage of long work on a terminal: what it is, what it does now, its time, and an estimate of the time that is left."""

    def __init__(self, description: str) -> None:
        from rich.spinner import Spinner

        self._description, self._began, self._spinner = plain(description), time.monotonic(), Spinner("dots")
        self._doing, self._done = "", 0.0

    def report(self, doing: str, done: float) -> None:
        """A `Report` of the library."""
        self._doing, self._done = plain(doing), done

    def line(self) -> str:
        """The line that stays when the stage is over."""
        return f"{self._description}: {seconds(self._took())}"

    def text(self) -> str:
        """The stage while it runs."""
        parts = [self._description, seconds(self._took()), *([self._doing] if self._doing else [])]
        if self._done >= _ESTIMABLE and self._took() >= _SOON:
            parts.append(f"about {seconds(self._took() * (1 / self._done - 1))} left")
        return ", ".join(parts)

    def __rich__(self) -> Spinner:
        from rich.text import Text

        self._spinner.update(text=Text(self.text()))
        return self._spinner

    def _took(self) -> float:
        return time.monotonic() - self._began


def seconds(duration: float) -> str:
    """A duration in seconds as text, such as "3.2 s" or "12 min 5 s"."""
    if duration < _MINUTES:
        return f"{duration:.1f} s"
    return f"{int(duration) // 60} min {int(duration) % 60} s"


@contextmanager
def stage(description: str) -> Iterator[Report]:
    """Shows a stage of long work on stderr.

    On a terminal, it shows the time while the stage runs, and leaves a line with the time that it took. Elsewhere, it prints a
    line when the stage begins, with the time since the program began.
    """
    from rich.live import Live

    console = stderr()
    if not console.is_terminal:
        _tell_begin(description)
        yield silent
        return
    shown = Stage(description)
    with Live(shown, console=console, transient=True, refresh_per_second=8):
        yield shown.report
    say(shown.line())


def _tell_begin(description: str) -> None:
    """Prints that a stage begins."""
    say(f"[{seconds(time.monotonic() - _BEGAN)}] {description}")


@contextmanager
def progress(description: str, total: int) -> Iterator[Bar]:
    """Shows a progress bar if stderr is a terminal. Yields the function that advances it by one."""
    from rich.live import Live

    console = stderr()
    bar = Bar(_counting_bar(description, total), visible=console.is_terminal)
    with Live(bar, console=console, transient=True, refresh_per_second=8) if console.is_terminal else nullcontext():
        yield bar


def _counting_bar(description: str, total: int) -> Progress:
    """A bar of a number of parts, which is not shown yet."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(_folding_text(), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
    bar.add_task(plain(description), total=total)
    return bar


def _bytes_bar() -> Progress:
    """A bar of bytes with their rate."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (_folding_text(), BarColumn(10), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(compact=True))
    return Progress(*columns, console=stderr(), transient=True)


def _folding_text() -> TextColumn:
    """The description of a bar. If the terminal is narrow, it takes several lines."""
    from rich.progress import TextColumn
    from rich.table import Column

    return TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold"))


@contextmanager
def transfer() -> Iterator[Transfer]:
    """Shows downloads on stderr. Yields an object that is called with their progress."""
    shown = Transfer()
    try:
        yield shown
    except BaseException:
        shown.stop()
        raise
    shown.finish()


class Transfer:
    """Shows downloads. It is called with the path of a file, the bytes received so far, and its size (0: unknown).

    On a terminal, a bar shows bytes and rate. Each file leaves a line with both.
    """

    def __init__(self) -> None:
        self._path = ""
        self._bar: Progress | None = None
        self._first = self._done = 0
        self._began = 0.0

    def __call__(self, path: str, done: int, total: int) -> None:
        """Shows the progress of the file at `path`."""
        if path != self._path:
            self.finish()
            self._begin(path, done, total)
        self._done = done
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total or None)
        if total and done == total:
            self.finish()

    def finish(self) -> None:
        """Leaves a line on the file that came last, if there is none yet."""
        self.stop()
        if self._path:
            took = time.monotonic() - self._began
            rate = f", {in_bytes((self._done - self._first) / took)}/s" if took else ""
            say(f"{self._path}: {in_bytes(self._done)} in {seconds(took)}{rate}")
            self._path = ""

    def stop(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _begin(self, path: str, done: int, total: int) -> None:
        """Shows that the download of a file begins, or goes on after the bytes that an earlier one got."""
        self._path, self._first, self._began = path, done, time.monotonic()
        if stderr().is_terminal:
            self._bar = _bytes_bar()
            self._bar.add_task(plain(path), completed=done, total=total or None)
            self._bar.start()
        else:
            _tell_begin(f"downloading {path}" + (f", {in_bytes(total)}" if total else ""))


def in_bytes(size: float) -> str:
    """A number of bytes as text, in the decimal unit that fits: "512 B", "3.1 kB", "2.70 GB"."""
    from rich.filesize import decimal

    return decimal(int(size))


@contextmanager
def status(description: str) -> Iterator[None]:
    """Shows a spinner for work of unknown length if stderr is a terminal."""
    from rich.text import Text

    with stderr().status(Text(plain(description))):
        yield
