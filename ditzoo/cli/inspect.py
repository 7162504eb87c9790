"""The command `ditzoo inspect`: describes an exported file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ditzoo.cli import output
from ditzoo.cli.options import Json


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A bundle's folder, or its plan.json, card.json, manifest.json, a graph or an engine; or any ONNX file.",
            show_default=False,
        ),
    ],
    json: Json = False,
) -> None:
    """Show the inputs, outputs and contents of an exported file, where it runs, and which versions made it."""
    from ditzoo_export.inspection import inspect as look

    facts = look(path)
    if json:
        output.json(facts)
        return
    output.table(["field", "~value"], list(_rows(facts)))


def _rows(facts: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """The facts as rows. A dictionary of plain values is one row, with a line for each value."""
    for name, value in facts.items():
        full = f"{path}.{name}" if path else name
        if isinstance(value, dict) and any(isinstance(inner, dict | list) for inner in value.values()):
            yield from _rows(value, full)
        elif isinstance(value, dict):
            yield full, "\n".join(f"{key}: {_number(inner)}" for key, inner in value.items())
        elif isinstance(value, list):
            yield full, "\n".join(map(_number, value))
        else:
            yield full, _number(value)


def _number(value: Any) -> str:
    """A value as text. Fractions have four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
