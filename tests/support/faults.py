"""Commands in child processes whose file operations fail, one after the other. All of them share one process that is loaded."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ditzoo.cli import run
from ditzoo.files import PARTIAL, sha256
from tests.support.kills import FAULTS, TORN, inject

HIDDEN = ("digests", "locks", ".locks")
"""The folders of the caches that hold no result."""

CRASHED = 70
"""The exit status of a child with an exception that the command line does not turn into a message."""

ENDS = dict.fromkeys(FAULTS, (0, 1, 2)) | {
    "kill": (-signal.SIGKILL,),
    "kill in a write": (-signal.SIGXFSZ, 0),
    "kill before a write": (-signal.SIGXFSZ, 0),
}
"""The exit statuses of a command with a fault. A write that is not made kills nothing."""

View = dict[str, str]


def survives(home: Path, prepare: Sequence[Sequence[str]], command: Sequence[str], points: int) -> int:
    """Runs `command` with a fault at `points` of its file operations, and again without. Returns the number of operations.

    If there are at least as many points as operations, each fault happens at each operation. Otherwise the faults take turns.

    Each attempt starts from what the commands `prepare` leave in `home`. Asserts that after a fault, everything there is as it
    was before or as the command makes it, that nothing is missing that was there before and is there afterwards, and that the
    same command again gives the same result as without a fault.
    """
    run(["cache", "ls"])  # loads modules once that each child would load
    for each in prepare:
        status, _, said = child(lambda each=each: run(list(each)))  # type: ignore[misc]
        assert status == 0, (each, said)
    kept = Path(shutil.copytree(home, home.with_name("kept"), symlinks=True))
    before = view(home)
    status, operations, said = child(lambda: run(list(command)), home=home)
    assert status == 0, said
    after = view(home)
    proved: list[View] = []
    for at, fault in chosen(operations, points):
        shutil.rmtree(home)
        shutil.copytree(kept, home, symlinks=True)
        where = f"{fault} at operation {at} of {operations}"
        status, _, said = child(lambda: run(list(command)), home=home, at=at, fault=fault)
        assert status in ENDS[fault], (where, status, said)
        check(before, view(home), after, where)
        state = everything(home)
        if state not in proved:
            check_again(home, command, after, where)
            proved.append(state)
    return operations


def chosen(operations: int, points: int) -> Iterator[tuple[int, str]]:
    """The operations that fail, each with its fault."""
    faults = list(FAULTS)
    if points >= operations:
        yield from ((at, fault) for at in range(operations) for fault in faults)
    else:
        yield from ((i * operations // points, faults[i % len(faults)]) for i in range(points))


def check_again(home: Path, command: Sequence[str], after: View, where: str) -> None:
    """Runs the command without a fault. Asserts that everything is as it must be afterwards, and that no leftovers remain."""
    removes = tuple(command[:2]) == ("cache", "rm")
    status, _, said = child(lambda: run(list(command)))
    assert status == 0 or (removes and view(home) == after), (where, status, said)
    assert view(home) == after, (where, differences(view(home), after))
    litter = [path for path in home.rglob("*") if PARTIAL in path.name or path.suffix == ".incomplete"]
    assert removes or not litter, (where, litter)


def check(before: View, now: View, after: View, where: str) -> None:
    """Asserts that each folder and file is the one of before or the one of after."""
    for path in {*before, *now, *after}:
        allowed = {before.get(path), after.get(path)}
        assert now.get(path) in allowed, (where, path, now.get(path), allowed)


def differences(one: View, other: View) -> list[str]:
    return sorted(path for path in {*one, *other} if one.get(path) != other.get(path))


def view(home: Path) -> View:
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


def everything(home: Path) -> View:
    """All files, folders and links in `home`, hidden ones too, in a form that is equal for equal states.

    The folders in `HIDDEN` are left out, and the random parts of names.
    """
    found = {}
    for path in sorted(home.rglob("*")):
        place = path.relative_to(home)
        if not {*place.parts} & {*HIDDEN}:
            name = re.sub(r"\.[a-z0-9_]{8}(?=\.partial)", "", str(place))
            content = sha256(path) if path.is_file() else ""
            found[name] = f"{path.lstat().st_mode} {content}"
    return found


def child(
    work: Callable[[], int], *, home: Path | None = None, at: int | None = None, fault: str = "kill"
) -> tuple[int, int, str]:
    """Runs `work` in a child. Returns its exit status, the number of its operations in `home`, and its output.

    The status is negative for a signal. The output goes into a pipe, so that a full disk does not matter for it.
    """
    (reading, writing), (listening, talking) = os.pipe(), os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = CRASHED
        os.dup2(talking, 1)
        os.dup2(talking, 2)
        os.closerange(talking, talking + 1)
        if fault.startswith(TORN):
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        try:
            count = inject(home, at=at, act=FAULTS[fault]) if home else lambda: 0
            status = work()
            os.write(writing, json.dumps(count()).encode())
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(status)
    os.close(writing)
    os.close(talking)
    with os.fdopen(listening) as said, os.fdopen(reading) as counted:
        output, answer = said.read(), counted.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), int(answer or 0), output
