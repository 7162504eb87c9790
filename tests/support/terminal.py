"""A terminal of 80 columns: programs run in it, and its screen can be read afterwards."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

COLUMNS, LINES = 80, 40

ROOT = Path(__file__).parents[2]

_STEPS = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|(.)", re.DOTALL)


def run_in_terminal(arguments: list[str], **env: str) -> tuple[int, list[str]]:
    """Runs Python with `arguments` in a terminal. Returns the exit status, and all lines that its screen has at the end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    paths = os.pathsep.join([str(ROOT), str(ROOT / "export")])
    environment = {**os.environ, "PYTHONPATH": paths, "TERM": "xterm-256color", **env}
    process = subprocess.Popen([sys.executable, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    with suppress(OSError):  # the other end is closed
        while part := os.read(ours, 1 << 16):
            written += part
    os.close(ours)
    return process.wait(), screen(written.decode())


def screen(written: str) -> list[str]:
    """The lines of a screen after a program has written to it, without the empty ones."""
    lines, row, column = [""], 0, 0
    for number, command, sign in _STEPS.findall(written):
        if command == "A":
            row = max(row - int(number or 1), 0)
        elif command == "K":
            lines[row] = "" if number == "2" else lines[row][:column]
        elif sign == "\r":
            column = 0
        elif sign == "\n" or (sign and column == COLUMNS):
            row, column = row + 1, column if sign == "\n" else 0
            lines += [""] * (row + 1 - len(lines))
        if sign and sign not in "\r\n":
            lines[row] = f"{lines[row][:column]:{column}}{sign}{lines[row][column + 1 :]}"
            column += 1
    return [line.rstrip() for line in lines if line.strip()]
