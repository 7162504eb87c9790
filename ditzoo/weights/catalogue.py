"""Every card that this machine knows: the zoo, the user's own file, and what was pulled or imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, TypeAlias

from ditzoo.errors import UsageError, check_type, unknown, wrong_type
from ditzoo.files import file_name
from ditzoo.records import from_json
from ditzoo.weights import store
from ditzoo.zoo import CARDS, toml
from ditzoo.zoo.card import Card

HUB = "hf:"
"""What stands before OWNER/REPO in the name of a model that is not in the zoo but on the Hub."""

_CARD_FILE = "card.json"


class HasCard(Protocol):
    """What runs a model, and so has its card: a bundle, a backend, a loaded model."""

    @property
    def card(self) -> Card:
        """The model's card."""


CardLike: TypeAlias = Card | HasCard | str | os.PathLike[str]
"""All that says which card is meant: a card, what has one, a model's name, or a bundle's folder."""


def written() -> dict[str, Card]:
    """Every card that somebody wrote, by name: the table, and what the user's own file (`DITZOO_ZOO`) adds or overrides."""
    return {**CARDS, **toml.cards_of_environment(CARDS)}


def cards() -> dict[str, Card]:
    """Every card by name: the zoo's, those that the user's own file (`DITZOO_ZOO`) adds or overrides, and those of models that
    were pulled or imported under another name."""
    damaged = {folder.card.name: folder.card for folder in store.unreadable() if folder.card}
    own = {stored.card.name: stored.card for stored in store.everything()}
    return {**damaged, **own, **written()}


def card(name: str) -> Card:
    """The card called `name`; raises UsageError, with near matches, if there is none."""
    check_type("name", name, str, "a model's name, such as 'dit-digits'")
    known = cards()
    if name in known:
        return known[name]
    for folder in store.unreadable():
        if folder.name in (name, file_name(name)):
            raise UsageError(f"{name} is damaged: {folder.problem}")
    if name.startswith(HUB):
        raise UsageError(f"{name} is not on this machine; `ditzoo pull {name}` fetches it")
    raise unknown("model", name, known, hint="`ditzoo list` shows all")


def card_of(model: CardLike, *, argument: str = "model") -> Card:
    """The card that `model` means. Raises UsageError for an unknown name, a folder without a card, and any other type.

    The errors of a type name the `argument`.
    """
    found = model if isinstance(model, Card) else getattr(model, "card", None)
    if isinstance(found, Card):
        return found
    if not isinstance(model, str | os.PathLike):
        raise wrong_type(argument, model, "a model's name, a bundle's folder, a Card or a Bundle")
    folder = folder_of(model)
    if folder is None:
        return card(os.fspath(model))
    try:
        return from_json((folder / _CARD_FILE).read_bytes(), Card)
    except (OSError, ValueError) as error:
        raise UsageError(f"{argument}: there is no bundle in {folder}: cannot read its {_CARD_FILE}: {error}") from error


def folder_of(model: str | os.PathLike[str]) -> Path | None:
    """The folder that `model` means, or None where it is a name: names of known models come first, then paths that exist."""
    text, path = os.fspath(model), Path(model)
    if not isinstance(model, str):
        return path
    is_path = (path.exists() or path.name != text) and not text.startswith(HUB)
    return path if is_path and text not in cards() else None
