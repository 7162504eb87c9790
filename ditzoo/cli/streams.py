"""Standard streams that are closed, whose reader has gone, or whose encoding lacks a character."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TextIO

_ESCAPING = "ditzoo-escapes"
_STDOUT, _STDERR = 1, 2


def prepare() -> None:
    """Makes stdin, stdout and stderr usable, whatever the process was started with.

    A stream that is closed becomes the null device, so that no file that is opened later gets its number. A character that the
    encoding of the locale lacks is written as its escape in JSON.
    """
    codecs.register_error(_ESCAPING, _escaped)
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout, sys.stderr = _usable(sys.stdout, _STDOUT), _usable(sys.stderr, _STDERR)


def abandon_stdout() -> None:
    """Directs stdout to the null device. Else Python would try again to write the rest when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _usable(stream: TextIO | None, number: int) -> io.TextIOWrapper:
    """`stream`, or a new one if it is closed, which escapes what it cannot encode."""
    found = stream if isinstance(stream, io.TextIOWrapper) else io.TextIOWrapper(os.fdopen(number, "wb", closefd=False))
    found.reconfigure(errors=_ESCAPING)
    return found


def _escaped(error: UnicodeError) -> tuple[str, int]:
    r"""The escapes of the characters that could not be encoded, such as \u00bd, and the place after them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4)), error.end
