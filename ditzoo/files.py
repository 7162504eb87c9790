"""Files: checksums, checks before the work, and writing so that nothing is ever half there."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import platformdirs

from ditzoo.errors import UsageError

PARTIAL = ".partial"
"""How the name of a folder ends that somebody is still filling."""


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(path: Path, *, again: bool = False) -> str:
    """The SHA-256 of a file, read only where nothing is remembered of the file as it is now, or if it has to be `again`.

    Remembered with size, inode and both times of change: what was written to since is read anew. Only a disk that changes bytes
    by itself goes unnoticed, until `again`.
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


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turns a full disk, or a limit of the same effect, into a UsageError that says so; `target` is what was to be written."""
    try:
        yield
    except OSError as error:
        if not _is_full(error):
            raise
        free = shutil.disk_usage(target.parent).free
        why = error.strerror or os.strerror(errno.ENOSPC)
        remedy = "set DITZOO_CACHE to another folder" if target.is_relative_to(cache_dir()) else "choose another --out"
        raise UsageError(
            f"{target} was not written: {why} (without it, {free:,} bytes are free on the disk of {target.parent});"
            f" make room, or {remedy}"
        ) from error


_NUMPYS_WORDS = (" written", "problem writing element")


def _is_full(error: OSError) -> bool:
    """Whether an error means that a disk is full; numpy has words for it but no number: "8 requested and 4 written"."""
    if error.errno is None:
        return any(words in str(error) for words in _NUMPYS_WORDS)
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def cache_dir() -> Path:
    """Where ditzoo keeps what it can make again: `DITZOO_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("DITZOO_CACHE") or platformdirs.user_cache_dir("ditzoo"))


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
    """A new folder beside `target` that becomes `target` when the block ends well, at once and whole, or vanishes.

    The caller holds a lock, so that what a killed process has left there is nobody's and is cleared away.
    """
    prefix = f".{target.name}."
    for stale in target.parent.glob(f"{glob.escape(prefix)}*{PARTIAL}"):
        shutil.rmtree(stale)
    with tempfile.TemporaryDirectory(prefix=prefix, suffix=PARTIAL, dir=target.parent) as scratch:
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        yield fresh
        if target.exists():
            target.rename(Path(scratch) / "old")
        fresh.rename(target)


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
