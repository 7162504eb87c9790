"""The names of classes.

The thousand names of ImageNet, in the order of the label numbers, come from torchvision 0.29.2 (`torchvision.models._meta`,
BSD-3-Clause). Its licence is in the same folder as the list, `ditzoo/assets`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ditzoo.errors import UsageError, unknown
from ditzoo.zoo.card import Card
from ditzoo.zoo.icons import ICONS

_IMAGENET = Path(__file__).parent.parent / "assets" / "imagenet-classes.txt"

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""The English words for the classes of the digits models. Users may write them; files and tables show the numbers."""


def class_names(card: Card) -> tuple[str, ...]:
    """The name of every class of a model, in the order of the class numbers; empty for a model without labels.

    If no names are known, for example because a user's card changed the number of classes, the names are the numbers.
    """
    names = _imagenet() if card.classes == "imagenet" else ICONS if card.classes == "icons" else ()
    return names if len(names) == card.number_of_classes else tuple(map(str, range(card.number_of_classes)))


def labels_of(card: Card, numbers: Iterable[int]) -> list[str]:
    """What to call the classes `numbers` for a reader: "star (9)", or the number alone if the class has no name."""
    names = class_names(card)
    return [str(number) if names[number] == str(number) else f"{names[number]} ({number})" for number in numbers]


def captions(card: Card, numbers: Iterable[int]) -> list[str]:
    """What stands above pictures of the classes `numbers`: the name of each class, or its number if it has no name."""
    names = class_names(card)
    return [names[number] for number in numbers]


def class_number(card: Card, name: str, *, argument: str = "classes") -> int:
    """The number of the class called `name`, in upper or lower case: a name in `class_names`, or the English word for a digit.

    Raises UsageError, with near matches, if no class has that name, and if several classes have it. `argument` is what the
    error message calls the argument.
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
