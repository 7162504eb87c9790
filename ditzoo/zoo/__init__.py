"""The zoo: the table of all cards that come with the package, by the model's name."""

from __future__ import annotations

from ditzoo.zoo import dcae, digits, dit, icons, lightningdit, sit, uvit
from ditzoo.zoo.card import Card

_TABLES = (icons, digits, dit, sit, lightningdit, uvit, dcae)

CARDS: dict[str, Card] = {card.name: card for table in _TABLES for card in table.CARDS}
