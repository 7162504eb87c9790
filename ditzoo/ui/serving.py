"""Serves the page on the loopback interface until Ctrl-C."""

from __future__ import annotations

import socket
from importlib.util import find_spec

from ditzoo.errors import MissingPackageError, UsageError

HOST = "127.0.0.1"
"""The only address that is ever served."""

PORT = 8733

_MOST_CONNECTIONS = 64
"""The largest number of open connections."""

_PATIENCE = 5
"""The seconds that running work and open connections get at the end."""


def check_packages() -> None:
    """Raises MissingPackageError, with the pip command, if a package that the page needs is not installed."""
    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise MissingPackageError(f"the page needs the package {package}: pip install 'ditzoo[ui]'")


def bind(port: int) -> socket.socket:
    """A socket that listens on the loopback interface, and that accepts no connection from another machine.

    `port` is 1 to 65535, or 0 for a free one. Raises UsageError if it is out of range, taken, or not allowed.
    """
    if not 0 <= port <= 65_535:
        raise UsageError(f"--port takes 0 to 65535, not {port}")
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise UsageError(f"--port {port} cannot be used: {error.strerror}; --port 0 takes a free one") from error
    return listening


def address(listening: socket.socket) -> str:
    """The address of the page on a socket that listens."""
    return f"http://{HOST}:{listening.getsockname()[1]}"


def serve(listening: socket.socket) -> None:
    """Serves the page on a socket. Ctrl-C ends it with KeyboardInterrupt, after the running work was cancelled."""
    import uvicorn

    from ditzoo.ui.app import make_app
    from ditzoo.ui.drawing import Studio
    from ditzoo.ui.guard import LARGEST_HEAD, Guard
    from ditzoo.ui.jobs import Jobs

    jobs = Jobs(Studio().draw)

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            """Cancels the jobs first: their streams end with them."""
            jobs.stop()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        Guard(make_app(jobs), port=listening.getsockname()[1]),
        http="h11",
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS,
        h11_max_incomplete_event_size=LARGEST_HEAD,
        timeout_graceful_shutdown=_PATIENCE,
    )
    try:
        Server(config).run(sockets=[listening])
    finally:
        jobs.stop()
        jobs.join(_PATIENCE)
