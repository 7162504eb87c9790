"""The zoo: the table of every card."""

from __future__ import annotations

from ditzoo.zoo import dcae, digits, dit, sit, uvit
from ditzoo.zoo.card import Card

CARDS: dict[str, Card] = {card.name: card for card in (*digits.CARDS, *dit.CARDS, *sit.CARDS, *uvit.CARDS, *dcae.CARDS)}
