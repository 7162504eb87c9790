"""From a source on the Hub to a local folder of verified files."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ditzoo.errors import HubError
from ditzoo.files import cache_dir, sha256
from ditzoo.hub import client, offline, pins
from ditzoo.hub.client import PATIENCE, Advance, silent
from ditzoo.zoo.card import File, OnHub

log = logging.getLogger(__name__)

_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "it is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}


def fetch(source: OnHub, *, patience: float = PATIENCE, advance: Advance = silent) -> Path:
    """The local folder that holds the files of `source`, each at its path, downloaded where need be, and verified.

    A file is held to the size and the SHA-256 of the source, else to those of the first time it was fetched. Raises HubError,
    with what to do, where that cannot be; `patience` bounds, in seconds, how long a server may be silent.
    """
    with explaining_the_disk():
        return _root(resolve(source, patience=patience, advance=advance)[1])


def resolve(source: OnHub, *, patience: float = PATIENCE, advance: Advance = silent) -> tuple[OnHub, dict[str, Path]]:
    """`fetch`, but returns the source with its commit, sizes and checksums filled in, and the local path of each file.

    Where no server can be asked, the newest revision is the one that the Hub's cache has: see `ditzoo.hub.offline`.
    """
    known = source.revision or pins.read(source.repo).newest
    commit, is_newest = (known, source.revision is None) if known else _newest(source, patience=patience)
    paths, files = {}, []
    for file in source.files:
        path, found = _verified(source, file, commit, patience=patience, advance=advance)
        pins.add(source.repo, commit, found, newest=is_newest)
        paths[file.path] = path
        files.append(found)
    return msgspec.structs.replace(source, revision=commit, files=tuple(files)), paths


@contextmanager
def explaining_the_disk() -> Iterator[None]:
    """Turns the system's refusals to write into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise HubError(
            f"cannot write to ditzoo's cache {cache_dir()}: {_DISK[error.errno]};"
            " make room (see `ditzoo cache ls`), or set DITZOO_CACHE to another folder"
        ) from error


def _newest(source: OnHub, *, patience: float) -> tuple[str, bool]:
    """The newest commit of a source's repository, and True, as the server says; without one, what the Hub's cache has, and
    False, so that a later pull asks again."""
    paths = [file.path for file in source.files]
    try:
        return client.look_up(source.repo, paths[0], revision=None, patience=patience).commit, True
    except client.UnreachableError:
        commit = offline.find_revision(source.repo, None, paths)
        if commit is None:
            raise
    log.warning("%s: no server can be asked; took the revision %s, which is in the Hub's cache", source.repo, commit)
    return commit, False


def _verified(source: OnHub, file: File, commit: str, *, patience: float, advance: Advance) -> tuple[Path, File]:
    """The path of a file, and what is known of it then. Damaged: fetched again once."""
    expected = _expected(source, file, commit)
    path = client.cached(source.repo, file.path, commit=commit)
    if path is not None and expected.sha256 is None:  # somebody else's download
        expected = msgspec.structs.replace(expected, sha256=client.named_sha256(path))
    if path is None and expected.sha256 is not None and len(source.files) == 1:  # the same content of another revision
        path = offline.same_content(source.repo, file.path, expected.sha256)
    if path is None:
        expected = _announced(source, expected, commit, patience=patience)
        path = client.download(source.repo, file.path, commit=commit, patience=patience, advance=advance)
    problem, found = _check(path, expected)
    if problem:
        log.warning("%s of %s is damaged: %s; fetching it again", file.path, source.repo, problem)
        path = client.download(source.repo, file.path, commit=commit, again=True, patience=patience, advance=advance)
        problem, found = _check(path, expected)
    if problem:
        raise HubError(f"{file.path} of {source.repo} came damaged twice: {problem}; {_remedy(source, commit)}")
    return path, found


def _expected(source: OnHub, file: File, commit: str) -> File:
    """What the card says of a file, filled up with what was recorded when it was first fetched."""
    recorded = pins.read(source.repo).file(commit, file.path)
    return File(path=file.path, size=file.size or recorded.size, sha256=file.sha256 or recorded.sha256)


def _announced(source: OnHub, expected: File, commit: str, *, patience: float) -> File:
    """`expected`, filled up with what the server says; raises HubError, before any download, where the two differ."""
    try:
        remote = client.look_up(source.repo, expected.path, revision=commit, patience=patience)
    except client.UnreachableError as error:
        here = [each for each in offline.commits_of(source.repo) if client.cached(source.repo, expected.path, commit=each)]
        if not here:
            raise
        others = ", ".join(f"`ditzoo pull hf:{source.repo}@{each}`" for each in here)
        raise client.UnreachableError(f"{error}; what the Hub's cache has is of another revision: {others}") from error
    for name, want, offer in (("size", expected.size, remote.size), ("sha256", expected.sha256, remote.sha256)):
        if None not in (want, offer) and want != offer:
            raise HubError(
                f"the server's {expected.path} of {source.repo} is not the one expected: its {name} is {offer}, not {want};"
                f" {_remedy(source, commit)}"
            )
    return File(path=expected.path, size=expected.size or remote.size, sha256=expected.sha256 or remote.sha256)


def _check(path: Path, expected: File) -> tuple[str, File]:
    """What is wrong with a file, "" if nothing; and its true size and checksum."""
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
        "what the card expects is stated by third parties and may be wrong: if you trust this server,"
        f" `ditzoo pull hf:{source.repo}@{commit}` takes what it has"
    )


def _root(paths: dict[str, Path]) -> Path:
    """The folder below which every file lies at its path."""
    path, local = next(iter(paths.items()))
    return local.parents[path.count("/")]
