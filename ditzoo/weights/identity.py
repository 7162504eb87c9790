"""Which files a card's decoder and text encoder are, where the card itself does not pin them."""

from __future__ import annotations

from collections.abc import Iterator

from ditzoo.digests import digest
from ditzoo.hub.fetch import fetch
from ditzoo.weights.local import decoder_file, has_decoder
from ditzoo.zoo.card import Autoencoder, Card, OnHub


def part_digests(card: Card) -> dict[str, str]:
    """The SHA-256 of every file of the card's decoder and text encoder, by its path, as far as the card does not say it.

    Files of a pinned revision are left out: the card names the commit. Others are fetched where they are not here yet; raises
    HubError where that cannot be.
    """
    digests = {path: value for source in _unpinned(card) for path, value in _digests(source)}
    if isinstance(card.decoder, Autoencoder) and card.decoder.source is None and has_decoder(card):
        digests["decoder"] = digest(decoder_file(card))
    return digests


def _unpinned(card: Card) -> list[OnHub]:
    decoder = card.decoder.source if isinstance(card.decoder, Autoencoder) else None
    text = None if card.text is None else card.text.source
    return [source for source in (decoder, text) if source is not None and source.revision is None]


def _digests(source: OnHub) -> Iterator[tuple[str, str]]:
    folder = fetch(source)
    return ((f"{source.repo}/{file.path}", digest(folder / file.path)) for file in source.files)
