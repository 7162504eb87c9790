"""The child process of the cache's tests: it imports everything once, and then forks attempts at an export.

python export_attempt.py kill DIR COUNT   kills COUNT attempts at different file operations, and runs a complete attempt after
                                          each of them. Prints how many were killed before the graphs were finished, and how
                                          many while the engines were made
python export_attempt.py make DIR         runs one attempt. Prints "locking" when it asks for the lock, and "making" when it
                                          begins to make the engines; then it waits for a line. Prints "made" or "found" at
                                          the end
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import ditzoo_export.engines
import ditzoo_export.onnx_bundle  # so that no fork has to import it
from ditzoo.bundle import open_bundle
from ditzoo.files import cache_dir, sha256
from ditzoo.locks import lock_file, lock_name
from ditzoo_export import export_engines, make_engine_settings
from tests.support.export_models import TINY_UVIT, random_model
from tests.support.kills import count_operations

MODEL, NET = random_model(TINY_UVIT)
SETTINGS = make_engine_settings(MODEL, gpu="sm89", precision="fp16", batch="2")


def attempt(folder: Path) -> None:
    """Exports the engines, and their ONNX graphs if the cache does not hold them."""
    export_engines(MODEL, folder / "engines", settings=SETTINGS, net=NET)


def forked(folder: Path, *, kill_at: int | None = None) -> int | None:
    """Runs an attempt in a child process. Returns its number of file operations, or None if it was killed at `kill_at`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        count = count_operations(folder, cache_dir(), kill_at=kill_at)
        attempt(folder)
        os.write(writing, str(count()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        count = said.read()
    _, status = os.waitpid(child, 0)
    assert kill_at is not None or status == 0, status
    return int(count) if status == 0 else None


def bundles() -> list[Path]:
    """The finished bundles of graphs in the cache."""
    return [path for path in (cache_dir() / "bundles").glob("*") if not path.name.startswith(".")]


def result(folder: Path) -> dict[str, str]:
    """The checksum of each engine. Asserts that the bundle is intact, and that `folder` holds nothing else."""
    litter = [path for place in (folder, cache_dir()) for path in place.rglob("*.partial")]
    assert not litter, litter
    assert [path.name for path in folder.iterdir()] == ["engines"]
    engines = open_bundle(folder / "engines", again=True).manifest.engines.values()
    return {engine.file: sha256(folder / "engines" / engine.file) for engine in engines}


def whole(folder: Path, *, anew: bool) -> tuple[dict[str, str], int]:
    """Runs an attempt that is not killed. Returns its result and its number of file operations.

    Afterwards it removes the engines, and with `anew` the graphs too.
    """
    count = forked(folder)
    assert count is not None
    made = result(folder)
    shutil.rmtree(folder / "engines")
    if anew:
        shutil.rmtree(cache_dir() / "bundles")
    return made, count


def kill(folder: Path, count: int) -> Counter[str]:
    """Kills `count` attempts. In the first half, the graphs exist already. A complete attempt follows each of them."""
    expected, _ = whole(folder, anew=False)
    hit = Counter[str]()
    for anew in (False, True):
        whole(folder, anew=anew)
        operations = whole(folder, anew=anew)[1]
        for i in range(count // 2):
            assert forked(folder, kill_at=i * operations // (count // 2)) is None
            hit["engines" if bundles() else "graphs"] += 1
            assert whole(folder, anew=anew)[0] == expected
    return hit


def make(folder: Path) -> str:
    """Runs one attempt that prints a line at the lock, and one before it makes the engines. Returns "made" or "found"."""
    told, fill = [], ditzoo_export.engines.fill_engines
    lock = os.fspath(lock_file(lock_name(folder / "engines")))

    def tell(line: str) -> None:
        if line not in told:
            told.append(line)
            say(line)

    def fill_when_told(*given: Any, **named: Any) -> Any:
        tell("making")
        sys.stdin.readline()
        return fill(*given, **named)

    ditzoo_export.engines.fill_engines = fill_when_told
    sys.addaudithook(lambda event, given: tell("locking") if event == "open" and given[0] == lock else None)
    attempt(folder)
    return "made" if "making" in told else "found"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    mode, folder = sys.argv[1], Path(sys.argv[2])
    say(json.dumps(kill(folder, int(sys.argv[3]))) if mode == "kill" else make(folder))


if __name__ == "__main__":
    main()
