"""Tries inputs on every parser for some time: python -m tests.fuzz SECONDS [--jobs N] [NAME ...].

Each parser runs in a process of its own, whose memory is limited. N of them run at once; the default is the number of cores.
An input that fails is written to `tests/data/fuzz`, where the tests find it. The exit status is 1 if there is one.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_MORE_MEMORY = 2 * 2**30
"""How much address space a parser may take beyond what the process has at its start, in bytes."""

_GROWTH = 700 * 2**20
"""How much the resident memory may grow over all inputs, in bytes. The first inputs load libraries and torch's kernels."""

_BATCH = 100


def main(arguments: Sequence[str]) -> int:
    """Runs the parsers. Returns the exit status."""
    asked = _asked(arguments)
    with tempfile.TemporaryDirectory(prefix="ditzoo-fuzz-") as folder:
        os.environ |= {"DITZOO_CACHE": folder, "HF_HUB_OFFLINE": "1"}
        tempfile.tempdir = folder
        from tests.fuzz.parsers import PARSERS

        if unknown := sorted({*asked.parsers} - {*PARSERS}):
            raise SystemExit(f"no parser is called {', '.join(unknown)}; the parsers are {', '.join(PARSERS)}")
        with ThreadPoolExecutor(asked.jobs) as pool:
            sound = list(pool.map(lambda name: _run(name, asked.seconds, asked.seed, Path(folder)), asked.parsers or PARSERS))
    return int(not all(sound))


def _asked(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("seconds", type=float)
    parser.add_argument("parsers", nargs="*")
    parser.add_argument("--seed", type=int, help="the same inputs in each run; without it, they are others each time")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args(arguments)


def _run(name: str, seconds: float, seed: int | None, folder: Path) -> bool:
    """Runs one parser in a process of its own. Returns whether all went well; otherwise records the input that failed."""
    from tests.fuzz.trying import CORPUS

    current = folder / f"{name}.input"
    process = multiprocessing.get_context("fork").Process(target=_campaign, args=(name, seconds, seed, current))
    process.start()
    process.join()
    if process.exitcode == 0:
        return True
    data = current.read_bytes()
    path = CORPUS / name / hashlib.sha256(data).hexdigest()[:12]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    _say(f"{name}: failed with status {process.exitcode}; the input is {path}")
    return False


def _campaign(name: str, seconds: float, seed: int | None, current: Path) -> None:
    """Tries the recorded inputs and then new ones until the time is over. Exits with status 1 after the first failure."""
    from tests.fuzz import trying
    from tests.fuzz.parsers import PARSERS

    warnings.simplefilter("ignore")
    logging.disable()
    trying.watch_for_code()
    try:
        for path in trying.corpus(name):
            current.write_bytes(path.read_bytes())
            trying.try_input(PARSERS[name], path.read_bytes())
        trying.try_many(name, examples=_BATCH, start=0, keep=current)
        _limit_memory()
        begun, before, rounds = time.monotonic(), _resident(), 1
        while (taken := time.monotonic() - begun) < seconds:
            start = int.from_bytes(os.urandom(4)) if seed is None else seed + rounds
            trying.try_many(name, examples=_BATCH, start=start, keep=current)
            rounds += 1
        grown = _resident() - before
        assert grown < _GROWTH, f"memory grew by {grown:,} bytes"
    except BaseException:
        for line in traceback.format_exc(limit=-5, chain=False).splitlines():
            _say(line[:300])
        os._exit(1)
    _say(f"{name}: {rounds * _BATCH:,} inputs in {taken:.0f} s, memory grew by {grown / 2**20:.0f} MiB")
    os._exit(0)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _limit_memory() -> None:
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + _MORE_MEMORY, now + _MORE_MEMORY))


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
