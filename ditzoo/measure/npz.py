"""Reads .npz files that strangers wrote. Names, types and sizes are checked before the data of any array is read."""

from __future__ import annotations

import math
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ditzoo.errors import shortened

_SUFFIX, _SINGLE = ".npy", b"\x93NUMPY"
_ENCRYPTED = 0x1
"""The flag of an encrypted member (ZIP specification, section 4.4.4)."""

_MOST_TIMES, _LEAST_LIMIT = 16, 64 * 2**20
"""The arrays may be so many times as large as their file, or so many bytes if that is more. Latents hardly compress."""

_LONGEST = 500
"""The most characters of another library's message that a message quotes: it may quote the file."""

_DAMAGE = (
    *(ValueError, EOFError, MemoryError, RuntimeError, TypeError, ArithmeticError, zipfile.BadZipFile, zlib.error),
    *(SyntaxError, tokenize.TokenError),
)
"""The errors for a file that is damaged. numpy reads the header of an array with Python's parser, which has the last two."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NpzError(Exception):
    """The file is not an .npz file of plain arrays. The message does not have the name of the file."""


class StoredArray(msgspec.Struct, frozen=True, kw_only=True):
    """An array of a file that is not read yet. `offset` is the length of its header in bytes."""

    file: Path
    member: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    offset: int

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def read(self) -> npt.NDArray[Any]:
        """The array. Raises NpzError if the file cannot be read, or if its data are damaged."""
        with _errors(), zipfile.ZipFile(self.file) as archive:
            data = archive.read(self.member)
        flat = np.frombuffer(data, self.dtype, offset=self.offset)
        return flat.reshape(self.shape, order="F" if self.fortran else "C").copy()


def open_npz(path: Path, names: Collection[str]) -> dict[str, StoredArray]:
    """The arrays in the .npz file at `path` by name, which must be among `names`. No data are read yet.

    Raises NpzError if the file cannot be read, if a member is not a plain array, is encrypted, appears twice or has another
    size than its header states, or if all arrays together are much larger than the file.
    """
    with _errors():
        with path.open("rb") as file:
            if file.read(len(_SINGLE)) == _SINGLE:
                raise NpzError("it is a single array; write an .npz file with latents, noise and plan")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_total(sum(member.file_size for member in members), path.stat().st_size)
            arrays: dict[str, StoredArray] = {}
            for member in members:
                name = _name(member, names, arrays)
                arrays[name] = _stored(path, archive, member, name)
    return arrays


@contextmanager
def _errors() -> Iterator[None]:
    """Turns the errors of reading a file into NpzError."""
    try:
        yield
    except OSError as error:
        raise NpzError(f"cannot be read: {error.strerror or error}") from error
    except _DAMAGE as error:
        raise NpzError(f"is not an .npz file of plain arrays: {' '.join(str(error).split())[:_LONGEST]}") from error


def _check_total(total: int, size: int) -> None:
    if total > max(_LEAST_LIMIT, _MOST_TIMES * size):
        raise NpzError(
            f"its arrays take {total:,} bytes, far more than the {size:,} bytes of the file; save it without compression"
        )


def _name(member: zipfile.ZipInfo, names: Collection[str], found: Collection[str]) -> str:
    """The name of a member's array. Raises NpzError if it is unknown or found already, or if the member cannot be read."""
    name = member.filename.removesuffix(_SUFFIX)
    if name not in names:
        raise NpzError(f"unknown entry {name[:80]!r}; known: {', '.join(names)}")
    if name in found:
        raise NpzError(f"it has the entry {name} twice")
    if member.flag_bits & _ENCRYPTED:
        raise NpzError(f"its entry {name} is encrypted; save it without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NpzError(f"its entry {name} is compressed in a way that numpy does not write; use numpy.savez")
    return name


def _stored(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> StoredArray:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise NpzError(f"its entry {name} is not a plain array: it has the format {version[0]}.{version[1]} of .npy files")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's remark on headers that it reads as those of Python 2
            shape, fortran, dtype = _HEADERS[version](file)
        offset = file.tell()
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded")
    if offset + math.prod(shape) * dtype.itemsize != member.file_size or min(shape, default=0) < 0:
        raise NpzError(
            f"its entry {name} has {member.file_size:,} bytes, which do not fit {dtype} of {shortened(str(list(shape)))}"
        )
    return StoredArray(file=path, member=member.filename, dtype=dtype, shape=shape, fortran=fortran, offset=offset)
