"""The threads of one network in torch: as many as are fastest for its batches, and as have a core at the time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec
import torch

from ditzoo.backends.threads import Cores, choose_threads, cores_here, openmp_is_settled, running_now

SHORT = 0.02
"""The seconds below which an evaluation may be faster on one thread. Longer ones are faster on all threads."""

_TRIES = 3
_BETWEEN_READINGS = 0.1


class Tried(msgspec.Struct, kw_only=True):
    """The evaluations so far of one batch size on one number of threads: how many, and the seconds of the shortest."""

    count: int = 0
    shortest: float = float("inf")


def fastest(tried: Mapping[int, Tried], allowed: int) -> int:
    """The number of threads for the next evaluation of a batch size: `allowed` or 1.

    `tried` has the evaluations so far by number of threads. Both numbers are tried a few times, unless the evaluation is long.
    """
    on_all, on_one = tried.get(allowed, Tried()), tried.get(1, Tried())
    if on_all.count < _TRIES or on_all.shortest > SHORT:
        return allowed
    return 1 if on_one.count < _TRIES or on_one.shortest < on_all.shortest else allowed


def free_threads(cores: Cores, *, most: int, now: int, running: int) -> int:
    """The number of spinning threads that have a core each, `most` at most, when `running` threads run on the machine.

    Of these, `now` may be the network's own, which still spin after an evaluation.
    """
    others = msgspec.structs.replace(cores, running=max(0, running - now))
    return min(most, choose_threads(others, can_sleep=False).number)


class AdaptedThreads:
    """The number of torch's threads for the evaluations of a network. It is the whole process's, and `close` puts it back. It
    stays between the evaluations: one `exp` of a sampler on two threads makes the second one spin for 6 ms.

    While torch's threads spin, one of the machine's other threads on their cores makes an evaluation take up to a hundred times
    as long. So they are fewer while the machine is busy: its running threads are counted ten times a second at most, and two
    counts in a row must agree.
    """

    def __init__(self) -> None:
        self._cores = cores_here()
        self._settled = openmp_is_settled()
        self._before = torch.get_num_threads()
        self._most = min(self._before, choose_threads(self._cores).number)
        self._allowed = min(self._most, choose_threads(self._cores, can_sleep=self._settled).number)
        self._wanted, self._read_at = self._allowed, time.perf_counter()
        self._tried: dict[int, dict[int, Tried]] = {}

    @contextmanager
    def evaluating(self, batch: int) -> Iterator[None]:
        """A block with one evaluation of `batch` rows."""
        tried = self._tried.setdefault(batch, {})
        number = fastest(tried, self._allowed)
        torch.set_num_threads(number)
        started = time.perf_counter()
        yield
        ended = time.perf_counter()
        entry = tried.setdefault(number, Tried())
        entry.count, entry.shortest = entry.count + 1, min(entry.shortest, ended - started)
        if not self._settled and ended - self._read_at > _BETWEEN_READINGS:
            self._read(number, at=ended)

    def close(self) -> None:
        """Gives torch the number of threads that it had before."""
        torch.set_num_threads(self._before)

    def _read(self, now: int, *, at: float) -> None:
        """Adapts the allowed number to the threads that run on the machine, if this reading agrees with the one before."""
        wanted = free_threads(self._cores, most=self._most, now=now, running=running_now())
        if wanted == self._wanted:
            self._allowed = wanted
        self._wanted, self._read_at = wanted, at
