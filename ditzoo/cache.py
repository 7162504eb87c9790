"""What takes space in the two caches, ditzoo's own and the Hub's, and how it is checked and removed."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from filelock import Timeout

from ditzoo.bundle import open_bundle, read_manifest
from ditzoo.errors import BundleError, DitzooError, HubError, UsageError
from ditzoo.files import OLD, PARTIAL, cache_dir, sha256
from ditzoo.hub import client, pins
from ditzoo.locks import lock_named
from ditzoo.records import Data
from ditzoo.weights import store
from ditzoo.zoo.card import Autoencoder, Card, OnHub

log = logging.getLogger(__name__)

_EXPORTS = {"bundles": "ONNX bundle", "engines": "TensorRT engines"}

_DAMAGED = "damaged weights"

_ABANDONED = 600.0
"""A partial download that was not written to for so many seconds counts as left behind."""


class Item(Data, frozen=True, kw_only=True):
    """A file or folder that takes space: the model it is for, its cache, what it is, its path, and its size in bytes."""

    model: str
    cache: Literal["ditzoo", "hub"]
    what: str
    path: Path
    size: int


def contents(cards: Iterable[Card]) -> list[Item]:
    """All that was pulled, imported or exported, by model: in ditzoo's cache, and of what `cards` name in the Hub's."""
    return [*_weights(), *_unreadable(cards), *_bundles(), *_hub_files(cards)]


def of_model(name: str, cards: Iterable[Card]) -> list[Item]:
    """What is kept for the model called `name` alone; raises UsageError where that is nothing."""
    chosen, others = [], set()
    for item in contents(cards):
        if item.model == name:
            chosen.append(item)
        else:
            others.add(item.path)
    items = [item for item in chosen if item.path not in others]
    if not items:
        raise UsageError(f"nothing is kept for {name!r}; see `ditzoo cache ls`")
    return items


def leftovers(cards: Iterable[Card], *, downloads: bool) -> list[Item]:
    """What nothing uses: partial folders and downloads of killed processes, and weights of cards that have changed since.

    With `downloads`, also the original checkpoints whose canonical form is here and sound.
    """
    known = {store.folder(card) for card in cards}
    items = [item for item in _weights() if item.path not in known]
    items += [_item("", "ditzoo", "partial weights", path) for path in _partial_folders()]
    items += [_item("", "hub", "partial download", path) for path in _partial_downloads()]
    if downloads:
        items += [item for item in _hub_files(cards) if item.what == "checkpoint" and _converted(item.model, cards)]
    return items


def remove(items: Iterable[Item]) -> None:
    """Deletes them, and nothing outside of the two caches: see `ditzoo.hub.client.remove`. Of a link, the link alone goes."""
    for item in items:
        if item.cache == "hub":
            client.remove(item.path)
        elif item.path.is_dir() and not item.path.is_symlink():
            shutil.rmtree(item.path)
        else:
            item.path.unlink(missing_ok=True)


def verify(cards: Iterable[Card]) -> Iterator[tuple[Item, str]]:
    """Checks everything that has a checksum against it; yields each item with what is wrong with it, empty if nothing is."""
    for stored in store.everything():
        item = _item(stored.card.name, "ditzoo", "weights", stored.path)
        yield item, _complaint(lambda stored=stored: store.verify(stored, again=True))  # type: ignore[misc]
    for folder in store.unreadable():
        yield _item(folder.name, "ditzoo", _DAMAGED, folder.path), folder.problem
    for item in _bundles():
        yield item, _complaint(lambda item=item: open_bundle(item.path, again=True))  # type: ignore[misc]
    for item, expected in _recorded(cards):
        yield item, _damage(item.path, expected)


def _damage(path: Path, expected: str | None) -> str:
    """What is wrong with a file in the Hub's cache, as a sentence; empty if nothing is."""
    if complaint := _complaint(lambda: client.check_inside(path)):
        return complaint
    if expected is None or sha256(path) == expected:
        return ""
    return f"{path} has another sha256 than when it was fetched; the next pull fetches it again"


