"""The names of classes.

ImageNet's thousand, in the order of the label numbers, are torchvision 0.29.2's (`torchvision.models._meta`, BSD-3-Clause; its
licence lies beside the list in `ditzoo/assets`).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ditzoo.zoo.card import Card

_IMAGENET = Path(__file__).parent.parent / "assets" / "imagenet-classes.txt"


def class_names(card: Card) -> tuple[str, ...]:
    """The name of every class of a model, by its number; empty for a model without labels. Classes of which no names are known,
    such as those of a model that a user's card has given another number of them, are called by their numbers."""
    if card.classes == "imagenet" and card.number_of_classes == len(_imagenet()):
        return _imagenet()
    return tuple(map(str, range(card.number_of_classes)))


@cache
def _imagenet() -> tuple[str, ...]:
    return tuple(_IMAGENET.read_text(encoding="utf-8").splitlines())
