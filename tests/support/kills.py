"""Faults at a chosen file operation of a process. It is the same point each time, however busy the machine is."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

_OPERATIONS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def count_operations(*folders: Path, kill_at: int | None = None) -> Callable[[], int]:
    """Counts the file operations of this process in `folders` from now on. Kills the process just before operation `kill_at`.

    It counts operations of Python: opening to write, renaming, removing, making folders and links. Returns a function that
    returns the number of operations so far.
    """
    done = 0

    def count() -> None:
        nonlocal done
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1

    _watch(folders, count)
    return lambda: done


def _watch(folders: Sequence[Path], act: Callable[[], None]) -> None:
    """Calls `act` before each file operation of Python in `folders`."""
    roots = tuple(str(folder) for folder in folders)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            if not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
                return
        elif event not in _OPERATIONS:
            return
        if _path(event, arguments).startswith(roots):
            act()

    sys.addaudithook(hook)


def _path(event: str, arguments: tuple[object, ...]) -> str:
    """The path of a file operation; "" if it has none. Folders are removed through handles, which the last argument names."""
    path, folder = arguments[0], arguments[-1]
    if not isinstance(path, str | bytes | os.PathLike):
        return ""
    name = os.fsdecode(path)
    if event in ("os.remove", "os.rmdir") and isinstance(folder, int) and folder >= 0:
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)  # noqa: PTH115, PTH118
    return name


def keep_states(*folders: Path, into: Path) -> None:
    """From now on, copies the `folders` before each file operation in them: this is the disk that a kill there would leave.

    The copies are in `into`/NUMBER OF THE OPERATION/NUMBER OF THE FOLDER.
    """
    busy, done = False, 0

    def copy() -> None:
        nonlocal busy, done
        if not busy:
            busy = True
            for i, folder in enumerate(folders):
                copied = into / str(done) / str(i)
                shutil.copytree(folder, copied, symlinks=True) if folder.exists() else copied.mkdir(parents=True)
            busy, done = False, done + 1

    _watch(folders, copy)


KILL = 0
"""Stands for a kill where an error's number could stand."""


TORN = "kill"
"""What the names of faults begin with that kill."""


def inject(*folders: Path, at: int | None, act: Callable[[], None]) -> Callable[[], int]:
    """Counts the file operations of this process in `folders`, fsync included, from now on. Before operation `at`, calls `act`.

    Returns a function that returns the number of operations so far.
    """
    done, sync = 0, os.fsync

    def count() -> None:
        nonlocal done
        done += 1
        if done - 1 == at:
            act()

    def counted_sync(handle: int) -> None:
        count()
        sync(handle)

    os.fsync = counted_sync
    _watch(folders, count)
    return lambda: done


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fail() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _fill_disk(size: int) -> None:
    """From now on, no file of this process can have more bytes than `size`. A write of more is cut there, or is an error."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


FAULTS: dict[str, Callable[[], None]] = {
    "kill": _kill,
    "error": _fail,
    "full disk": partial(_fill_disk, 0),
    f"{TORN} in a write": partial(_fill_disk, 1000),
    "disk full in a write": partial(_fill_disk, 1000),
    f"{TORN} before a write": partial(_fill_disk, 0),
}
"""What can happen at a file operation: see `inject`. An error happens once, a full disk stays full.

Where a process is to die at the write that does not fit, the caller lets the signal SIGXFSZ kill it, which Python ignores.
"""


def fail_renames(*folders: Path, faults: Mapping[int, int], then: int | None = None) -> Callable[[], int]:
    """From now on the renames in `folders` fail whose number is in `faults`, with that error of the system or with a kill.

    `then` is what happens to every later one. Returns the function that says how many renames there were.
    """
    roots = tuple(str(folder) for folder in folders)
    done = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal done
        path = arguments[0] if event == "os.rename" else None
        if not isinstance(path, str | bytes | os.PathLike) or not os.fsdecode(path).startswith(roots):
            return
        fault = faults.get(done, then if faults and done > max(faults) else None)
        done += 1
        if fault == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault is not None:
            raise OSError(fault, os.strerror(fault), os.fsdecode(path))

    sys.addaudithook(hook)
    return lambda: done
