"""Downloads the files of a source on the Hub, and verifies them."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from ditzoo.errors import HubError
from ditzoo.files import cache_dir, disk_errors, sha256
from ditzoo.hub import client, offline, pins
from ditzoo.hub.client import PATIENCE, Advance, silent
from ditzoo.progress import SILENT, Display
from ditzoo.zoo.card import File, OnHub

log = logging.getLogger(__name__)


def fetch(source: OnHub, *, patience: float = PATIENCE, advance: Advance = silent) -> Path:
    """The local folder with the files of `source`, each at its path. Missing files are downloaded, and every file is verified.

    A file must have the size and the SHA-256 that `source` states. If `source` states none, it must have those of its first
    download. `patience` is how many seconds a server may be silent. Raises HubError if a file cannot be downloaded or is
    damaged; the message says what to do.
    """
    with disk_errors(cache_dir(), raises=HubError):
        return _root(resolve(source, patience=patience, advance=advance)[1])


def resolve(
    source: OnHub,
    *,
    update: bool = False,
    patience: float = PATIENCE,
    advance: Advance = silent,
    display: Display = SILENT,
) -> tuple[OnHub, dict[str, Path]]:
    """Like `fetch`, but returns the source with its commit, sizes and checksums, and the local path of each file.

    With `update`, the server is asked for the newest revision again, if the source pins none. The new one is recorded after its
    first file is here. `advance` gets the progress of downloads; the check of each file is a stage on `display`.
    If no server can be reached, the newest revision is taken from the Hub's cache: see `ditzoo.hub.offline`.
    """
    known = source.revision or (None if update else pins.read(source.repo).newest)
    commit, is_newest = (known, source.revision is None) if known else _newest(source, patience=patience)
    paths, files = {}, []
    for file in source.files:
        path, found = _verified(source, file, commit, patience=patience, advance=advance, display=display)
        pins.add(source.repo, commit, found, newest=is_newest)
        paths[file.path] = path
        files.append(found)
    return msgspec.structs.replace(source, revision=commit, files=tuple(files)), paths


def _newest(source: OnHub, *, patience: float) -> tuple[str, bool]:
    """The newest commit of a source's repository, and whether it comes from the server.

    If no server can be reached, the commit comes from the Hub's cache. Such a commit is not recorded as the newest, so a later
    pull asks the server again.
    """
    paths = [file.path for file in source.files]
    try:
        return client.look_up(source.repo, paths[0], revision=None, patience=patience).commit, True
    except client.UnreachableError:
        commit = offline.find_revision(source.repo, None, paths)
        if commit is None:
            raise
    log.warning("%s: no server can be reached; using revision %s from the Hub's cache", source.repo, commit)
    return commit, False


def _verified(
    source: OnHub, file: File, commit: str, *, patience: float, advance: Advance, display: Display
) -> tuple[Path, File]:
    """The local path of a verified file, and its record with size and checksum. A damaged file is downloaded again once."""
    expected = _expected(source, file, commit)
    path = client.cached(source.repo, file.path, commit=commit)
    if path is not None and expected.sha256 is None:  # another program downloaded it
        expected = msgspec.structs.replace(expected, sha256=client.named_sha256(path))
    if path is None and expected.sha256 is not None and len(source.files) == 1:  # another revision may have the same content
        path = offline.same_content(source.repo, file.path, expected.sha256)
    if path is None:
        expected = _announced(source, expected, commit, patience=patience)
        path = client.download(source.repo, file.path, commit=commit, patience=patience, advance=advance)
    with display.stage(f"checking {file.path}"):
        problem, found = _check(path, expected)
    if problem:
        log.warning("%s of %s is damaged: %s; downloading it again", file.path, source.repo, problem)
        path = client.download(source.repo, file.path, commit=commit, again=True, patience=patience, advance=advance)
        with display.stage(f"checking {file.path}"):
            problem, found = _check(path, expected)
    if problem:
        raise HubError(f"{file.path} of {source.repo} was damaged in both downloads: {problem}; {_remedy(source, commit)}")
    return path, found


def _expected(source: OnHub, file: File, commit: str) -> File:
    """The size and checksum that the card states for a file. What the card does not state comes from the first download."""
    recorded = pins.read(source.repo).file(commit, file.path)
    return File(path=file.path, size=file.size or recorded.size, sha256=file.sha256 or recorded.sha256)


def _announced(source: OnHub, expected: File, commit: str, *, patience: float) -> File:
    """`expected`, with its unknown fields taken from the server. Raises HubError, before any download, if the two differ."""
    try:
        remote = client.look_up(source.repo, expected.path, revision=commit, patience=patience)
    except client.UnreachableError as error:
        here = [each for each in offline.commits_of(source.repo) if client.cached(source.repo, expected.path, commit=each)]
        if not here:
            raise
        others = ", ".join(f"`ditzoo pull hf:{source.repo}@{each}`" for each in here)
        raise client.UnreachableError(f"{error}; the Hub's cache has the file of another revision: {others}") from error
    for name, want, offer in (("size", expected.size, remote.size), ("sha256", expected.sha256, remote.sha256)):
        if None not in (want, offer) and want != offer:
            raise HubError(
                f"{expected.path} of {source.repo} on the server is not the expected file: its {name} is {offer}, not {want};"
                f" {_remedy(source, commit)}"
            )
    return File(path=expected.path, size=expected.size or remote.size, sha256=expected.sha256 or remote.sha256)


def _check(path: Path, expected: File) -> tuple[str, File]:
    """What is wrong with a file ("" if nothing is), and the record of its actual size and checksum."""
    client.check_inside(path)
    size = path.stat().st_size
    if expected.size not in (None, size):
        return f"{size:,} bytes instead of {expected.size:,}", expected
    found = File(path=expected.path, size=size, sha256=sha256(path))
    if expected.sha256 not in (None, found.sha256):
        return f"its sha256 is {found.sha256}, not {expected.sha256}", found
    return "", found


def _remedy(source: OnHub, commit: str) -> str:
    if source.verified:
        return "do not use it; try another mirror (HF_ENDPOINT)"
    return (
        "the card's value comes from a third party and may be wrong; if you trust this server,"
        f" `ditzoo pull hf:{source.repo}@{commit}` takes the file as it is"
    )


def _root(paths: dict[str, Path]) -> Path:
    """The folder that the files' paths are relative to."""
    path, local = next(iter(paths.items()))
    return local.parents[path.count("/")]
