"""`ditzoo inspect` and `ditzoo cache`: what is in an exported file, and whether the cache is sound."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ditzoo.cli import output
from ditzoo.cli.options import Json
from ditzoo.errors import BundleError

app = typer.Typer(help="What ditzoo keeps to find again.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `verify` a command of its own while there is no other."""


def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A bundle's folder, an ONNX file or an engine.", show_default=False)
    ],
    json: Json = False,
) -> None:
    """Show what an exported file takes, gives and holds, where it runs, and what made it."""
    from ditzoo.cli.models import exporter

    exporter()
    from ditzoo_export.inspection import inspect as look

    facts = look(path)
    if json:
        output.json(facts)
        return
    output.table(["field", "value"], [(name, _text(value)) for name, value in facts.items()])


@app.command("verify")
def verify() -> None:
    """Read every file in the cache again and compare checksums; exit status 1 if one is damaged."""
    from ditzoo.bundle import is_bundle, open_bundle
    from ditzoo.files import cache_dir

    bad = 0
    for folder in sorted(path for kind in ("bundles", "engines") for path in (cache_dir() / kind).glob("*") if is_bundle(path)):
        try:
            open_bundle(folder, again=True)
            output.data(f"sound {folder}")
        except BundleError as error:
            bad += 1
            output.data(f"damaged {folder}")
            output.error(str(error))
    if bad:
        raise typer.Exit(1)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name}: {inner}" for name, inner in value.items())
    return "\n".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
