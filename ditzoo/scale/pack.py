"""Packing a folder of shards into the one .npz file that evaluation programs read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ditzoo.errors import UsageError
from ditzoo.files import replacing, sha256
from ditzoo.scale.job import Job, labels_of
from ditzoo.scale.journal import ShardRecord, read_job, read_journal, read_list
from ditzoo.scale.npz import npz_writer, streamed_array
from ditzoo.scale.shards import ImageRecord, PixelArray, read_shard
from ditzoo.scale.storage import Storage, storage_at

SLICE = 50
"""The number of pictures in memory."""


class ShardFolder:
    """A complete folder of shards, to be read."""

    def __init__(self, place: str) -> None:
        """Raises UsageError, with the command that continues, if shards are missing."""
        self._storage: Storage = storage_at(place)
        self.place, self.job = place, read_job(self._storage)
        self.listed = read_list(self._storage, self.job)
        self.records, _ = read_journal(self._storage)
        missing = [shard for shard in range(self.job.shards) if not self._has(shard)]
        if missing:
            raise UsageError(
                f"{place} has {self.job.shards - len(missing):,} of {self.job.shards:,} shards; run the `ditzoo sample` command"
                " that began it again"
            )

    def _has(self, shard: int) -> bool:
        record = self.records.get(shard)
        images = self.job.images(shard)
        return record is not None and (record.first, record.count) == (images.start, len(images))

    def images(self) -> Iterator[tuple[ImageRecord, PixelArray]]:
        """Every image in its order. Raises UsageError, with the command that repairs, if a shard is damaged."""
        for shard in range(self.job.shards):
            yield from self._shard(self.records[shard])

    def _shard(self, record: ShardRecord) -> Iterator[tuple[ImageRecord, PixelArray]]:
        try:
            with self._storage.local(record.file) as path:
                if sha256(path) != record.sha256:
                    raise ValueError("its sha256 is not that in the journal")
                yield from read_shard(path)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"the shard {self.place}/{record.file} is damaged ({error}); run the `ditzoo sample` command again, which draws"
                " it anew"
            ) from error


def pack(place: str, out: Path, *, advance: Callable[[int], object] = lambda count: None) -> Job:
    """Packs a folder of shards into the .npz file `out`, and returns the folder's job.

    `arr_0` has the pictures, uint8 [N, H, W, 3], and `arr_1` the classes, int64 [N], if the model has classes. This is the
    format of ADM's evaluation (arXiv 2105.05233). Only a few pictures are in memory. Raises UsageError if the folder is not
    complete, or if the disk is full.
    """
    folder = ShardFolder(place)
    batches = batches_of(folder.images(), size=SLICE)
    first_records, first = next(batches)
    with replacing(out) as scratch, npz_writer(scratch) as archive:
        shape = (folder.job.num, *first.shape[1:])
        with streamed_array(archive, "arr_0", shape=shape, dtype=np.uint8) as add:
            add(first)
            advance(len(first_records))
            for records, pictures in batches:
                add(pictures)
                advance(len(records))
        labels = labels_of(folder.job, range(folder.job.num), folder.listed)
        if labels is not None and folder.job.labels.rule != "prompts":
            with streamed_array(archive, "arr_1", shape=(len(labels),), dtype=np.int64) as add_labels:
                add_labels(np.array(labels, dtype=np.int64))
    return folder.job


def batches_of(
    images: Iterator[tuple[ImageRecord, PixelArray]], *, size: int
) -> Iterator[tuple[list[ImageRecord], PixelArray]]:
    """Images in batches of `size`: their records, and their pictures [N, H, W, 3]. Grey pictures get three equal channels."""
    records: list[ImageRecord] = []
    pictures: list[PixelArray] = []
    for record, picture in images:
        records.append(record)
        pictures.append(picture if picture.shape[-1] == 3 else np.repeat(picture[..., :1], 3, axis=-1))
        if len(records) == size:
            yield records, np.stack(pictures)
            records, pictures = [], []
    if records:
        yield records, np.stack(pictures)
