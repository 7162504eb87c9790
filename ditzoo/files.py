"""Files: checksums, checks whether a folder is writable, clear messages for disk errors, and replacement in one step."""

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
"""The suffix of the name of a folder that is not complete yet."""

OLD = "old"
"""The name, in a partial folder, of the folder that it is about to replace."""


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(path: Path, *, again: bool = False) -> str:
    """The SHA-256 of a file, in hexadecimal.

    The file is read only on the first call, if it has changed since the last call, or if `again` is True.

    The cache holds the digest together with the file's size, inode, and times of modification and status change. Bytes that a
    faulty disk changes do not affect these values, so only `again` detects them.
    """
    memo = cache_dir() / "digests" / hashlib.sha256(os.fsencode(path.absolute())).hexdigest()
    state = _state(path)
    if not again and (known := _remembered(memo, state)):
        return known
    value = sha256(path)
    with suppress(OSError):  # if the cache is read-only, the digest is not stored
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
    """Turns disk errors in the block, which writes `target`, into an error of the class `raises` with a clear message."""
    try:
        yield
    except OSError as error:
        problem = disk_problem(error, target)
        if problem is None:
            raise
        raise raises(problem) from error


def disk_problem(error: OSError, target: Path, *, remedy: str | None = None) -> str | None:
    """The message for an error in writing `target`: the reason, and the `remedy`. None if the error has another cause.

    If `remedy` is None, the message names the option or variable that moves `target` to another folder.
    """
    reason = _refusal(error, target)
    if reason is None:
        return None
    if remedy is None:
        own = target.is_relative_to(cache_dir())
        remedy = "see `ditzoo cache ls`, or set DITZOO_CACHE to another folder" if own else "choose another --out"
    folder = next(parent for parent in target.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    return (
        f"{target} was not written: {reason} (now {free:,} bytes are free on the disk of {folder});"
        f" free some space, or {remedy}"
    )


def _refusal(error: OSError, target: Path) -> str | None:
    """The reason why `target` could not be written; None if the error is not about `target`.

    numpy reports a full disk without an error number, in words such as "8 requested and 4 written".
    """
    if error.errno is None:
        return _REFUSALS[errno.ENOSPC] if any(words in str(error) for words in _NUMPYS_WORDS) else None
    if error.errno in _FORBIDDEN and isinstance(error.filename, str | bytes):
        refused = Path(os.fsdecode(error.filename)).absolute()
        if not (refused.is_relative_to(target.absolute().parent) or target.absolute().is_relative_to(refused)):
            return None
    return _REFUSALS.get(error.errno)


def cache_dir() -> Path:
    """The folder for files that ditzoo can create again: `DITZOO_CACHE`, or a folder in the user's cache folder."""
    return Path(os.environ.get("DITZOO_CACHE") or platformdirs.user_cache_dir("ditzoo"))


def is_within(path: Path, folders: Iterable[Path]) -> bool:
    """Whether `path` is in one of `folders`, with links followed."""
    return any(path.resolve().is_relative_to(folder.resolve()) for folder in folders)


def file_name(name: str) -> str:
    """A name, such as a model's, as part of a file's name: each run of characters unfit for file names becomes '--'."""
    return re.sub(r"[^A-Za-z0-9._-]+", "--", name)


def check_writable(folder: Path, option: str = "--out") -> None:
    """Raises UsageError if `folder` does not exist or is not writable. The message names the `option` that chose it."""
    if not folder.is_dir():
        raise UsageError(f"{option}: there is no folder {folder}; create it (mkdir -p {folder}), or choose another folder")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(f"{option}: cannot write to {folder}: {error.strerror}; choose another folder") from error


def check_output_file(path: Path, option: str) -> None:
    """Raises UsageError if the file `path` cannot be written, or if it is a folder. The message names the `option`."""
    check_writable(path.parent, option)
    if path.is_dir():
        raise UsageError(f"{option}: {path} is a folder; give the path of a file")


def check_replaceable(target: Path, option: str = "--out") -> None:
    """Raises UsageError if no folder can be put in the place of `target`. The message names the `option` that chose it.

    These are the working folder and the folders that it is in, because the process would lose them, and a folder that a disk is
    mounted on, because the system keeps it where it is.
    """
    if target.name in ("", "..") or Path.cwd().is_relative_to(target.resolve()):
        raise UsageError(f"{option}: {target} holds the working folder, so it cannot be replaced; choose a folder inside it")
    if target.is_mount():
        raise UsageError(f"{option}: a disk is mounted on {target}, so it cannot be replaced; choose a folder inside it")


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A new folder that replaces `target` in one step when the block succeeds. If the block fails, it is deleted.

    The previous content of `target` is deleted only after that step. The new folder is in the same folder as `target`. The
    caller must hold the lock of `target`. So any other partial folder of `target` was left by a killed process: see `recover`.
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
    """Cleans up after a killed process. It moves the previous content of `target` back, and deletes partial folders.

    The caller must hold the lock of `target`. So no other process is using the partial folders.
    """
    if not target.parent.is_dir():
        return
    for stale in list(target.parent.glob(f".{glob.escape(target.name)}.*{PARTIAL}")):
        if re.fullmatch(r"[a-z0-9_]{8}", stale.name[len(target.name) + 2 : -len(PARTIAL)]):  # else it is another target's
            _clear(stale, target)


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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that replaces `path` in one step when the block succeeds. If the block fails, it is deleted.

    It is in the same folder as `path`, and has the same suffix.
    """
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
