"""The options that several commands share, and the functions that parse them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from ditzoo.cli import complete
from ditzoo.errors import UsageError, shown_path

BACKEND = (
    "NAME[:OPTION...], such as torch:bf16:compile or onnxruntime:int8:single; the names are torch, diffusers, onnxruntime,"
    " openvino, tensorrt and tensorrt_rtx; see docs/parity.md"
)
"""The syntax of one backend in a list, for help texts."""

_MOST_PROMPTS = 64_000_000
"""The largest size of a file of prompts, in bytes."""

_WHAT_TO_DRAW = (
    *("classes", "num", "prompt", "prompts"),
    *(
        "solver",
        "steps",
        "guidance",
        "guidance_interval",
        "guidance_times",
        "guidance_every",
        "reuse",
        "plan",
        "resolution",
        "seed",
    ),
)
"""The parameters that determine the images."""

Model: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="NAME|DIR",
        help="A model's name (see `ditzoo list`), or a bundle's folder.",
        show_default=False,
        autocompletion=complete.models,
    ),
]
Name: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A model's name; see `ditzoo list`.", show_default=False, autocompletion=complete.models
    ),
]
Classes: TypeAlias = Annotated[
    str | None, typer.Option(metavar="LIST", help="Classes to draw: 0-9, 1,3,5-7 or names. Default: the first ten.")
]
Prompt: TypeAlias = Annotated[list[str] | None, typer.Option(help="What to draw, for text-to-image models. May be repeated.")]
Prompts: TypeAlias = Annotated[Path | None, typer.Option(help="A file of prompts, one per line.")]
Solver: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:OPTIONS]",
        help="Such as ddim:eta=0.5, or a scheduler of diffusers; see docs/samplers.md. Default: the model's.",
        autocompletion=complete.solvers,
    ),
]
Steps: TypeAlias = Annotated[int | None, typer.Option(help="The number of evaluations of the network. Default: the model's.")]
Guidance: TypeAlias = Annotated[
    float | None, typer.Option(help="Scale s in uncond + s (cond - uncond); 1 means no guidance. Default: the model's.")
]
GuidanceInterval: TypeAlias = Annotated[
    str | None, typer.Option(metavar="LOW,HIGH", help="Guide only if LOW < sigma/alpha <= HIGH. Default: always.")
]
GuidanceTimes: TypeAlias = Annotated[
    str | None, typer.Option(metavar="LOW,HIGH", help="Guide only if LOW <= t <= HIGH. Default: the model's.")
]
GuidanceEvery: TypeAlias = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Evaluate the null condition in every N-th guided row only; the others reuse cond - uncond. Default: in each row.",
    ),
]
GuidedChannels: TypeAlias = Annotated[
    int | None, typer.Option(help="Apply guidance only to the first so many channels. Default: the model's.")
]
Reuse: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="every=N,blocks=K",
        help="Run all blocks in every N-th evaluation only, else the first K and the last K; full=LIST,blocks=K lists the"
        " evaluations that run all, as 0-2,5,9. Default: run all blocks.",
    ),
]
Resolution: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="HxW",
        help="Size of the images in pixels: 256, or 256x384 (height x width). Default: the bundle's, or the model's.",
    ),
]
Seed: TypeAlias = Annotated[int, typer.Option(help="The noise of image i depends only on (seed, i).")]
Device: TypeAlias = Annotated[
    str, typer.Option(help="cpu, cuda, or cuda:1 for the second GPU.", autocompletion=complete.devices)
]
Threads: TypeAlias = Annotated[
    int | None, typer.Option(help="The number of CPU threads of the network. Default: by the free cores.")
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists already.")]
OutFolder: TypeAlias = Annotated[Path, typer.Option("--out", help="The folder to write.", show_default=False)]


def read_prompts(prompt: list[str] | None, file: Path | None) -> list[str] | None:
    """The prompts of `--prompt` and of the file of `--prompts`, which has one per line. None if there are no prompts.

    Raises UsageError if the file cannot be read.
    """
    if file is None:
        return prompt or None
    try:
        with file.open("rb") as opened:
            content = opened.read(_MOST_PROMPTS + 1)
        lines = content.decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"--prompts: cannot read {shown_path(file)}: {reason}") from error
    if len(content) > _MOST_PROMPTS:
        raise UsageError(f"--prompts: {file} has more than {_MOST_PROMPTS:,} bytes; split it")
    return [*(prompt or ()), *(line.strip() for line in lines if line.strip())] or None


def check_alone(context: typer.Context, why: str, *, allowed: Sequence[str] = ()) -> None:
    """Raises UsageError if an option that determines the images was given and is not `allowed`. `why` starts the message."""
    for name in _WHAT_TO_DRAW:
        source = context.get_parameter_source(name) if name in context.params and name not in allowed else None
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{why}; leave out --{name.replace('_', '-')}")


def parse_interval(text: str | None, *, option: str = "--guidance-interval") -> tuple[float, float] | None:
    """The two numbers of "0.28,2.9", or None if nothing was given. Raises UsageError for anything else."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        kind = "noise levels like 0.28,2.9" if option == "--guidance-interval" else "times like 0.125,1"
        raise UsageError(f"{option} takes two {kind}, not {text!r}") from None
    return low, high
