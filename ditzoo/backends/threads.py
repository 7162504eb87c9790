"""How many threads a network gets on the CPU, and how they wait for each other.

A thread that waits for another one can spin (it keeps its core and looks again and again) or sleep. Spinning is faster while
each thread has a core of its own: a tiny network takes up to 40% less time with it. On a busy machine it collapses, because a
thread spins through the time in which the thread that it waits for has no core. So threads spin where there is a free core for
each of them, and sleep where there is not. docs/performance.md has the measurements.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median_low

from ditzoo.records import Data

_OPENMP_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables that say how threads of OpenMP wait: that of the standard, which GNU's and LLVM's obey, and one of each."""

_MOST_ARE_FREE = 0.75

_MOST_WITHOUT_WEIGHTS = 2**26
"""The size in bytes of a file beyond which a graph has its weights inside."""

_SAMPLES, _PAUSE = 7, 0.002
"""How often the number of running threads is read, and the seconds between."""


class Cores(Data, frozen=True, kw_only=True):
    """The cores of this machine.

    `online` is their number, with each hardware thread counted. `usable` are the physical cores on which this process may run.
    `quota` is the number of cores whose time the container of this process may use. `running` is the number of threads of other
    processes that run or wait for a core.
    """

    online: int
    usable: int
    quota: float | None = None
    running: int = 0


class SmallWork(Data, frozen=True, kw_only=True):
    """The work of an evaluation below which one thread takes no longer than several threads that have a `free` core each, or
    than several on a `busy` machine. It is the bytes of a graph, with its weights, times the rows of the evaluation."""

    free: int
    busy: int


class Threads(Data, frozen=True, kw_only=True):
    """The number of threads of a network, and whether they spin while they wait."""

    number: int
    spin: bool


ONE = Threads(number=1, spin=True)
"""One thread. It waits for no other one."""


def choose_threads(
    cores: Cores,
    *,
    asked: int | None = None,
    work: int | None = None,
    small: SmallWork | None = None,
    can_sleep: bool = True,
) -> Threads:
    """The threads of a network on these cores: `asked`, or one for each usable core within the quota.

    Threads spin if each of them has a free core. If at most a quarter of the cores is taken, there are as many as free cores,
    and they spin. Otherwise they sleep; if they cannot sleep, there are as many as free cores. There is one thread if the
    `work` of an evaluation is `small`.
    """
    allowed = cores.usable if cores.quota is None else min(cores.usable, int(cores.quota))
    number, free = max(1, allowed) if asked is None else asked, max(1, cores.online - cores.running)
    if asked is None and number > free >= _MOST_ARE_FREE * number:
        number = free
    if asked is None and work is not None and small is not None and work < (small.free if number <= free else small.busy):
        return ONE
    if number <= free:
        return Threads(number=number, spin=True)
    return Threads(number=number if can_sleep or asked is not None else free, spin=not can_sleep)


def threads_here(asked: int | None = None, *, work: int | None = None, small: SmallWork | None = None) -> Threads:
    """The threads of a network that is opened now, on this machine. See `choose_threads`."""
    return ONE if asked == 1 else choose_threads(cores_here(), asked=asked, work=work, small=small)


def work_of(graph: Path, rows: int | None) -> int:
    """The work of an evaluation of a graph on `rows` rows, or on one if the number is not known. See `SmallWork`."""
    return graph_bytes(graph) * (rows or 1)


def graph_bytes(graph: Path) -> int:
    """The size of a graph with its weights, which may lie in a file beside it that the graph names, its own or another
    graph's."""
    try:
        size = graph.stat().st_size
        if size > _MOST_WITHOUT_WEIGHTS:
            return size
        content = graph.read_bytes()
        return size + sum(file.stat().st_size for file in graph.parent.glob("*.data") if file.name.encode() in content)
    except OSError:  # what loads the graph says so
        return 0


def settle_waiting() -> None:
    """Lets the threads of OpenMP sleep while they wait, if this machine is busy. Torch reads this as it is imported, so it does
    nothing after that, and nothing if a variable of the environment says how they wait. It holds for the whole process."""
    if "torch" not in sys.modules and not openmp_is_settled() and not threads_here().spin:
        os.environ["OMP_WAIT_POLICY"] = "passive"


def openmp_is_settled() -> bool:
    """Whether `settle_waiting` or the user has said how the threads of OpenMP wait."""
    return any(name in os.environ for name in _OPENMP_WAITING)


def cores_here() -> Cores:
    """The cores of this machine at this moment. It takes about 12 ms. A system without /proc tells no running threads."""
    online = os.cpu_count() or 1
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(online))
    siblings = (_text(Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")) for core in allowed)
    physical = len({text or str(core) for core, text in zip(allowed, siblings, strict=True)})
    return Cores(online=online, usable=physical, quota=_quota(), running=_running())


def quota_of(groups: Iterable[Sequence[str]]) -> float | None:
    """The smallest quota of nested control groups, in cores; None if there is none.

    Each group gives its quota and its period in microseconds. The quota is "max" or negative if there is no limit.
    """
    limits = [int(quota) / int(period) for quota, period in groups if quota != "max" and int(quota) > 0 and int(period) > 0]
    return min(limits, default=None)


def running_of(load: str) -> int:
    """The number of threads that run or wait for a core, in the text of /proc/loadavg: "0.20 0.18 0.12 1/80 11206"."""
    return int(load.split()[3].partition("/")[0])


def running_now() -> int:
    """The number of threads that run or wait for a core on this machine, with the one that asks; 1 if the system tells none."""
    load = _text(Path("/proc/loadavg"))
    return 1 if load is None else running_of(load)


def own_running() -> int:
    """The number of threads of this process that run or wait for a core, with the one that asks."""
    states = (_text(Path("/proc/self/task", task.name, "stat")) for task in Path("/proc/self/task").glob("*"))
    return sum(state_of(text) == "R" for text in states if text is not None) or 1


def state_of(stat: str) -> str:
    """The state of a thread, "R" if it runs or waits for a core, in the text of its stat file: "12 (a name) R 1 12 0"."""
    return stat.rpartition(")")[2].split()[0]


def _running() -> int:
    """The threads of other processes that run now; the middle one of several readings.

    Those of this process do not count: after torch's last work, its threads spin for 6 to 20 ms.
    """
    counts = []
    for pause in (0, *[_PAUSE] * (_SAMPLES - 1)):
        time.sleep(pause)
        counts.append(running_now() - own_running())
    return max(0, median_low(counts))


def _quota() -> float | None:
    """The quota of this process's control groups, of version 2 or 1; None where none is set, or the system has no groups."""
    groups = []
    for line in (_text(Path("/proc/self/cgroup")) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            root = Path("/sys/fs/cgroup", "cpu" if controllers else "")
            inner = root / path.lstrip("/")
            groups += [_limit(folder) for folder in (inner, *inner.parents) if folder.is_relative_to(root)]
    return quota_of(text.split() for text in groups if len(text.split()) == 2)


def _limit(group: Path) -> str:
    """The quota and the period of a control group, in the words of its files; less than that if it has no such files."""
    files = ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
    return " ".join(_text(group / file) or "" for file in files).strip()


def _text(path: Path) -> str | None:
    """The text of a file, without space around it; None if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()  # the name of a thread is any bytes
    except OSError:
        return None
