"""The only module that prints. Data goes to stdout, messages go to stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ditzoo.cli.live import progress as progress
from ditzoo.cli.live import seconds as seconds
from ditzoo.cli.live import stage as stage
from ditzoo.cli.live import status as status
from ditzoo.cli.live import transfer as transfer
from ditzoo.cli.terminal import plain as plain
from ditzoo.cli.terminal import say, stderr

_WIDEST = 10_000


def data(text: str) -> None:
    """Prints a line of data."""
    sys.stdout.write(f"{plain(text)}\n")


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
    say(text)


def error(text: str) -> None:
    """Prints an error message on one line."""
    stderr().print(f"error: {plain(' '.join(text.split()))}", style="red", markup=False, highlight=False, soft_wrap=True)


class _Warnings(logging.Handler):
    """Writes to the current stderr, above a spinner if one is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


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
