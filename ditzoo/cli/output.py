"""The only module that prints. Data goes to stdout, messages go to stderr."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from ditzoo.cli import tables

_LOGGERS = ("ditzoo", "ditzoo_export")

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


def size(count: int) -> str:
    """A number of bytes with three digits and its unit: "1.99 MB"."""
    unit, name = next(((unit, name) for unit, name in _UNITS if count >= unit), (1, "bytes"))
    return f"{f'{count / unit:#.3g}'.rstrip('.')} {name}" if unit > 1 and count < 999.5 * unit else f"{count / unit:.0f} {name}"


_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def count(number: int, noun: str) -> str:
    """A number with its noun, which gets an s unless the number is 1: "1 image", "3 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def json(value: Any) -> None:
    """Prints a value as indented JSON. Values of types that JSON lacks, such as paths, become strings.

    A name of a file that is not UTF-8 is written as Python's own JSON writes it: each byte that is no text is an escape.
    """
    import msgspec

    try:
        text = msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode()
    except UnicodeEncodeError:
        import json as python_json

        text = python_json.dumps(msgspec.to_builtins(value, enc_hook=str), indent=2, ensure_ascii=False)
    data(text)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table as data. Off a terminal it is one line for each row, with tabs between the cells.

    Signs before a column's name say how a terminal shows it: ">" aligns it to the right, "~" lets its words continue on the
    next line, and "?" leaves it out if the terminal is too narrow, from the last such column on. Nothing else is ever cut: if
    the columns are still too wide, each row becomes a block of lines.
    """
    from rich.console import Console

    console = Console(file=sys.stdout)
    names = [column.lstrip(tables.SIGNS) for column in columns]
    if not console.is_terminal:
        for row in (names, *rows):
            data("\t".join("; ".join(cell.splitlines()).replace("\t", " ").strip() for cell in row))
        return
    if not rows:
        talk("nothing to show")
        return
    cells = [[plain(cell) for cell in row] for row in rows]
    shown = tables.fitting(columns, cells, console.width)
    if left_out := [name for name, column in zip(names, columns, strict=True) if column not in shown]:
        talk(f"not shown in {console.width} columns: {', '.join(left_out)}")
    drawn = tables.drawn(shown, [[row[columns.index(column)] for column in shown] for row in cells], console.width)
    console.print(drawn, markup=False, highlight=False, soft_wrap=isinstance(drawn, str))


def talk(text: str) -> None:
    """Prints a message for the user, unless the command is to be quiet."""
    if not _volume.get() < 0:
        _say(plain(text))


_volume: ContextVar[int] = ContextVar("volume", default=0)


def set_volume(volume: int) -> None:
    """Decides how much the command says: -1 is errors only, 0 is the default, 1 is also what the library logs.

    It holds for the current context: see `contextvars`.
    """
    _volume.set(volume)
    for logger in map(logging.getLogger, _LOGGERS):
        logger.setLevel({-1: logging.ERROR, 0: logging.WARNING}.get(volume, logging.INFO))


def error(text: str, *, trace: str = "") -> None:
    """Prints an error message on one line. A verbose command prints the `trace` of the error before it."""
    if trace and _volume.get() > 0:
        _say(plain(trace.rstrip()))
    _say(f"error: {plain(' '.join(text.split()))}", style="red")


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Shows a progress bar if stderr is a terminal. Yields the function that advances it by one."""
    if not _on_terminal():
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = _stderr()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not _lively(console)) as bar:
        task = bar.add_task(plain(description), total=total)
        yield lambda: bar.advance(task)


@contextmanager
def transfer(name: str) -> Iterator[Callable[[str, int, int], None]]:
    """Shows a progress bar for a download if stderr is a terminal.

    Yields the function that updates it. That function takes the path of a file, the bytes received so far, and its size.
    """
    if not _on_terminal():
        yield lambda path, done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = _stderr()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not _lively(console)) as bar:
        task = bar.add_task(plain(name), total=None)

        def advance(path: str, done: int, total: int) -> None:
            shown = plain(f"{name} {path.rpartition('/')[2]}")
            bar.update(task, description=shown, completed=done, total=total or None)

        yield advance


@contextmanager
def status(description: str) -> Iterator[None]:
    """Shows a spinner for work of unknown length if stderr is a terminal."""
    if not _on_terminal():
        yield
        return
    from rich.text import Text

    console = _stderr()
    with console.status(Text(plain(description))) if _lively(console) else nullcontext():
        yield


class _Warnings(logging.Handler):
    """Writes to the current stderr, above a spinner if one is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{plain(self.format(record))}\n")


@contextmanager
def warnings() -> Iterator[None]:
    """Shows the warnings of the library on stderr when they occur."""
    handler, loggers = _Warnings(), [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def _lively(console: Any) -> bool:
    """Whether to show progress: on a terminal, unless the command is to be quiet."""
    return bool(console.is_terminal) and not _volume.get() < 0


def _say(text: str, *, style: str | None = None) -> None:
    """Prints a line on stderr, in a style if it is a terminal."""
    if _on_terminal():
        _stderr().print(text, style=style, **_PLAIN)
    else:
        sys.stderr.write(f"{text}\n")


def _on_terminal() -> bool:
    """Whether stderr is a terminal, or rich is told so. Elsewhere nothing is drawn, and rich is not imported."""
    return sys.stderr.isatty() or any(name in os.environ for name in ("FORCE_COLOR", "TTY_COMPATIBLE"))


def _stderr() -> Any:
    from rich.console import Console

    return Console(stderr=True)
