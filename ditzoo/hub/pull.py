"""Pulling and importing: from a checkpoint on the Hub or on the disk to canonical weights in ditzoo's cache."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

import msgspec

from ditzoo.card import ByHand, Card, Embedded, File, OnHub, Unreleased
from ditzoo.errors import CheckpointError, UsageError
from ditzoo.hub import missing, pins, store, weights
from ditzoo.hub.client import PATIENCE, Advance, silent
from ditzoo.hub.fetch import explaining_the_disk, resolve
from ditzoo.specs import Data

log = logging.getLogger(__name__)


class Pulled(Data, frozen=True, kw_only=True):
    """A model that is here now: its canonical file, and, if this call fetched it, the source with all that was found out."""

    card: Card
    path: Path
    source: OnHub | None = None
    resolved_now: bool = False


def pull(card: Card, *, update: bool = False, patience: float = PATIENCE, advance: Advance = silent) -> Pulled:
    """Makes the card's weights be here, verified and canonical. Where they are already, no request is made.

    `update` resolves the newest revision anew, for a card that pins none. `patience` is how many seconds the server may be
    silent. Raises HubError or CheckpointError, with what to do; whatever happens, no damaged or partial model is left behind.
    """
    if isinstance(card.weights, Embedded):
        return Pulled(card=card, path=weights(card))
    with explaining_the_disk():
        here = None if update else _usable(card)
        if here is not None:
            return Pulled(card=card, path=here.path / store.MODEL)
        if not isinstance(card.weights, OnHub):
            raise CheckpointError(missing(card))
        with pins.locked(store.folder(card).name):
            here = None if update else _usable(card)  # another process may have been faster
            if here is not None:
                return Pulled(card=card, path=here.path / store.MODEL)
            return _fetch_and_store(card, card.weights, update=update, patience=patience, advance=advance)


def import_file(card: Card, file: Path, *, overwrite: bool = False) -> store.Stored:
    """Takes a checkpoint on the disk in as the weights of `card`; the file stays as it is.

    Raises CheckpointError where it does not fit or is not the file that the card knows, UsageError where the card has weights
    already and `overwrite` is not set.
    """
    if isinstance(card.weights, Embedded):
        raise UsageError(f"{card.name} ships with ditzoo; import your weights under another name: --arch {card.name}")
    if not file.is_file():
        raise UsageError(f"there is no file {file}; give the checkpoint that you fetched")
    with explaining_the_disk():
        _check_size(card, file)
        with pins.locked(store.folder(card).name):
            if store.find(card) is not None and not overwrite:
                raise UsageError(f"{card.name} has weights already; add --overwrite to replace them")
            found = File(path=file.name, size=file.stat().st_size, sha256=store.record(file).sha256)
            expected = card.weights.file.sha256 if isinstance(card.weights, ByHand) else None
            if expected not in (None, found.sha256):
                raise CheckpointError(f"{file} is not the file of {card.name}: its sha256 is {found.sha256}, not {expected}")
            return keep(card, file, ByHand(where="a local file", file=found))


def keep(card: Card, checkpoint: Path, source: OnHub | ByHand, *, decoder: Path | None = None) -> store.Stored:
    """Converts a checkpoint, and what `decoder` it has in a file of its own, into the cache as the weights of `card`.

    The caller holds the model's lock.
    """
    import ditzoo
    from ditzoo.checkpoint import convert
    from ditzoo.zoo import CARDS

    with store.appearing(card) as folder:
        inside = folder / store.DECODER
        converted = convert(checkpoint, card.backbone, folder / store.MODEL, decoder=inside, cards=CARDS.values())
        if decoder is not None:
            shutil.copyfile(decoder, inside)
        manifest = store.Manifest(
            model=card.name,
            layout=converted.layout,
            source=source,
            files=tuple(store.record(path) for path in (folder / store.MODEL, inside) if path.exists()),
            made_by=f"ditzoo {ditzoo.__version__}",
        )
        (folder / store.CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=1))
        (folder / store.MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    return store.Stored(path=store.folder(card), manifest=manifest, card=card)


class Fetched(Data, frozen=True, kw_only=True):
    """A checkpoint on this machine: its source with all that was found out, its file, and that of its decoder, if apart."""

    source: OnHub
    checkpoint: Path
    decoder: Path | None


def fetch_checkpoint(source: OnHub, *, patience: float, advance: Advance) -> Fetched:
    """`resolve` for weights: also the files that an index of shards names. Errors as `fetch`."""
    found, paths = resolve(source, patience=patience, advance=advance)
    first = source.files[0].path
    if first.endswith(".json"):
        from ditzoo.checkpoint import shard_names

        folder = first.rpartition("/")[0]
        shards = [File(path=f"{folder}/{name}" if folder else name) for name in shard_names(paths[first])]
        missing_ones = [file for file in shards if file.path not in paths]
        every = msgspec.structs.replace(found, files=(*found.files, *missing_ones))
        found, paths = resolve(every, patience=patience, advance=advance)
    return Fetched(source=found, checkpoint=paths[first], decoder=paths.get(store.DECODER))


def _fetch_and_store(card: Card, source: OnHub, *, update: bool, patience: float, advance: Advance) -> Pulled:
    if update:
        pins.forget_newest(source.repo)
    known = source.revision or pins.read(source.repo).newest
    fetched = fetch_checkpoint(source, patience=patience, advance=advance)
    kept = keep(card, fetched.checkpoint, fetched.source, decoder=fetched.decoder)
    return Pulled(card=card, path=kept.path / store.MODEL, source=fetched.source, resolved_now=known is None)


def _usable(card: Card) -> store.Stored | None:
    """The stored weights of a card, if they are there and undamaged."""
    try:
        stored = store.find(card)
        if stored is not None:
            store.verify(stored)
    except CheckpointError as error:
        log.warning("%s", error)
        return None
    return stored


def _check_size(card: Card, file: Path) -> None:
    expected = card.weights.file.size if isinstance(card.weights, ByHand) else None
    size = file.stat().st_size
    if expected not in (None, size):
        raise CheckpointError(f"{file} is not the file of {card.name}: {size:,} bytes instead of {expected:,}; fetch it again")


def local_card(base: Card, name: str, file: Path) -> Card:
    """The card of a model of one's own: the conventions of `base`, the weights in `file`. Raises UsageError for a bad name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"{name!r} is no name for a model; use letters, digits, '.', '_' and '-'")
    source = ByHand(where="a local file", file=store.record(file)) if file.is_file() else Unreleased()
    return msgspec.structs.replace(base, name=name, summary=f"{base.name}, own weights", weights=source, published=None)
