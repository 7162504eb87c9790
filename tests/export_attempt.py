"""The child process of the cache's tests: it imports everything once, and then forks attempts at an export.

python export_attempt.py kill DIR COUNT   attempts that are killed at random points, and after every fifth a whole one
python export_attempt.py make DIR         one attempt; prints whether it made the engines or found them
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from export_models import TINY_UVIT, random_model

import ditzoo_export.engine
import ditzoo_export.make  # so that no fork has to
from ditzoo.bundle import open_bundle
from ditzoo.files import cache_dir, sha256
from ditzoo_export import export_engines, make_engine_settings

MODEL, NET = random_model(TINY_UVIT)
SETTINGS = make_engine_settings(MODEL, gpu="sm89", precision="fp16", batch="2")


def attempt(folder: Path) -> None:
    """Exports the engines, and the graphs that they are built from."""
    export_engines(MODEL, folder / "engines", settings=SETTINGS, net=NET)


def forked(folder: Path, *, killed_after: float | None) -> None:
    """An attempt in a child, which is killed after some seconds or ends well."""
    child = os.fork()
    if child == 0:
        attempt(folder)
        os._exit(0)
    if killed_after is not None:
        time.sleep(killed_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert killed_after is not None or status == 0, status


def result(folder: Path) -> dict[str, str]:
    """The checksum of every engine of the sound bundle that is there; nothing else is."""
    litter = [path for place in (folder, cache_dir()) for path in place.rglob("*.partial")]
    assert not litter, litter
    assert [path.name for path in folder.iterdir()] == ["engines"]
    engines = open_bundle(folder / "engines", again=True).manifest.engines.values()
    return {engine.file: sha256(folder / "engines" / engine.file) for engine in engines}


def whole(folder: Path) -> dict[str, str]:
    """The result of an attempt that is left alone, after which everything is cleared away."""
    forked(folder, killed_after=None)
    made = result(folder)
    for path in (folder / "engines", cache_dir() / "bundles"):
        shutil.rmtree(path)
    return made


def main() -> None:
    mode, folder = sys.argv[1], Path(sys.argv[2])
    if mode == "make":
        ran: list[str] = []
        fill = ditzoo_export.engine.fill_engines
        ditzoo_export.engine.fill_engines = lambda *given, **named: (ran.append("made"), fill(*given, **named))[1]
        attempt(folder)
        sys.stdout.write("".join(ran) or "found")
        return
    started = time.perf_counter()
    expected = whole(folder)
    longest = time.perf_counter() - started
    chance = random.Random(0)  # noqa: S311
    for i in range(1, int(sys.argv[3]) + 1):
        forked(folder, killed_after=chance.uniform(0, longest))
        if i % 5 == 0:
            assert whole(folder) == expected
    sys.stdout.write(f"{longest:.1f}")


if __name__ == "__main__":
    main()
