"""Drawing shards on Ray: each actor opens the model once and draws shard after shard. An actor that dies is replaced."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from ditzoo.errors import BackendError, DitzooError, MissingPackageError, UsageError
from ditzoo.scale.drawing import Work, Worker
from ditzoo.scale.journal import ShardRecord
from ditzoo.scale.run import Advance, Execute
from ditzoo.scale.storage import absolute

DEATHS = 10
"""The number of workers that may die, one after the other, while they draw the same shard."""

log = logging.getLogger(__name__)


class ShardActor:
    """The actor that draws shards. It opens the model with its first shard, so that an error reaches the driver as it is."""

    def __init__(self, work: bytes) -> None:
        self._work = msgspec.json.decode(work, type=Work)
        self._worker: Worker | None = None

    def draw(self, shard: int) -> ShardRecord:
        """Draws a shard. See `ditzoo.scale.drawing.Worker.draw`."""
        if self._worker is None:
            self._worker = Worker(self._work)
        return self._worker.draw(shard)


def on_ray(address: str | None, *, workers: int | None = None) -> Execute:
    """A way to draw shards with `workers` actors: on a new Ray of this machine, or on the cluster at `address`.

    Without a number of workers there is one for each GPU of the cluster, or one for each CPU thread that the network does not
    share. Raises MissingPackageError if Ray is not installed, and UsageError if the number of workers is below 1.
    """
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingPackageError("--ray needs a package: pip install 'ditzoo[ray]'") from error
    if workers is not None and workers < 1:
        raise UsageError(f"--workers must be 1 or more, not {workers}")

    def execute(work: Work, shards: Sequence[int], *, advance: Advance) -> Iterator[ShardRecord]:
        reachable = msgspec.structs.replace(work, place=absolute(work.place))
        with _Cluster(address, reachable, workers=workers) as cluster:
            for record in _spread(cluster, shards):
                advance(record.count)
                yield record

    return execute


class _Cluster:
    """A connection to Ray. At the end of the block, its actors end, and a Ray of this machine that it started ends too."""

    def __init__(self, address: str | None, work: Work, *, workers: int | None) -> None:
        self._address, self._work, self._given = address, work, workers

    def __enter__(self) -> _Cluster:
        import ray

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray must not report to its makers
        own: dict[str, Any] = {} if self._address else {"include_dashboard": False, "num_cpus": self._processors()}
        try:
            ray.init(address=self._address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(f"--ray: cannot reach Ray at {self._address or 'this machine'}: {error}") from error
        self._resources = self._needs()
        self.workers = self._given or self._fitting(ray.cluster_resources())
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()

    def actor(self) -> Any:
        """A new actor."""
        import ray

        remote: Any = ray.remote(max_restarts=0, **self._resources)(ShardActor)
        return remote.remote(msgspec.json.encode(self._work))

    def _needs(self) -> dict[str, Any]:
        """What one actor takes: a GPU, or as many CPUs as its network has threads. Ray then shows it no other GPU."""
        threads = self._work.job.threads or 1
        return {"num_cpus": threads, "num_gpus": 1} if self._work.job.device != "cpu" else {"num_cpus": threads}

    def _processors(self) -> int:
        """The number of CPUs that Ray counts on this machine: those that there are, or those that the workers ask for."""
        threads = self._work.job.threads or 1
        return max(len(os.sched_getaffinity(0)), (self._given or 1) * threads)

    def _fitting(self, there: dict[str, float]) -> int:
        key = "GPU" if "num_gpus" in self._resources else "CPU"
        return max(1, int(there.get(key, 0) // self._resources[f"num_{key.lower()}s"]))


def _spread(cluster: _Cluster, shards: Sequence[int]) -> Iterator[ShardRecord]:
    """Gives each actor one shard at a time, and a new one when it is done. No shard waits in an actor."""
    import ray

    waiting, deaths = list(reversed(shards)), Counter[int]()
    running: dict[Any, tuple[Any, int]] = {}

    def give(actor: Any) -> None:
        if waiting:
            shard = waiting.pop()
            running[actor.draw.remote(shard)] = actor, shard

    for _ in range(min(cluster.workers, len(shards))):
        give(cluster.actor())
    while running:
        (done,), _ = ray.wait(list(running), num_returns=1)
        actor, shard = running.pop(done)
        try:
            yield _result(done)
        except ray.exceptions.RayActorError as error:
            deaths[shard] += 1
            if deaths[shard] >= DEATHS:
                raise BackendError(
                    f"{DEATHS} workers died while they drew shard {shard}: {error}; the system may have run out of memory,"
                    " so try fewer --workers or a smaller --batch"
                ) from error
            log.warning("a worker died while it drew shard %d; a new worker draws it", shard)
            waiting.append(shard)
            actor = cluster.actor()
        give(actor)


def _result(done: Any) -> ShardRecord:
    """The record that an actor returned. An error of ditzoo in the actor is raised here as it was there."""
    import ray

    try:
        record: ShardRecord = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, DitzooError | OSError) else error from error
    return record
