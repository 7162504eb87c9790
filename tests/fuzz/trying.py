"""Tries inputs on one parser. It must not raise a foreign error or a message of many lines, take long, or run code."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from ditzoo.errors import DitzooError
from tests.fuzz.parsers import PARSERS, Parser

CORPUS = Path(__file__).parents[1] / "data" / "fuzz"
"""The inputs that once broke a parser: one folder for each parser."""

_LONGEST_MESSAGE = 3000
_PATIENCE, _END = 30, 90
"""Seconds of processor time for one input: an error after the first, and the end of the process after the second.

Python handles signals between its own instructions only, so the first does not stop code in C that never returns.
"""
_CODE = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pty.spawn", "import.exec")
"""Audit events that only a harmful input could cause."""


class FoundError(AssertionError):
    """An input that a parser did not accept or refuse as it must."""


def corpus(name: str) -> list[Path]:
    """The recorded inputs of a parser."""
    folder = CORPUS / name
    return sorted(folder.iterdir()) if folder.is_dir() else []


def try_input(parser: Parser, data: bytes) -> bool:
    """Whether the parser accepts `data`. Raises FoundError if it refuses in a wrong way, and any foreign error as it is."""
    with tempfile.TemporaryDirectory() as folder, _watching():
        try:
            parser.read(data, Path(folder))
        except DitzooError as error:
            message = str(error)
            if "\n" in message or not message or len(message) > _LONGEST_MESSAGE:
                raise FoundError(f"the message has several lines, or {len(message)} characters: {message[:300]!r}") from error
            return False
    return True


def try_many(name: str, *, examples: int, start: int, keep: Path | None = None) -> None:
    """Tries new inputs on the parser called `name`. The error of the smallest input that fails is raised.

    `keep` is the file that always holds the input that is being tried, in case the process dies.
    """
    parser = PARSERS[name]

    @seed(start)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        report_multiple_bugs=False,
    )
    @given(parser.inputs)
    def attempt(data: bytes) -> None:
        if keep is not None:
            keep.write_bytes(data)
        try_input(parser, data)

    attempt()


_STATE = {"watched": False}


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if _STATE["watched"] and event in _CODE:
        raise FoundError(f"it ran code: {event} {arguments!r}"[:300])


def watch_for_code() -> None:
    """From now on an input that runs code or connects to a server raises FoundError. This holds for the whole process."""
    sys.addaudithook(_on_event)


@contextmanager
def _watching() -> Iterator[None]:
    """Raises FoundError in the block if it takes more than half a minute of processor time. Waiting does not count."""
    before = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, _PATIENCE)
    signal.setitimer(signal.ITIMER_VIRTUAL, _END)
    _STATE["watched"] = True
    try:
        yield
    finally:
        _STATE["watched"] = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _too_long(number: int, frame: object) -> None:
    raise FoundError(f"it took more than {_PATIENCE} seconds of processor time")
