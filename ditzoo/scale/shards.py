"""The files of shards: webdataset tar files of pictures with a JSON record each, or .npz files of arrays."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ditzoo.pictures.sheets import to_image
from ditzoo.records import Data, from_json
from ditzoo.scale.job import Job, Pictures, labels_of
from ditzoo.scale.npz import StreamedArray, npz_writer, streamed_array

PixelArray = npt.NDArray[np.uint8]

SLICE = 50
"""The number of pictures of an .npz shard that are read at once."""


class ImageRecord(Data, frozen=True, kw_only=True, omit_defaults=True):
    """The record of an image in a shard: its number, its seed, and its class or prompt.

    `sha256` is the checksum of the picture: of its file in a tar file, or of its pixels in an .npz file. `latents` is the
    checksum of its latents, float32 [C, h, w], before they were decoded.
    """

    index: int
    seed: int
    label: int | None = None
    prompt: str | None = None
    sha256: str
    latents: str


def sha256_of(data: bytes | npt.NDArray[Any]) -> str:
    """The SHA-256 of bytes, or of the numbers in an array."""
    return hashlib.sha256(data if isinstance(data, bytes) else np.ascontiguousarray(data).data).hexdigest()


def latents_of(records: Sequence[ImageRecord]) -> str:
    """The checksum of the latents of a shard: the SHA-256 of the checksums of its images, in their order."""
    return sha256_of("".join(record.latents for record in records).encode())


AddImage = Callable[[PixelArray, npt.NDArray[Any]], ImageRecord]
"""Adds a picture [H, W, C] with its latents [C, h, w] to a shard, and returns its record."""


@contextmanager
def shard_writer(path: Path, job: Job, images: range, labels: Sequence[int] | Sequence[str] | None) -> Iterator[AddImage]:
    """A shard that is being written. The block gets a function, and calls it once for each image, in their order."""
    unfinished = iter(range(len(images)))

    def record(encoded: bytes | PixelArray, latents: npt.NDArray[Any]) -> ImageRecord:
        place = next(unfinished)
        shown = None if labels is None else labels[place]
        return ImageRecord(
            index=images[place],
            seed=job.seed,
            label=shown if isinstance(shown, int) else None,
            prompt=shown if isinstance(shown, str) else None,
            sha256=sha256_of(encoded),
            latents=sha256_of(latents),
        )

    if job.pictures == "npz":
        with _npz_writer(path, len(images), labels, record) as add:
            yield add
        return
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:

        def add(picture: PixelArray, latents: npt.NDArray[Any]) -> ImageRecord:
            encoded = _encode(picture, job.pictures)
            made = record(encoded, latents)
            _add_member(archive, f"{made.index:08d}.{job.pictures}", encoded)
            _add_member(archive, f"{made.index:08d}.json", msgspec.json.encode(made))
            return made

        yield add


def read_shard(path: Path) -> Iterator[tuple[ImageRecord, PixelArray]]:
    """The images of a shard, in their order: each with its record and its pixels [H, W, C].

    Raises ValueError, with the place, if the file cannot be read as a shard, or if a picture does not have its checksum.
    """
    yield from _read_npz(path) if path.suffix == ".npz" else _read_tar(path)


def check_shard(path: Path, job: Job, shard: int, listed: Sequence[str]) -> list[ImageRecord]:
    """Reads all of a shard, and returns its records. Raises ValueError if it is not that shard of the job, whole and sound."""
    images = job.images(shard)
    labels = labels_of(job, images, listed)
    records = [record for record, _ in read_shard(path)]
    if [record.index for record in records] != list(images):
        raise ValueError(f"it has not the images {images.start} to {images.stop - 1}")
    for place, record in enumerate(records):
        shown = record.label if record.prompt is None else record.prompt
        if (record.seed, shown) != (job.seed, None if labels is None else labels[place]):
            raise ValueError(f"image {record.index} has another seed or label")
    return records


def _encode(picture: PixelArray, kind: Pictures) -> bytes:
    """A picture [H, W, C] as the content of a file. Both formats keep every pixel."""
    buffer = io.BytesIO()
    image = to_image(picture)
    image.save(buffer, "PNG") if kind == "png" else image.save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def _add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """A file with a fixed date and owner, so that equal images give equal shards."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _read_tar(path: Path) -> Iterator[tuple[ImageRecord, PixelArray]]:
    try:
        with tarfile.open(path, "r:") as archive:
            members = iter(archive)
            for member in members:
                encoded = _content(archive, member)
                partner = next(members, None)
                if partner is None or partner.name.partition(".")[0] != member.name.partition(".")[0]:
                    raise ValueError(f"{path}: {member.name} has no record")
                yield _checked(path, _content(archive, partner), encoded), _decoded(path, member.name, encoded)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


def _decoded(path: Path, name: str, encoded: bytes) -> PixelArray:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            pixels = np.asarray(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path}: {name} is not a picture: {error}") from error
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _checked(path: Path, text: bytes, encoded: bytes | PixelArray) -> ImageRecord:
    record = from_json(text, ImageRecord)
    if sha256_of(encoded) != record.sha256:
        raise ValueError(f"{path}: image {record.index} was changed or damaged")
    return record


@contextmanager
def _npz_writer(
    path: Path,
    count: int,
    labels: Sequence[int] | Sequence[str] | None,
    record: Callable[[PixelArray, npt.NDArray[Any]], ImageRecord],
) -> Iterator[AddImage]:
    """arr_0 has the pictures [N, H, W, C], arr_1 the classes [N], and `records` the records [N] as JSON."""
    made: list[ImageRecord] = []
    with npz_writer(path) as archive:
        with ExitStack() as array:
            rows: list[Callable[[PixelArray], None]] = []

            def add(picture: PixelArray, latents: npt.NDArray[Any]) -> ImageRecord:
                if not rows:  # the first picture says the shape
                    shape = (count, *picture.shape)
                    rows.append(array.enter_context(streamed_array(archive, "arr_0", shape=shape, dtype=np.uint8)))
                rows[0](picture[None])
                made.append(record(picture, latents))
                return made[-1]

            yield add
        if labels is not None and isinstance(labels[0], int):
            with streamed_array(archive, "arr_1", shape=(count,), dtype=np.int64) as classes:
                classes(np.array(labels))
        lines = np.array([msgspec.json.encode(record) for record in made])
        with streamed_array(archive, "records", shape=lines.shape, dtype=lines.dtype) as texts:
            texts(lines)


def _read_npz(path: Path) -> Iterator[tuple[ImageRecord, PixelArray]]:
    try:
        texts = chain.from_iterable(StreamedArray(path, "records").slices(SLICE))
        pictures = chain.from_iterable(StreamedArray(path, "arr_0").slices(SLICE))
        for text, picture in zip(texts, pictures, strict=True):
            yield _checked(path, bytes(text), picture), picture
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
