"""The command `ditzoo ui`."""

from __future__ import annotations

from typing import Annotated

import typer

from ditzoo.cli import output
from ditzoo.ui.serving import PORT, address, bind, check_packages, serve


def ui(
    port: Annotated[int, typer.Option(help="The port of the page on 127.0.0.1; 0 takes a free one.")] = PORT,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve a local web page: draw pictures, watch them appear, and compare two backends. Ctrl-C ends it.

    Only this machine can reach the page. It offers the models whose weights are here, and makes no request to a network.
    """
    import os

    check_packages()
    os.environ["HF_HUB_OFFLINE"] = "1"
    listening = bind(port)
    output.talk(f"the page is at {address(listening)} (Ctrl-C ends it)")
    if open_:
        import webbrowser

        webbrowser.open(address(listening))
    serve(listening)
