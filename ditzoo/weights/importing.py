"""`import`: a checkpoint file on this machine becomes the stored weights of a card."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from ditzoo.errors import CheckpointError, HubError, UsageError
from ditzoo.files import cache_dir, disk_errors
from ditzoo.locks import lock_named
from ditzoo.weights import store
from ditzoo.weights.conversion import convert_into_store
from ditzoo.zoo.card import ByHand, Card, Embedded, File, Unreleased


def import_file(card: Card, file: Path, *, overwrite: bool = False) -> store.Stored:
    """Takes a checkpoint on the disk in as the weights of `card`; the file stays as it is.

    Raises CheckpointError where it does not fit or is not the file that the card knows, UsageError where the card has weights
    already and `overwrite` is not set.
    """
    if isinstance(card.weights, Embedded):
        raise UsageError(f"{card.name} ships with ditzoo; import your weights under another name: --arch {card.name}")
    if not file.is_file():
        raise UsageError(f"there is no file {file}; give the checkpoint that you fetched")
    with disk_errors(cache_dir(), raises=HubError):
        _check_size(card, file)
        with lock_named(store.folder(card).name):
            if store.find(card) is not None and not overwrite:
                raise UsageError(f"{card.name} has weights already; add --overwrite to replace them")
            found = File(path=file.name, size=file.stat().st_size, sha256=store.record(file).sha256)
            expected = card.weights.file.sha256 if isinstance(card.weights, ByHand) else None
            if expected not in (None, found.sha256):
                raise CheckpointError(f"{file} is not the file of {card.name}: its sha256 is {found.sha256}, not {expected}")
            return convert_into_store(card, file, ByHand(where="a local file", file=found))


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
