"""The store of weights in ditzoo's cache: one folder for each model, in canonical form.

A folder holds model.safetensors, card.json and manifest.json, and decoder.safetensors if the checkpoint held a decoder.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from ditzoo import files, folders
from ditzoo.errors import CheckpointError
from ditzoo.files import cache_dir
from ditzoo.locks import lock_named
from ditzoo.manifests import FileRecord, damage, record_file
from ditzoo.records import Data, from_json, read_limited
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
    return cache_dir() / "weights" / f"{files.file_name(card.name)}-{made_of[:12]}"


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
    """Whether weights of `card` are stored, damaged or not."""
    return folder(card).is_dir()


def is_readable(card: Card) -> bool:
    """Whether the manifest and the card of the stored weights of `card` can be read."""
    return isinstance(_opened(folder(card)), Stored)


class Unreadable(Data, frozen=True, kw_only=True):
    """A folder of weights that cannot be read: its path, its problem, and its card. None: the card cannot be read either."""

    path: Path
    problem: str
    card: Card | None

    @property
    def name(self) -> str:
        """The model's name, from the card. Without a card, the name is taken from the folder's, where it may be changed."""
        return self.card.name if self.card else self.path.name.rpartition("-")[0] or self.path.name


def everything() -> list[Stored]:
    """All stored weights, sorted by the model's name. Folders that cannot be read are left out: see `unreadable`."""
    found = [opened for opened in _folders() if isinstance(opened, Stored)]
    return sorted(found, key=lambda stored: stored.card.name)


def unreadable() -> list[Unreadable]:
    """The folders of weights that cannot be read, sorted by path."""
    return [opened for opened in _folders() if isinstance(opened, Unreadable)]


def _folders() -> list[Stored | Unreadable]:
    return [_opened(path) for path in sorted((cache_dir() / "weights").glob("[!.]*"))]


def _opened(path: Path) -> Stored | Unreadable:
    try:
        return open_folder(path)
    except CheckpointError as error:
        return Unreadable(path=path, problem=str(error), card=_card_in(path))


def _card_in(path: Path) -> Card | None:
    try:
        return from_json(read_limited(path / CARD), Card)
    except (OSError, ValueError):
        return None


def verify(stored: Stored, *, again: bool = False) -> None:
    """Raises CheckpointError if a file is not as it was written. The message names the command that replaces it.

    A file that has not changed since its last verification is not read, unless `again` is True: see `ditzoo.digests.digest`.
    """
    for file in stored.manifest.files:
        problem = _problem(stored.path / file.path, file, again=again)
        if problem:
            raise CheckpointError(
                f"the weights of {stored.card.name} are damaged: {stored.path / file.path} {problem}; {_again(stored)}"
            )


@contextmanager
def locked(card: Card) -> Iterator[None]:
    """Holds the lock of the weights of `card`. First cleans up after a killed process: see `ditzoo.folders.recover`."""
    with lock_named(folder(card).name, what=card.name):
        folders.recover(folder(card))
        yield


def clean_up(card: Card) -> None:
    """Deletes what a killed process left of the weights of `card`, if the cache can be written. Waits for a running process."""
    target = folder(card)
    if folders.partial_folders(target) and os.access(target.parent, os.W_OK):
        with locked(card):
            pass


@contextmanager
def appearing(card: Card) -> Iterator[Path]:
    """A new folder that replaces the folder of `card` in one step when the block succeeds. If the block fails, it is deleted.

    The caller must hold the model's lock.
    """
    target = folder(card)
    target.parent.mkdir(parents=True, exist_ok=True)
    with folders.appearing(target) as fresh:
        yield fresh


def record(path: Path) -> File:
    """The name, size and checksum of a file, for a manifest."""
    found = record_file(path)
    return File(path=path.name, size=found.size, sha256=found.sha256)


def open_folder(path: Path) -> Stored:
    """The stored weights in a folder of the cache, not verified. Raises CheckpointError if the folder cannot be read."""
    try:
        manifest = from_json(read_limited(path / MANIFEST), Manifest)
        card = from_json(read_limited(path / CARD), Card)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot read the weights in {path}: {error}; delete that folder, and pull or import again"
        ) from error
    return Stored(path=path, manifest=manifest, card=card)


def _problem(path: Path, file: File, *, again: bool) -> str:
    if path.is_symlink() or not files.is_within(path, [cache_dir()]):
        return "is a link to a place outside the cache"
    return damage(path, FileRecord(size=file.size or 0, sha256=file.sha256 or ""), again=again)


def _again(stored: Stored) -> str:
    if isinstance(stored.manifest.source, OnHub):
        return f"`ditzoo pull {stored.card.name}` replaces them"
    return f"`ditzoo import {stored.card.name} FILE` replaces them"
