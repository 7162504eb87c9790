"""Killing a process at a chosen file operation. It is the same point each time, however busy the machine is."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
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


def inject(*folders: Path, at: int | None, fault: int) -> Callable[[], int]:
    """Counts the file operations of this process in `folders`, fsync included, from now on. One of them, `at`, fails.

    `fault` is the number of its error, or `KILL`. Returns a function that returns the number of operations so far.
    """
    done, sync = 0, os.fsync

    def act() -> None:
        nonlocal done
        done += 1
        if done - 1 == at:
            if fault == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(fault, os.strerror(fault))

    def counted_sync(handle: int) -> None:
        act()
        sync(handle)

    os.fsync = counted_sync
    _watch(folders, act)
    return lambda: done


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
