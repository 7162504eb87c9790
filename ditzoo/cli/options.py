"""The options that commands share, and how their texts are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ditzoo.errors import UsageError, unknown

if TYPE_CHECKING:
    from ditzoo.zoo.card import Card

BACKEND = "NAME[:OPTION...], such as torch:bf16:compile or onnxruntime:int8:single; see docs/parity.md"
"""How a backend of a list is written."""

Model: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="NAME|DIR", help="A model's name (see `ditzoo list`), or a bundle's folder.", show_default=False),
]
Name: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="A model's name; see `ditzoo list`.", show_default=False)]
Classes: TypeAlias = Annotated[
    str | None, typer.Option(metavar="LIST", help="Classes to draw: 0-9, 1,3,5-7 or ImageNet names. [default: the first ten]")
]
Prompt: TypeAlias = Annotated[list[str] | None, typer.Option(help="What to draw, for models of text; may be repeated.")]
Prompts: TypeAlias = Annotated[Path | None, typer.Option(help="A file of prompts, one a line.")]
Solver: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:OPTION=VALUE,...]",
        help="E.g. ddim:eta=0.5 or diffusers:UniPCMultistepScheduler; see docs/samplers.md. [default: the model's]",
    ),
]
Steps: TypeAlias = Annotated[int | None, typer.Option(help="Evaluations of the network. [default: the model's]")]
Guidance: TypeAlias = Annotated[
    float | None, typer.Option(help="Scale s in uncond + s (cond - uncond); 1 is none. [default: the model's]")
]
GuidanceInterval: TypeAlias = Annotated[
    str | None, typer.Option(metavar="LOW,HIGH", help="Guide only where LOW < sigma/alpha <= HIGH. [default: everywhere]")
]
GuidanceTimes: TypeAlias = Annotated[
    str | None, typer.Option(metavar="LOW,HIGH", help="Guide only where LOW <= t <= HIGH. [default: the model's]")
]
GuidedChannels: TypeAlias = Annotated[
    int | None, typer.Option(help="On how many channels, from the first, guidance acts. [default: the model's]")
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


def parse_classes(card: Card, text: str) -> list[int]:
    """The classes of a list like "0-9", "1,3,5-7" or "golden retriever,7"; raises UsageError for the part that is none."""
    numbers: list[int] = []
    for part in map(str.strip, text.split(",")):
        named = card.classes == "imagenet" and not part[:1].isdecimal()
        numbers.extend([_by_name(card, part)] if named else parse_numbers(part))
    return numbers


def _by_name(card: Card, name: str) -> int:
    from ditzoo.zoo.class_names import class_names

    known = [known.lower() for known in class_names(card)]
    numbers = [str(number) for number, each in enumerate(known) if each == name.lower()]
    if not numbers:
        raise unknown("class", name, known)
    if len(numbers) > 1:
        raise UsageError(f"{name!r} in --classes is the name of several classes; write one of {', '.join(numbers)}")
    return int(numbers[0])


def parse_interval(text: str | None, *, option: str = "--guidance-interval") -> tuple[float, float] | None:
    """The two numbers of "0.28,2.9", or None where nothing was said; raises UsageError for anything else."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        kind = "noise levels like 0.28,2.9" if option == "--guidance-interval" else "times like 0.125,1"
        raise UsageError(f"{option} takes two {kind}, not {text!r}") from None
    return low, high
