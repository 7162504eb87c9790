"""From a downloaded or imported checkpoint to canonical weights in the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ditzoo.progress import SILENT, Display
from ditzoo.weights import store
from ditzoo.zoo.card import Architecture, Autoencoder, ByHand, Card, OnHub

if TYPE_CHECKING:
    from ditzoo.checkpoint import Pick


def convert_into_store(
    card: Card,
    checkpoint: Path,
    source: OnHub | ByHand,
    *,
    decoder: Path | None = None,
    pick: Pick | None = None,
    display: Display = SILENT,
) -> store.Stored:
    """Converts a checkpoint to canonical weights and stores them as the weights of `card`, together with the decoder.

    `pick` selects the network among the tensors of the checkpoint. The decoder is inside the checkpoint, unless `decoder` is
    the file of a decoder in canonical form. The stages of the work appear on `display`. The caller must hold the model's lock.
    """
    import ditzoo
    from ditzoo.checkpoint import convert, convert_decoder
    from ditzoo.zoo import CARDS

    with store.appearing(card) as folder:
        inside = folder / store.DECODER
        architecture = _architecture(card) if decoder is None else None
        with display.stage(f"converting the weights of {card.name}"):
            converted = convert(
                checkpoint,
                card.backbone,
                folder / store.MODEL,
                decoder=inside,
                architecture=architecture,
                cards=CARDS.values(),
                pick=pick,
            )
            if decoder is not None and isinstance(card.decoder, Autoencoder):
                convert_decoder(decoder, card.decoder.architecture, inside, channels=card.backbone.latent_shape[0])
        with display.stage("computing checksums"):
            files = tuple(store.record(path) for path in (folder / store.MODEL, inside) if path.exists())
        manifest = store.Manifest(
            model=card.name,
            layout=converted.layout,
            source=source,
            files=files,
            made_by=f"ditzoo {ditzoo.__version__}",
        )
        (folder / store.CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=1))
        (folder / store.MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    return store.Stored(path=store.folder(card), manifest=manifest, card=card)


def _architecture(card: Card) -> Architecture | None:
    """The class of the decoder inside the card's own checkpoint; None if the decoder has another source or there is none."""
    decoder = card.decoder
    return decoder.architecture if isinstance(decoder, Autoencoder) and decoder.source is None else None
