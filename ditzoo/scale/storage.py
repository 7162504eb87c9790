"""The place of the shards: a folder on a disk, or a folder of any storage that fsspec reaches, such as s3://bucket/folder."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from ditzoo.digests import digest
from ditzoo.errors import MissingPackageError, UsageError
from ditzoo.files import check_path, disk_errors, replacing

LOCK = ".lock"


class Storage(Protocol):
    """A folder of files, by name. A file appears whole or not at all."""

    @property
    def place(self) -> str:
        """The path or address of the folder."""

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""

    def read(self, name: str) -> bytes:
        """The content of a file; b"" if there is no such file."""

    def holds(self, name: str, *, size: int, sha256: str) -> bool:
        """Whether a file has this size and, if it is on a disk, this checksum. A storage checks the content by itself."""

    def local(self, name: str) -> AbstractContextManager[Path]:
        """A path on the disk with the content of a file. Raises FileNotFoundError if there is no such file."""

    def write(self, name: str, fill: Callable[[Path], object]) -> None:
        """Makes a file: `fill` writes a temporary file on the disk, which then appears under `name` in one step.

        Raises UsageError, which says that the disk is full and how much is free, if the disk refuses.
        """

    def append(self, name: str, line: bytes) -> None:
        """Appends a line to a small file."""

    def locked(self) -> AbstractContextManager[object]:
        """A block in which no other run writes into this folder. Raises UsageError if another run holds it."""

    def clean(self) -> None:
        """Deletes temporary files that a killed process left."""


def absolute(place: str) -> str:
    """A place as every process finds it: a path becomes absolute, and an address stays."""
    storage = storage_at(place)
    return str(storage.path.absolute()) if isinstance(storage, LocalFolder) else place


def storage_at(place: str | os.PathLike[str]) -> Storage:
    """The storage at a path, or at an address with a protocol of fsspec.

    Raises UsageError if the protocol is unknown or if no folder can have the path, and MissingPackageError if the package of
    the protocol is not installed.
    """
    text = os.fspath(place)
    address = re.fullmatch(r"([a-z][a-z0-9+]+):/+(.*)", text)
    if address is not None:
        return RemoteFolder(f"{address[1]}://{address[2]}")
    check_path(Path(text), "folder")
    return LocalFolder(Path(text))


class LocalFolder:
    """A folder on a disk. Its files are written to the disk before they appear."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = str(path)

    def exists(self, name: str) -> bool:
        return (self.path / name).is_file()

    def read(self, name: str) -> bytes:
        path = self.path / name
        return path.read_bytes() if path.is_file() else b""

    def holds(self, name: str, *, size: int, sha256: str) -> bool:
        path = self.path / name
        return path.stat().st_size == size and digest(path) == sha256

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        if not self.exists(name):
            raise FileNotFoundError(f"there is no file {self.path / name}")
        yield self.path / name

    def write(self, name: str, fill: Callable[[Path], object]) -> None:
        with disk_errors(self.path / name):
            self.path.mkdir(parents=True, exist_ok=True)
            with replacing(self.path / name) as scratch:
                fill(scratch)
                _sync(scratch)

    def append(self, name: str, line: bytes) -> None:
        """Appends a line. If the disk refuses a part of it, the file keeps its old content."""
        path = self.path / name
        with disk_errors(path), path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                if file.write(line) != len(line):
                    raise OSError("a line was only partly written")
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise

    @contextmanager
    def locked(self) -> Iterator[None]:
        with disk_errors(self.path / LOCK):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise UsageError(f"another run writes into {self.path}; wait until it ends, or choose another --out") from None
        try:
            yield
        finally:
            lock.release()

    def clean(self) -> None:
        for stale in self.path.glob(".*.*"):
            if re.fullmatch(r"\.[\w-]+\.[a-z0-9_]{8}\.(tar|npz|json|jsonl|txt)", stale.name):
                stale.unlink(missing_ok=True)


class RemoteFolder:
    """A folder of a storage that fsspec reaches. A file appears when its transaction ends.

    Such a storage has no locks. Two runs in one folder draw the same shards, so neither damages the work of the other.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._files, self._root = _file_system(place)

    def exists(self, name: str) -> bool:
        return bool(self._files.isfile(f"{self._root}/{name}"))

    def read(self, name: str) -> bytes:
        path = f"{self._root}/{name}"
        self._files.invalidate_cache()
        return bytes(self._files.cat_file(path)) if self._files.isfile(path) else b""

    def holds(self, name: str, *, size: int, sha256: str) -> bool:
        return int(self._files.info(f"{self._root}/{name}")["size"]) == size

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        if not self.exists(name):
            raise FileNotFoundError(f"there is no file {self.place}/{name}")
        with tempfile.TemporaryDirectory(prefix="ditzoo-") as folder:
            self._files.get_file(f"{self._root}/{name}", str(Path(folder) / name))
            yield Path(folder) / name

    def write(self, name: str, fill: Callable[[Path], object]) -> None:
        with tempfile.TemporaryDirectory(prefix="ditzoo-") as folder, disk_errors(Path(folder) / name):
            scratch = Path(folder) / name
            fill(scratch)
            self._files.makedirs(self._root, exist_ok=True)
            with self._files.transaction, self._files.open(f"{self._root}/{name}", "wb") as target, scratch.open("rb") as file:
                shutil.copyfileobj(file, target)

    def append(self, name: str, line: bytes) -> None:
        content = self.read(name) + line
        self.write(name, lambda scratch: scratch.write_bytes(content))

    @contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def clean(self) -> None:
        """Nothing: a transaction that did not end leaves no file."""


def _file_system(place: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"{place} needs the package fsspec: pip install fsspec") from error
    try:
        files, root = fsspec.core.url_to_fs(place)
    except ImportError as error:
        raise MissingPackageError(f"cannot reach {place}: {error}") from error
    except ValueError as error:
        raise UsageError(f"cannot reach {place}: {error}; write a path, or an address such as s3://bucket/folder") from error
    return files, str(root).rstrip("/")


def _sync(path: Path) -> None:
    """Writes a file from memory to its disk, so that a later rename cannot show an empty file after a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
