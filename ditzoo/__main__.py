"""The program `ditzoo`. Ctrl-C ends it with one line, also while its modules are still being imported."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""The exit status of a program that Ctrl-C ended: 128 and the number of the signal."""


def main() -> None:
    """The entry point of the `ditzoo` command."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler:  # in the background of a shell, Ctrl-C is for others
        sys.exit(_program())
    signal.signal(signal.SIGINT, _leave)
    status = _program()
    signal.signal(signal.SIGINT, _leave)  # nothing is left to clean up, and the interpreter's own end takes time
    if status == INTERRUPTED:
        os._exit(status)  # Python itself may end with the signal instead of this status
    sys.exit(status)


def _program() -> int:
    from ditzoo.cli import main as program

    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return program()


def _leave(number: int, frame: FrameType | None) -> None:
    """Ends the program at once."""
    os.write(2, b"stopped\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
