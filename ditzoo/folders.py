"""Folders that replace others in one step, and temporary folders. What a killed process leaves is found and undone."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from ditzoo.files import PARTIAL, cache_dir, make_cache_folder, sync

OLD = "old"
"""The name, in a partial folder, of the folder that it is about to replace."""


Identity: TypeAlias = tuple[int, ...]
"""What tells a folder from another one that has its name later: see `identity`."""


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A new folder that replaces `target` in one step when the block succeeds. If the block fails, it is deleted.

    The previous content of `target` is deleted only after that step. The new folder is in the same folder as `target`. Its
    files get the modes that the umask gives. The caller must hold the lock of `target`. So any other partial folder of `target`
    was left by a killed process: see `recover`.
    """
    recover(target)
    scratch, handle = _scratch(f".{target.name}.", target.parent)
    try:
        fresh = scratch / "new"
        fresh.mkdir()
        yield fresh
        _publish(fresh, durable=target.exists())
        _put(fresh, target, scratch / OLD)
    finally:
        with suppress(OSError):  # what cannot be undone or deleted now is left for `recover`
            _clear(scratch, target)
        os.close(handle)


def vanish(folder: Path) -> None:
    """Deletes a folder in one step: no reader sees a part of it. If the process is killed, a partial folder is left."""
    scratch, handle = _scratch(f".{folder.name}.", folder.parent)
    try:
        folder.rename(scratch / "gone")
    finally:
        shutil.rmtree(scratch)
        os.close(handle)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder in the cache for large intermediate files. It is deleted at the end of the block."""
    make_cache_folder(cache_dir())
    folder, handle = _scratch(".scratch.", cache_dir())
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def recover(target: Path) -> None:
    """Cleans up after a killed process. It moves the previous content of `target` back, and deletes partial folders.

    The caller must hold the lock of `target`. So no other process is using the partial folders.
    """
    for stale in partial_folders(target):
        _clear(stale, target)


def partial_folders(target: Path) -> list[Path]:
    """The folders that are to replace `target`: those of killed processes, and that of a process that holds its lock."""
    if not target.parent.is_dir():
        return []
    found = target.parent.glob(f".{glob.escape(target.name)}.*{PARTIAL}")
    return [path for path in found if target_of(path) == target]


def target_of(partial: Path) -> Path | None:
    """The folder that a partial folder is to replace. None if `partial` has another kind of name."""
    match = re.fullmatch(rf"\.(.+)\.[a-z0-9_]{{8}}{re.escape(PARTIAL)}", partial.name)
    return partial.with_name(match[1]) if match else None


def identity(folder: Path) -> Identity | None:
    """What is different if another folder has the name `folder`, or if its entries have changed. None: there is no folder."""
    try:
        state = folder.stat()
    except OSError:
        return None
    return (state.st_dev, state.st_ino, state.st_mtime_ns, state.st_ctime_ns)


def _scratch(prefix: str, parent: Path) -> tuple[Path, int]:
    """A new partial folder, and its handle, which holds its lock until it is closed."""
    while True:
        scratch = Path(tempfile.mkdtemp(prefix=prefix, suffix=PARTIAL, dir=parent))
        handle = os.open(scratch, os.O_RDONLY)
        with suppress(OSError):  # a disk without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if scratch.is_dir():
            return scratch, handle
        os.close(handle)  # another process deleted it before it was locked


def _publish(fresh: Path, *, durable: bool) -> None:
    """Gives everything in a new folder the modes that the umask gives: the tools that write it make files for one user alone.

    If `durable`, its bytes are on the disk afterwards.
    """
    mode = fresh.stat().st_mode & 0o777
    for path in (*fresh.rglob("*"), fresh):
        path.chmod(mode if path.is_dir() else mode & 0o666)
        if durable:
            sync(path)


def _put(fresh: Path, target: Path, old: Path) -> None:
    """Renames `fresh` to `target`. If the system cannot exchange two folders in one step, the previous content of `target` is
    moved to `old`, so that `_clear` can move it back."""
    if target.exists():
        if _exchange(fresh, target):
            return
        target.rename(old)
    fresh.rename(target)


def _clear(scratch: Path, target: Path) -> None:
    """Deletes a partial folder. If it holds the previous content of `target`, and `target` is missing, moves it back first."""
    old = scratch / OLD
    if os.path.lexists(old):
        old.rename(scratch / "gone" if os.path.lexists(target) else target)
    shutil.rmtree(scratch)


_AT_WORKING_FOLDER, _RENAME_EXCHANGE = -100, 2
"""AT_FDCWD of fcntl.h and RENAME_EXCHANGE of linux/fs.h."""

_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV, errno.EPERM)


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges the names of two folders in one step. Returns False, and does nothing, if the system or the disk cannot.

    Raises an audit event, as the renames of Python's `os` do.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    try:
        sys.audit("os.rename", str(one), str(other), -1, -1)
        names = (_AT_WORKING_FOLDER, os.fsencode(one), _AT_WORKING_FOLDER, os.fsencode(other))
        if libc.renameat2(*names, _RENAME_EXCHANGE) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(one), None, str(other))
    except OSError as error:
        if error.errno in _NO_EXCHANGE:
            return False
        raise
    return True
