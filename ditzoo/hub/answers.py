"""Checks every answer of a server before the Hub's client reads it, because the client makes file names of its headers."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from ditzoo.errors import HubError

_COMMIT, _LINKED, _TAG = "X-Repo-Commit", "X-Linked-Etag", "ETag"
_XET = ("X-Xet-Hash", "X-Xet-Refresh-Route")
_LOCK = threading.Lock()


def is_commit(text: str) -> bool:
    """Whether `text` is a commit: 40 hexadecimal digits."""
    return re.fullmatch(r"[0-9a-f]{40}", text) is not None


def is_tag(text: str) -> bool:
    """Whether `text` is the tag of a file that can be the name of its content in the cache: a plain name."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", text) is not None


def checked_commit(text: str, server: str) -> str:
    """Returns `text`. Raises HubError if it is not a commit."""
    if not is_commit(text):
        raise HubError(f"{server} names a commit that is not valid: {text[:80]!r}; do not use this server, check HF_ENDPOINT")
    return text


def check_answers() -> None:
    """Makes the Hub's client check answers: every session that it makes from now on raises HubError for a false answer.

    A session that the program has configured (`huggingface_hub.set_client_factory`) keeps its configuration.
    """
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    with _LOCK:
        make = _http._GLOBAL_CLIENT_FACTORY  # the client has no public name for it
        if not (isinstance(make, partial) and make.func is _make_checked):
            set_client_factory(partial(_make_checked, make))


def _make_checked(make: Callable[[], Any]) -> Any:
    session = make()
    hooks = session.event_hooks
    session.event_hooks = {**hooks, "response": [_check, *hooks["response"]]}
    return session


def _check(response: Any) -> None:
    """Raises HubError if the commit is not valid, or if the tag of a file could be a path.

    The client reads tags only from answers to HEAD. It removes W/ and quotes, and uses the rest as the name of a file. It would
    send the user's token to any server that an answer names for Xet, so what an answer says about Xet is removed.
    """
    for header in _XET:
        response.headers.pop(header, None)
    server = f"{response.request.url.scheme}://{response.request.url.netloc.decode(errors='replace').rpartition('@')[2]}"
    commit = response.headers.get(_COMMIT)
    if commit is not None:
        checked_commit(commit, server)
    if response.request.method != "HEAD":
        return
    for header in (_LINKED, _TAG):
        tag = response.headers.get(header)
        if tag is not None and not is_tag(tag.lstrip("W/").strip('"')):
            raise HubError(f"{server} gives a file the {header} {tag[:80]!r}, not a plain name; do not use this server")
