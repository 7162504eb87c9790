"""The revisions and files in the Hub's cache on this disk. They are used if no server can be reached."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ditzoo.errors import HubError
from ditzoo.hub import client
from ditzoo.hub.answers import is_commit

_MAIN = "main"


def find_revision(repo: str, revision: str | None, paths: Iterable[str] = ()) -> str | None:
    """The commit of `revision` if the Hub's cache has all files `paths` of it, else None.

    `revision` is a commit, or a branch at the time of its last download. If it is None, the branch main is used, else the only
    commit in the cache. Raises HubError, with the commits, if there are several and none is main.
    """
    wanted = list(paths)
    if revision is not None:
        return _first(repo, [revision, _named(repo, revision)], wanted)
    commit = _first(repo, [_named(repo, _MAIN)], wanted)
    if commit is not None:
        return commit
    commits = [commit for commit in commits_of(repo) if _has(repo, commit, wanted)]
    if len(commits) > 1:
        references = ", ".join(f"hf:{repo}@{commit}" for commit in commits)
        raise HubError(
            f"the Hub's cache has several revisions of {repo}, and the newest is unknown; name one of them: {references}"
        )
    return commits[0] if commits else None


def commits_of(repo: str) -> list[str]:
    """The commits of a repository in the Hub's cache."""
    return sorted(path.name for path in (client.repository_folder(repo) / "snapshots").glob("*") if is_commit(path.name))


def files_of(repo: str, commit: str) -> list[str]:
    """The paths of a commit's files in the Hub's cache."""
    snapshot = _snapshot(repo, commit)
    return sorted(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file())


def same_content(repo: str, path: str, digest: str) -> Path | None:
    """The local file at `path` of any commit whose content has the SHA-256 `digest`; None if the cache has no such file."""
    for commit in commits_of(repo):
        found = client.cached(repo, path, commit=commit)
        if found is not None and client.named_sha256(found) == digest:
            return found
    return None


def _first(repo: str, commits: Iterable[str | None], paths: list[str]) -> str | None:
    return next((commit for commit in commits if commit is not None and _has(repo, commit, paths)), None)


def _has(repo: str, commit: str, paths: list[str]) -> bool:
    snapshot = _snapshot(repo, commit)
    return is_commit(commit) and snapshot.is_dir() and all((snapshot / path).is_file() for path in paths)


def _named(repo: str, branch: str) -> str | None:
    """The commit of a branch at the time of its last download; None if the cache does not know the branch."""
    reference = client.repository_folder(repo) / "refs" / branch
    return reference.read_text().strip() if reference.is_file() else None


def _snapshot(repo: str, commit: str) -> Path:
    return client.repository_folder(repo) / "snapshots" / commit
