"""Damaging a file in a way that only its bytes show."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ditzoo.digests import Digest, memo_of
from ditzoo.records import from_json


def damage_silently(file: Path, cache: Path) -> None:
    """Flips a bit of a file whose digest `cache` remembers. Like a failing disk, it changes no size and no remembered time."""
    memo = cache / "digests" / memo_of(file).name
    known = from_json(memo.read_bytes(), Digest)
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    stat = file.stat()
    state = {"size": stat.st_size, "inode": stat.st_ino, "modified": stat.st_mtime_ns, "changed": stat.st_ctime_ns}
    memo.write_bytes(msgspec.json.encode(msgspec.structs.replace(known, **state)))
