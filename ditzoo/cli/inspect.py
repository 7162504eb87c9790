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
    command = facts.pop("command", None)
    output.table(["field", "~value"], list(_rows(_worded(facts))))
    if command is not None:
        output.last_row("made with", command)


def _worded(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts about a file in words, where names and values for programs are hard to read. Those of a card stay fields."""
    if facts.get("kind") == "card":
        return facts
    words = dict(facts)
    if "flavour" in words:
        first: dict[str, Any] = {name: words.pop(name) for name in ("kind", "file", "graph") if name in words}
        flavour, version, precision, gpus = (words.pop(name) for name in ("flavour", "version", "precision", "gpus"))
        words = {**first, "runs on": f"{flavour} {version} {precision} on {', '.join(gpus)}", **words}
        words["seconds to build"] = words.pop("seconds")
    if "needs" in words:
        words["needs"] = [_need(package, versions) for package, versions in words["needs"].items()]
    if "graphs_verified" in words:
        checked = words["graphs_verified"]
        words["graphs_verified"] = {name: checked[name] for name in ("random", "trajectory", "tolerance")}
    if engines := words.get("engines"):
        words["engines"] = {name: _worded(engine) for name, engine in engines.items()}
        words["graphs_verified"]["engines"] = "not run; `ditzoo parity` compares them with torch on their GPU"
    return {name.replace("_", " "): value for name, value in words.items()}


def _need(package: str, versions: str) -> str:
    return f"{package} {versions[2:]}{' or newer' if versions.startswith('>=') else ''}"


def _rows(facts: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """The facts as rows. A dictionary of plain values is one row, with a line for each value. What is empty has no row."""
    for name, value in facts.items():
        full = f"{path}.{name}" if path else name
        if isinstance(value, dict) and any(isinstance(inner, dict | list | tuple) for inner in value.values()):
            yield from _rows(value, full)
        elif value not in ({}, [], ()):
            yield full, _text(value)


def _text(value: Any) -> str:
    """A value as text, with a line for each part. Fractions have four digits."""
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return "\n".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)
