"""Files: checksums, checks before the work, errors of the disk in plain words, and writing whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import glob
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import platformdirs

from ditzoo.errors import DitzooError, UsageError

PARTIAL = ".partial"
"""The end of the name of a folder that is still being filled."""

OLD = "old"
"""What a partial folder calls the folder that it is about to replace."""


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(path: Path, *, again: bool = False) -> str:
    """The SHA-256 of a file. It is read only if it has changed since its digest was last computed, or if it has to be `again`.

    The digest is kept in the cache with the size, the inode and both times of change of the file. A disk that changes bytes by
    itself changes none of them, and is found only by reading `again`.
    """
    memo = cache_dir() / "digests" / hashlib.sha256(os.fsencode(path.absolute())).hexdigest()
    state = _state(path)
    if not again and (known := _remembered(memo, state)):
        return known
    value = sha256(path)
    with suppress(OSError):  # a cache that cannot be written to remembers nothing
        memo.parent.mkdir(parents=True, exist_ok=True)
        with replacing(memo) as scratch:
            scratch.write_bytes(msgspec.json.encode([*state, value]))
    return value


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]


def _remembered(memo: Path, state: list[int]) -> str | None:
    try:
        *known, value = msgspec.json.decode(memo.read_bytes(), type=list[int | str])
    except (OSError, ValueError):
        return None
    return value if known == state and isinstance(value, str) else None


_REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "a file would exceed the largest size that is allowed",
    errno.EROFS: "it is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
_NUMPYS_WORDS = (" written", "problem writing element")


@contextmanager
def disk_errors(target: Path, *, raises: type[DitzooError] = UsageError) -> Iterator[None]:
    """Turns an error of the disk on which `target` was to be written into one of the class `raises`, in one sentence."""
    try:
        yield
    except OSError as error:
        problem = disk_problem(error, target)
        if problem is None:
            raise
        raise raises(problem) from error


def disk_problem(error: OSError, target: Path, *, remedy: str | None = None) -> str | None:
    """Why `target` was not written, and the `remedy`, in one sentence; None for an error that is not about writing it."""
    reason = _refusal(error, target)
    if reason is None:
        return None
    if remedy is None:
        own = target.is_relative_to(cache_dir())
        remedy = "see `ditzoo cache ls`, or set DITZOO_CACHE to another folder" if own else "choose another --out"
    folder = next(parent for parent in target.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    return (
        f"{target} was not written: {reason} (without it, {free:,} bytes are free on the disk of {folder});"
        f" make room, or {remedy}"
    )


def _refusal(error: OSError, target: Path) -> str | None:
    """What the disk of `target` refuses. numpy has words for a full disk, and no number: "8 requested and 4 written"."""
    if error.errno is None:
        return _REFUSALS[errno.ENOSPC] if any(words in str(error) for words in _NUMPYS_WORDS) else None
    if error.errno in _FORBIDDEN and isinstance(error.filename, str | bytes):
        refused = Path(os.fsdecode(error.filename)).absolute()
        if not (refused.is_relative_to(target.absolute().parent) or target.absolute().is_relative_to(refused)):
            return None
    return _REFUSALS.get(error.errno)


def cache_dir() -> Path:
    """Where ditzoo keeps what it can make again: `DITZOO_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("DITZOO_CACHE") or platformdirs.user_cache_dir("ditzoo"))


def is_within(path: Path, folders: Iterable[Path]) -> bool:
    """Whether `path` lies in one of `folders`, all links followed: nothing else there is read or deleted."""
    return any(path.resolve().is_relative_to(folder.resolve()) for folder in folders)


def file_name(name: str) -> str:
    """The name of a model, or any other, as part of a file's name: runs of what files should not have in theirs become '--'."""
    return re.sub(r"[^A-Za-z0-9._-]+", "--", name)


def check_writable(folder: Path, option: str = "--out") -> None:
    """Raises UsageError, naming the `option` that asked for it, unless files can be made in `folder`."""
    if not folder.is_dir():
        raise UsageError(f"{option}: there is no folder {folder}; make it first (mkdir -p {folder}), or choose another")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(f"{option}: cannot write to {folder}: {error.strerror}; choose another folder") from error


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A new folder beside `target`. It becomes `target`, at once and whole, when the block ends well; else it is deleted.

    What was at `target` is deleted only when the new folder is in its place. The caller holds the lock of `target`.
    """
    recover(target)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=PARTIAL, dir=target.parent))
    try:
        fresh = scratch / "new"
        fresh.mkdir()
        yield fresh
        _put(fresh, target, scratch / OLD)
    finally:
        with suppress(OSError):  # what cannot be undone or deleted now is left for `recover`
            _clear(scratch, target)


def recover(target: Path) -> None:
    """Undoes what a killed process left beside `target`: it puts back what was moved away, and deletes partial folders.

    The caller holds the lock of `target`, so that nobody is at work there.
    """
    if not target.parent.is_dir():
        return
    for stale in list(target.parent.glob(f".{glob.escape(target.name)}.*{PARTIAL}")):
        if re.fullmatch(r"[a-z0-9_]{8}", stale.name[len(target.name) + 2 : -len(PARTIAL)]):  # else it is another target's
            _clear(stale, target)


def _put(fresh: Path, target: Path, old: Path) -> None:
    """Makes `fresh` the `target`. Where the system cannot exchange two folders at once, `old` holds what was there until the
    end, so that `_clear` can put it back."""
    if target.exists():
        if _exchange(fresh, target):
            return
        target.rename(old)
    fresh.rename(target)


def _clear(scratch: Path, target: Path) -> None:
    """Deletes a partial folder. If it holds what was at `target`, and nothing is there now, that is put back first."""
    old = scratch / OLD
    if os.path.lexists(old):
        old.rename(scratch / "gone" if os.path.lexists(target) else target)
    shutil.rmtree(scratch)


_AT_WORKING_FOLDER, _RENAME_EXCHANGE = -100, 2
"""AT_FDCWD of fcntl.h and RENAME_EXCHANGE of linux/fs.h."""

_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV, errno.EPERM)


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges the names of two folders at once; False, and nothing is done, where the system or the disk cannot.

    Raises an audit event, as every rename of Python's does.
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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path of the same suffix beside `path`, which replaces it when the block ends well, at once and whole."""
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    scratch = Path(name)
    try:
        yield scratch
        scratch.chmod(0o666 & ~_umask())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
