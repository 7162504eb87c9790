"""Where the weights of a card are on this machine: inside the package, or in the store after a pull or an import.

Importing this needs neither `huggingface_hub` nor torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias, get_args

from ditzoo.errors import CheckpointError
from ditzoo.files import sha256
from ditzoo.weights import store
from ditzoo.zoo.card import ByHand, Card, Embedded, OnHub

ASSETS = Path(__file__).parent.parent / "assets"

State: TypeAlias = Literal["embedded", "cached", "damaged", "hub", "by-hand", "architecture"]
STATES: tuple[State, ...] = get_args(State)


def weights_file(card: Card) -> Path:
    """The canonical safetensors file of the card's weights. Its checksum is verified.

    Raises CheckpointError, naming the next command, if it is missing or damaged.
    """
    if isinstance(card.weights, Embedded):
        return _embedded(card.name, card.weights.file, card.weights.sha256)
    return _stored(card).path / store.MODEL


def decoder_file(card: Card) -> Path:
    """The safetensors file of the decoder that came with the card's own weights: inside the checkpoint, or in the package.

    Its keys are those of diffusers' class of the decoder. Raises the errors of `weights_file`, and CheckpointError if the
    checkpoint held no decoder.
    """
    source = card.weights
    if isinstance(source, Embedded) and source.decoder is not None:
        return _embedded(card.name, source.decoder.path, source.decoder.sha256)
    path = _stored(card).path / store.DECODER
    if not has_decoder(card):
        raise CheckpointError(f"the checkpoint of {card.name} held no decoder")
    return path


def has_decoder(card: Card) -> bool:
    """Whether the weights of the card are here together with a decoder."""
    if isinstance(card.weights, Embedded):
        return card.weights.decoder is not None
    stored = store.find(card)
    return stored is not None and (stored.path / store.DECODER).is_file()


def weights_state(card: Card) -> State:
    """Where the card's weights are: in the package or in ditzoo's cache. If they are in neither, where they come from.

    The state is "damaged" if they are in the cache, but their manifest or card cannot be read. No checksum is computed.
    """
    if isinstance(card.weights, Embedded):
        return "embedded"
    if store.exists(card):
        return "cached" if store.is_readable(card) else "damaged"
    if isinstance(card.weights, OnHub):
        return "hub"
    return "by-hand" if isinstance(card.weights, ByHand) else "architecture"


def check_present(card: Card) -> None:
    """Raises CheckpointError, with the next command, if the card's weights are not on this machine. Reads no weights."""
    if weights_state(card) not in ("embedded", "cached", "damaged"):
        raise CheckpointError(how_to_get(card))


def how_to_get(card: Card) -> str:
    """Why the card's weights are not on this machine, and the command that gets them."""
    source = card.weights
    if isinstance(source, OnHub):
        return f"the weights of {card.name} are not on this machine; `ditzoo pull {card.name}` fetches them"
    if isinstance(source, ByHand):
        size = f", {source.file.size:,} bytes" if source.file.size else f", about {4 * card.backbone.parameters / 1e9:.2f} GB"
        return (
            f"the weights of {card.name} are not on the Hub: download {source.file.path}{size} from {source.where},"
            f" then `ditzoo import {card.name} {source.file.path}`"
        )
    return (
        f"{card.name} is an architecture whose weights were never released;"
        f" `ditzoo import {card.name} FILE` imports a checkpoint of your own"
    )


def _stored(card: Card) -> store.Stored:
    stored = store.find(card)
    if stored is None:
        raise CheckpointError(how_to_get(card))
    store.verify(stored)
    return stored


def _embedded(name: str, file: str, checksum: str | None) -> Path:
    """The file of the package that has the weights of the model called `name`. Raises CheckpointError if it is damaged."""
    path = ASSETS / file
    if not path.is_file():
        raise CheckpointError(f"the weights of {name} are missing: there is no {path}; reinstall ditzoo")
    if sha256(path) != checksum:
        raise CheckpointError(f"the weights of {name} are damaged: {path} has the wrong sha256; reinstall ditzoo")
    return path
