"""The classes that a user chooses. Numbers, ranges and names of classes are read and become class numbers."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import SupportsIndex, TypeAlias

from ditzoo.errors import UsageError, wrong_type
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


def parse_numbers(text: str, *, argument: str) -> list[int]:
    """The numbers in a list like "0-9" or "1,3,5-7". Raises UsageError if a part is neither a number nor a range."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"{part.strip()!r} in {argument} is neither a number nor a range; write 3, 0-9 or 1,3,5-7")
        if dash and int(last) < int(first):
            raise UsageError(f"the range {part.strip()!r} in {argument} runs backwards; write {last}-{first}")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def _numbers_of(card: Card, part: SupportsIndex | str, argument: str) -> list[int]:
    """The class numbers of one part of a list."""
    if isinstance(part, str):
        text = part.strip()
        named = card.classes is not None and not text[:1].isdecimal()
        return [class_number(card, text, argument=argument)] if named else parse_numbers(text, argument=argument)
    try:
        return [operator.index(part)]
    except TypeError:
        raise wrong_type(argument, part, _TAKES) from None
