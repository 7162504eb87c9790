"""Finds the card or the bundle of a model from its name or from the path of a folder."""

from __future__ import annotations

import os
from typing import TypeAlias

from ditzoo.bundle import Bundle, open_bundle
from ditzoo.errors import wrong_type
from ditzoo.weights.catalogue import card_of, folder_of
from ditzoo.zoo.card import Card

ModelLike: TypeAlias = Card | Bundle | str | os.PathLike[str]
"""The ways to name a model: a card, an opened bundle, a model's name, `hf:OWNER/REPO`, or the path of a bundle's folder."""


def find_model(model: ModelLike, *, argument: str = "model") -> Card | Bundle:
    """Returns the card or the bundle that `model` names.

    Raises UsageError if the name is unknown or if `model` has another type; the message then names the `argument`. Raises
    BundleError if the folder is not a bundle or if its files were changed.
    """
    if isinstance(model, Card | Bundle):
        return model
    if not isinstance(model, str | os.PathLike):
        raise wrong_type(argument, model, "a model's name, a bundle's folder, a Card or a Bundle")
    folder = folder_of(model)
    return card_of(model) if folder is None else open_bundle(folder)
