"""Checks whether the server's name can be looked up. If it cannot, repeating a request does not help."""

from __future__ import annotations

import ipaddress
import socket
import threading
import urllib.request
from contextlib import suppress
from urllib.parse import urlsplit

_SHARE, _LEAST = 12, 2.5
"""A look-up of a name may take one twelfth of the patience with a server, and at least 2.5 seconds."""


def is_unresolved(error: BaseException | None) -> bool:
    """Whether a request failed because the server's name could not be looked up."""
    while error is not None:
        if isinstance(error, socket.gaierror):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_resolvable(url: str, *, patience: float) -> bool:
    """Whether the name of the server at `url` can be looked up within a twelfth of `patience`, or within 2.5 seconds if longer.

    IP addresses count as resolvable. So does every name if there is a proxy, because a proxy looks names up itself.
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

    threading.Thread(target=look_up, daemon=True).start()  # abandoned if it hangs
    ended.wait(max(_LEAST, patience / _SHARE))
    return found.is_set()
