"""Drawing one shard: the block of work that a process, or an actor of Ray, repeats."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ditzoo.bundle import Bundle
from ditzoo.errors import UsageError
from ditzoo.model.opening import open_model, sampling_batch
from ditzoo.model_names import find_model
from ditzoo.pictures.decode import open_decoder
from ditzoo.pictures.draw import condition_of, draw
from ditzoo.progress import SILENT, Display
from ditzoo.records import Data
from ditzoo.scale.job import Job, identity, labels_of
from ditzoo.scale.journal import ShardRecord, record_of
from ditzoo.scale.shards import ImageRecord, latents_of, shard_writer
from ditzoo.scale.storage import Storage, storage_at
from ditzoo.weights.local import weights_state
from ditzoo.weights.pull import pull
from ditzoo.zoo.card import Card


class Work(Data, frozen=True, kw_only=True):
    """What a worker needs to know: the job, the card or the bundle's folder, the list of labels, and the place of the shards.

    `device` is that of the network, with its number.
    """

    job: Job
    model: Card | str
    listed: tuple[str, ...] = ()
    place: str
    device: str = "cpu"


def work_on(job: Job, model: Card | Bundle, listed: Sequence[str], *, place: str, device: str) -> Work:
    """The work of a job on an opened model."""
    source = str(model.path.absolute()) if isinstance(model, Bundle) else model
    return Work(job=job, model=source, listed=tuple(listed), place=place, device=device)


class Worker:
    """An opened model that draws shards. As a context manager, it closes the model at the end of the block."""

    def __init__(self, work: Work, *, display: Display = SILENT) -> None:
        """Opens the model. If the weights are on the Hub and not on this machine, they are pulled.

        Raises UsageError if this machine has other weights than the job. Raises the errors of `open_model` too.
        """
        self.work, self.job = work, work.job
        self._storage: Storage = storage_at(work.place)
        self._model = find_model(Path(work.model) if isinstance(work.model, str) else work.model)
        if isinstance(self._model, Card) and weights_state(self._model) == "hub":
            pull(self._model)
        if identity(self._model) != self.job.weights:
            raise UsageError(f"this machine has other weights of {self.job.model} than the job; pull or export them again")
        self._backend = open_model(
            self._model,
            self.job.backend,
            device=work.device,
            threads=self.job.threads,
            size=self.job.size,
            batch=sampling_batch(min(self.job.batch, self.job.shard_size)),
            plan=self.job.plan,
            display=display,
        )
        self._decoder = open_decoder(self._model, device=work.device, decoding=self.job.decoding)
        self.name = self._backend.name

    def draw(self, shard: int, *, advance: Callable[[int], object] = lambda count: None) -> ShardRecord:
        """Draws a shard, batch by batch, into its file. `advance` is called with the number of images after each batch.

        Raises UsageError if the disk refuses the file, and the errors of `ditzoo.pictures.draw.draw`.
        """
        started, job, images = time.perf_counter(), self.job, self.job.images(shard)
        labels = labels_of(job, images, self.work.listed)
        request = job.request(images, labels)
        condition = condition_of(self._model, request, device=self.work.device)
        made: list[ImageRecord] = []
        record: list[ShardRecord] = []

        def fill(path: Path) -> None:
            with shard_writer(path, job, images, labels) as add:
                batches = draw(self._model, self._backend, request, condition=condition, decoder=self._decoder, batch=job.batch)
                for drawn in batches:
                    for picture, latents in zip(
                        drawn.pictures if drawn.pictures is not None else (), drawn.latents, strict=True
                    ):
                        made.append(add(picture, latents))
                    advance(len(drawn.latents))
            seconds = time.perf_counter() - started
            record.append(record_of(path, job, shard, latents=latents_of(made), seconds=seconds))

        self._storage.write(job.file(shard), fill)
        return record[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._backend.__exit__(kind, error, trace)
