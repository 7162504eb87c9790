"""Checksums that are remembered: a file that has not changed is not read again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ditzoo.files import cache_dir, remember, sha256
from ditzoo.records import Data, from_json


class Digest(Data, frozen=True, kw_only=True):
    """The SHA-256 of a file, and the state of the file when it was computed. The times are in nanoseconds."""

    path: bytes
    size: int
    inode: int
    modified: int
    changed: int
    sha256: str = ""


def digest(path: Path, *, again: bool = False) -> str:
    """The SHA-256 of a file, in hexadecimal.

    The file is read only on the first call, if it has changed since the last call, or if `again` is True.

    The cache holds the digest together with the file's size, inode, and times of modification and status change. Bytes that a
    faulty disk changes do not affect these values, so only `again` detects them.
    """
    memo, state = memo_of(path), _state(path)
    known = None if again else _read(memo)
    if known is not None and known == msgspec.structs.replace(state, sha256=known.sha256):
        return known.sha256
    value = sha256(path)
    remember(memo, msgspec.json.encode(msgspec.structs.replace(state, sha256=value)))
    return value


def memo_of(path: Path) -> Path:
    """The file of the cache that remembers the digest of the file at `path`."""
    return _folder() / hashlib.sha256(os.fsencode(path.absolute())).hexdigest()


def outdated() -> Iterator[Path]:
    """The files of the cache that remember the digest of a file that is gone, and those that cannot be read."""
    for memo in _folder().glob("[!.]*"):
        known = _read(memo)
        if known is None or not os.path.lexists(known.path):
            yield memo


def _state(path: Path) -> Digest:
    """The record of the file at `path`, without its SHA-256."""
    state = path.stat()
    return Digest(
        path=os.fsencode(path.absolute()),
        size=state.st_size,
        inode=state.st_ino,
        modified=state.st_mtime_ns,
        changed=state.st_ctime_ns,
    )


def _read(memo: Path) -> Digest | None:
    try:
        return from_json(memo.read_bytes(), Digest)
    except (OSError, ValueError):
        return None


def _folder() -> Path:
    return cache_dir() / "digests"
