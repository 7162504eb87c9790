"""Text on stderr that steers no terminal."""

from __future__ import annotations

import re
import sys
from typing import Any


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


def stderr() -> Any:
    """The console of the current stderr."""
    from rich.console import Console

    return Console(stderr=True)


def say(text: str) -> None:
    """Prints a message on stderr. On a terminal, it appears above the spinner or bar that is shown there now.

    A console of rich would write past the stream that does this.
    """
    sys.stderr.write(f"{plain(text)}\n")
