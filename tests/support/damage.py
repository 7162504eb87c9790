"""Damaging a file in a way that only its bytes show."""

from __future__ import annotations

from pathlib import Path

import msgspec


def damage_silently(file: Path, cache: Path) -> None:
    """Flips a bit of a file whose digest `cache` remembers. Like a failing disk, it changes no size and no remembered time."""
    (memo,) = [memo for memo in (cache / "digests").iterdir() if memo.read_text().startswith(_state(file))]
    (*_, remembered) = msgspec.json.decode(memo.read_bytes())
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    stat = file.stat()
    memo.write_bytes(msgspec.json.encode([stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, remembered]))


def _state(file: Path) -> str:
    return f"[{file.stat().st_size},{file.stat().st_ino},"
