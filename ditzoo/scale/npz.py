"""Writing .npz files array by array and batch by batch, so that no array is held in memory."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy


@contextmanager
def npz_writer(path: Path) -> Iterator[zipfile.ZipFile]:
    """A .npz file that is being written, without compression. Equal content gives equal bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        yield archive


@contextmanager
def streamed_array(
    archive: zipfile.ZipFile, name: str, *, shape: Sequence[int], dtype: npt.DTypeLike
) -> Iterator[Callable[[npt.NDArray[Any]], None]]:
    """An array of a .npz file. The block gets a function, and calls it with the next rows until there are `shape[0]` rows.

    Raises ValueError at the end of the block if there are not as many rows, or if rows have another shape.
    """
    wanted, rows = np.dtype(dtype), 0
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
        header = {"descr": npy.dtype_to_descr(wanted), "fortran_order": False, "shape": tuple(shape)}
        npy.write_array_header_1_0(file, header)

        def add(part: npt.NDArray[Any]) -> None:
            nonlocal rows
            if part.shape[1:] != tuple(shape[1:]):
                raise ValueError(f"rows of shape {part.shape[1:]} for an array {tuple(shape)}")
            rows += len(part)
            file.write(np.ascontiguousarray(part, dtype=wanted).data.cast("B") if part.size else b"")

        yield add
    if rows != shape[0]:
        raise ValueError(f"{rows} rows for an array {tuple(shape)}")


class StreamedArray:
    """An array in a .npz file that is read in slices. `shape` and `dtype` come from its header.

    Raises ValueError if the file has no such array, or if the array holds objects or is stored by columns.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, f"{name}.npy"
        try:
            with zipfile.ZipFile(path) as archive, archive.open(self.name) as file:
                self.shape, fortran, self.dtype = _header(file)
        except KeyError:
            raise ValueError(f"{path} has no array {name}") from None
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is not a .npz file: {error}") from error
        if fortran or self.dtype.hasobject:
            raise ValueError(f"the array {name} of {path} is not a plain array in rows")

    def slices(self, size: int) -> Iterator[npt.NDArray[Any]]:
        """The array in slices of `size` rows."""
        row = int(np.prod(self.shape[1:]))
        with zipfile.ZipFile(self.path) as archive, archive.open(self.name) as file:
            _header(file)
            for start in range(0, self.shape[0], size):
                count = min(size, self.shape[0] - start)
                data = file.read(count * row * self.dtype.itemsize)
                yield np.frombuffer(data, self.dtype, count * row).reshape(count, *self.shape[1:])


def array_names(path: Path) -> list[str]:
    """The names of the arrays in a .npz file. Raises ValueError if the file is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not a .npz file: {error}") from error


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype
