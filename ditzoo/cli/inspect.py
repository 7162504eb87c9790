"""The command `ditzoo inspect`: describes an exported file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ditzoo.cli import output
from ditzoo.cli.options import Json


def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A bundle's folder, an ONNX file or an engine.", show_default=False)
    ],
    json: Json = False,
) -> None:
    """Show the inputs, outputs and contents of an exported file, where it runs, and which versions made it."""
    from ditzoo.model.exporting import check_exporter

    check_exporter()
    from ditzoo_export.inspection import inspect as look

    facts = look(path)
    if json:
        output.json(facts)
        return
    output.table(["field", "~value"], [(name, _text(value)) for name, value in facts.items()])


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name}: {inner}" for name, inner in value.items())
    return "\n".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
