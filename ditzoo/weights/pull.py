"""`pull`: download the checkpoint of a card from the Hub, and store its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ditzoo.errors import CheckpointError, HubError
from ditzoo.files import cache_dir, disk_errors
from ditzoo.hub import pins
from ditzoo.hub.client import PATIENCE, Advance, silent
from ditzoo.hub.fetch import resolve
from ditzoo.progress import SILENT, Display
from ditzoo.records import Data
from ditzoo.weights import store
from ditzoo.weights.conversion import convert_into_store
from ditzoo.weights.local import how_to_get, weights_file
from ditzoo.zoo.card import Card, Embedded, File, OnHub

if TYPE_CHECKING:
    from ditzoo.checkpoint import Pick


class Pulled(Data, frozen=True, kw_only=True):
    """A model on this machine.

    `path` is its canonical file. If this call downloaded it, `source` has the commit, sizes and checksums; else it is None.
    `resolved_now` says that this call chose the newest revision, because neither the card nor an earlier pull fixed one.
    """

    card: Card
    path: Path
    source: OnHub | None = None
    resolved_now: bool = False


def pull(
    card: Card,
    *,
    update: bool = False,
    patience: float = PATIENCE,
    advance: Advance = silent,
    pick: Pick | None = None,
    display: Display = SILENT,
) -> Pulled:
    """Downloads, verifies and converts the weights of `card`. If they are stored already, no request is made.

    With `update`, a card that pins no revision gets the newest one again. `patience` is how many seconds the server may be
    silent. `pick` selects the network among the tensors of the checkpoint. `advance` gets the progress of downloads; the other
    stages appear on `display`. Raises HubError if the download fails, and
    CheckpointError if the checkpoint cannot be used; the message says what to do. No damaged or partial model is left behind.
    """
    if isinstance(card.weights, Embedded):
        return Pulled(card=card, path=weights_file(card))
    with disk_errors(cache_dir(), raises=HubError):
        store.clean_up(card)
        here = None if update else store.find_sound(card)
        if here is not None:
            return Pulled(card=card, path=here.path / store.MODEL)
        if not isinstance(card.weights, OnHub):
            raise CheckpointError(how_to_get(card))
        with store.locked(card):
            here = None if update else store.find_sound(card)  # another process may have been faster
            if here is not None:
                return Pulled(card=card, path=here.path / store.MODEL)
            return _fetch_and_store(
                card, card.weights, update=update, patience=patience, advance=advance, pick=pick, display=display
            )


class Fetched(Data, frozen=True, kw_only=True):
    """A downloaded checkpoint. `source` has its commit, sizes and checksums.

    `decoder` is the file of the decoder if that is a file of its own, else None.
    """

    source: OnHub
    checkpoint: Path
    decoder: Path | None


def fetch_checkpoint(
    source: OnHub, *, update: bool = False, patience: float, advance: Advance, display: Display = SILENT
) -> Fetched:
    """Downloads the files of `source`, and the shards if the first file is an index. See `resolve`, also for the errors."""
    found, paths = resolve(source, update=update, patience=patience, advance=advance, display=display)
    first = source.files[0].path
    if first.endswith(".json"):
        from ditzoo.checkpoint import shard_names

        folder = first.rpartition("/")[0]
        shards = [File(path=f"{folder}/{name}" if folder else name) for name in shard_names(paths[first])]
        missing_ones = [file for file in shards if file.path not in paths]
        every = msgspec.structs.replace(found, files=(*found.files, *missing_ones))
        found, paths = resolve(every, patience=patience, advance=advance, display=display)
    return Fetched(source=found, checkpoint=paths[first], decoder=paths.get(store.DECODER))


def _fetch_and_store(
    card: Card, source: OnHub, *, update: bool, patience: float, advance: Advance, pick: Pick | None, display: Display
) -> Pulled:
    known = source.revision or (None if update else pins.read(source.repo).newest)
    fetched = fetch_checkpoint(source, update=update, patience=patience, advance=advance, display=display)
    kept = convert_into_store(card, fetched.checkpoint, fetched.source, decoder=fetched.decoder, pick=pick, display=display)
    return Pulled(
        card=card,
        path=kept.path / store.MODEL,
        source=fetched.source,
        resolved_now=known is None and pins.read(source.repo).newest == fetched.source.revision,
    )
