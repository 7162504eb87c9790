"""Running a job: draws the shards that are missing, here or on Ray, notes each in the journal, and writes the summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, Protocol

from ditzoo.measure.machine import machine
from ditzoo.records import Data, to_json
from ditzoo.scale.drawing import Work, Worker
from ditzoo.scale.job import Job, check_job
from ditzoo.scale.journal import ShardRecord, begin, note, repair
from ditzoo.scale.shards import sha256_of
from ditzoo.scale.storage import Storage, storage_at

SUMMARY = "summary.json"

Advance = Callable[[int], object]
"""A function that is called with a number of images when they are drawn."""


class Summary(Data, frozen=True, kw_only=True):
    """The state of a folder of shards.

    `sha256` is the checksum of all files in their order, and `latents` that of all latents; equal sets have equal checksums.
    `seconds` is the time that the shards took, added over all workers; shards whose time is not known count as 0.
    """

    format: Literal["ditzoo-summary/1"] = "ditzoo-summary/1"
    model: str
    images: int
    shards: int
    bytes: int
    solver: str
    steps: int
    seed: int
    labels: str
    pictures: str
    seconds: float
    images_per_second: float | None
    sha256: str
    latents: str
    machine: dict[str, str]


class Execute(Protocol):
    """A way to draw shards: in this process, or on Ray."""

    def __call__(self, work: Work, shards: Sequence[int], *, advance: Advance) -> Iterator[ShardRecord]:
        """Draws the shards in any order, and yields the record of each as soon as its file is there."""


def run_job(
    work: Work, *, execute: Execute, finished: Advance = lambda images: None, advance: Advance = lambda images: None
) -> Summary:
    """Draws the shards of a job that its folder does not have yet, and returns the summary, which it also writes.

    `finished` is called once with the number of images that are there already, and `advance` with each number of new ones.
    Raises UsageError if the folder has another job, if another run writes into it, or if the disk refuses a file. Shards that
    are finished stay in any case.
    """
    check_job(work.job)
    storage = storage_at(work.place)
    with storage.locked():
        begin(storage, work.job, work.listed)
        there = repair(storage, work.job, work.listed)
        finished(sum(record.count for record in there.values()))
        missing = [shard for shard in range(work.job.shards) if shard not in there]
        if missing:
            for record in execute(work, missing, advance=advance):
                note(storage, record)
                there[record.shard] = record
        return summarize(storage, work.job, there)


def here(work: Work, shards: Sequence[int], *, advance: Advance) -> Iterator[ShardRecord]:
    """Draws the shards in this process, one after the other. See `Execute`."""
    with Worker(work) as worker:
        for shard in shards:
            yield worker.draw(shard, advance=advance)


def summarize(storage: Storage, job: Job, shards: Mapping[int, ShardRecord]) -> Summary:
    """The summary of the finished `shards`, which is also written into the folder."""
    records = [shards[shard] for shard in sorted(shards)]
    images, seconds = sum(record.count for record in records), sum(record.seconds for record in records)
    timed = sum(record.count for record in records if record.seconds)
    summary = Summary(
        model=job.model,
        images=images,
        shards=len(records),
        bytes=sum(record.size for record in records),
        solver=job.plan.solver,
        steps=len(job.plan.rows),
        seed=job.seed,
        labels=job.labels.rule,
        pictures=job.pictures,
        seconds=seconds,
        images_per_second=timed / seconds if seconds else None,
        sha256=sha256_of("".join(record.sha256 for record in records).encode()),
        latents=sha256_of("".join(record.latents for record in records).encode()),
        machine=machine(),
    )
    storage.write(SUMMARY, lambda scratch: scratch.write_bytes(to_json(summary)))
    return summary
