"""Files: checksums, checks whether a folder is writable, clear messages for disk errors, and replacement in one step."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from ditzoo.errors import DitzooError, UsageError, shortened, shown_path

PARTIAL = ".partial"
"""What the name of a file or folder has, before its suffix if it has one, that is not complete yet."""


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "a file would exceed the largest size that is allowed",
    errno.EROFS: "it is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENAMETOOLONG: "its name is too long",
}
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
_NUMPYS_WORDS = (" written", "problem writing element")

_CHOOSE_CACHE = "set DITZOO_CACHE to another folder"

_UNUSABLE = {
    errno.ENAMETOOLONG: "it is too long",
    errno.ELOOP: "its links lead in a circle",
    errno.EACCES: "permission denied",
}

_LONGEST_NAME = 237
"""The most bytes in the name of a file or folder that ditzoo writes. Linux allows 255; temporary names have 18 more."""


@contextmanager
def disk_errors(target: Path, *, raises: type[DitzooError] = UsageError, option: str = "--out") -> Iterator[None]:
    """Turns disk errors in the block, which writes `target`, into an error of the class `raises` with a clear message.

    The message names the `option` that chose `target`.
    """
    try:
        yield
    except OSError as error:
        problem = disk_problem(error, target, option=option)
        if problem is None:
            raise
        raise raises(problem) from error


def disk_problem(error: OSError, target: Path, *, option: str = "--out", remedy: str | None = None) -> str | None:
    """The message for an error in writing `target`: the reason, and the `remedy`. None if the error has another cause.

    If `remedy` is None, the message names what moves `target` to another folder: the `option`, or the variable of the cache.
    """
    reason = _refusal(error, target)
    if reason is None:
        return None
    if remedy is None:
        remedy = _CHOOSE_CACHE if target.is_relative_to(cache_dir()) else f"choose another {option}"
    if error.errno in (*_FORBIDDEN, errno.ENAMETOOLONG):
        return f"{shown_path(target)} was not written: {reason}; {remedy}"
    if remedy == _CHOOSE_CACHE:
        remedy += " (`ditzoo cache ls` shows what takes space)"
    folder = next(parent for parent in target.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    return (
        f"{shown_path(target)} was not written: {reason} (now {free:,} bytes are free on the disk of {shown_path(folder)});"
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


def make_cache_folder(folder: Path) -> None:
    """Makes a folder of the cache, unless it exists. If that fails, raises UsageError, which names DITZOO_CACHE."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = disk_problem(error, folder) or f"{shown_path(folder)} was not created: {error.strerror}; {_CHOOSE_CACHE}"
        raise UsageError(problem) from error


def is_within(path: Path, folders: Iterable[Path]) -> bool:
    """Whether `path` is in one of `folders`, with links followed."""
    return any(path.resolve().is_relative_to(folder.resolve()) for folder in folders)


def file_name(name: str) -> str:
    """A name, such as a model's, as part of a file's name: each run of characters unfit for file names becomes '--'."""
    return re.sub(r"[^A-Za-z0-9._-]+", "--", name)


def path_problem(path: str | os.PathLike[str]) -> str | None:
    """Why there can be no file or folder at `path`, or none that this process may see. None if there can be one."""
    try:
        os.stat(path)  # noqa: PTH116  (a text with a NUL character is no path)
    except ValueError:
        return "it has a character that no path has"
    except OSError as error:
        return _UNUSABLE.get(error.errno or 0)
    return None


def check_path(path: Path, option: str) -> None:
    """Raises UsageError if no file or folder can be at `path`. The message names the `option` that chose it.

    Afterwards, `path` can be asked what it is without an error.
    """
    if (problem := path_problem(path)) is not None:
        raise UsageError(f"{option}: {shortened(str(path))!r} cannot be used: {problem}; choose another path")


