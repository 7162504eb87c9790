"""The interface through which the library reports its progress. By default the library shows nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeAlias

Report: TypeAlias = Callable[[str, float], object]
"""A function that is called with what a stage does now, and with the part of the stage that is done, from 0 to 1."""


def silent(doing: str, done: float) -> None:
    """A `Report` that shows nothing."""


class Display(Protocol):
    """An object that shows the progress of long work, such as `ditzoo.cli.output`. Its blocks are never inside each other."""

    def status(self, description: str, /) -> AbstractContextManager[object]:
        """Shows `description` while the block runs."""

    def stage(self, description: str, /) -> AbstractContextManager[Report]:
        """Shows that a stage of long work runs, and how long it took. The block gets a `Report`, which it may call."""

    def progress(self, description: str, total: int, /) -> AbstractContextManager[Callable[[], object]]:
        """Shows `description` while the block runs. The block gets a function, and calls it after each of `total` parts."""


class Silent:
    """A display that shows nothing."""

    def status(self, description: str, /) -> AbstractContextManager[object]:
        """Does nothing."""
        return nullcontext()

    def stage(self, description: str, /) -> AbstractContextManager[Report]:
        """Does nothing."""
        return nullcontext(silent)

    def progress(self, description: str, total: int, /) -> AbstractContextManager[Callable[[], object]]:
        """Does nothing."""
        return nullcontext(lambda: None)


SILENT = Silent()
