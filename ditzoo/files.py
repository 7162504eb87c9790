"""Files: checksums, checks before the work, and writing so that nothing is ever half there."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from ditzoo.errors import UsageError


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
