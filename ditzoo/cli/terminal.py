"""Text on stderr that steers no terminal."""

from __future__ import annotations

import logging
import os
import re
import sys
from contextvars import ContextVar
from typing import Any

LOGGERS = ("ditzoo", "ditzoo_export")
"""The loggers whose messages are shown."""

_volume: ContextVar[int] = ContextVar("volume", default=0)


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


def set_volume(volume: int) -> None:
    """Decides how much the command says: -1 is errors only, 0 is the default, 1 is also what the library logs.

    It holds for the current context: see `contextvars`.
    """
    _volume.set(volume)
    for logger in map(logging.getLogger, LOGGERS):
        logger.setLevel({-1: logging.ERROR, 0: logging.WARNING}.get(volume, logging.INFO))


def is_verbose() -> bool:
    """Whether the command is to say more than usual."""
    return _volume.get() > 0


def on_terminal() -> bool:
    """Whether stderr is a terminal, or rich is told so. Elsewhere nothing is drawn, and rich is not imported."""
    return sys.stderr.isatty() or any(name in os.environ for name in ("FORCE_COLOR", "TTY_COMPATIBLE"))


def lively() -> bool:
    """Whether to show what changes while work runs: on a terminal, unless the command is to be quiet."""
    return _volume.get() >= 0 and on_terminal() and bool(stderr().is_terminal)


def stderr() -> Any:
    """The console of the current stderr."""
    from rich.console import Console

    return Console(stderr=True)


def say(text: str) -> None:
    """Prints a message on stderr. On a terminal, it appears above the spinner or bar that is shown there now.

    A console of rich would write past the stream that does this.
    """
    sys.stderr.write(f"{plain(text)}\n")


def talk(text: str) -> None:
    """Prints a message for the user, unless the command is to be quiet."""
    if _volume.get() >= 0:
        say(text)
