"""Lists, checks and removes the files in the two caches, ditzoo's own and the Hub's."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from ditzoo import choices, digests
from ditzoo.bundle import open_bundle, read_manifest
from ditzoo.errors import BundleError, DitzooError, HubError, UsageError
from ditzoo.files import PARTIAL, abandoned, cache_dir, is_partial, sha256
from ditzoo.folders import OLD, target_of, vanish
from ditzoo.hub import client, pins
from ditzoo.records import Data
from ditzoo.weights import store
from ditzoo.zoo.card import Autoencoder, Card, OnHub

log = logging.getLogger(__name__)

_EXPORTS = {"bundles": "ONNX bundle", "engines": "TensorRT engines"}

_DAMAGED = "damaged weights"

_ABANDONED = 600.0
"""The time, in seconds since the last write, after which a partial download counts as abandoned."""


class Item(Data, frozen=True, kw_only=True):
    """A file or folder in a cache: its model, its cache, what it is, its path, and its size in bytes. `options` are those of
    the export, as the command line has them, for an exported bundle."""

    model: str
    cache: Literal["ditzoo", "hub"]
    what: str
    options: str = ""
    path: Path
    size: int


def contents(cards: Iterable[Card]) -> list[Item]:
    """Everything that was pulled, imported, exported or measured: in ditzoo's cache, and files of `cards` in the Hub's."""
    return [*_weights(), *_unreadable(cards), *_bundles(), *_choices(), *_hub_files(cards)]


def of_model(name: str, cards: Iterable[Card]) -> list[Item]:
    """The items that only the model called `name` uses. Raises UsageError if there are none."""
    chosen, others = [], set()
    for item in contents(cards):
        if item.model == name:
            chosen.append(item)
        else:
            others.add(item.path)
    items = [item for item in chosen if item.path not in others]
    if not items:
        raise UsageError(f"the caches hold nothing for {name!r} alone; see `ditzoo cache ls`")
    return items


def leftovers(cards: Iterable[Card], *, downloads: bool, folders: Iterable[Path] = ()) -> list[Item]:
    """The items that nothing uses: the leftovers of killed processes, weights of none of the `cards`, digests of no file, and
    choices of a backend that were made with other versions.

    With `downloads`, also the original checkpoints whose canonical form is stored and not damaged. `folders` are folders of the
    user. What a killed process left there is an item too: a hidden picture, or the hidden folder of a bundle.
    """
    known = {store.folder(card) for card in cards}
    items = [item for item in _weights() if item.path not in known]
    items += [_item("", "ditzoo", "leftover", path) for path in _leftovers_in(cache_dir(), *cache_dir().glob("*"), *folders)]
    items += [_item("", "ditzoo", "outdated digest", path) for path in digests.outdated()]
    items += [_item("", "ditzoo", "outdated choice of a backend", path) for path in choices.outdated()]
    items += [_item("", "hub", "partial download", path) for path in _partial_downloads()]
    if downloads:
        items += [item for item in _hub_files(cards) if item.what == "checkpoint" and _converted(item.model, cards)]
    return items


def remove(items: Iterable[Item]) -> None:
    """Deletes the items. No link is followed out of the two caches: see `client.remove`.

    A leftover that a process uses again by now stays.
    """
    for item in items:
        if item.cache == "hub":
            client.remove(item.path)
        elif is_partial(item.path):
            with abandoned(item.path) as free:
                if free:
                    _delete(item.path)
        else:
            _delete(item.path)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        vanish(path)
    else:
        path.unlink(missing_ok=True)


def verify(cards: Iterable[Card]) -> Iterator[tuple[Item, str]]:
    """Checks every item that has a checksum. Yields each item and its problem, "" if there is no problem."""
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
    """The problem of a file in the Hub's cache, as a sentence; "" if there is none."""
    if complaint := _complaint(lambda: client.check_inside(path)):
        return complaint
    if not path.exists():
        return f"{path} is a link to a file that is gone; the next pull downloads it again"
    if expected is None or sha256(path) == expected:
        return ""
    return f"{path} has changed since its download: its sha256 differs; the next pull downloads it again"


