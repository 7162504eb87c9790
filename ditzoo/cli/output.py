"""The only module that prints. Data goes to stdout, messages go to stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_WIDEST = 10_000

_PLAIN = {"markup": False, "highlight": False, "soft_wrap": True}


def data(text: str) -> None:
    """Prints a line of data."""
    sys.stdout.write(f"{text}\n")


def json(value: Any) -> None:
    """Prints a value as indented JSON. Values of types that JSON lacks, such as paths, become strings."""
    import msgspec

    data(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode())


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table as data. On a terminal, it fits the width. A ">" before a column's name aligns the column right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        drawn.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        drawn.add_row(*row)
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        console.width = console.measure(drawn, options=console.options.update(max_width=_WIDEST)).maximum
    console.print(drawn, markup=False)


def talk(text: str) -> None:
    """Prints a message for the user."""
    _stderr().print(text, **_PLAIN)


def error(text: str) -> None:
    """Prints an error message on one line."""
    _stderr().print(f"error: {' '.join(text.split())}", style="red", **_PLAIN)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Shows a progress bar if stderr is a terminal. Yields the function that advances it by one."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = _stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def transfer(name: str) -> Iterator[Callable[[str, int, int], None]]:
    """Shows a progress bar for a download if stderr is a terminal.

    Yields the function that updates it. That function takes the path of a file, the bytes received so far, and its size.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = _stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)

        def advance(path: str, done: int, total: int) -> None:
            bar.update(task, description=f"{name} {path.rpartition('/')[2]}", completed=done, total=total or None)

        yield advance


@contextmanager
def status(description: str) -> Iterator[None]:
    """Shows a spinner for work of unknown length if stderr is a terminal. Warnings of the library appear when they occur."""
    console = _stderr()
    handler = logging.StreamHandler(console.file)
    logging.getLogger("ditzoo").addHandler(handler)
    logging.getLogger("ditzoo_export").addHandler(handler)
    try:
        with console.status(description):
            yield
    finally:
        logging.getLogger("ditzoo").removeHandler(handler)
        logging.getLogger("ditzoo_export").removeHandler(handler)


def _stderr() -> Any:
    from rich.console import Console

    return Console(stderr=True)
