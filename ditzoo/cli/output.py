"""The only module that prints. Data goes to stdout, messages go to stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ditzoo.cli import tables
from ditzoo.cli.live import counting as counting
from ditzoo.cli.live import progress as progress
from ditzoo.cli.live import seconds as seconds
from ditzoo.cli.live import stage as stage
from ditzoo.cli.live import status as status
from ditzoo.cli.live import transfer as transfer
from ditzoo.cli.terminal import LOGGERS, is_verbose, on_terminal, say, stderr
from ditzoo.cli.terminal import plain as plain
from ditzoo.cli.terminal import set_volume as set_volume
from ditzoo.cli.terminal import talk as talk


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

    names, width = [column.lstrip(tables.SIGNS) for column in columns], terminal_width()
    if width is None:
        for row in (names, *rows):
            data("\t".join("; ".join(cell.splitlines()).replace("\t", " ").strip() for cell in row))
        return
    if not rows:
        talk("nothing to show")
        return
    cells = [[plain(cell) for cell in row] for row in rows]
    shown = tables.fitting(columns, cells, width)
    if left_out := [name for name, column in zip(names, columns, strict=True) if column not in shown]:
        talk(f"not shown in {width} columns: {', '.join(left_out)}")
    drawn = tables.drawn(shown, [[row[columns.index(column)] for column in shown] for row in cells], width)
    Console(file=sys.stdout).print(drawn, markup=False, highlight=False, soft_wrap=isinstance(drawn, str))


def last_row(name: str, value: str) -> None:
    """Prints a row that follows a table. On a terminal, the value is a line of its own, which can be copied whole."""
    data(f"{name}\t{value}" if terminal_width() is None else f"{name}:\n{value}")


def terminal_width() -> int | None:
    """The columns of the terminal that data goes to. None if it goes elsewhere, where no text is laid out."""
    from rich.console import Console

    console = Console(file=sys.stdout)
    return console.width if console.is_terminal else None


def error(text: str, *, trace: str = "") -> None:
    """Prints an error message on one line. A verbose command prints the `trace` of the error before it."""
    if trace and is_verbose():
        say(trace.rstrip())
    line = f"error: {plain(' '.join(text.split()))}"
    if on_terminal():
        stderr().print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    else:
        say(line)


class _Warnings(logging.Handler):
    """Writes to the current stderr, above a spinner if one is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


@contextmanager
def warnings() -> Iterator[None]:
    """Shows the warnings of the library on stderr when they occur."""
    handler, loggers = _Warnings(), [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
