"""The child process of the cache's tests: it imports everything once, and then forks attempts at an export.

python export_attempt.py kill DIR COUNT   attempts that are killed at random points, and after each of them a whole one; prints
                                          how many were killed while the graphs were made, and how many while the engines were
python export_attempt.py make DIR         says that it is ready, waits for a line, and makes one attempt; prints whether that
                                          made the engines or found them, and when it began and ended
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import ditzoo_export.engines
import ditzoo_export.onnx_bundle  # so that no fork has to
from ditzoo.bundle import open_bundle
from ditzoo.files import cache_dir, sha256
from ditzoo_export import export_engines, make_engine_settings
from tests.support.export_models import TINY_UVIT, random_model

MODEL, NET = random_model(TINY_UVIT)
SETTINGS = make_engine_settings(MODEL, gpu="sm89", precision="fp16", batch="2")


def attempt(folder: Path) -> None:
    """Exports the engines, and the graphs that they are built from if those are not there."""
    export_engines(MODEL, folder / "engines", settings=SETTINGS, net=NET)


def forked(work: Callable[[], None], *, killed_after: float | None = None) -> bool:
    """Does some work in a child, which ends well, or is killed after some seconds; returns whether it was."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    if killed_after is not None:
        time.sleep(killed_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert killed_after is not None or status == 0, status
    return status != 0


def bundles() -> list[Path]:
    """The finished bundles of graphs in the cache."""
    return [path for path in (cache_dir() / "bundles").glob("*") if not path.name.startswith(".")]


def result(folder: Path) -> dict[str, str]:
    """The checksum of every engine of the sound bundle that is there; nothing else is."""
    litter = [path for place in (folder, cache_dir()) for path in place.rglob("*.partial")]
    assert not litter, litter
    assert [path.name for path in folder.iterdir()] == ["engines"]
    engines = open_bundle(folder / "engines", again=True).manifest.engines.values()
    return {engine.file: sha256(folder / "engines" / engine.file) for engine in engines}


def whole(folder: Path, *, anew: bool) -> tuple[dict[str, str], float]:
    """The result and the seconds of an attempt left alone; the engines are cleared away then, and the graphs if `anew`."""
    started = time.perf_counter()
    forked(lambda: attempt(folder))
    made, seconds = result(folder), time.perf_counter() - started
    shutil.rmtree(folder / "engines")
    if anew:
        shutil.rmtree(cache_dir() / "bundles")
    return made, seconds


def kill(folder: Path, count: int) -> Counter[str]:
    """Kills `count` attempts, the first half of them with the graphs done; each is followed by a whole one."""
    expected, _ = whole(folder, anew=False)
    chance, hit = random.Random(0), Counter[str]()  # noqa: S311
    for anew in (False, True):
        whole(folder, anew=anew)
        longest = whole(folder, anew=anew)[1]
        for _ in range(count // 2):
            if forked(lambda: attempt(folder), killed_after=chance.uniform(0, longest)):
                hit["engines" if bundles() else "graphs"] += 1
            assert whole(folder, anew=anew)[0] == expected
    return hit


def make(folder: Path) -> str:
    """One attempt, as soon as a line is read: "made" or "found", its beginning and its end."""
    ran: list[str] = []
    fill = ditzoo_export.engines.fill_engines
    ditzoo_export.engines.fill_engines = lambda *given, **named: (ran.append("made"), fill(*given, **named))[1]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    began = time.time()
    attempt(folder)
    return f"{''.join(ran) or 'found'} {began} {time.time()}"


def main() -> None:
    mode, folder = sys.argv[1], Path(sys.argv[2])
    sys.stdout.write(json.dumps(kill(folder, int(sys.argv[3]))) if mode == "kill" else make(folder))


if __name__ == "__main__":
    main()
