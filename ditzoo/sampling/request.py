"""What was asked of a model to get some pictures: enough to get them again. It travels inside PNG files."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from itertools import cycle, islice
from typing import Literal

import msgspec

from ditzoo.errors import UsageError, check_type, wrong_type
from ditzoo.plan.table import Plan, check_plan
from ditzoo.records import Data
from ditzoo.sampling.classes import Classes, choose_classes
from ditzoo.sampling.noise import MAX_SEED
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import Size, own_size

DEFAULT_IMAGES = 10
"""How many classes are drawn, from the first, or how many images of an unconditional model, where nothing is chosen."""


_PROMPTS = "a text or a list of texts"


class SampleRequest(Data, frozen=True, kw_only=True):
    """Images number `first` to `first` + `count` − 1 under `seed`, by a model and a plan, of classes or prompts where it takes
    them, one each.

    `size` is the height and width of the latents. It is left out if it is that of the model's training.
    """

    format: Literal["ditzoo-drawing/1"] = "ditzoo-drawing/1"
    model: str
    plan: Plan
    seed: int
    first: int = 0
    count: int
    classes: tuple[int, ...] | None = None
    prompts: tuple[str, ...] | None = None
    size: Size | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        for shown in (self.classes, self.prompts):
            if shown is not None and len(shown) != self.count:
                raise ValueError(f"{self.count} images, but {len(shown)} of what they show")

    def latent_size(self, card: Card) -> Size:
        """Height and width of the latents; `card` is that of the model."""
        return own_size(card) if isinstance(self.size, msgspec.UnsetType) else self.size

    def only(self, i: int) -> SampleRequest:
        """The request for the image at place `i` alone."""
        return msgspec.structs.replace(
            self,
            first=self.first + i,
            count=1,
            classes=self.classes and self.classes[i : i + 1],
            prompts=self.prompts and self.prompts[i : i + 1],
        )


def make_request(
    card: Card,
    plan: Plan,
    *,
    classes: Classes | None = None,
    prompts: str | Iterable[str] | None = None,
    num: int | None = None,
    seed: int = 0,
    size: Size | None = None,
    argument: str = "classes",
) -> SampleRequest:
    """The request for `num` images of a model, which take turns at the `classes` or the `prompts`.

    Without `num` there is one image for each class or prompt. Without `classes`, a model of classes draws its first ten; a
    model of neither classes nor prompts draws ten images. `size` is the height and width of the latents; by default that of
    training. Errors about classes name the `argument`.

    Raises UsageError for a plan that is not for the model, for classes or prompts that the model does not take, and for a
    number of images or a seed out of range.
    """
    check_type("plan", plan, Plan, "a Plan, such as make_plan makes")
    check_plan(card, plan)
    check_count("the number of images", 1 if num is None else num)
    check_seed(seed)
    texts = _texts(prompts)
    if card.text is None and texts:
        raise UsageError(f"{card.name} takes no prompts{'; choose classes (--classes)' if card.number_of_classes else ''}")
    if card.text is not None and (classes is not None or not texts):
        raise UsageError(f"{card.name} draws from text: give prompts (--prompt, or --prompts FILE), and no classes")
    if classes is not None and not card.number_of_classes:
        raise UsageError(f"{card.name} has no classes to choose from; say how many images (--num)")
    if card.text is None and classes is None and card.number_of_classes:
        classes = range(min(DEFAULT_IMAGES, card.number_of_classes))
    numbers = [] if classes is None else choose_classes(card, classes, argument=argument)
    if classes is not None and not numbers:
        raise UsageError(f"{argument} is empty; choose at least one class")
    count = num or len(numbers) or len(texts) or DEFAULT_IMAGES
    return SampleRequest(
        model=card.name,
        plan=plan,
        seed=int(seed),
        count=int(count),
        classes=tuple(islice(cycle(numbers), count)) if numbers else None,
        prompts=tuple(islice(cycle(texts), count)) if texts else None,
        size=msgspec.UNSET if size in (None, own_size(card)) else size,
    )


def check_count(name: str, value: int) -> None:
    """Raises UsageError, with the `name`, unless `value` is a whole number from 1 on."""
    try:
        number = operator.index(value)
    except TypeError:
        raise wrong_type(name, value, "a whole number, 1 or more") from None
    if number < 1:
        raise UsageError(f"{name} must be 1 or more, not {value}")


def check_seed(seed: int) -> None:
    """Raises UsageError unless `seed` is a whole number of 64 bits."""
    try:
        number = operator.index(seed)
    except TypeError:
        raise wrong_type("seed", seed, f"a whole number, 0 to {MAX_SEED}") from None
    if not 0 <= number <= MAX_SEED:
        raise UsageError(f"seed must be 0 to {MAX_SEED}, not {seed}")


def _texts(prompts: str | Iterable[str] | None) -> list[str]:
    """The prompts as a list; one prompt may stand alone."""
    if prompts is None:
        return []
    check_type("prompts", prompts, Iterable, _PROMPTS)
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    for text in texts:
        check_type("prompts", text, str, _PROMPTS)
    return texts
