"""The pictures to score, and the reference: a folder of shards, a folder of picture files, or a .npz file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from PIL import Image

from ditzoo.errors import UsageError, shown_path
from ditzoo.evaluation.features import Pixels
from ditzoo.files import check_path
from ditzoo.pictures.sheets import PICTURE_SUFFIXES
from ditzoo.scale.job import Job
from ditzoo.scale.journal import JOB, read_job
from ditzoo.scale.npz import StreamedArray, array_names
from ditzoo.scale.pack import ShardFolder, batches_of
from ditzoo.scale.storage import LocalFolder, storage_at


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Some pictures [N, H, W, 3], and their classes [N], or None."""

    pictures: Pixels
    labels: npt.NDArray[np.int64] | None = None


def check_place(place: str) -> None:
    """Raises UsageError if there is no folder and no .npz file at `place`. What is in it is checked when it is read."""
    if place.endswith(".npz"):
        _check_file(Path(place))
        return
    storage = storage_at(place)
    if isinstance(storage, LocalFolder) and not storage.path.is_dir():
        raise UsageError(f"there is no folder {shown_path(place)}; name a folder of shards or of pictures, or a .npz file")


def job_at(place: str) -> Job | None:
    """The job of a folder of shards; None if `place` is something else."""
    storage = storage_at(place)
    return read_job(storage) if not place.endswith(".npz") and storage.read(JOB) else None


def batches_at(place: str, *, size: int) -> Iterator[Batch]:
    """The pictures at a place, in batches of `size`. Raises UsageError if there are none, or if one cannot be read."""
    if place.endswith(".npz"):
        return _of_npz(Path(place), size)
    return _of_files(Path(place), size) if job_at(place) is None else _of_shards(place, size)


def has_pictures(path: Path) -> bool:
    """Whether a .npz file has pictures: the array arr_0."""
    return "arr_0" in _names(path)


def statistics_at(path: Path) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """The statistics in a .npz file by the name of their distance: mean and covariance. Empty if it has only pictures.

    The arrays are called "mu" and "sigma" ("fid"), and "mu_s" and "sigma_s" ("sfid"), as in the reference files of ADM.
    """
    names = _names(path)
    pairs = {"fid": ("mu", "sigma"), "sfid": ("mu_s", "sigma_s")}
    with np.load(path) as arrays:
        return {key: (arrays[mu], arrays[sigma]) for key, (mu, sigma) in pairs.items() if mu in names and sigma in names}


def _names(path: Path) -> list[str]:
    _check_file(path)
    try:
        return array_names(path)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _check_file(path: Path) -> None:
    check_path(path, "file")
    if not path.is_file():
        raise UsageError(f"there is no file {shown_path(path)}; name a .npz file, or a folder of shards or of pictures")


def _of_shards(place: str, size: int) -> Iterator[Batch]:
    for records, pictures in batches_of(ShardFolder(place).images(), size=size):
        labels = [record.label for record in records if record.label is not None]
        yield Batch(pictures=pictures, labels=np.array(labels) if labels else None)


def _of_npz(path: Path, size: int) -> Iterator[Batch]:
    names = _names(path)
    if "arr_0" not in names:
        raise UsageError(f"{path} has no pictures: there is no array arr_0, only {', '.join(names)}")
    try:
        pictures = StreamedArray(path, "arr_0")
        labels = np.load(path)["arr_1"] if "arr_1" in names else None
    except ValueError as error:
        raise UsageError(str(error)) from error
    if len(pictures.shape) != 4 or pictures.shape[3] != 3 or pictures.dtype != np.uint8:
        raise UsageError(f"arr_0 of {path} is {pictures.dtype} {list(pictures.shape)}; it must be uint8 [N, H, W, 3]")
    for number, part in enumerate(pictures.slices(size)):
        start = number * size
        yield Batch(pictures=part, labels=None if labels is None else labels[start : start + len(part)])


def _of_files(folder: Path, size: int) -> Iterator[Batch]:
    """The picture files in a folder and in its folders, by path."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        raise UsageError(f"{folder} has neither shards nor pictures; name a folder, or a .npz file")
    for start in range(0, len(paths), size):
        pictures = [_read(path) for path in paths[start : start + size]]
        if len({picture.shape for picture in pictures}) > 1:
            raise UsageError(f"the pictures in {folder} have different sizes; make them equal first")
        yield Batch(pictures=np.stack(pictures))


def _read(path: Path) -> Pixels:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the picture {path}: {error}") from error
