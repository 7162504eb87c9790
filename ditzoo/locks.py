"""Locks between processes. Their files are in ditzoo's cache. If a process is killed, the system releases its locks."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from filelock import FileLock

from ditzoo.files import cache_dir, file_name


def lock_named(name: str) -> FileLock:
    """The lock called `name`, for all processes with the same cache. `with` waits for the lock, and holds it in its block."""
    locks = cache_dir() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{file_name(name)}.lock")


def lock_of(target: Path) -> FileLock:
    """The lock that a process must hold while it writes the file or folder `target`."""
    return lock_named(hashlib.sha256(os.fsencode(target.absolute())).hexdigest())
