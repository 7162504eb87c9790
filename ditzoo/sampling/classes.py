"""The classes that a user chooses. Numbers, ranges and names of classes are read and become class numbers."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import SupportsIndex, TypeAlias

from ditzoo.errors import wrong_type
from ditzoo.ranges import parse_ranges
from ditzoo.zoo.card import Card
from ditzoo.zoo.class_names import class_number

Classes: TypeAlias = str | Iterable[SupportsIndex | str]
"""Classes by number, range or name: [3, "seven"], [207, "golden retriever"], or a text such as "0-9" or "1,3,5-7"."""

_TAKES = "a list of class numbers and names, such as [3, 'seven'], or a text such as '0-9'"


def choose_classes(card: Card, classes: Classes, *, argument: str = "classes") -> list[int]:
    """The class numbers that `classes` stands for, in the order given.

    Raises UsageError, which names the `argument`, if the model does not have a class, or if `classes` has a wrong type.
    """
    parts = classes.split(",") if isinstance(classes, str) else classes
    if not isinstance(parts, Iterable):
        raise wrong_type(argument, classes, _TAKES)
    numbers: list[int] = []
    for part in parts:
        numbers.extend(_numbers_of(card, part, argument))
    return [card.check_class(number) for number in numbers]


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
    try:
        return [operator.index(part)]
    except TypeError:
        raise wrong_type(argument, part, _TAKES) from None
