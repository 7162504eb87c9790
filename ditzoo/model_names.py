"""From what a user calls a model (a name, a folder, a path) to its card or its bundle."""

from __future__ import annotations

import os
from typing import TypeAlias

from ditzoo.bundle import Bundle, open_bundle
from ditzoo.errors import wrong_type
from ditzoo.weights.catalogue import card, folder_of
from ditzoo.zoo.card import Card

ModelLike: TypeAlias = Card | Bundle | str | os.PathLike[str]
"""All that says which model is meant: a card, an opened bundle, a model's name, `hf:OWNER/REPO`, or a bundle's folder."""


def find_model(model: ModelLike, *, argument: str = "model") -> Card | Bundle:
    """The card or the bundle that `model` means.

    Raises UsageError for an unknown name, and for any other type, whose error names the `argument`. Raises BundleError for a
    folder that is no bundle, or whose files were changed.
    """
    if isinstance(model, Card | Bundle):
        return model
    if not isinstance(model, str | os.PathLike):
        raise wrong_type(argument, model, "a model's name, a bundle's folder, a Card or a Bundle")
    folder = folder_of(model)
    return card(os.fspath(model)) if folder is None else open_bundle(folder)