def _complaint(check: Callable[[], object]) -> str:
    """The message of the error that `check` raises; "" if it raises none."""
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
    """The exported bundles. The names of their folders are NAME-KEY."""
    folders = [(what, path) for kind, what in _EXPORTS.items() for path in sorted((cache_dir() / kind).glob("[!.]*"))]
    return [_bundle(what, path) for what, path in folders if path.is_dir()]


def _bundle(what: str, path: Path) -> Item:
    """An exported bundle. If its manifest cannot be read, the name of the model is taken from the folder's: NAME-KEY."""
    try:
        manifest = read_manifest(path)
        _, found, options = manifest.settings["command"].partition(" --")
        return msgspec.structs.replace(_item(manifest.model, "ditzoo", what, path), options=f"{found}{options}".strip())
    except BundleError:
        return _item(path.name.rpartition("-")[0], "ditzoo", f"damaged {what}", path)


def _choices() -> list[Item]:
    """The choices of backends. If one cannot be read, the name of the model is taken from that of the file: NAME-KEY."""
    return [
        _item(path.stem.rpartition("-")[0] if choice is None else choice.situation.model, "ditzoo", "choice of a backend", path)
        for path, choice in choices.choices()
    ]


def _hub_files(cards: Iterable[Card]) -> list[Item]:
    return [item for item, _ in _recorded(cards)]


def _recorded(cards: Iterable[Card]) -> Iterator[tuple[Item, str | None]]:
    """The files of `cards` in the Hub's cache, each with its recorded SHA-256."""
    for card in cards:
        for what, source in _sources(card):
            recorded = _pins(source.repo)
            commit = source.revision or recorded.newest
            if commit is None:
                continue
            for path in {*(file.path for file in source.files), *_shards(source, recorded.files.get(commit, {}))}:
                local = client.linked(source.repo, path, commit=commit)
                if local is not None:
                    yield _item(card.name, "hub", what, local), recorded.file(commit, path).sha256


def _pins(repo: str) -> pins.Pins:
    """The pins of a repository. If their file is damaged, there are none, and a warning says so."""
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
    """The paths of the downloaded shards, if the source is an index of shards; else an empty list."""
    indexed = source.files[0].path.endswith(".json") and len(source.files) == 1
    return [path for path in recorded if path.endswith((".safetensors", ".bin"))] if indexed else []


def _leftovers_in(*folders: Path) -> Iterator[Path]:
    """The temporary files and folders of killed processes in `folders`. None is the only copy of weights or of a bundle."""
    for path in sorted({path for folder in folders for path in folder.glob(f".*{PARTIAL}*") if is_partial(path)}):
        with abandoned(path) as free:
            target = target_of(path)
            if free and (target is None or target.exists() or not (path / OLD).exists()):
                yield path


def _partial_downloads() -> Iterator[Path]:
    for pattern in ("*.incomplete", "tmp_*"):  # the client makes the second kind to find out the umask
        for path in client.cache_folder().glob(f"models--*/blobs/{pattern}"):
            if time.time() - path.lstat().st_mtime > _ABANDONED:
                yield path


def _converted(name: str, cards: Iterable[Card]) -> bool:
    """Whether the canonical form of the model called `name` is stored and not damaged."""
    return store.find_sound(next(card for card in cards if card.name == name)) is not None


def _item(model: str, cache: Literal["ditzoo", "hub"], what: str, path: Path) -> Item:
    if cache == "hub":
        size = path.stat().st_size if client.is_inside(path) and path.exists() else path.lstat().st_size
    else:
        size = sum(file.lstat().st_size for file in (path, *path.rglob("*")) if file.is_file())
    return Item(model=model, cache=cache, what=what, path=path, size=size)
