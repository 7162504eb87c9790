"""`import`: a checkpoint file on this machine becomes the weights of a card, or a new model of the user."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ditzoo.errors import CheckpointError, HubError, UsageError
from ditzoo.files import PARTIAL, cache_dir, check_path, disk_errors, file_name
from ditzoo.folders import recover, target_of, vanish
from ditzoo.locks import lock_named
from ditzoo.manifests import record_file
from ditzoo.progress import SILENT, Display
from ditzoo.weights import store
from ditzoo.weights.conversion import convert_into_store
from ditzoo.zoo.bounds import LONGEST_NAME, is_path
from ditzoo.zoo.card import NAMES, ByHand, Card, Embedded, File, is_name

if TYPE_CHECKING:
    from ditzoo.checkpoint import Pick
    from ditzoo.weights.likeness import Like

log = logging.getLogger(__name__)


def import_file(
    card: Card, file: Path, *, overwrite: bool = False, pick: Pick | None = None, display: Display = SILENT
) -> store.Stored:
    """Stores the weights of a checkpoint file as those of `card`. The file itself is not changed.

    `pick` selects the network among the tensors of the file. Raises CheckpointError if the tensors do not fit the card, or if
    the size or checksum is not the one in the card. Raises UsageError if the card's weights ship with ditzoo, or if they are
    stored already and `overwrite` is False.
    """
    if isinstance(card.weights, Embedded):
        raise UsageError(f"{card.name} ships with ditzoo; import your weights under another name: --like {card.name}")
    _check_file(file)
    with disk_errors(cache_dir(), raises=HubError):
        _check_size(card, file)
        with store.locked(card):
            if store.exists(card) and not overwrite:
                raise UsageError(f"{card.name} has weights already; add --overwrite to replace them")
            with display.stage(f"checking {file}"):
                found = _record(file)
            expected = card.weights.file.sha256 if isinstance(card.weights, ByHand) else None
            if expected not in (None, found.sha256):
                raise CheckpointError(f"{file} is not the file of {card.name}: its sha256 is {found.sha256}, not {expected}")
            return convert_into_store(card, file, ByHand(where="a local file", file=found), pick=pick, display=display)


def _check_size(card: Card, file: Path) -> None:
    expected = card.weights.file.size if isinstance(card.weights, ByHand) else None
    size = file.stat().st_size
    if expected not in (None, size):
        raise CheckpointError(f"{file} is not the file of {card.name}: {size:,} bytes instead of {expected:,}; fetch it again")


def import_own(
    name: str,
    file: Path,
    *,
    like: Like | None = None,
    pick: Pick | None = None,
    overwrite: bool = False,
    display: Display = SILENT,
) -> store.Stored:
    """Stores the weights of a checkpoint file as a new model called `name`, with a card made by `derive`.

    With `overwrite`, older weights of the same name are deleted. Raises UsageError if the name is not valid, and the errors of
    `derive` and `import_file`.
    """
    from ditzoo.checkpoint import shapes_of
    from ditzoo.weights.likeness import Like, derive

    if not is_name(name):
        raise UsageError(f"{name!r} is not a valid name for a model; use {NAMES}")
    _check_file(file)
    _, shapes = shapes_of(file, pick)
    derived = derive(name, shapes, like or Like())
    card = msgspec.structs.replace(derived.card, name=name, weights=ByHand(where="a local file", file=_record(file)))
    older = [stored for stored in store.everything() if stored.card.name == name and stored.path != store.folder(card)]
    if older and not overwrite:
        raise UsageError(f"{name} has weights already; add --overwrite to replace them")
    imported = import_file(card, file, overwrite=overwrite, pick=pick, display=display)
    for remark in derived.remarks:
        log.warning("%s", remark)
    _delete_older(name, imported.path)
    return imported


def _delete_older(name: str, kept: Path) -> None:
    """Deletes all weights of the model `name` except those in `kept`, and what an interrupted deletion of such weights left."""
    older = {stored.path for stored in store.everything() if stored.card.name == name and stored.path != kept}
    folders = re.compile(rf"{re.escape(file_name(name))}-[0-9a-f]{{12}}")
    leftovers = {target for path in kept.parent.glob(f".*{PARTIAL}") if (target := target_of(path)) and target != kept}
    for path in sorted(older | {target for target in leftovers if folders.fullmatch(target.name)}):
        with lock_named(path.name):
            recover(path)
            if path in older:
                vanish(path)


def _record(file: Path) -> File:
    """The size, the checksum and the name of a file. Characters that no card may have are replaced in the name."""
    found, name = record_file(file), file.name if is_path(file.name) else file_name(file.name)[-LONGEST_NAME:]
    return File(path=name, size=found.size, sha256=found.sha256)


def _check_file(file: Path) -> None:
    check_path(file, "FILE")
    if not file.is_file():
        raise UsageError(f"there is no file {file}; give the path of the checkpoint that you downloaded")
