"""All requests to the Hub. They go through `huggingface_hub`, and use its cache, its environment variables and its tokens.

This module adds two things: a limit on the time that a silent server can take, and one clear message for each kind of failure.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from ditzoo.errors import HubError, real_number, wrong_type
from ditzoo.files import disk_problem, is_within
from ditzoo.hub.answers import check_answers, checked_commit
from ditzoo.hub.environment import check_environment, without_password
from ditzoo.hub.names import is_resolvable, is_unresolved
from ditzoo.hub.transfer import Offer, transfer
from ditzoo.locks import lock_of
from ditzoo.records import Data

PATIENCE = 30.0
"""The default time, in seconds, after which a server that sends no new byte counts as unreachable."""

MOST_PATIENCE = 86_400
"""The longest time, in seconds, that a user may choose instead: a day."""

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 8.0
_REMEDY = "set HF_HOME to another folder (`ditzoo cache ls` shows what takes space)"
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)

_T = TypeVar("_T")


Advance: TypeAlias = Callable[[str, int, int], None]
"""A function that is called with the progress of a download: the file, the bytes so far, and its size in bytes (0: unknown)."""


def check_patience(patience: float) -> None:
    """Raises UsageError unless `patience` is a number of seconds that a user may choose."""
    takes = f"a number of seconds, more than 0 and at most {MOST_PATIENCE:,}"
    if not 0 < real_number("--timeout", patience, takes) <= MOST_PATIENCE:
        raise wrong_type("--timeout", patience, takes)


def silent(path: str, done: int, total: int) -> None:
    """An `Advance` that shows nothing."""


class UnreachableError(HubError):
    """No server could be reached: requests are forbidden, or the server sent nothing."""


class Remote(Data, frozen=True, kw_only=True):
    """The server's data on a file: its commit, its size in bytes, and its SHA-256. None: the server did not send it."""

    commit: str
    size: int | None
    sha256: str | None


def look_up(repo: str, path: str, *, revision: str | None, patience: float = PATIENCE) -> Remote:
    """The server's data on the file `path` of `repo` at `revision` (None: the newest). Raises HubError if the request fails."""
    check_environment()
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    def ask(pulse: _Pulse) -> Remote:
        found = get_hf_file_metadata(hf_hub_url(repo, path, revision=revision), timeout=patience)
        digest = found.etag if re.fullmatch(r"[0-9a-f]{64}", found.etag or "") else None
        if found.commit_hash is None:
            raise HubError(f"{_endpoint()} does not answer like a Hub: no commit for {path} of {repo}; check HF_ENDPOINT")
        return Remote(commit=found.commit_hash, size=found.size, sha256=digest)

    return _patiently(ask, f"{repo}, file {path}", patience)


def list_files(repo: str, *, revision: str | None, patience: float = PATIENCE) -> tuple[str, list[str]]:
    """The commit of `revision` (None: the newest) in `repo`, and the paths of its files.

    Raises HubError if the request fails.
    """
    check_environment()
    from huggingface_hub import HfApi

    def ask(pulse: _Pulse) -> tuple[str, list[str]]:
        found = HfApi().model_info(repo, revision=revision, timeout=patience)
        return checked_commit(str(found.sha), _endpoint()), sorted(entry.rfilename for entry in found.siblings or ())

    return _patiently(ask, repo, patience)


def download(
    repo: str, path: str, *, commit: str, again: bool = False, patience: float = PATIENCE, advance: Advance = silent
) -> Path:
    """The local path of a file in the Hub's own cache. It is downloaded if it is not there, or if `again` is True.

    A download that was interrupted is continued. Raises HubError if the download fails.
    """
    check_environment()
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    repository, url = repository_folder(repo), hf_hub_url(repo, path, revision=commit)
    pointer = repository / "snapshots" / commit / path

    def get(pulse: _Pulse) -> Path:
        def reached(done: int, size: int) -> None:
            pulse.reached(done)
            advance(path, done, size)

        found = get_hf_file_metadata(url, timeout=patience)
        if found.etag is None:
            raise HubError(f"{_endpoint()} does not answer like a Hub: no tag for {path} of {repo}; check HF_ENDPOINT")
        offer = Offer(url=url, tag=found.etag, size=found.size)
        transfer(offer, repository, pointer, again=again, patience=patience, reached=reached)
        return pointer

    check_inside(pointer.parent)
    with lock_of(pointer):
        here = None if again else cached(repo, path, commit=commit)
        return here or _patiently(get, f"{repo}, file {path}", patience)


