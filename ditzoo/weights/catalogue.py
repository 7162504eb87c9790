"""Every card that this machine knows: the zoo, the user's own file, and what was pulled or imported."""

from __future__ import annotations

from ditzoo.errors import UsageError, unknown
from ditzoo.weights import store
from ditzoo.zoo import CARDS, toml
from ditzoo.zoo.card import Card


def written() -> dict[str, Card]:
    """Every card that somebody wrote, by name: the table, and what the user's own file (`DITZOO_ZOO`) adds or overrides."""
    return {**CARDS, **toml.cards_of_environment(CARDS)}


def cards() -> dict[str, Card]:
    """Every card by name: the table, what the user's own file (`DITZOO_ZOO`) adds or overrides, and what was pulled or imported
    under a name of its own."""
    own = {stored.card.name: stored.card for stored in store.everything()}
    return {**own, **written()}


def card(name: str) -> Card:
    """The card called `name`; raises UsageError, with near matches, if there is none."""
    known = cards()
    if name in known:
        return known[name]
    if name.startswith("hf:"):
        raise UsageError(f"{name} is not on this machine; `ditzoo pull {name}` fetches it")
    raise unknown("model", name, known, hint="`ditzoo list` shows all")
