"""Whether the server's name can be looked up at all: without that, waiting and trying again helps nobody."""

from __future__ import annotations

import ipaddress
import socket
import threading
import urllib.request
from contextlib import suppress
from urllib.parse import urlsplit

_SHARE, _LEAST = 12, 2.5
"""The part of the patience with a server that a look-up of its name gets, and the least that it gets, in seconds."""


def is_unresolved(error: BaseException | None) -> bool:
    """Whether a request failed because the server's name could not be looked up."""
    while error is not None:
        if isinstance(error, socket.gaierror):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_resolvable(url: str, *, patience: float) -> bool:
    """Whether the name of the server at `url` can be looked up in a twelfth of `patience`, or in 2.5 seconds.

    A proxy looks names up itself, so behind one every name counts as resolvable; so do addresses.
    """
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    if urlsplit(url).scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return True
    found, ended = threading.Event(), threading.Event()

    def look_up() -> None:
        with suppress(OSError, UnicodeError):
            socket.getaddrinfo(host, None)
            found.set()
        ended.set()

    threading.Thread(target=look_up, daemon=True).start()  # left behind where it hangs
    ended.wait(max(_LEAST, patience / _SHARE))
    return found.is_set()