def reach(*, patience: float) -> str:
    """The address of the Hub, which has answered a request within `patience` seconds. Raises HubError if it has not."""
    from huggingface_hub import get_session

    def ask(pulse: _Pulse) -> str:
        get_session().get(f"{_endpoint()}/api/models", params={"limit": 1}, timeout=patience)
        return _endpoint()

    return _patiently(ask, "the list of models", patience)


def upload(repo: str, files: Mapping[str, object], *, message: str, private: bool) -> str:
    """Commits `files` to `repo`, and returns the commit. Raises HubError if the upload fails.

    The keys are paths in the repository, the values local paths or bytes.
    """
    check_environment()
    from huggingface_hub import CommitOperationAdd, HfApi

    operations = [CommitOperationAdd(path, content) for path, content in files.items()]  # type: ignore[arg-type]
    check_answers()
    try:
        HfApi().create_repo(repo, private=private, exist_ok=True)
        return str(HfApi().create_commit(repo, operations, commit_message=message).oid)
    except Exception as error:  # every failure becomes one clear message
        raise _translated(error, repo, PATIENCE) from error


def cached(repo: str, path: str, *, commit: str) -> Path | None:
    """The local path of a file in the Hub's cache; None if the cache does not have it."""
    check_environment()
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, path, revision=commit)
    return Path(found) if isinstance(found, str) else None


def linked(repo: str, path: str, *, commit: str) -> Path | None:
    """The path of a file in the Hub's cache, also if only its link is left; None if the cache does not have it."""
    pointer = repository_folder(repo) / "snapshots" / commit / path
    return pointer if os.path.lexists(pointer) else None


def named_sha256(path: Path) -> str | None:
    """The SHA-256 that the cache uses as the name of a large file's content; None for a small file."""
    name = path.resolve().name
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None


def cache_folder() -> Path:
    """The folder of the Hub's own cache."""
    check_environment()
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def repository_folder(repo: str) -> Path:
    """The folder of a repository in the Hub's own cache."""
    check_environment()
    from huggingface_hub.file_download import repo_folder_name

    return cache_folder() / repo_folder_name(repo_id=repo, repo_type="model")


def is_inside(path: Path) -> bool:
    """Whether the file at `path`, with links followed, is in the Hub's cache.

    The folders of a repository, of its snapshots and of its contents may be links, because users move them to other disks.
    """
    repository = cache_folder() / path.relative_to(cache_folder()).parts[0]
    return is_within(path, (cache_folder(), repository, repository / "blobs", repository / "snapshots"))


def check_inside(path: Path) -> None:
    """Raises HubError if the file at `path`, with links followed, is outside the Hub's cache: see `is_inside`."""
    if not is_inside(path):
        raise HubError(f"{path} is a link to {path.resolve()}, outside the Hub's cache; remove it, and pull again")


def remove(path: Path) -> None:
    """Deletes a file of a snapshot. Its content is deleted first, unless another revision links to it.

    If the process is killed in between, the link is still there, so the next call deletes it. Nothing outside the Hub's cache
    is deleted. If a link leads out, only the link is deleted. Raises HubError if the folder of the file is outside.
    """
    check_inside(path.parent)
    snapshots = next((parent for parent in path.parents if parent.name == "snapshots"), None)
    if path.is_symlink() and snapshots is not None:
        content = _target(path)
        inside = content.parent.resolve() == (snapshots.parent / "blobs").resolve()
        if inside and not any(_target(link).resolve() == content.resolve() for link in _links(snapshots) if link != path):
            content.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _links(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_symlink())


def _target(link: Path) -> Path:
    return Path(os.path.normpath(link.parent / link.readlink()))


def is_offline() -> bool:
    """Whether `HF_HUB_OFFLINE` forbids requests."""
    check_environment()
    from huggingface_hub import is_offline_mode

    return bool(is_offline_mode())


class _AbandonedError(Exception):
    """Raised inside a download to end it when the caller has given up waiting."""


class _Pulse:
    """The time of the last progress of a call.

    Only bytes beyond the furthest point so far count as progress. So a server that fails at the same byte each time counts as
    silent.
    """

    def __init__(self, patience: float) -> None:
        self.patience, self.deadline = patience, time.monotonic() + patience
        self.furthest, self.abandoned = 0, False

    def reached(self, done: int) -> None:
        if self.abandoned:
            raise _AbandonedError
        if done > self.furthest:
            self.furthest, self.deadline = done, time.monotonic() + self.patience

    def left(self) -> float:
        return self.deadline - time.monotonic()