def _complaint(check: Callable[[], object]) -> str:
    """The message of the error that a check raises; empty if it raises none."""
    try:
        check()
    except DitzooError as error:
        return str(error)
    return ""


def _weights() -> list[Item]:
    return [_item(stored.card.name, "ditzoo", "weights", stored.path) for stored in store.everything()]


def _unreadable(cards: Iterable[Card]) -> list[Item]:
    names = {store.folder(card): card.name for card in cards}
    return [_item(names.get(each.path, each.name), "ditzoo", _DAMAGED, each.path) for each in store.unreadable()]


def _bundles() -> list[Item]:
    folders = [(what, path) for kind, what in _EXPORTS.items() for path in sorted((cache_dir() / kind).glob("[!.]*"))]
    return [_bundle(what, path) for what, path in folders if path.is_dir()]


def _bundle(what: str, path: Path) -> Item:
    """An exported bundle, under the name of its model; where its manifest cannot be read, its folder has that: NAME-KEY."""
    try:
        return _item(read_manifest(path).model, "ditzoo", what, path)
    except BundleError:
        return _item(path.name.rpartition("-")[0], "ditzoo", f"damaged {what}", path)


def _hub_files(cards: Iterable[Card]) -> list[Item]:
    return [item for item, _ in _recorded(cards)]


def _recorded(cards: Iterable[Card]) -> Iterator[tuple[Item, str | None]]:
    """The files in the Hub's cache that belong to `cards`, each with the SHA-256 that was recorded for it."""
    for card in cards:
        for what, source in _sources(card):
            recorded = _pins(source.repo)
            commit = source.revision or recorded.newest
            if commit is None:
                continue
            for path in {*(file.path for file in source.files), *_shards(source, recorded.files.get(commit, {}))}:
                local = client.cached(source.repo, path, commit=commit)
                if local is not None:
                    yield _item(card.name, "hub", what, local), recorded.file(commit, path).sha256


def _pins(repo: str) -> pins.Pins:
    """The pins of a repository; none, with a warning, where their file is damaged."""
    try:
        return pins.read(repo)
    except HubError as error:
        log.warning("%s", error)
        return pins.Pins()


def _sources(card: Card) -> Iterator[tuple[str, OnHub]]:
    if isinstance(card.weights, OnHub):
        yield "checkpoint", card.weights
    if isinstance(card.decoder, Autoencoder) and card.decoder.source is not None:
        yield "decoder", card.decoder.source
    if card.text is not None:
        yield "text encoder", card.text.source


def _shards(source: OnHub, recorded: Iterable[str]) -> list[str]:
    """The shards that were fetched because of an index."""
    indexed = source.files[0].path.endswith(".json") and len(source.files) == 1
    return [path for path in recorded if path.endswith((".safetensors", ".bin"))] if indexed else []


def _partial_folders() -> Iterator[Path]:
    """Folders of conversions that nobody is at: their lock is free. None of them holds the only weights that a model has."""
    for path in (cache_dir() / "weights").glob(f".*{PARTIAL}"):
        target = path.with_name(path.name[1:].removesuffix(PARTIAL).rpartition(".")[0])
        try:
            with lock_named(target.name).acquire(timeout=0):
                if target.exists() or not (path / OLD).exists():
                    yield path
        except Timeout:
            continue


def _partial_downloads() -> Iterator[Path]:
    for path in client.cache_folder().glob("models--*/blobs/*.incomplete"):
        if time.time() - path.stat().st_mtime > _ABANDONED:
            yield path


def _converted(name: str, cards: Iterable[Card]) -> bool:
    """Whether the canonical form of that model is here and sound."""
    return store.find_sound(next(card for card in cards if card.name == name)) is not None


def _item(model: str, cache: Literal["ditzoo", "hub"], what: str, path: Path) -> Item:
    if cache == "hub":
        size = path.stat().st_size if client.is_inside(path) else path.lstat().st_size
    else:
        size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
    return Item(model=model, cache=cache, what=what, path=path, size=size)
