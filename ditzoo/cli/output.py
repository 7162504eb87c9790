"""The only module that prints. Data goes to stdout, messages go to stderr."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_WIDEST = 10_000
_TOLD = 60.0  # seconds between two lines of progress

_PLAIN = {"markup": False, "highlight": False, "soft_wrap": True}


def plain(text: str) -> str:
    r"""`text` with each character that would control a terminal, or cannot be written, replaced by its escape, as in \u001b.

    Text comes from files and servers, so it is not trusted. Line ends and tabs stay. The escapes are those of JSON, so JSON
    keeps its meaning.
    """
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # ends of lines, and marks of the direction of writing
    "\ud800-\udfff]"  # bytes of a file's name that are not text
)


def data(text: str) -> None:
    """Prints a line of data."""
    sys.stdout.write(f"{plain(text)}\n")


def json(value: Any) -> None:
    """Prints a value as indented JSON. Values of types that JSON lacks, such as paths, become strings."""
    import msgspec

    data(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode())


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table as data. On a terminal, it fits the width. A ">" before a column's name aligns the column right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        drawn.add_column(Text(plain(column.lstrip(">"))), justify="right" if column.startswith(">") else "left")
    for row in rows:
        drawn.add_row(*(Text(plain(cell)) for cell in row))
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        console.width = console.measure(drawn, options=console.options.update(max_width=_WIDEST)).maximum
    console.print(drawn, markup=False)


def talk(text: str) -> None:
    """Prints a message for the user."""
    _stderr().print(plain(text), **_PLAIN)


def error(text: str) -> None:
    """Prints an error message on one line."""
    _stderr().print(f"error: {plain(' '.join(text.split()))}", style="red", **_PLAIN)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Shows a progress bar if stderr is a terminal. Yields the function that advances it by one."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = _stderr()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(plain(description), total=total)
        yield lambda: bar.advance(task)


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
        if now - self._told >= _TOLD and not _stderr().is_terminal:
            rate, self._told = self._new / (now - self._began), now
            left = f", {(self._total - self._done) / rate / 60:.1f} minutes left" if self._total else ""
            talk(f"{self._description}: {self._done:,} done, {rate:.3g} per second{left}")


@contextmanager
def counting(description: str, total: int) -> Iterator[Count]:
    """Shows the progress, the rate and the time left of `total` parts: a bar on a terminal, else a line now and then.

    `total` is 0 if it is not known.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.3g}/s")

    console = _stderr()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal, speed_estimate_period=120) as bar:
        task = bar.add_task(plain(description), total=total or None)
        yield Count(
            description,
            total,
            start=lambda done: bar.reset(task, completed=done),
            advance=lambda parts: bar.advance(task, parts),
        )


@contextmanager
def transfer(name: str) -> Iterator[Callable[[str, int, int], None]]:
    """Shows a progress bar for a download if stderr is a terminal.

    Yields the function that updates it. That function takes the path of a file, the bytes received so far, and its size.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = _stderr()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(plain(name), total=None)

        def advance(path: str, done: int, total: int) -> None:
            shown = plain(f"{name} {path.rpartition('/')[2]}")
            bar.update(task, description=shown, completed=done, total=total or None)

        yield advance


@contextmanager
def status(description: str) -> Iterator[None]:
    """Shows a spinner for work of unknown length if stderr is a terminal."""
    from rich.text import Text

    with _stderr().status(Text(plain(description))):
        yield


class _Warnings(logging.Handler):
    """Writes to the current stderr, above a spinner if one is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{plain(self.format(record))}\n")


@contextmanager
def warnings() -> Iterator[None]:
    """Shows the warnings of the library on stderr when they occur."""
    handler, loggers = _Warnings(), [logging.getLogger(name) for name in ("ditzoo", "ditzoo_export")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def _stderr() -> Any:
    from rich.console import Console

    return Console(stderr=True)
