"""The names of classes.

ImageNet's thousand, in the order of the label numbers, are torchvision 0.29.2's (`torchvision.models._meta`, BSD-3-Clause; its
licence lies beside the list in `ditzoo/assets`).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ditzoo.errors import UsageError, unknown
from ditzoo.zoo.card import Card

_IMAGENET = Path(__file__).parent.parent / "assets" / "imagenet-classes.txt"

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""The English words for the classes of the digits models. Files and tables show the numbers."""


def class_names(card: Card) -> tuple[str, ...]:
    """The name of every class of a model, by its number; empty for a model without labels. Classes of which no names are known,
    such as those of a model that a user's card has given another number of them, are called by their numbers."""
    if card.classes == "imagenet" and card.number_of_classes == len(_imagenet()):
        return _imagenet()
    return tuple(map(str, range(card.number_of_classes)))


def class_number(card: Card, name: str, *, argument: str = "classes") -> int:
    """The number of the class called `name`, in upper or lower case: a name of ImageNet, or the English word for a digit.

    Raises UsageError, with near matches, for a name that no class of the model has, and for one that several classes share.
    """
    is_digits = card.classes == "digits" and card.number_of_classes == len(_DIGITS)
    known = [each.lower() for each in (_DIGITS if is_digits else class_names(card))]
    numbers = [number for number, each in enumerate(known) if each == name.lower()]
    if not numbers:
        raise unknown("class", name, known, hint=f"or a number, 0 to {len(known) - 1}")
    if len(numbers) > 1:
        choices = ", ".join(map(str, numbers))
        raise UsageError(f"{name!r} in {argument} is the name of several classes; write one of {choices}")
    return numbers[0]


@cache
def _imagenet() -> tuple[str, ...]:
    return tuple(_IMAGENET.read_text(encoding="utf-8").splitlines())
