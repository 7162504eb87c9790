"""Pins: the revisions and checksums that the first pull found and no card states. Every later pull is held to them.

One JSON file for each repository, in ditzoo's cache.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from ditzoo.errors import HubError
from ditzoo.files import cache_dir, replacing
from ditzoo.locks import lock_named
from ditzoo.records import Data, from_json
from ditzoo.zoo.card import File


class Pins(Data, frozen=True, kw_only=True):
    """The commit that "the newest revision" was on the first pull, and the files that were seen, by commit and path."""

    newest: str | None = None
    files: dict[str, dict[str, File]] = msgspec.field(default_factory=dict)

    def file(self, commit: str, path: str) -> File:
        """What is recorded of a file; only its path, if nothing is."""
        return self.files.get(commit, {}).get(path, File(path=path))

    def adding(self, commit: str, file: File, *, newest: bool) -> Pins:
        """These pins and one more file; `newest` says that its commit is what the newest revision was found to be."""
        files = {**self.files, commit: {**self.files.get(commit, {}), file.path: file}}
        return Pins(newest=commit if newest else self.newest, files=files)


def read(repo: str) -> Pins:
    """The pins of a repository; raises HubError where their file is damaged."""
    path = _path(repo)
    try:
        return from_json(path.read_bytes(), Pins)
    except FileNotFoundError:
        return Pins()
    except ValueError as error:
        raise HubError(f"{path} is damaged: {error}; delete it, and the next pull writes it anew") from error


def write(repo: str, pins: Pins) -> None:
    """Writes the pins of a repository, whole or not at all."""
    path = _path(repo)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as scratch:
        scratch.write_bytes(msgspec.json.format(msgspec.json.encode(pins), indent=1))


def add(repo: str, commit: str, file: File, *, newest: bool) -> None:
    """Records a file that was verified. If it is recorded already, nothing is written: the cache may be read-only."""
    pins = read(repo)
    if pins.adding(commit, file, newest=newest) == pins:
        return
    with lock_named(f"pins {repo}"):
        write(repo, read(repo).adding(commit, file, newest=newest))


def forget_newest(repo: str) -> None:
    """Makes the next pull resolve the newest revision again."""
    with lock_named(f"pins {repo}"):
        write(repo, msgspec.structs.replace(read(repo), newest=None))


def _path(repo: str) -> Path:
    return cache_dir() / "pins" / f"{repo.replace('/', '--')}.json"
