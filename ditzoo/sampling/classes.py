"""The classes that a user chooses. Numbers, ranges and names of classes are read and become class numbers."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import SupportsIndex, TypeAlias

from ditzoo.errors import UsageError, each_of, whole_number
from ditzoo.ranges import parse_ranges
from ditzoo.zoo.card import Card
from ditzoo.zoo.class_names import class_number

Classes: TypeAlias = str | Iterable[SupportsIndex | str]
"""Classes by number, range or name: [3, "seven"], [207, "golden retriever"], or a text such as "0-9" or "1,3,5-7"."""

MOST_IMAGES = 1_000_000
"""The largest number of images in one request. A request stores the class or the prompt of each image."""

_TAKES = "a list of class numbers and names, such as [3, 'seven'], or a text such as '0-9'"


def choose_classes(card: Card, classes: Classes, *, argument: str = "classes") -> list[int]:
    """The class numbers that `classes` stands for, in the order given.

    Raises UsageError, which names the `argument`, if the model does not have a class, if there are more than `MOST_IMAGES`, or
    if `classes` has a wrong type.
    """
    parts = each_of(argument, classes.split(",") if isinstance(classes, str) else classes, _TAKES)
    numbers = chain.from_iterable(_numbers_of(card, part, argument) for part in parts)
    chosen = [card.check_class(number) for number in islice(numbers, MOST_IMAGES + 1)]
    if len(chosen) > MOST_IMAGES:
        raise UsageError(f"{argument} has more than {MOST_IMAGES:,} classes, one for each image; draw fewer images at once")
    return chosen


def _numbers_of(card: Card, part: SupportsIndex | str, argument: str) -> list[int]:
    """The class numbers of one part of a list. No range that ends outside the classes of the model is expanded."""
    if isinstance(part, str):
        text = part.strip()
        named = card.classes is not None and not text[:1].isdecimal()
        if named:
            return [class_number(card, text, argument=argument)]
        ranges = parse_ranges(text, argument=argument)
        for each in ranges:
            card.check_class(each[-1])
        return [number for each in ranges for number in each]
    return [whole_number(argument, part, _TAKES)]
