"""Records of `--backend auto`: which backend was the fastest for a model on this machine, in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ditzoo.distributions import versions_of
from ditzoo.files import cache_dir, file_name, remember
from ditzoo.records import Data, from_json, read_limited, to_json
from ditzoo.specs import Precision

CLOSE = 1.05
"""A backend that takes at most this many times as long as the fastest one is as fast."""


class Situation(Data, frozen=True, kw_only=True):
    """What a choice depends on.

    `weights` is the SHA-256 of the weights, or the key of the bundle. `images` is the number of images in the evaluation that
    is measured, and `rows` the number of rows of the network. `size` is the height and width of the latents. `outer_blocks` is
    0 if the plan has no reuse. `cores` are the physical cores that the process may use. `versions` are those of ditzoo and of
    the packages of all backends that are installed.
    """

    model: str
    weights: str
    precision: Precision
    device: str
    threads: int | None
    images: int
    rows: int
    size: tuple[int, int]
    outer_blocks: int
    processor: str
    cores: int
    gpu: str | None
    versions: dict[str, str]

    @property
    def key(self) -> str:
        """The hash of everything that the choice depends on."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:16]


class Timing(Data, frozen=True, kw_only=True):
    """The least time of one evaluation on a backend, in seconds; or None, and `why` it was not measured."""

    backend: str
    seconds: float | None
    why: str = ""


class Choice(Data, frozen=True, kw_only=True):
    """The backend that was chosen, and what was measured for it, on `date` (UTC)."""

    format: Literal["ditzoo-choice/1"] = "ditzoo-choice/1"
    situation: Situation
    timings: tuple[Timing, ...]
    chosen: str
    date: str

    @property
    def backend(self) -> str:
        """The backend that was chosen, with its precision: "onnxruntime:fp32"."""
        return f"{self.chosen}:{self.situation.precision}"

    @property
    def measured(self) -> dict[str, float]:
        """The seconds of the backends that were measured, by name."""
        return {timing.backend: timing.seconds for timing in self.timings if timing.seconds is not None}


def fastest(timings: Sequence[Timing]) -> str | None:
    """The backend to use: the first one of those that are as fast as the fastest one. None if none was measured."""
    measured = [(timing.backend, timing.seconds) for timing in timings if timing.seconds is not None]
    least = min((seconds for _, seconds in measured), default=0.0)
    return next((backend for backend, seconds in measured if seconds <= CLOSE * least), None)


def read_choice(situation: Situation) -> Choice | None:
    """The choice that was made in the same situation. None if there is none, or if its file is damaged."""
    choice = _read(_place(situation))
    return choice if choice is not None and choice.situation == situation else None


def keep_choice(choice: Choice) -> None:
    """Writes a choice into the cache, whole or not at all. Does nothing if the cache cannot be written."""
    remember(_place(choice.situation), to_json(choice))


def choices() -> Iterator[tuple[Path, Choice | None]]:
    """The files of all choices. The choice is None if its file is damaged."""
    for path in sorted(_folder().glob("[!.]*.json")):
        yield path, _read(path)


def outdated() -> Iterator[Path]:
    """The files of choices that were made with other versions than are installed, and the damaged ones."""
    for path, choice in choices():
        if choice is None or versions_of(choice.situation.versions) != choice.situation.versions:
            yield path


def _place(situation: Situation) -> Path:
    return _folder() / f"{file_name(situation.model)}-{situation.key}.json"


def _folder() -> Path:
    return cache_dir() / "backends"


def _read(path: Path) -> Choice | None:
    try:
        return from_json(read_limited(path), Choice)
    except (OSError, ValueError):
        return None