def check_target(path: Path, option: str = "--out") -> None:
    """Raises UsageError if nothing can ever be written at `path`. The message names the `option` that chose it."""
    check_path(path, option)
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise UsageError(
            f"{option}: the name {shortened(path.name)!r} is too long; choose one of at most {_LONGEST_NAME} bytes"
        )


def check_writable(folder: Path, option: str = "--out") -> None:
    """Raises UsageError if `folder` does not exist or is not writable. The message names the `option` that chose it."""
    check_path(folder, option)
    shown = shown_path(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{option}: {shown} is not a folder; choose another folder")
    if not folder.is_dir():
        raise UsageError(f"{option}: there is no folder {shown}; create it (mkdir -p {shown}), or choose another folder")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(f"{option}: cannot write to {shown}: {error.strerror}; choose another folder") from error


def make_folder(folder: Path, option: str) -> None:
    """Makes a folder, and those that it is in, unless it exists. Raises UsageError if it cannot be written."""
    check_target(folder, option)
    if not folder.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            shown = shown_path(folder)
            raise UsageError(f"{option}: cannot create {shown}: {error.strerror}; choose another folder") from error
    check_writable(folder, option)


def check_output_file(path: Path, option: str) -> None:
    """Raises UsageError if the file `path` cannot be written, or if it is a folder. The message names the `option`."""
    check_target(path, option)
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


def is_partial(path: Path) -> bool:
    """Whether `path` has the name of a temporary file or folder of ditzoo."""
    return re.fullmatch(rf"\..+{re.escape(PARTIAL)}(\.[^.]+)?", path.name) is not None


@contextmanager
def replacing(path: Path, *, option: str = "--out") -> Iterator[Path]:
    """A temporary path that replaces `path` in one step when the block succeeds. If the block fails, it is deleted.

    It is in the same folder as `path`, and has the same suffix. If a process was killed, its temporary file stays, and the next
    process that writes `path` uses and replaces it. The new file has the mode that the umask gives, and its bytes are on the
    disk before it replaces another file. Raises UsageError, which names the `option` that chose `path`, if the disk refuses.
    """
    with disk_errors(path, option=option):
        scratch, handle = _scratch(path)
        try:
            yield scratch
            scratch.chmod(0o666 & ~_umask())
            if path.exists():
                sync(scratch)
            scratch.replace(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)


def remember(path: Path, content: bytes) -> None:
    """Writes a file of the cache that saves time later. Does nothing if the cache cannot be written."""
    with suppress(OSError, UsageError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as scratch:
            scratch.write_bytes(content)


def sync(path: Path) -> None:
    """Waits until the file or folder at `path` is on the disk, so that it also survives a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def abandoned(path: Path) -> Iterator[bool]:
    """Whether the temporary file or folder at `path` was left by a killed process. No process can use it during the block."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield False
        return
    try:
        yield lock_handle(handle)
    finally:
        os.close(handle)


def lock_handle(handle: int) -> bool:
    """Locks an opened file until it is closed. Returns False if another process has locked it, or if the disk has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _scratch(path: Path) -> tuple[Path, int]:
    """An empty temporary file for `path`, and its handle, which holds its lock until it is closed.

    Its name is always the same, unless another process or user has that file.
    """
    usual = path.with_name(f".{path.stem}{PARTIAL}{path.suffix}")
    with suppress(OSError):
        handle = os.open(usual, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        if _take(handle, usual):
            return usual, handle
        os.close(handle)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=f"{PARTIAL}{path.suffix}", dir=path.parent)
    lock_handle(handle)
    return Path(name), handle


def _take(handle: int, path: Path) -> bool:
    """Locks and empties an opened file. Returns False if another process has it, or if another user could change it."""
    opened = os.fstat(handle)
    if not stat.S_ISREG(opened.st_mode) or opened.st_uid != os.geteuid() or not lock_handle(handle):
        return False
    try:
        if not os.path.samestat(opened, path.lstat()) or os.fstat(handle).st_nlink != 1:
            return False
        os.ftruncate(handle, 0)
    except OSError:
        return False
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
