"""Protects the page from other web sites: who may ask, how much, and what a browser may do with the answers."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

API = "/api/"
"""The beginning of the paths that show or change something of the user. Other paths are files of the package."""

LARGEST_HEAD = 16 * 1024
"""The largest size of all headers of a request in bytes."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""What the page may load: its own files. No script or style stands in the page itself, and no text becomes HTML."""

HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
"""The headers of every answer."""


class Guard:
    """An ASGI application around another one. It refuses requests that did not come from the page itself.

    A site of someone else can make its name point to this machine (DNS rebinding), so `Host` must be a name of the loopback
    interface with the port. It can also send requests here from its own pages, so `Origin` and `Sec-Fetch-Site` must be those
    of the page. Only a request for the page's own files may come from a link elsewhere.
    """

    def __init__(self, app: ASGIApp, *, port: int) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((name.encode(), text.encode()) for name, text in HEADERS.items())]
            await send(message)

        answer = self._refusal(scope["path"], scope["headers"]) or self._app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, path: str, headers: Sequence[tuple[bytes, bytes]]) -> Response | None:
        """The answer that refuses a request, or None."""
        if sum(len(name) + len(value) for name, value in headers) > LARGEST_HEAD:
            return PlainTextResponse(f"the headers have more than {LARGEST_HEAD:,} bytes\n", status_code=431)
        fault = self._fault(path, headers)
        return None if fault is None else PlainTextResponse(f"{fault}\n", status_code=403)

    def _fault(self, path: str, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
        """What is wrong with the sender of a request, or None."""
        given: dict[str, list[str]] = {}
        for name, value in headers:
            given.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        hosts = given.get("host", [])
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return f"this page has the address http://{' or http://'.join(sorted(self._hosts))}, and no other"
        if any(origin != f"http://{hosts[0]}" for origin in given.get("origin", [])):
            return "the request comes from another site"
        if path.startswith(API) and any(site not in ("same-origin", "none") for site in given.get("sec-fetch-site", [])):
            return "the request comes from another site"
        return None
