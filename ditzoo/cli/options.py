"""The options that commands share, and how their texts are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from ditzoo.errors import UsageError

Model: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="NAME|DIR", help="A model's name (see `ditzoo list`), or a bundle's folder.", show_default=False),
]
Name: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="A model's name; see `ditzoo list`.", show_default=False)]
Classes: TypeAlias = Annotated[
    str | None, typer.Option(metavar="LIST", help="Classes to draw, one image each: 0-9 or 1,3,5-7. [default: the first ten]")
]
Solver: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME[:OPTION=VALUE,...]", help="ddpm, ddim or dpmpp, e.g. ddim:eta=0.5. [default: the model's]"),
]
Steps: TypeAlias = Annotated[int | None, typer.Option(help="Evaluations of the network. [default: the model's]")]
Guidance: TypeAlias = Annotated[
    float | None, typer.Option(help="Scale s in uncond + s (cond - uncond); 1 is none. [default: the model's]")
]
Seed: TypeAlias = Annotated[int, typer.Option(help="Image i gets its noise from (seed, i) alone.")]
Device: TypeAlias = Annotated[str, typer.Option(help="cpu or cuda.")]
Threads: TypeAlias = Annotated[int | None, typer.Option(help="CPU threads of the network. [default: all]")]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there already.")]
OutFolder: TypeAlias = Annotated[Path, typer.Option("--out", help="The folder to write.", show_default=False)]


def parse_numbers(text: str, *, option: str = "--classes") -> list[int]:
    """The numbers of a list like "0-9" or "1,3,5-7"; raises UsageError, naming the part that is none."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"{part.strip()!r} in {option} is neither a number nor a range; write 3, 0-9 or 1,3,5-7")
        if dash and int(last) < int(first):
            raise UsageError(f"the range {part.strip()!r} in {option} runs backwards; write {last}-{first}")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers
