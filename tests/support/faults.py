"""Commands in child processes whose file operations fail, one after the other. All of them share one process that is loaded."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from ditzoo.bundle import provide, read_manifest
from ditzoo.cli import run
from ditzoo.files import PARTIAL, sha256
from tests.support.kills import KILL, inject

HIDDEN = ("digests", "locks", ".locks")
"""The folders of the caches that hold no result."""

CRASHED = 70
"""The exit status of a child with an exception that the command line does not turn into a message."""


def survives(home: Path, prepare: Sequence[Sequence[str]], command: Sequence[str], faults: Sequence[int], points: int) -> int:
    """Runs `command` with each fault at `points` of its file operations, and again without. Returns the number of operations.

    Each attempt starts from what the commands `prepare` leave in `home`. Asserts that after a fault, everything there is as it
    was before or as the command makes it, that nothing is missing that was there before and is there afterwards, and that the
    same command again gives the same result as without a fault.
    """
    for each in prepare:
        assert child(lambda each=each: call(each))[0] == 0, each  # type: ignore[misc]
    kept = Path(shutil.copytree(home, home.with_name("kept"), symlinks=True))
    before = view(home)
    status, operations = child(lambda: call(command), home=home)
    assert status == 0
    after = view(home)
    for fault in faults:
        for at in sorted({i * operations // points for i in range(points)}):
            shutil.rmtree(home)
            shutil.copytree(kept, home, symlinks=True)
            status, _ = child(lambda: call(command), home=home, at=at, fault=fault)
            assert status in ((-signal.SIGKILL,) if fault == KILL else (0, 1, 2)), (fault, at, status)
            check(before, view(home), after, f"fault {fault} at {at}")
            status, _ = child(lambda: call(command))
            assert status == 0 or (tuple(command[:2]) == ("cache", "rm") and view(home) == after), (fault, at, status)
            assert view(home) == after, (fault, at, differences(view(home), after))
            assert fault != KILL or tuple(command[:2]) == ("cache", "rm") or not litter(home), (fault, at, litter(home))
    return operations


def check(before: dict[str, str], now: dict[str, str], after: dict[str, str], where: str) -> None:
    """Asserts that each folder and file is the one of before or the one of after."""
    for path in {*before, *now, *after}:
        allowed = {before.get(path), after.get(path)}
        assert now.get(path) in allowed, (where, path, now.get(path), allowed)


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return sorted(path for path in {*one, *other} if one.get(path) != other.get(path))


def view(home: Path) -> dict[str, str]:
    """The results in `home`: a folder of weights or a bundle as a whole, and every other file, as hashes by their paths."""
    units: dict[str, list[str]] = {}
    for path in sorted(home.rglob("*")):
        place = path.relative_to(home)
        hidden = PARTIAL in str(place) or path.suffix == ".incomplete" or {*place.parts} & {*HIDDEN}
        if path.is_file() and not hidden:
            whole = (len(place.parts) > 3 and place.parts[:2] == ("ditzoo", "weights")) or place.parts[0] == "bundle"
            unit = str(Path(*place.parts[: 3 if place.parts[0] == "ditzoo" else 1])) if whole else str(place)
            units.setdefault(unit, []).append(f"{path.name} {sha256(path)}")
    return {unit: "\n".join(files) for unit, files in units.items()}


def litter(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if PARTIAL in path.name or path.suffix == ".incomplete"]


def call(command: Sequence[str]) -> int:
    """Runs a command of ditzoo. "export" copies the finished bundle TARGET from SOURCE, in the way of an export."""
    if command[0] != "copy":
        return run(list(command))
    source, target = Path(command[1]), Path(command[2])
    try:
        provide(target, read_manifest(source).key, lambda fresh: fill(source, fresh), overwrite=True)
    except OSError:
        return 1
    return 0


def fill(source: Path, fresh: Path) -> None:
    shutil.copytree(source, fresh, dirs_exist_ok=True)


def child(work: Callable[[], int], *, home: Path | None = None, at: int | None = None, fault: int = KILL) -> tuple[int, int]:
    """Runs `work` in a child. Returns its exit status, negative for a signal, and the number of file operations in `home`."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = CRASHED
        try:
            count = inject(home, at=at, fault=fault) if home else lambda: 0
            status = work()
            os.write(writing, json.dumps(count()).encode())
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as said:
        answer = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), int(answer or 0)
