"""Finds the card that people mean by the name of a repository or of a paper, in upper or lower case."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ditzoo.zoo.card import Card, OnHub, Unreleased


def find_name(text: str, known: Mapping[str, Card]) -> str | None:
    """The name of the card among `known` that `text` means, or None.

    In this order: a name as it is written, a name in upper or lower case ("DiT-XL-2-256"), the Hub's repository of one card
    ("facebook/DiT-XL-2-256", also as the address of its page) or the last part of its name, and a paper's name ("DiT-XL/2",
    "U-ViT-H/2"). A paper's name leaves the resolution open. It means the card that has weights, and among these the one with
    the smallest images.
    """
    if text in known:
        return text
    lower = re.sub(r"^https?://[^/]+/", "", text.lower()).rstrip("/")
    for names in ({name.lower(): [name] for name in known}, _repositories(known)):
        if len(found := names.get(lower, [])) == 1:
            return found[0]
    return _paper_name(lower, known) if "/" in lower else None


def _repositories(known: Mapping[str, Card]) -> dict[str, list[str]]:
    """The names of the cards by the repository of their weights, and by the last part of its name, in lower case."""
    found: dict[str, list[str]] = {}
    for name, card in known.items():
        if isinstance(card.weights, OnHub):
            repository = card.weights.repo.lower()
            for key in (repository, repository.partition("/")[2]):
                found.setdefault(key, []).append(name)
    return found


def _paper_name(lower: str, known: Mapping[str, Card]) -> str | None:
    """The name of the card for "dit-xl/2", "dit-xl/2-512" or "dit-xl/2-512x512"."""
    stem = re.sub(r"-(\d+)x\1$", r"-\1", lower.replace("/", "-")).replace("u-vit", "uvit")
    fitting = [name for name in known if re.fullmatch(rf"{re.escape(stem)}(-\d+)?", name.lower())]
    return min(fitting, key=lambda name: _preference(known[name]), default=None)


def _preference(card: Card) -> tuple[bool, int]:
    return isinstance(card.weights, Unreleased), card.resolution
