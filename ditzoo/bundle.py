"""A bundle: the folder that an export leaves, with a manifest of all that is in it; and the cache of such folders.

backbone.onnx (and its external data)   plan.json   card.json   manifest.json
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Literal

import msgspec
from filelock import FileLock

from ditzoo.card import Card
from ditzoo.errors import BundleError, UsageError
from ditzoo.files import cache_dir, check_writable, sha256
from ditzoo.plan import Plan, load_plan
from ditzoo.specs import Data, Precision, T, TensorSpec, from_json

MANIFEST, CARD, PLAN = "manifest.json", "card.json", "plan.json"


class FileRecord(Data, frozen=True, kw_only=True):
    """What a file of a bundle must be: its size in bytes and its SHA-256."""

    size: int
    sha256: str


class Graph(Data, frozen=True, kw_only=True):
    """An ONNX graph of a bundle: its file, how it computes, and what goes in and out."""

    file: str
    precision: Precision
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Verification(Data, frozen=True, kw_only=True):
    """How far ONNX Runtime was from PyTorch when the export was checked: the largest relative L2 error of an output."""

    batches: tuple[int, ...]
    random: float
    trajectory: float
    tolerance: float


class Manifest(Data, frozen=True, kw_only=True):
    """What a bundle holds and what made it."""

    format: Literal["ditzoo-bundle/1"] = "ditzoo-bundle/1"
    model: str
    graphs: dict[str, Graph]
    files: dict[str, FileRecord]
    made_by: dict[str, str]
    verified: Verification


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """An opened bundle, every file of it checked against the manifest."""

    path: Path
    manifest: Manifest
    card: Card
    plan: Plan


def is_bundle(path: Path) -> bool:
    """Whether the folder at `path` says it is a bundle."""
    return (path / MANIFEST).is_file()


def open_bundle(path: Path) -> Bundle:
    """Opens and checks the bundle at `path`; raises BundleError naming the first file that is missing, changed or truncated."""
    if not path.is_dir():
        raise BundleError(f"no bundle at {path}: there is no such folder; `ditzoo export onnx NAME --out {path}` makes one")
    if not is_bundle(path):
        raise BundleError(f"no bundle at {path}: it has no {MANIFEST}; `ditzoo export onnx NAME --out DIR` makes one")
    manifest = _read(path / MANIFEST, Manifest)
    for name, record in manifest.files.items():
        _check_file(path, name, record, remedy=f"`ditzoo export onnx {manifest.model} --out {path} --overwrite` makes it again")
    for graph in manifest.graphs.values():
        if graph.file not in manifest.files:
            raise BundleError(
                f"{path / MANIFEST} has a graph in {graph.file!r}, which is none of its files; do not use this bundle"
            )
    return Bundle(path=path, manifest=manifest, card=_read(path / CARD, Card), plan=load_plan(path / PLAN))


def record_files(folder: Path) -> dict[str, FileRecord]:
    """A record of every file in `folder`, by name."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: FileRecord(size=path.stat().st_size, sha256=sha256(path)) for path in files}


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that becomes `target` when the block ends well, at once and whole, or vanishes.

    Another process doing the same waits. A bundle that was at `target` is replaced; anything else there is an error.
    """
    target, prefix = target.absolute(), f".{target.name}."
    with _lock(target):
        _check_replaceable(target)
        for stale in target.parent.glob(f"{glob.escape(prefix)}*.partial"):  # of a process that was killed
            shutil.rmtree(stale)
        with tempfile.TemporaryDirectory(prefix=prefix, suffix=".partial", dir=target.parent) as scratch:
            fresh = Path(scratch) / "new"
            fresh.mkdir()
            yield fresh
            if target.exists():
                target.rename(Path(scratch) / "old")
            fresh.rename(target)


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raises UsageError unless a bundle can be written to `target`: its parent is there and writable, and nothing is lost."""
    check_writable(target.parent)
    _check_replaceable(target)
    if target.exists() and any(target.iterdir()) and not overwrite:
        raise UsageError(f"there is a bundle at {target} already; add --overwrite to replace it, or choose another folder")


def _lock(target: Path) -> FileLock:
    """The lock of whoever writes `target`; it lies in the cache, not beside the target."""
    locks = cache_dir() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{hashlib.sha256(os.fsencode(target)).hexdigest()}.lock")


def _check_replaceable(target: Path) -> None:
    if target.exists() and not (target.is_dir() and (is_bundle(target) or not any(target.iterdir()))):
        raise UsageError(f"{target} is there already and is no bundle; choose another --out")


def _check_file(folder: Path, name: str, record: FileRecord, *, remedy: str) -> None:
    if PurePath(name).name != name or name == "..":
        raise BundleError(f"{folder / MANIFEST} names a file outside of the bundle: {name!r}; do not use this bundle")
    path = folder / name
    if not path.is_file():
        raise BundleError(f"the bundle {folder} lacks {name}; {remedy}")
    if path.stat().st_size != record.size:
        raise BundleError(
            f"{path} has {path.stat().st_size:,} bytes instead of {record.size:,}: truncated or changed; {remedy}"
        )
    if sha256(path) != record.sha256:
        raise BundleError(f"{path} was changed or damaged (its sha256 is not the manifest's); {remedy}")


def _read(path: Path, kind: type[T]) -> T:
    try:
        return from_json(path.read_bytes(), kind)
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read {path}: {error}") from error
