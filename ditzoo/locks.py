"""Locks between processes. Their files are in ditzoo's cache. If a process is killed, the system releases its locks."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from ditzoo.files import cache_dir, disk_errors, file_name, make_cache_folder
from ditzoo.records import Data, from_json

log = logging.getLogger(__name__)

_SILENT_WAIT = 0.5
"""The time in seconds that a process waits for a lock before it says so."""


class Holder(Data, frozen=True, kw_only=True):
    """The process that holds a lock: its number, its machine and its command."""

    process: int
    machine: str
    command: str

    def __str__(self) -> str:
        machine = "" if self.machine == socket.gethostname() else f" on {self.machine}"
        return f"process {self.process}{machine} (`{self.command}`)"


@contextmanager
def lock_named(name: str, *, what: str | None = None) -> Iterator[None]:
    """Holds the lock called `name` during the block. It is one lock for all processes with the same cache.

    If another process holds it, the call waits, and a warning says which process that is. `what` says what the lock is for; the
    default is its name. Raises UsageError if the cache cannot be written.
    """
    path = lock_file(name)
    lock = FileLock(path)
    make_cache_folder(path.parent)
    with disk_errors(path):
        _acquire(lock, path, what or name)
    try:
        _sign(path)
        yield
    finally:
        with suppress(OSError):
            _signature(path).unlink(missing_ok=True)
        lock.release()


def lock_of(target: Path) -> AbstractContextManager[None]:
    """The lock that a process must hold while it writes the file or folder `target`: see `lock_named`."""
    return lock_named(lock_name(target), what=str(target))


def lock_name(target: Path) -> str:
    """The name of the lock of the file or folder `target`."""
    return hashlib.sha256(os.fsencode(target.absolute())).hexdigest()


def lock_file(name: str) -> Path:
    """The file of the lock called `name`."""
    return cache_dir() / "locks" / f"{file_name(name)}.lock"


def _acquire(lock: FileLock, path: Path, what: str) -> None:
    try:
        lock.acquire(timeout=_SILENT_WAIT)
    except Timeout:
        log.warning("waiting for %s, which %s is using", what, _holder(path) or "another process")
        lock.acquire()


def _sign(path: Path) -> None:
    """Writes down that this process holds the lock, for those that wait."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name  # python -m NAME
    command = shlex.join([name, *sys.argv[1:]])
    holder = Holder(process=os.getpid(), machine=socket.gethostname(), command=command)
    with suppress(OSError):
        _signature(path).write_bytes(msgspec.json.encode(holder))


def _holder(path: Path) -> Holder | None:
    with suppress(OSError, ValueError):
        return from_json(_signature(path).read_bytes(), Holder)
    return None


def _signature(path: Path) -> Path:
    """The file that says which process holds the lock. The lock's own file belongs to the library."""
    return path.with_suffix(".holder")
