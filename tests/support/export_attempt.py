"""The child process of the cache's tests: it imports everything once, and then forks attempts at an export.

python export_attempt.py kill DIR   runs a complete attempt after a kill at every file operation. Prints how many kinds of
                                    states there were before the graphs were finished, and while the engines were made
python export_attempt.py make DIR   runs one attempt. Prints "locking" when it asks for the lock, and "making" when it begins
                                    to make the engines; then it waits for a line. Prints "made" or "found" at the end
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ditzoo_export.engines
import ditzoo_export.onnx_bundle  # so that no fork has to import it
from ditzoo.bundle import open_bundle, provide, read_manifest
from ditzoo.files import cache_dir, sha256
from ditzoo.locks import lock_file, lock_name
from ditzoo_export import export_engines, make_engine_settings
from tests.support.export_models import TINY_UVIT, random_model
from tests.support.kills import count_operations, keep_states
from tests.support.traced import trace_once

MODEL, NET = random_model(TINY_UVIT)
SETTINGS = make_engine_settings(MODEL, gpu="sm89", precision="fp16", batch="2")


def attempt(folder: Path) -> None:
    """Exports the engines, and their ONNX graphs if the cache does not hold them."""
    export_engines(MODEL, folder / "engines", settings=SETTINGS, net=NET)


def forked(folder: Path, *, kill_at: int | None = None, states: Path | None = None) -> int | None:
    """Runs an attempt in a child process. Returns its number of file operations, or None if it was killed at `kill_at`.

    With `states`, the disk just before each operation is copied there.
    """

    def run() -> int:
        count = count_operations(folder, cache_dir(), kill_at=kill_at)
        if states is not None:
            keep_states(folder, cache_dir(), into=states)
        attempt(folder)
        return count()

    done = in_child(run)
    assert kill_at is not None or done is not None
    return done


def in_child(work: Callable[[], int | None]) -> int | None:
    """Runs `work` in a child process, and returns its result. None if the child was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(work()).encode())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        answer = said.read()
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or status == 0, status
    return json.loads(answer) if status == 0 else None


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


def kill(folder: Path) -> Counter[str]:
    """Goes through what a kill at every file operation leaves on the disk, and makes an attempt from there.

    The states come from a single attempt: each is a copy of the disk just before an operation. Operations inside a folder that
    is not complete yet leave states that the next attempt cannot tell apart, so one of each kind is taken. Where the graphs are
    not finished, the next attempt takes them from the first one, which saves their export. One attempt is really killed, as the
    system then releases its locks, and the attempt after it exports everything.
    """
    trace_once(MODEL, NET, SETTINGS.onnx)
    operations = forked(folder, states=folder.parent / "states")
    assert operations is not None
    expected, (graphs,) = result(folder), bundles()
    finished = Path(shutil.copytree(graphs, folder.parent / "finished" / graphs.name))
    hit = Counter[str]()
    for state in distinct(folder.parent / "states"):
        restore(state, folder)
        hit["engines" if bundles() else "graphs"] += 1
        if not bundles():
            in_child(lambda: give_graphs(finished, cache_dir() / "bundles" / finished.name))
        assert forked(folder) is not None
        assert result(folder) == expected
    clean(folder)
    assert forked(folder, kill_at=operations // 3) is None
    assert forked(folder) is not None
    assert result(folder) == expected
    return hit


def clean(folder: Path) -> None:
    """Removes the engines and the graphs."""
    for path in (*folder.iterdir(), cache_dir() / "bundles"):
        shutil.rmtree(path)


def distinct(states: Path) -> list[Path]:
    """One state of each kind: they differ in more than the files of a folder that is not complete."""
    kinds = dict[frozenset[str], Path]()
    for state in sorted(states.iterdir(), key=lambda path: int(path.name)):
        paths = [path.relative_to(state) for path in state.rglob("*")]
        kinds.setdefault(frozenset(kind(path) for path in paths if not {"digests", "locks"} & {*path.parts}), state)
    return list(kinds.values())


def kind(path: Path) -> str:
    """A path up to the second level of a temporary folder, without the random part of its name."""
    text = re.sub(r"[.][a-z0-9_]{8}[.]partial", ".partial", os.fspath(path))
    return re.sub(r"([.]partial/(new|old|gone))/.*", r"\1", text)


def restore(state: Path, folder: Path) -> None:
    """Puts the disk into a state."""
    for root, copy in ((folder, state / "0"), (cache_dir(), state / "1")):
        shutil.rmtree(root)
        shutil.copytree(copy, root, symlinks=True)


def give_graphs(finished: Path, target: Path) -> None:
    """Puts a finished bundle where an export would put it, in the same way."""
    target.parent.mkdir(parents=True, exist_ok=True)
    key = read_manifest(finished).key
    provide(target, key, lambda fresh: shutil.copytree(finished, fresh, dirs_exist_ok=True) and None, overwrite=True)


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
    say(json.dumps(kill(folder)) if mode == "kill" else make(folder))


if __name__ == "__main__":
    main()