def _patiently(call: Callable[[_Pulse], _T], what: str, patience: float) -> _T:
    """Runs `call`, and repeats it after temporary failures, until there is no progress for `patience` seconds.

    The call runs in a thread of its own. If it hangs, the thread is abandoned. So neither a look-up of a name nor the client's
    own retries can block the caller.
    """
    check_patience(patience)
    if is_offline():
        raise UnreachableError(
            f"{what} is not in the Hub's cache, and HF_HUB_OFFLINE forbids downloads; unset it and try again"
        )
    if not is_resolvable(_endpoint(), patience=patience):
        raise UnreachableError(without_password(_unresolved(what)))
    check_answers()
    pulse, outcome = _Pulse(patience), queue.SimpleQueue[tuple[_T | None, Exception | None]]()
    threading.Thread(target=_attempts, args=(call, pulse, outcome), daemon=True).start()
    while True:
        try:
            value, error = outcome.get(timeout=max(pulse.left(), 0.01))
        except queue.Empty:
            if pulse.left() <= 0:
                pulse.abandoned = True
                raise UnreachableError(without_password(_unreachable(what, patience))) from None
            continue
        if error is not None:
            raise _translated(error, what, patience) from error
        return value  # type: ignore[return-value]


def _attempts(
    call: Callable[[_Pulse], _T], pulse: _Pulse, outcome: queue.SimpleQueue[tuple[_T | None, Exception | None]]
) -> None:
    delay = _FIRST_DELAY
    while True:
        try:
            outcome.put((call(pulse), None))
            return
        except Exception as error:  # passed on to the caller
            if not _is_transient(error) or pulse.left() <= delay:
                outcome.put((None, error))
                return
        time.sleep(delay)
        delay = min(2 * delay, _LONGEST_DELAY)


def _root(error: BaseException) -> BaseException:
    """The original error of a failed request, without the errors that the client wraps around it."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, LocalEntryNotFoundError | ValueError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed if it is repeated."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    error = _root(error)
    if is_unresolved(error):
        return False
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _TRANSIENT
    return isinstance(error, httpx2.TransportError) or "Consistency check failed" in str(error)


def _translated(error: BaseException, what: str, patience: float) -> Exception:
    """The error of ditzoo for an exception of the client. Its message says what failed and what to do, without passwords."""
    translated = _explained(error, what, patience)
    return type(translated)(without_password(str(translated)))


def _explained(error: BaseException, what: str, patience: float) -> HubError:
    from huggingface_hub import errors

    error = _root(error)
    if isinstance(error, HubError):
        return error
    if is_unresolved(error):
        return UnreachableError(_unresolved(what))
    if _is_transient(error):
        return UnreachableError(_unreachable(what, patience, error))
    if isinstance(error, errors.HfHubHTTPError):
        return HubError(_refusal(error, what))
    if isinstance(error, errors.FileMetadataError):
        return HubError(f"{_endpoint()} does not answer like a Hub for {what}; check HF_ENDPOINT, proxies and firewalls")
    if isinstance(error, OSError) and (problem := disk_problem(error, cache_folder(), remedy=_REMEDY)):
        return HubError(problem)
    return HubError(f"cannot fetch {what}: {error}")


def _refusal(error: Any, what: str) -> str:
    """The message for a request that the server refused."""
    from huggingface_hub import errors

    status = error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        page = f"{_endpoint()}/{what.split(',', maxsplit=1)[0]}"
        return f"{what}: access is gated; accept its terms at {page}, and set HF_TOKEN to a token of that account"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{_endpoint()} has no repository {what}, or it is private: check the name, or set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{what}: the repository does not have that revision; name another one: hf:OWNER/REPO@REVISION"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{what}: the repository has no such file; {_endpoint()} lists its files"
    return f"{what}: {_endpoint()} refuses with HTTP status {status}; check HF_TOKEN and HF_ENDPOINT"


def _unresolved(what: str) -> str:
    return (
        f"cannot fetch {what}: the name of {_endpoint()} cannot be looked up; check the network, DNS and HF_ENDPOINT,"
        " or wait longer with --timeout SECONDS (the look-up gets a twelfth of it, and at least 2.5 s)"
    )


def _unreachable(what: str, patience: float, error: BaseException | None = None) -> str:
    reason = f" ({type(error).__name__}: {error})" if error is not None and str(error) else ""
    return (
        f"cannot fetch {what}: nothing came from {_endpoint()} for {patience:g} s{reason};"
        " check the network or HF_ENDPOINT, or wait longer with --timeout SECONDS"
    )


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)
