"""The zoo: the table of every card, and the way from a name to one."""

from __future__ import annotations

from ditzoo.card import Card
from ditzoo.errors import unknown
from ditzoo.zoo import dcae, digits, dit, sit, uvit

CARDS: dict[str, Card] = {card.name: card for card in (*digits.CARDS, *dit.CARDS, *sit.CARDS, *uvit.CARDS, *dcae.CARDS)}


def card(name: str) -> Card:
    """The card called `name`; raises UsageError, with near matches, if there is none."""
    if name not in CARDS:
        raise unknown("model", name, CARDS, hint="`ditzoo list` shows all")
    return CARDS[name]
