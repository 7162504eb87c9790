"""The bounds of the numbers and texts in a card. They are far beyond those of any published model, so they find wrong ones."""

from __future__ import annotations

import re

LARGEST_SIZE, LARGEST_WIDTH, LARGEST_DEPTH, LARGEST_CHANNELS = 4096, 65_536, 1000, 65_536
"""The largest side of the latents, the largest width of a network, the most blocks, and the most channels of the latents."""

MOST_ROWS = 1_000_000
"""The most rows of a label table."""

MOST_FIXED = 2**28
"""The most values in the positions that a network computes: 1 GB in float32."""

MOST_STEPS = 10_000
"""The most steps of a schedule or of a sampling run."""

LARGEST_BETA, LARGEST_TIME, LARGEST_FACTOR = 1000.0, 1e9, 1024
"""The largest beta of a continuous schedule, the largest scale of the time, and the largest factor of a decoder."""

LONGEST_NAME = 200
"""The most bytes in the name of a file."""


def check_at_most(name: str, value: float, most: float) -> None:
    """Raises ValueError, which names the number, if `value` is above `most`."""
    if not value <= most:
        raise ValueError(f"{name} is {value}, but it must be at most {most}")


def check_between(name: str, value: float, least: float, most: float) -> None:
    """Raises ValueError, which names the number, unless `least` ≤ `value` ≤ `most`."""
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}, but it must be {least} to {most}")


def check_path(path: str) -> None:
    """Raises ValueError if `path` is not a path inside a repository: see `is_path`."""
    if not is_path(path):
        raise ValueError(
            f"the path {shown(path)} must be relative, printable, and must not lead out of its repository;"
            f" each name in it has at most {LONGEST_NAME} bytes"
        )


def is_path(path: str) -> bool:
    """Whether `path` is a path inside a repository: relative, printable, not too long, and with no part '..'."""
    parts = path.split("/")
    if not path or path.startswith("/") or "\\" in path or ".." in parts or not path.isprintable():
        return False
    return len(path) <= 10 * LONGEST_NAME and all(len(part.encode()) <= LONGEST_NAME for part in parts)


def check_sha256(file: str, sha256: str) -> None:
    """Raises ValueError if `sha256` is not the SHA-256 of a file in hexadecimal."""
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"the sha256 of {file} must be 64 hexadecimal digits, not {shown(sha256)}")


def shown(text: str) -> str:
    """The beginning of a text in quotes, for error messages."""
    return repr(text[:LONGEST_NAME])
