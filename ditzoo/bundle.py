"""A bundle: the folder that an export leaves, with a manifest of all that is in it; and the cache of such folders.

ONNX graphs and their external data, or TensorRT engines   plan.json   card.json   manifest.json
"""

from __future__ import annotations

import logging
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from ditzoo.errors import BundleError, UsageError, check_type
from ditzoo.files import appearing, check_writable, disk_errors, recover, replacing
from ditzoo.locks import lock_of
from ditzoo.manifests import FileRecord, damage, is_file_name
from ditzoo.plan.table import Plan
from ditzoo.records import Data, T, from_json
from ditzoo.specs import Flavour, Precision, Profile, TensorSpec
from ditzoo.zoo.card import Card

MANIFEST, CARD, PLAN = "manifest.json", "card.json", "plan.json"

ENGINE = ".engine"
"""How the names of TensorRT's engines end. Readers take the names from the manifest: in older bundles they end in .plan."""

log = logging.getLogger(__name__)


class Graph(Data, frozen=True, kw_only=True):
    """An ONNX graph of a bundle: its file, how it computes, and what goes in and out.

    "backbone" takes latents, times and condition; or, where there is a graph "conditioning", which takes times and condition,
    latents and what that one gives. "guided" has guidance inside it.
    """

    file: str
    precision: Precision
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Engine(Data, frozen=True, kw_only=True):
    """A TensorRT engine of a bundle: the graph that it was built from, where it runs, and for which sizes."""

    file: str
    graph: str
    flavour: Flavour
    version: str
    gpus: tuple[str, ...]
    precision: Precision
    profiles: tuple[Profile, ...]
    options: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    seconds: float


class Verification(Data, frozen=True, kw_only=True):
    """How far the export was from PyTorch in fp32 when it was checked: the largest relative L2 error of an output.

    `sizes` are latents' heights and widths, `times` those along the trajectory. `random` is on random latents, or on those of
    another sampling run where the graphs have scales for such. `rounded`: the CPU has no such arithmetic, so every node ran in
    float32 and its result was rounded.
    """

    batches: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    times: tuple[float, ...]
    random: float
    trajectory: float
    tolerance: float
    rounded: bool = False


class Manifest(Data, frozen=True, kw_only=True):
    """What a bundle holds and what made it. `key` hashes all that it depends on; `settings` are the export's, to read.

    `weights` is the SHA-256 of the card's weights, None where they were none of a file.
    """

    format: Literal["ditzoo-bundle/2"] = "ditzoo-bundle/2"
    model: str
    key: str
    weights: str | None = None
    settings: dict[str, str]
    graphs: dict[str, Graph]
    engines: dict[str, Engine] = msgspec.field(default_factory=dict)
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


def open_bundle(path: str | os.PathLike[str], *, again: bool = False) -> Bundle:
    """Opens and checks the bundle at `path`; raises BundleError naming the first file that is missing, changed or truncated.

    Sizes are compared every time; checksums on first use and after any change, or, if they have to be, `again`.
    """
    check_type("path", path, (str, os.PathLike), "the path of a bundle's folder")
    path = Path(path)
    if path.is_file():
        raise BundleError(f"no bundle at {path}: it is a file; give a bundle's folder, or see `ditzoo inspect {path}`")
    if not path.is_dir():
        raise BundleError(f"no bundle at {path}: there is no such folder; `ditzoo export onnx NAME --out {path}` makes one")
    if not is_bundle(path):
        raise BundleError(f"no bundle at {path}: it has no {MANIFEST}; `ditzoo export onnx NAME --out DIR` makes one")
    manifest = read_manifest(path)
    _check_names(path, manifest)
    for name, record in manifest.files.items():
        _check_file(
            path, name, record, remedy=f"`{manifest.settings['command']} --out {path} --overwrite` makes it again", again=again
        )
    return Bundle(path=path, manifest=manifest, card=_read(path / CARD, Card), plan=Plan.load(path / PLAN))


def read_manifest(path: Path) -> Manifest:
    """The manifest of the bundle at `path`, none of whose files is checked; raises BundleError where it cannot be read."""
    return _read(path / MANIFEST, Manifest)


def provide(target: Path, key: str, fill: Callable[[Path], None], *, overwrite: bool) -> tuple[Bundle, bool]:
    """The bundle of that `key` at `target`, and whether it was there already. If not, `fill` makes it in a new folder.

    That folder becomes `target` at once and whole when all is well, or vanishes. Another process with the same target waits.
    Raises UsageError where something else is at `target`, the disk is full, or `target` cannot be written.
    """
    check_writable(target.parent)
    with lock_of(target):
        recover(target.absolute())
        if bundle := find_bundle(target, key):
            return bundle, True
        _check_replaceable(target, overwrite=overwrite)
        with disk_errors(target), appearing(target.absolute()) as folder:
            fill(folder)
        return open_bundle(target), False


@contextmanager
def provide_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A new folder that becomes `target` when the block ends well, for what is no bundle; UsageError where there is one."""
    check_writable(target.parent)
    with lock_of(target):
        recover(target.absolute())
        if target.exists() and not overwrite:
            raise UsageError(f"{target} is there already; add --overwrite to replace it, or choose another folder")
        with disk_errors(target), appearing(target.absolute()) as folder:
            yield folder


def pack(bundle: Bundle, archive: Path) -> None:
    """Writes a bundle as a tar archive, whole or not at all; the same bytes for the same bundle."""
    if archive.suffix != ".tar":
        raise UsageError(f"--tar writes a .tar file, not {archive}")
    check_writable(archive.parent, "--tar")
    names = sorted([MANIFEST, *bundle.manifest.files])
    with disk_errors(archive), replacing(archive) as scratch, tarfile.open(scratch, "w") as tar:
        for name in names:
            tar.add(bundle.path / name, arcname=f"{archive.stem}/{name}", filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


def find_bundle(target: Path, key: str) -> Bundle | None:
    """The bundle at `target`, if there is one of that key and it is sound."""
    if not is_bundle(target):
        return None
    try:
        bundle = open_bundle(target)
    except BundleError as error:
        log.warning("%s", error)
        return None
    return bundle if bundle.manifest.key == key else None


def _check_replaceable(target: Path, *, overwrite: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir() or not is_bundle(target):
        raise UsageError(f"{target} is there already and is no bundle; choose another --out")
    if not overwrite:
        raise UsageError(f"there is another bundle at {target}; add --overwrite to replace it, or choose another folder")


def _check_names(folder: Path, manifest: Manifest) -> None:
    """Raises BundleError where what the manifest names could be outside of the bundle, or is none of its files.

    The names of graphs and engines become those of files, too, in a Triton model repository and beside a refitted engine.
    """
    engines = manifest.engines.values()
    for name in (*manifest.files, *manifest.graphs, *manifest.engines, *(engine.graph for engine in engines)):
        if not is_file_name(name):
            raise BundleError(f"{folder / MANIFEST} names a file outside of the bundle: {name!r}; do not use this bundle")
    for kind, made in (("a graph", manifest.graphs.values()), ("an engine", engines)):
        for each in made:
            if each.file not in manifest.files:
                raise BundleError(
                    f"{folder / MANIFEST} has {kind} in {each.file!r}, which is none of its files; do not use this bundle"
                )


def _check_file(folder: Path, name: str, record: FileRecord, *, remedy: str, again: bool) -> None:
    path = folder / name
    if problem := damage(path, record, again=again):
        raise BundleError(f"{path} {problem}; {remedy}")


def _read(path: Path, kind: type[T]) -> T:
    try:
        return from_json(path.read_bytes(), kind)
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read {path}: {error}") from error
