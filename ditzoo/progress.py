"""The interface through which the library reports its progress. By default the library shows nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Display(Protocol):
    """An object that shows the progress of long work, such as `ditzoo.cli.output`."""

    def status(self, description: str, /) -> AbstractContextManager[object]:
        """Shows `description` while the block runs."""

    def progress(self, description: str, total: int, /) -> AbstractContextManager[Callable[[], object]]:
        """Shows `description` while the block runs. The block gets a function, and calls it after each of `total` parts."""


class Silent:
    """A display that shows nothing."""

    def status(self, description: str, /) -> AbstractContextManager[object]:
        """Does nothing."""
        return nullcontext()

    def progress(self, description: str, total: int, /) -> AbstractContextManager[Callable[[], object]]:
        """Does nothing."""
        return nullcontext(lambda: None)


SILENT = Silent()
