"""`import`: a checkpoint file on this machine becomes the weights of a card, or a model of one's own."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ditzoo.errors import CheckpointError, HubError, UsageError
from ditzoo.files import cache_dir, disk_errors
from ditzoo.locks import lock_named
from ditzoo.weights import store
from ditzoo.weights.conversion import convert_into_store
from ditzoo.zoo.card import NAMES, ByHand, Card, Embedded, File, is_name

if TYPE_CHECKING:
    from ditzoo.checkpoint import Pick
    from ditzoo.weights.likeness import Like

log = logging.getLogger(__name__)


def import_file(card: Card, file: Path, *, overwrite: bool = False, pick: Pick | None = None) -> store.Stored:
    """Takes a checkpoint on the disk in as the weights of `card`; the file stays as it is. `pick` says where in it they are.

    Raises CheckpointError where it does not fit or is not the file that the card knows, UsageError where the card has weights
    already and `overwrite` is not set.
    """
    if isinstance(card.weights, Embedded):
        raise UsageError(f"{card.name} ships with ditzoo; import your weights under another name: --like {card.name}")
    _check_file(file)
    with disk_errors(cache_dir(), raises=HubError):
        _check_size(card, file)
        with store.locked(card):
            if store.exists(card) and not overwrite:
                raise UsageError(f"{card.name} has weights already; add --overwrite to replace them")
            found = File(path=file.name, size=file.stat().st_size, sha256=store.record(file).sha256)
            expected = card.weights.file.sha256 if isinstance(card.weights, ByHand) else None
            if expected not in (None, found.sha256):
                raise CheckpointError(f"{file} is not the file of {card.name}: its sha256 is {found.sha256}, not {expected}")
            return convert_into_store(card, file, ByHand(where="a local file", file=found), pick=pick)


def _check_size(card: Card, file: Path) -> None:
    expected = card.weights.file.size if isinstance(card.weights, ByHand) else None
    size = file.stat().st_size
    if expected not in (None, size):
        raise CheckpointError(f"{file} is not the file of {card.name}: {size:,} bytes instead of {expected:,}; fetch it again")


def import_own(
    name: str, file: Path, *, like: Like | None = None, pick: Pick | None = None, overwrite: bool = False
) -> store.Stored:
    """Takes a checkpoint on the disk in as a model of one's own, called `name`, whose card `derive` makes.

    Raises UsageError for a bad name, and as `derive` and `import_file`. With `overwrite`, what had the name before goes.
    """
    from ditzoo.checkpoint import shapes_of
    from ditzoo.weights.likeness import Like, derive

    if not is_name(name):
        raise UsageError(f"{name!r} is no name for a model; {NAMES}")
    _check_file(file)
    _, shapes = shapes_of(file, pick)
    derived = derive(name, shapes, like or Like())
    card = msgspec.structs.replace(derived.card, name=name, weights=ByHand(where="a local file", file=store.record(file)))
    older = [stored for stored in store.everything() if stored.card.name == name and stored.path != store.folder(card)]
    if older and not overwrite:
        raise UsageError(f"{name} has weights already; add --overwrite to replace them")
    imported = import_file(card, file, overwrite=overwrite, pick=pick)
    for remark in derived.remarks:
        log.warning("%s", remark)
    for stored in older:
        with lock_named(stored.path.name):
            shutil.rmtree(stored.path)
    return imported


def _check_file(file: Path) -> None:
    if not file.is_file():
        raise UsageError(f"there is no file {file}; give the checkpoint that you fetched")
