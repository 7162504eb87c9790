"""What changes on the terminal while work runs: spinners, stages, progress bars and downloads. Nothing of it goes to stdout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ditzoo.cli.terminal import lively, plain, stderr, talk
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

_TOLD = 60.0
"""The seconds between two lines of progress where no bar is drawn."""


class Bar:
    """A progress bar that is advanced by calling it. It is also a display, for the work inside the block of the bar.

    Without a `bar` nothing is drawn, and each stage is told by a line.
    """

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._below: RenderableType = ""

    def __call__(self) -> None:
        """Advances the bar by one part."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])

    @contextmanager
    def status(self, description: str) -> Iterator[None]:
        """Shows `description` below the bar."""
        if self._bar is None:
            yield
            return
        with self._showing(Stage(description)):
            yield

    @contextmanager
    def stage(self, description: str) -> Iterator[Report]:
        """Shows a stage below the bar, and leaves a line above it, as `stage` does."""
        if self._bar is None:
            _tell_begin(description)
            yield silent
            return
        shown = Stage(description)
        with self._showing(shown):
            yield shown.report
        talk(shown.line())

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Bar]:
        """Shows another bar below this one."""
        if self._bar is None:
            yield Bar(None)
            return
        inner = Bar(_counting_bar(description, total))
        with self._showing(inner):
            yield inner

    def __rich__(self) -> RenderableType:
        from rich.console import Group

        if self._bar is None:
            return self._below
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
    if not lively():
        _tell_begin(description)
        yield silent
        return
    from rich.live import Live

    shown = Stage(description)
    with Live(shown, console=stderr(), transient=True, refresh_per_second=8):
        yield shown.report
    talk(shown.line())


def _tell_begin(description: str) -> None:
    """Prints that a stage begins."""
    talk(f"[{seconds(time.monotonic() - _BEGAN)}] {description}")


@contextmanager
def progress(description: str, total: int) -> Iterator[Bar]:
    """Shows a progress bar if stderr is a terminal. Yields the function that advances it by one."""
    if not lively():
        yield Bar(None)
        return
    from rich.live import Live

    bar = Bar(_counting_bar(description, total))
    with Live(bar, console=stderr(), transient=True, refresh_per_second=8):
        yield bar


class Count:
    """The progress of a large number of parts, of which some were done before."""

    def __init__(
        self, description: str, total: int, *, start: Callable[[int], object], advance: Callable[[int], object]
    ) -> None:
        self._description, self._total = description, total
        self._start, self._advance, self._done, self._new = start, advance, 0, 0
        self._began = self._told = time.monotonic()

    def start(self, done: int) -> None:
        """Says how many parts were done before. The time and the rate count from now on."""
        self._done, self._began = done, time.monotonic()
        self._start(done)

    def advance(self, parts: int) -> None:
        """Counts parts that are done now. Where there is no bar, a line tells the progress every `_TOLD` seconds."""
        self._done, self._new = self._done + parts, self._new + parts
        self._advance(parts)
        now = time.monotonic()
        if now - self._told >= _TOLD and not lively():
            rate, self._told = self._new / (now - self._began), now
            left = f", {(self._total - self._done) / rate / 60:.1f} minutes left" if self._total else ""
            talk(f"{self._description}: {self._done:,} done, {rate:.3g} per second{left}")


@contextmanager
def counting(description: str, total: int) -> Iterator[Count]:
    """Shows the progress, the rate and the time left of `total` parts: a bar on a terminal, else a line now and then.

    `total` is 0 if it is not known.
    """
    if not lively():
        yield Count(description, total, start=lambda done: None, advance=lambda parts: None)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.3g}/s")

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True, speed_estimate_period=120) as bar:
        task = bar.add_task(plain(description), total=total or None)
        yield Count(
            description,
            total,
            start=lambda done: bar.reset(task, completed=done),
            advance=lambda parts: bar.advance(task, parts),
        )


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
            talk(f"{self._path}: {in_bytes(self._done)} in {seconds(took)}{rate}")
            self._path = ""

    def stop(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _begin(self, path: str, done: int, total: int) -> None:
        """Shows that the download of a file begins, or goes on after the bytes that an earlier one got."""
        self._path, self._first, self._began = path, done, time.monotonic()
        if lively():
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
    if not lively():
        yield
        return
    from rich.text import Text

    with stderr().status(Text(plain(description))):
        yield
