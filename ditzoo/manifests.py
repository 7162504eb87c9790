"""The records of files in a manifest, and the check of a file against its record. Bundles and stored weights use them."""

from __future__ import annotations

import re
from pathlib import Path

from ditzoo.digests import digest
from ditzoo.files import sha256
from ditzoo.records import Data


class FileRecord(Data, frozen=True, kw_only=True):
    """The record of a file: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


def is_file_name(name: str) -> bool:
    """Whether `name` is valid for a file in a folder with a manifest: letters, digits, '.', '_', '+' and '-'."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,254}", name) is not None


def record_file(path: Path) -> FileRecord:
    """The record of the file at `path`. The whole file is read."""
    return FileRecord(size=path.stat().st_size, sha256=sha256(path))


def record_files(folder: Path) -> dict[str, FileRecord]:
    """The record of every file in `folder`, by name."""
    return {path.name: record_file(path) for path in sorted(folder.iterdir()) if path.is_file()}


def damage(path: Path, expected: FileRecord, *, again: bool = False) -> str:
    """The problem of the file at `path`, as the end of a sentence that begins with its name; "" if there is no problem.

    The size is always compared. The checksum is computed on first use, after any change of the file, and if `again` is True:
    see `ditzoo.digests.digest`.
    """
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != expected.size:
        return f"has {size:,} bytes instead of {expected.size:,}: it was truncated or changed"
    if digest(path, again=again) != expected.sha256:
        return "was changed or damaged: its sha256 is not the one in the manifest"
    return ""
