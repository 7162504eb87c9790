"""Every card on this machine: those of the zoo, of the user's own file, and of pulled or imported models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, TypeAlias

from ditzoo.errors import UsageError, check_type, shown_path, unknown, wrong_type
from ditzoo.files import file_name, path_problem
from ditzoo.records import from_json, read_limited
from ditzoo.weights import store
from ditzoo.weights.aliases import find_name
from ditzoo.zoo import CARDS, toml
from ditzoo.zoo.card import Card

HUB = "hf:"
"""The prefix of a model's name that refers to a repository of the Hub: hf:OWNER/REPO."""

_CARD_FILE = "card.json"

_LIST = "`ditzoo list` shows all"


class HasCard(Protocol):
    """An object with a model's card: a bundle, a backend, or a loaded model."""

    @property
    def card(self) -> Card:
        """The model's card."""


CardLike: TypeAlias = Card | HasCard | str | os.PathLike[str]
"""Everything that identifies a card: the card itself, an object that has it, a model's name, or a bundle's folder."""


def written() -> dict[str, Card]:
    """The cards that were written by hand, by name: those of the zoo, and those of the user's own file (`DITZOO_ZOO`).

    A card of the user's file overrides the card of the same name in the zoo.
    """
    return {**CARDS, **toml.cards_of_environment(CARDS)}


def cards() -> dict[str, Card]:
    """Every card by name: those of `written`, and those of models that were pulled or imported under a name of their own."""
    damaged = {folder.card.name: folder.card for folder in store.unreadable() if folder.card}
    own = {stored.card.name: stored.card for stored in store.everything()}
    return {**damaged, **own, **written()}


def card(name: str) -> Card:
    """The card that `name` means: see `ditzoo.weights.aliases.find_name`.

    Raises UsageError, with near matches, if there is no such card.
    """
    check_type("name", name, str, "a model's name, such as 'dit-digits'")
    return _card(name, hint=_LIST)


def _card(name: str, *, hint: str) -> Card:
    """The card that `name` means. `hint` is the end of the message if there is none."""
    known = cards()
    if (found := find_name(name, known)) is not None:
        return known[found]
    for folder in store.unreadable():
        if folder.name in (name, file_name(name)):
            raise UsageError(f"{name} is damaged: {folder.problem}")
    if name.startswith(HUB):
        shown = shown_path(name)
        raise UsageError(f"{shown} is not on this machine; `ditzoo pull {shown}` fetches it")
    raise unknown("model", name, known, hint=hint)


def card_of(model: CardLike, *, argument: str = "model") -> Card:
    """The card that `model` identifies.

    Raises UsageError if the name is unknown, if the folder has no readable card, or if `model` has a wrong type. `argument` is
    what the error messages call the argument.
    """
    found = model if isinstance(model, Card) else getattr(model, "card", None)
    if isinstance(found, Card):
        return found
    if not isinstance(model, str | os.PathLike):
        raise wrong_type(argument, model, "a model's name, a bundle's folder, a Card or a Bundle")
    folder = folder_of(model)
    if folder is None:
        return _card(os.fspath(model), hint=f"there is no folder of this name here; {_LIST}")
    try:
        return from_json(read_limited(folder / _CARD_FILE), Card)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"{argument}: there is no bundle in {shown_path(folder)}: cannot read its {_CARD_FILE}: {reason}"
        ) from error


def folder_of(model: str | os.PathLike[str]) -> Path | None:
    """The folder that `model` refers to, or None if `model` is a model's name.

    A text that is both a known name and a path counts as the name. A folder comes before other ways to write a name.
    """
    text, path = os.fspath(model), Path(model)
    if not isinstance(model, str):
        return path
    exists = path_problem(path) is None and path.exists()
    is_path = (exists or path.name != text) and not text.startswith(HUB)
    known = cards() if is_path else {}
    return path if is_path and text not in known and (exists or find_name(text, known) is None) else None
