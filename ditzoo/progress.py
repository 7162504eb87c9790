"""How the library says what it is doing, to whoever wants to show that. By itself it shows nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Display(Protocol):
    """What shows the progress of long work. `ditzoo.cli.output` is one."""

    def status(self, description: str, /) -> AbstractContextManager[object]:
        """Shows `description` while the block runs."""

    def progress(self, description: str, total: int, /) -> AbstractContextManager[Callable[[], object]]:
        """Shows `description` while the block runs; the block calls what it gets `total` times, once after each part."""


class Silent:
    """Shows nothing."""

    def status(self, description: str, /) -> AbstractContextManager[object]:
        """Does nothing."""
        return nullcontext()

    def progress(self, description: str, total: int, /) -> AbstractContextManager[Callable[[], object]]:
        """Does nothing."""
        return nullcontext(lambda: None)


SILENT = Silent()
