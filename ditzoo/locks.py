"""Locks between processes. They lie in ditzoo's cache, and the system frees them when their holder is killed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from filelock import FileLock

from ditzoo.files import cache_dir, file_name


def lock_named(name: str) -> FileLock:
    """The lock of that name among all processes that share ditzoo's cache; `with` waits for it, and holds it."""
    locks = cache_dir() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{file_name(name)}.lock")


def lock_of(target: Path) -> FileLock:
    """The lock of whoever writes the file or folder `target`."""
    return lock_named(hashlib.sha256(os.fsencode(target.absolute())).hexdigest())
