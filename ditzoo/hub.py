"""Where weights are: today the ones that ship inside the package."""

from __future__ import annotations

from pathlib import Path

from ditzoo.card import Card, Embedded
from ditzoo.errors import CheckpointError
from ditzoo.files import sha256

ASSETS = Path(__file__).parent / "assets"


def weights(card: Card) -> Path:
    """The card's safetensors file, its checksum verified; raises CheckpointError if it is missing or damaged."""
    if not isinstance(card.weights, Embedded):
        raise CheckpointError(f"{card.name} has no weights in this package")
    path = ASSETS / card.weights.file
    if not path.is_file():
        raise CheckpointError(f"the weights of {card.name} are missing: no {path}; reinstall ditzoo")
    if sha256(path) != card.weights.sha256:
        raise CheckpointError(f"the weights of {card.name} are damaged: {path} has the wrong sha256; reinstall ditzoo")
    return path
