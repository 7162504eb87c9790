"""Pins: the revisions and checksums of the first pull, for what no card states. Every later pull must find the same.

There is one JSON file for each repository, in ditzoo's cache.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from ditzoo.errors import HubError
from ditzoo.files import cache_dir, replacing
from ditzoo.locks import lock_named
from ditzoo.records import Data, from_json, read_limited
from ditzoo.zoo.card import File


class Pins(Data, frozen=True, kw_only=True):
    """The pins of one repository.

    `newest` is the commit that was the newest revision at the first pull. `files` are the files that were downloaded, by commit
    and path.
    """

    newest: str | None = None
    files: dict[str, dict[str, File]] = msgspec.field(default_factory=dict)

    def file(self, commit: str, path: str) -> File:
        """The record of a file. If there is none, the result has the path only."""
        return self.files.get(commit, {}).get(path, File(path=path))

    def adding(self, commit: str, file: File, *, newest: bool) -> Pins:
        """These pins and one more file. With `newest`, the commit of the file becomes the newest revision."""
        files = {**self.files, commit: {**self.files.get(commit, {}), file.path: file}}
        return Pins(newest=commit if newest else self.newest, files=files)


def read(repo: str) -> Pins:
    """The pins of a repository. Raises HubError if their file is damaged."""
    path = _path(repo)
    try:
        return from_json(read_limited(path), Pins)
    except FileNotFoundError:
        return Pins()
    except ValueError as error:
        raise HubError(f"{path} is damaged: {error}; delete it, and the next pull writes it again") from error


def write(repo: str, pins: Pins) -> None:
    """Writes the pins of a repository. The file is replaced in one step."""
    path = _path(repo)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as scratch:
        scratch.write_bytes(msgspec.json.format(msgspec.json.encode(pins), indent=1))


def add(repo: str, commit: str, file: File, *, newest: bool) -> None:
    """Records a verified file. Nothing is written if it is recorded already, because the cache may be read-only."""
    pins = read(repo)
    if pins.adding(commit, file, newest=newest) == pins:
        return
    with lock_named(f"pins {repo}", what=f"the pins of {repo}"):
        write(repo, read(repo).adding(commit, file, newest=newest))


def _path(repo: str) -> Path:
    return cache_dir() / "pins" / f"{repo.replace('/', '--')}.json"
