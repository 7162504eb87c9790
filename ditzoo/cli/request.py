"""What was asked of `ditzoo sample`: which images, of what, by which plan."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ditzoo.cli import output
from ditzoo.cli.options import parse_classes, parse_interval
from ditzoo.errors import UsageError

if TYPE_CHECKING:
    from ditzoo.bundle import Bundle
    from ditzoo.plan.table import Plan
    from ditzoo.sampling.condition import Condition
    from ditzoo.sampling.request import SampleRequest
    from ditzoo.zoo.card import Card

DEFAULT_IMAGES = 10

_ASKED = (
    "classes",
    "num",
    "prompt",
    "prompts",
    "solver",
    "steps",
    "guidance",
    "guidance_interval",
    "guidance_times",
    "plan",
    "seed",
)


def choose_classes(card: Card, text: str | None) -> list[int]:
    """The classes that `--classes` names, or the model's first ten."""
    return list(range(min(DEFAULT_IMAGES, card.number_of_classes))) if text is None else parse_classes(card, text)


def check_alone(context: typer.Context, why: str, *, but: str = "") -> None:
    """Raises UsageError for an option, none but the one named `but`, that says again what to draw where something else does."""
    sources = {name: context.get_parameter_source(name) for name in _ASKED if name in context.params and name != but}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if given:
        raise UsageError(f"{why}; leave out --{given[0].replace('_', '-')}")


def shown(
    card: Card, classes: str | None, num: int | None, prompt: list[str] | None, prompts: Path | None
) -> tuple[int, list[int] | None, list[str] | None]:
    """How many images there are to be, and the class or the prompt of each, where the model takes one."""
    if num is not None and num < 1:
        raise UsageError(f"the number of images must be 1 or more, not {num}")
    texts = [*(prompt or ()), *_lines(prompts)]
    if card.text is not None:
        if classes is not None or not texts:
            raise UsageError(f"{card.name} draws from text: say --prompt, or --prompts FILE")
        return num or len(texts), None, list(islice(cycle(texts), num or len(texts)))
    if texts:
        raise UsageError(f"{card.name} takes no prompt{'; choose --classes' if card.number_of_classes else ''}")
    if not card.number_of_classes:
        if classes is not None:
            raise UsageError(f"{card.name} has no classes to choose from; say how many images with --num")
        return num or DEFAULT_IMAGES, None, None
    chosen = choose_classes(card, classes)
    return num or len(chosen), list(islice(cycle(chosen), num or len(chosen))), None


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--prompts: cannot read {path}: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def chosen_plan(
    card: Card,
    solver: str | None,
    steps: int | None,
    guidance: float | None,
    interval: str | None,
    times: str | None,
    path: Path | None,
) -> Plan:
    """The plan in the file at `path`, or the one that the other options ask for."""
    from ditzoo.plan.make import make_plan
    from ditzoo.plan.table import load_plan

    if path is not None:
        if (solver, steps, guidance, interval, times) != (None,) * 5:
            raise UsageError(
                "--plan says it all: leave out --solver, --steps, --guidance, --guidance-interval and --guidance-times"
            )
        return load_plan(path)
    return make_plan(
        card,
        solver=solver,
        steps=steps,
        guidance=guidance,
        guidance_interval=parse_interval(interval),
        guidance_times=parse_interval(times, option="--guidance-times"),
    )


def new_request(
    card: Card, plan: Plan, seed: int, count: int, classes: list[int] | None, prompts: list[str] | None
) -> SampleRequest:
    """All that is asked for; raises UsageError for a plan that is not for the model."""
    from ditzoo.plan.table import check_plan
    from ditzoo.sampling.request import SampleRequest

    check_plan(card, plan)
    return SampleRequest(
        model=card.name,
        plan=plan,
        seed=seed,
        count=count,
        classes=None if classes is None else tuple(classes),
        prompts=None if prompts is None else tuple(prompts),
    )


def condition_of(model: Card | Bundle, request: SampleRequest) -> Condition | None:
    """What the images are to show, as the network takes it."""
    from ditzoo.cli.models import card_of
    from ditzoo.pictures.text_encoder import prompt_condition
    from ditzoo.sampling.condition import class_condition

    if request.prompts is not None:
        with output.status("encoding the prompts"):
            return prompt_condition(model, request.prompts)
    return None if request.classes is None else class_condition(card_of(model), request.classes)
