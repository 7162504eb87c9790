"""The request for some images of a model. It has all settings that are needed to draw the same images again.

PNG files that ditzoo writes hold it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle, islice
from typing import Literal

import msgspec

from ditzoo.errors import UsageError, check_count, check_type, described, each_of, shortened, whole_number
from ditzoo.plan.table import Plan, check_plan
from ditzoo.records import Data
from ditzoo.sampling.classes import MOST_IMAGES, Classes, choose_classes
from ditzoo.sampling.noise import MAX_SEED
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import Size, own_size

DEFAULT_IMAGES = 10
"""The number of classes, counted from the first, or of images of an unconditional model, that are drawn by default."""

_PROMPTS = "a text or a list of texts"


class SampleRequest(Data, frozen=True, kw_only=True):
    """The request for the images with the numbers `first` to `first` + `count` − 1 under `seed`, for a model and a plan.

    `classes` or `prompts` has one entry for each image, if the model takes them. `size` is the height and width of the latents.
    It is left out if it is the size of training.
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
        if not 1 <= self.count <= MOST_IMAGES:
            raise ValueError(f"{self.count} images; a request is for 1 to {MOST_IMAGES:,}")
        if not (0 <= self.seed <= MAX_SEED and 0 <= self.first <= MAX_SEED - self.count):
            raise ValueError(f"seed {self.seed} and first image {self.first}; both must be 0 to {MAX_SEED}")
        for shown in (self.classes, self.prompts):
            if shown is not None and len(shown) != self.count:
                raise ValueError(f"{self.count} images, but {len(shown)} classes or prompts")

    def latent_size(self, card: Card) -> Size:
        """Height and width of the latents. `card` is the card of the model."""
        return own_size(card) if isinstance(self.size, msgspec.UnsetType) else self.size

    def only(self, i: int) -> SampleRequest:
        """The request for a single image: the one at index `i` of this request."""
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
    """The request for `num` images of a model. The images show the `classes` or the `prompts` in turn.

    Without `num` there is one image for each class or prompt. Without `classes`, a class-conditional model draws its first ten
    classes. An unconditional model draws ten images. `size` is the height and width of the latents (default: the size of
    training). Errors about classes name the `argument`.

    Raises UsageError if the plan is not for the model, if the model does not take the classes or prompts, or if the number of
    images or the seed is out of range.
    """
    check_type("plan", plan, Plan, "a Plan, such as make_plan makes")
    check_plan(card, plan)
    check_count("the number of images", 1 if num is None else num)
    check_seed(seed)
    texts = _texts(prompts)
    _check_shown(card, classes=classes is not None, prompts=bool(texts))
    if card.text is None and classes is None and card.number_of_classes:
        classes = range(min(DEFAULT_IMAGES, card.number_of_classes))
    numbers = [] if classes is None else choose_classes(card, classes, argument=argument)
    if classes is not None and not numbers:
        raise UsageError(f"{argument} is empty; choose at least one class")
    count = num or len(numbers) or len(texts) or DEFAULT_IMAGES
    check_count("the number of images", count, most=MOST_IMAGES)
    return SampleRequest(
        model=card.name,
        plan=plan,
        seed=int(seed),
        count=int(count),
        classes=tuple(islice(cycle(numbers), count)) if numbers else None,
        prompts=tuple(islice(cycle(texts), count)) if texts else None,
        size=msgspec.UNSET if size in (None, own_size(card)) else size,
    )


def check_repeatable(card: Card, request: SampleRequest) -> None:
    """Raises UsageError if a request, which comes from a file, is not for the model of `card`."""
    check_plan(card, request.plan)
    _check_shown(card, classes=request.classes is not None, prompts=bool(request.prompts))
    if card.number_of_classes and card.text is None and request.classes is None:
        raise UsageError(f"the request has no classes, and {card.name} needs one for each image")


def _check_shown(card: Card, *, classes: bool, prompts: bool) -> None:
    """Raises UsageError if the model does not take classes or prompts that are given, or needs prompts that are not."""
    if card.text is None and prompts:
        raise UsageError(f"{card.name} takes no prompts{'; choose classes (--classes)' if card.number_of_classes else ''}")
    if card.text is not None and (classes or not prompts):
        raise UsageError(f"{card.name} draws from text: give prompts (--prompt, or --prompts FILE), and no classes")
    if classes and not card.number_of_classes:
        raise UsageError(f"{card.name} has no classes to choose from; say how many images (--num)")


def check_seed(seed: int) -> None:
    """Raises UsageError unless `seed` is a whole number of 64 bits."""
    number = whole_number("seed", seed, f"a whole number, 0 to {MAX_SEED}")
    if not 0 <= number <= MAX_SEED:
        raise UsageError(f"seed must be 0 to {MAX_SEED}, not {described(number)}")


def _texts(prompts: str | Iterable[str] | None) -> list[str]:
    """The prompts as a list. A single text becomes a list of one prompt."""
    if prompts is None:
        return []
    texts = list(islice(each_of("prompts", [prompts] if isinstance(prompts, str) else prompts, _PROMPTS), MOST_IMAGES + 1))
    for text in texts:
        check_type("prompts", text, str, _PROMPTS)
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UsageError(f"the prompt {shortened(text)!r} is not UTF-8; write it in UTF-8")
    return texts
