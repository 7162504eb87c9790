"""The store of weights in ditzoo's cache: one folder for each model, in canonical form.

A folder holds model.safetensors, card.json and manifest.json, and decoder.safetensors if the checkpoint held a decoder.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from ditzoo import files
from ditzoo.errors import CheckpointError
from ditzoo.files import cache_dir
from ditzoo.manifests import FileRecord, damage, record_file
from ditzoo.records import Data
from ditzoo.zoo.card import ByHand, Card, File, OnHub

log = logging.getLogger(__name__)

MODEL, DECODER, CARD, MANIFEST = "model.safetensors", "decoder.safetensors", "card.json", "manifest.json"


class Manifest(Data, frozen=True, kw_only=True):
    """The files in a folder of weights, and the source they were made from, with its commit, sizes and checksums."""

    format: Literal["ditzoo-weights/1"] = "ditzoo-weights/1"
    model: str
    layout: str
    source: OnHub | ByHand
    files: tuple[File, ...]
    made_by: str


class Stored(Data, frozen=True, kw_only=True):
    """A folder of weights in the cache."""

    path: Path
    manifest: Manifest
    card: Card

    @property
    def size(self) -> int:
        """Its size on the disk, in bytes."""
        return sum(file.size or 0 for file in self.manifest.files)


def folder(card: Card) -> Path:
    """The folder for the weights of `card`. Its name has a hash of the network and the source, so each source has its own."""
    made_of = hashlib.sha256(msgspec.json.encode((card.backbone, card.weights))).hexdigest()
    return cache_dir() / "weights" / f"{re.sub(r'[^A-Za-z0-9._-]+', '--', card.name)}-{made_of[:12]}"


def find(card: Card) -> Stored | None:
    """The stored weights of `card`, not verified; None if there are none."""
    return open_folder(folder(card)) if exists(card) else None


def find_sound(card: Card) -> Stored | None:
    """The stored weights of `card`, with every file verified.

    None if there are none, or, with a warning, if one is damaged.
    """
    try:
        stored = find(card)
        if stored is not None:
            verify(stored)
    except CheckpointError as error:
        log.warning("%s", error)
        return None
    return stored


def exists(card: Card) -> bool:
    """Whether there are stored weights of `card`."""
    return (folder(card) / MANIFEST).is_file()


def everything() -> list[Stored]:
    """All stored weights, sorted by the model's name. Folders that cannot be read are left out."""
    found = []
    for manifest in sorted((cache_dir() / "weights").glob(f"[!.]*/{MANIFEST}")):
        try:
            found.append(open_folder(manifest.parent))
        except CheckpointError:
            continue
    return sorted(found, key=lambda stored: stored.card.name)


def verify(stored: Stored, *, again: bool = False) -> None:
    """Raises CheckpointError if a file is not as it was written. The message names the command that replaces it.

    A file that has not changed since its last verification is not read, unless `again` is True: see `ditzoo.files.digest`.
    """
    for file in stored.manifest.files:
        problem = _problem(stored.path / file.path, file, again=again)
        if problem:
            raise CheckpointError(
                f"the weights of {stored.card.name} are damaged: {stored.path / file.path} {problem}; {_again(stored)}"
            )


@contextmanager
def appearing(card: Card) -> Iterator[Path]:
    """A new folder that replaces the folder of `card` in one step when the block succeeds. If the block fails, it is deleted.

    The caller must hold the model's lock.
    """
    target = folder(card)
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.appearing(target) as fresh:
        yield fresh


def record(path: Path) -> File:
    """The name, size and checksum of a file, for a manifest."""
    found = record_file(path)
    return File(path=path.name, size=found.size, sha256=found.sha256)


def open_folder(path: Path) -> Stored:
    """The stored weights in a folder of the cache, not verified. Raises CheckpointError if the folder cannot be read."""
    try:
        manifest = msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
        card = msgspec.json.decode((path / CARD).read_bytes(), type=Card)
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError(
            f"cannot read the weights in {path}: {error}; delete that folder, and pull or import again"
        ) from error
    return Stored(path=path, manifest=manifest, card=card)


def _problem(path: Path, file: File, *, again: bool) -> str:
    if path.is_symlink() or not path.resolve().is_relative_to(cache_dir().resolve()):
        return "is a link to a place outside the cache"
    return damage(path, FileRecord(size=file.size or 0, sha256=file.sha256 or ""), again=again)


def _again(stored: Stored) -> str:
    if isinstance(stored.manifest.source, OnHub):
        return f"`ditzoo pull {stored.card.name}` replaces them"
    return f"`ditzoo import {stored.card.name} FILE` replaces them"
