"""The architectures of GPUs that engines can be built for, and the cards of each. This module imports no large library."""

from __future__ import annotations

import re
from difflib import get_close_matches

from ditzoo.errors import UsageError, shortened

CARDS: dict[str, tuple[str, ...]] = {
    "sm70": ("V100", "Titan V"),
    "sm75": (
        *("T4", "RTX 2060", "RTX 2070", "RTX 2080", "Titan RTX", "GTX 1650", "GTX 1660"),
        *("Quadro RTX 3000", "Quadro RTX 4000", "Quadro RTX 5000", "Quadro RTX 6000", "Quadro RTX 8000"),
    ),
    "sm80": ("A100", "A800", "A30"),
    "sm86": (
        *("A2", "A10", "A10G", "A16", "A40", "RTX A2000", "RTX A4000", "RTX A4500", "RTX A5000", "RTX A5500", "RTX A6000"),
        *("RTX 3050", "RTX 3060", "RTX 3070", "RTX 3080", "RTX 3090"),
    ),
    "sm87": ("Orin", "AGX Orin", "Orin NX", "Orin Nano"),
    "sm89": (
        *("L4", "L20", "L40", "L40S", "RTX 4050", "RTX 4060", "RTX 4070", "RTX 4080", "RTX 4090"),
        *("RTX 2000 Ada", "RTX 4000 Ada", "RTX 4500 Ada", "RTX 5000 Ada", "RTX 5880 Ada", "RTX 6000 Ada"),
    ),
    "sm90": ("H20", "H100", "H200", "H800", "GH200"),
    "sm100": ("B100", "B200", "GB200"),
    "sm103": ("B300", "GB300"),
    "sm120": (
        *("RTX 5050", "RTX 5060", "RTX 5070", "RTX 5080", "RTX 5090"),
        *("RTX PRO 4000 Blackwell", "RTX PRO 4500 Blackwell", "RTX PRO 5000 Blackwell", "RTX PRO 6000 Blackwell"),
    ),
    "sm121": ("GB10", "DGX Spark"),
}
"""The names of cards, by architecture (https://developer.nvidia.com/cuda-gpus)."""

CURRENT = "current"

_DECORATION = re.compile(
    r"\b(nvidia|geforce|tesla|jetson|gpu|laptop|mobile|super|ti|pcie|sxm\d*|nvl|hbm\d*e?|\d+ ?gb|[a-z]+ edition|generation)\b"
)
"""Words in the names that drivers and shops use. The architecture does not depend on them."""

_ENTRIES = {re.sub(r"\W", "", name.lower()): (name, gpu) for gpu, names in CARDS.items() for name in (gpu, *names)}
"""The names as `_plain` writes them. Each has the name as the table writes it, and the architecture."""


def architecture(name: str) -> str:
    """The architecture of a GPU that is given by architecture or by the name of its card, in upper or lower case.

    "sm90", "H100", "h100" and "NVIDIA H100 80GB HBM3" are all "sm90". Raises UsageError, with similar names, for others.
    """
    plain = _plain(name)
    if plain not in _ENTRIES:
        raise _unknown(name, plain)
    return _ENTRIES[plain][1]


def _plain(name: str) -> str:
    """A name without the words that do not matter: lower-case letters and digits only."""
    words = re.sub(r"[\s_-]+", " ", name.lower())
    return re.sub(r"\W", "", _DECORATION.sub("", words))


def _unknown(name: str, plain: str) -> UsageError:
    near = [_ENTRIES[key] for key in get_close_matches(plain, _ENTRIES, n=3)]
    cards = [card if card == gpu else f"{card} ({gpu})" for card, gpu in near]
    suggestion = f"did you mean {' or '.join(cards)}? " if near else ""
    return UsageError(
        f"unknown GPU {shortened(name.strip())!r}; {suggestion}--gpu takes an architecture ({', '.join(CARDS)}),"
        f" a card such as H100 or RTX 4090, or {CURRENT}"
    )
