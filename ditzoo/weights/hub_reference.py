"""References `hf:OWNER/REPO[@REVISION][:PATH]`: they pull from any repository of the Hub.

The checkpoint must have a layout that ditzoo knows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ditzoo.errors import CheckpointError, HubError, UsageError
from ditzoo.files import cache_dir, disk_errors
from ditzoo.hub import client, offline
from ditzoo.hub.client import PATIENCE, Advance, silent
from ditzoo.hub.fetch import resolve
from ditzoo.locks import lock_named
from ditzoo.progress import SILENT, Display
from ditzoo.records import Data, from_json, read_limited
from ditzoo.weights import store
from ditzoo.weights.conversion import convert_into_store
from ditzoo.weights.pull import Pulled, fetch_checkpoint
from ditzoo.zoo.bounds import shown
from ditzoo.zoo.card import Card, File, Layout, OnHub, split_reference

if TYPE_CHECKING:
    from ditzoo.checkpoint import Pick
    from ditzoo.weights.likeness import Like

log = logging.getLogger(__name__)

PREFIX = "hf:"

_CARD = "card.json"
_FOLDERS = ("", "transformer/")
_PREFERRED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
_CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin")


class Reference(Data, frozen=True, kw_only=True):
    """A parsed reference. `revision` and `path` are None if the reference does not have them."""

    repo: str
    revision: str | None
    path: str | None


def parse(text: str) -> Reference:
    """The parts of a reference. Raises UsageError if `text` is not a reference."""
    parts = split_reference(text)
    if parts is None:
        raise UsageError(
            f"{shown(text)} is not a reference to the Hub; write hf:OWNER/REPO, hf:OWNER/REPO@REVISION or hf:OWNER/REPO:PATH"
        )
    return Reference(repo=parts[0], revision=parts[1], path=parts[2])


def pull_reference(
    text: str,
    *,
    like: Like | None = None,
    pick: Pick | None = None,
    patience: float = PATIENCE,
    advance: Advance = silent,
    display: Display = SILENT,
) -> Pulled:
    """Pulls the checkpoint that a reference names. From then on the reference is the model's name.

    The conventions (schedule, prediction, decoder) come from the first of these that exists: the card in `like`, the card.json
    of the repository, the zoo's card of that repository, the only card whose network fits the checkpoint. `pick` selects the
    network among the tensors of the checkpoint. Raises UsageError if no card or several cards remain, and HubError or
    CheckpointError for the same reasons as `pull`.
    """
    reference = parse(text)
    with disk_errors(cache_dir(), raises=HubError), lock_named(text):
        commit, files, asked = _listed(reference, patience=patience)
        path = reference.path or _choose(text, files)
        if path not in files:
            raise UsageError(f"{reference.repo} has no file {path}; it has {', '.join(_checkpoints(files)) or 'no checkpoint'}")
        parts = [path, store.DECODER] if path == store.MODEL and store.DECODER in files else [path]
        source = _source(text, reference.repo, commit, parts)
        fetched = fetch_checkpoint(source, patience=patience, advance=advance, display=display)
        base = None if like and like.card else _published_card(source, files, patience=patience)
        if base is None:
            base = _derived(text, source, fetched.checkpoint, files, like=like, pick=pick, patience=patience)
        card = msgspec.structs.replace(base, name=text, weights=fetched.source)
        with store.locked(card):
            kept = convert_into_store(
                card, fetched.checkpoint, fetched.source, decoder=fetched.decoder, pick=pick, display=display
            )
    resolved_now = asked and reference.revision != commit
    return Pulled(card=card, path=kept.path / store.MODEL, source=fetched.source, resolved_now=resolved_now)


def _listed(reference: Reference, *, patience: float) -> tuple[str, list[str], bool]:
    """The commit of a reference, its files, and whether they come from the server.

    If no server can be reached, they come from the Hub's cache.
    """
    try:
        return *client.list_files(reference.repo, revision=reference.revision, patience=patience), True
    except client.UnreachableError:
        commit = offline.find_revision(reference.repo, reference.revision, [reference.path] if reference.path else ())
        if commit is None:
            raise
    log.warning("%s: no server can be reached; using revision %s from the Hub's cache", reference.repo, commit)
    return commit, offline.files_of(reference.repo, commit), False


def _source(text: str, repo: str, commit: str, paths: Sequence[str]) -> OnHub:
    try:
        return OnHub(repo=repo, revision=commit, files=tuple(File(path=path) for path in paths))
    except ValueError as error:
        raise UsageError(f"{text}: the server sent an invalid commit or path: {error}; do not use this repository") from error


def _choose(text: str, files: Sequence[str]) -> str:
    """The path of the checkpoint in a repository: a file with a usual name if there is one, else the only candidate."""
    for folder in _FOLDERS:
        for name in _PREFERRED:
            if folder + name in files:
                return folder + name
    candidates = _checkpoints(files)
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise UsageError(f"{text}: the repository has no checkpoint (no {', '.join(_CHECKPOINTS)} file)")
    raise UsageError(
        f"{text}: the repository has several checkpoints; pick one: {', '.join(f'{text}:{path}' for path in candidates)}"
    )


def _checkpoints(files: Sequence[str]) -> list[str]:
    return [path for path in files if path.endswith(_CHECKPOINTS)]


def _published_card(source: OnHub, files: Sequence[str], *, patience: float) -> Card | None:
    """The card.json of the repository, which `ditzoo push` writes, else the zoo's card of that repository and file.

    None if there is neither.
    """
    from ditzoo.zoo import CARDS

    if _CARD in files:
        try:
            return from_json(_small_file(source, _CARD, patience=patience), Card)
        except ValueError as error:
            raise CheckpointError(
                f"the card.json of {source.repo} is not a valid card: {error};"
                " name a card with the same conventions: --like CARD"
            ) from error
    for card in CARDS.values():
        known = card.weights
        if isinstance(known, OnHub) and known.repo == source.repo and known.files[0].path == source.files[0].path:
            return card
    return None


def _derived(
    text: str, source: OnHub, checkpoint: Path, files: Sequence[str], *, like: Like | None, pick: Pick | None, patience: float
) -> Card:
    """The card derived from the shapes of the checkpoint, and from the card that the user names in `like`."""
    from ditzoo.checkpoint import shapes_of
    from ditzoo.weights.likeness import Like, derive

    layout, shapes = shapes_of(checkpoint, pick)
    derived = derive(text, shapes, like or Like(), side=_sample_size(layout, source, files, patience=patience))
    for remark in derived.remarks:
        log.warning("%s", remark)
    return derived.card


def _sample_size(layout: Layout, source: OnHub, files: Sequence[str], *, patience: float) -> int | None:
    """The height and width of the latents, from the config.json beside a checkpoint in diffusers' layout; None if unknown.

    The tensors of that layout do not show the size.
    """
    config = source.files[0].path.rpartition("/")[0] + "/config.json"
    config = config.lstrip("/")
    if layout != "diffusers" or config not in files:
        return None
    try:
        content: dict[str, Any] = from_json(_small_file(source, config, patience=patience), dict[str, Any])
    except ValueError as error:
        raise CheckpointError(f"the {config} of {source.repo} is not valid JSON: {error}") from error
    side = content.get("sample_size")
    return side if isinstance(side, int) else None


def _small_file(source: OnHub, path: str, *, patience: float) -> bytes:
    """The bytes of a file of the repository. Raises ValueError if it is too large for a record."""
    _, paths = resolve(msgspec.structs.replace(source, files=(File(path=path),)), patience=patience, advance=silent)
    return read_limited(paths[path])
