"""The zoo: the table of every card, and the way from a name to one."""

from __future__ import annotations

from ditzoo.card import Card
from ditzoo.errors import UsageError, unknown
from ditzoo.hub import store
from ditzoo.zoo import dcae, digits, dit, sit, user, uvit

CARDS: dict[str, Card] = {card.name: card for card in (*digits.CARDS, *dit.CARDS, *sit.CARDS, *uvit.CARDS, *dcae.CARDS)}


def cards() -> dict[str, Card]:
    """Every card by name: the table, what the user's own file (`DITZOO_ZOO`) adds or overrides, and what was pulled or imported
    under a name of its own."""
    own = {stored.card.name: stored.card for stored in store.everything()}
    return {**own, **CARDS, **user.cards_of_environment(CARDS)}


def card(name: str) -> Card:
    """The card called `name`; raises UsageError, with near matches, if there is none."""
    known = cards()
    if name in known:
        return known[name]
    if name.startswith("hf:"):
        raise UsageError(f"{name} is not on this machine; `ditzoo pull {name}` fetches it")
    raise unknown("model", name, known, hint="`ditzoo list` shows all")
