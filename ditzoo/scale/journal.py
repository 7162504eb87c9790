"""The journal of a folder of shards: one line of JSON for each finished shard, and the state of the folder that follows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from ditzoo.errors import UsageError
from ditzoo.files import sha256
from ditzoo.records import Data, from_json, to_json
from ditzoo.scale.job import Job, check_list, checksum, differences, list_text
from ditzoo.scale.shards import check_shard, latents_of
from ditzoo.scale.storage import Storage

JOB, JOURNAL, LIST = "job.json", "journal.jsonl", "labels.txt"

log = logging.getLogger(__name__)


class ShardRecord(Data, frozen=True, kw_only=True):
    """A finished shard: its file with size in bytes and SHA-256, and the numbers of its images.

    `latents` is the checksum of its latents. `seconds` is the time that it took; 0 if that is not known.
    """

    shard: int
    file: str
    first: int
    count: int
    size: int
    sha256: str
    latents: str
    seconds: float = 0.0


def read_job(storage: Storage) -> Job:
    """The job of a folder. Raises UsageError if the folder has none, or if it cannot be read."""
    text = storage.read(JOB)
    if not text:
        raise UsageError(
            f"{storage.place} has no {JOB}; `ditzoo sample NAME --num N --shard-size S --out DIR` makes such a folder"
        )
    try:
        return from_json(text, Job)
    except ValueError as error:
        raise UsageError(f"{storage.place}/{JOB} cannot be read: {error}; choose another --out") from error


def read_list(storage: Storage, job: Job) -> list[str]:
    """The list of labels of a job; empty if its rule needs none. Raises UsageError if it was changed."""
    if not job.labels.sha256:
        return []
    listed = storage.read(LIST).decode(errors="replace").splitlines()
    if checksum(listed) != job.labels.sha256:
        raise UsageError(
            f"{storage.place}/{LIST} is missing or was changed; put the list of labels back, or choose another --out"
        )
    return listed


def begin(storage: Storage, job: Job, listed: Sequence[str]) -> None:
    """Stores the job in the folder. If the folder has a job already, it must be the same, or have fewer images.

    Raises UsageError, which names the differences, if the folder has another job.
    """
    check_list(job, listed, option="--labels" if job.labels.rule == "file" else "--prompts")
    if storage.read(JOB):
        here = read_job(storage)
        found = differences(here, job)
        if _grows(here, job):
            log.warning("%s grows from %s to %s images", storage.place, f"{here.num:,}", f"{job.num:,}")
        elif found:
            raise UsageError(
                f"{storage.place} holds other images: it differs in {', '.join(found)}; choose another --out, or repeat the"
                " command that began it"
            )
    if listed:
        storage.write(LIST, lambda scratch: scratch.write_bytes(list_text(listed)))
    storage.write(JOB, lambda scratch: scratch.write_bytes(to_json(job)))


def _grows(here: Job, job: Job) -> bool:
    """Whether a job is that of the folder with more images. A list of labels must stay as it is."""
    return here.num < job.num and msgspec.structs.replace(here, num=job.num) == job


def read_journal(storage: Storage) -> tuple[dict[int, ShardRecord], int]:
    """The records in the journal by shard, and the number of lines that cannot be read. The last record of a shard counts."""
    records, broken = {}, 0
    for line in storage.read(JOURNAL).splitlines():
        try:
            record = from_json(line, ShardRecord)
        except ValueError:
            broken += 1
        else:
            records[record.shard] = record
    return records, broken


def note(storage: Storage, record: ShardRecord) -> None:
    """Adds a record to the journal."""
    storage.append(JOURNAL, msgspec.json.encode(record) + b"\n")


def record_of(path: Path, job: Job, shard: int, *, latents: str, seconds: float = 0.0) -> ShardRecord:
    """The record of the shard in the file at `path`."""
    images = job.images(shard)
    return ShardRecord(
        shard=shard,
        file=job.file(shard),
        first=images.start,
        count=len(images),
        size=path.stat().st_size,
        sha256=sha256(path),
        latents=latents,
        seconds=seconds,
    )


def repair(storage: Storage, job: Job, listed: Sequence[str]) -> dict[int, ShardRecord]:
    """The finished shards of a folder after a check of every file. The journal then says the same as the files.

    A line of the journal that cannot be read is dropped. A shard that has no line, because a run was killed between both, is
    read and taken in. A shard that is missing, or that was changed or damaged, is left out, so that it will be drawn again.
    """
    storage.clean()
    journal, broken = read_journal(storage)
    if broken:
        log.warning("%s/%s has %d damaged lines; they are written again from the shards", storage.place, JOURNAL, broken)
    found = {shard: _sound(storage, job, shard, journal.get(shard), listed) for shard in range(job.shards)}
    finished = {shard: record for shard, record in found.items() if record is not None}
    if finished != journal or broken or not storage.read(JOURNAL).endswith(b"\n"):
        write_journal(storage, finished)
    return finished


def write_journal(storage: Storage, finished: Mapping[int, ShardRecord]) -> None:
    """Writes the whole journal, in the order of the shards."""
    lines = [msgspec.json.encode(finished[shard]) + b"\n" for shard in sorted(finished)]
    storage.write(JOURNAL, lambda scratch: scratch.write_bytes(b"".join(lines)))


def _sound(storage: Storage, job: Job, shard: int, noted: ShardRecord | None, listed: Sequence[str]) -> ShardRecord | None:
    """The record of a shard whose file is whole and sound; None if there is no such file."""
    name, images = job.file(shard), job.images(shard)
    if not storage.exists(name):
        if noted is not None:
            log.warning("%s/%s is missing; it is drawn again", storage.place, name)
        return None
    if noted is not None and (noted.first, noted.count) == (images.start, len(images)):
        if storage.holds(name, size=noted.size, sha256=noted.sha256):
            return noted
        log.warning("%s/%s was changed or damaged; it is drawn again", storage.place, name)
        return None
    with storage.local(name) as path:
        try:
            return record_of(path, job, shard, latents=latents_of(check_shard(path, job, shard, listed)))
        except ValueError as error:
            log.warning("%s/%s is drawn again: %s", storage.place, name, error)
            return None
