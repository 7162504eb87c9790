"""What a user of the page asks for. Its fields are texts, which the library reads as it reads those of the command line."""

from __future__ import annotations

import math
import re
import shlex
from typing import Any

import msgspec

from ditzoo.backends.options import BackendSpec, parse_spec
from ditzoo.errors import check_count, unknown
from ditzoo.model.opening import check_openable
from ditzoo.plan.make import choose_plan
from ditzoo.records import Data
from ditzoo.sampling.request import SampleRequest, make_request
from ditzoo.ui.choices import backend_texts, check_decoder
from ditzoo.weights.catalogue import card
from ditzoo.zoo.card import Card

MOST_IMAGES = 64
"""The largest number of images of one job."""

MOST_PIXELS = MOST_IMAGES * 256 * 256
"""The largest number of pixels of all images of one backend."""

LONGEST = 8_000
"""The largest number of characters in a field."""


class Form(Data, frozen=True, kw_only=True):
    """The fields of the page, as the user typed them. "" means the model's own value. `other` is a second backend, or ""."""

    model: str
    backend: str
    other: str = ""
    classes: str = ""
    prompts: str = ""
    num: str = ""
    solver: str = ""
    steps: str = ""
    guidance: str = ""
    guidance_every: str = ""
    reuse: str = ""
    seed: str = ""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if len(getattr(self, name)) > LONGEST:
                raise ValueError(f"{name} has more than {LONGEST:,} characters")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A form that was checked: the model, its backends, the request, and the command that draws the same on the first one."""

    card: Card
    specs: tuple[BackendSpec, ...]
    request: SampleRequest
    command: str


def read_form(form: Form) -> Order:
    """Checks all fields of a form. Nothing is loaded: this takes milliseconds, and longer for plans of very many steps.

    Raises UsageError, PlanError, CheckpointError or MissingPackageError, with the message of the command line, if the model
    cannot draw this, or not here. Raises UsageError if there are too many images or pixels for the page.
    """
    model = card(form.model)
    texts, known = dict.fromkeys([form.backend, form.other or form.backend]), backend_texts()
    for text in texts:
        if text not in known:
            raise unknown("backend", text, known)
    specs = tuple(map(parse_spec, texts))
    check_openable(model, specs)
    check_decoder(model)
    return Order(card=model, specs=specs, request=_request(model, form), command=_command(form))


def _request(model: Card, form: Form) -> SampleRequest:
    num = _whole(form.num)
    if num is not None:
        check_count("the number of images", num, most=MOST_IMAGES)
    plan = choose_plan(
        model,
        None,
        solver=form.solver.strip() or None,
        steps=_whole(form.steps),
        guidance=_real(form.guidance),
        guidance_every=_whole(form.guidance_every),
        reuse=form.reuse.strip() or None,
    )
    request = make_request(
        model,
        plan,
        classes=form.classes.strip() or None,
        prompts=_lines(form) or None,
        num=num,
        seed=_whole(form.seed.strip() or "0"),
    )
    check_count("the number of images", request.count, most=most_images(model))
    return request


def most_images(model: Card) -> int:
    """The largest number of images of a model in one job."""
    return max(1, min(MOST_IMAGES, MOST_PIXELS // model.resolution**2))


def _whole(text: str) -> Any:
    """The whole number that a text is, or None for "". Any other text stays one, and the library refuses it as it was typed."""
    text = text.strip()
    return int(text) if re.fullmatch("[+-]?[0-9]{1,30}", text) else text or None


def _real(text: str) -> Any:
    """The number that a text is, or None for "". A text that is none, or too large for a float, stays as it was typed."""
    text = text.strip()
    try:
        number = float(text)
    except ValueError:
        return text or None
    return text if math.isinf(number) else number


def _command(form: Form) -> str:
    """The command line that draws the same on the first backend."""
    names = ("backend", "classes", "num", "solver", "steps", "guidance", "guidance_every", "reuse", "seed")
    options = [(f"--{name.replace('_', '-')}", getattr(form, name).strip()) for name in names]
    options += [("--prompt", line) for line in _lines(form)]
    return shlex.join(["ditzoo", "sample", form.model, *(word for option in options if option[1] for word in option)])


def _lines(form: Form) -> list[str]:
    """The prompts of a form: the lines that are not empty."""
    return [line.strip() for line in form.prompts.splitlines() if line.strip()]
