"""A bundle: the folder that an export creates.

It holds ONNX graphs and their external data, or TensorRT engines; and plan.json, card.json, and manifest.json, which lists all
files.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec

from ditzoo.bundle_checks import check_network, check_tensors
from ditzoo.errors import BundleError, PlanError, UsageError, check_type, shortened, shown_path
from ditzoo.files import check_replaceable, check_target, check_writable, disk_errors, path_problem
from ditzoo.folders import Identity, appearing, identity, partial_folders, recover
from ditzoo.locks import lock_of
from ditzoo.manifests import FileRecord, damage, is_file_name
from ditzoo.plan.table import Plan, check_plan
from ditzoo.records import Data, T, from_json, one_line, read_limited
from ditzoo.specs import Flavour, Precision, Profile, TensorSpec
from ditzoo.zoo.card import Card

MANIFEST, CARD, PLAN = "manifest.json", "card.json", "plan.json"

ENGINE = ".engine"
"""The suffix of TensorRT engines. Code that reads a bundle takes the names from the manifest, as older bundles use .plan."""

REUSE_GRAPH = "backbone-reuse"
"""The name of the graph that runs the first and the last blocks of the backbone only."""

log = logging.getLogger(__name__)


class Graph(Data, frozen=True, kw_only=True):
    """An ONNX graph of a bundle: its file, its precision, its opset, and its inputs and outputs.

    The graph "backbone" takes latents, times and condition. If there is a graph "conditioning", that graph takes times and
    condition, and "backbone" takes latents and the outputs of "conditioning". The graph "guided" includes guidance.

    If there is a graph "backbone-reuse", the second output of "backbone" is the residual of its middle blocks.
    "backbone-reuse" takes what "backbone" takes, and a residual; it runs only the first `outer_blocks` and the last
    `outer_blocks` blocks. It reads its weights from the file of "backbone". Other graphs do not have that field.
    """

    file: str
    precision: Precision
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    outer_blocks: int | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        check_tensors(self.file, self.inputs, self.outputs)


class Engine(Data, frozen=True, kw_only=True):
    """A TensorRT engine of a bundle.

    `graph` is the graph that it was built from, `version` the version of TensorRT, `gpus` the GPUs that it runs on, `profiles`
    the shapes that it takes, and `seconds` the time of its build. `outer_blocks` is that of its graph.
    """

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
    outer_blocks: int | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        check_tensors(self.file, self.inputs, self.outputs)
        named = {axis for spec in (*self.inputs, *self.outputs) for axis in spec.shape if isinstance(axis, str)}
        for profile in self.profiles:
            if missing := named - profile.axes.keys():
                raise ValueError(f"a profile of {self.file} has no range for the axis {' and '.join(sorted(missing))}")


class Verification(Data, frozen=True, kw_only=True):
    """The result of the export's verification: the largest relative L2 error of an output, compared with PyTorch in fp32.

    `random` is the error on random latents; for graphs with static quantization scales it is the error on latents of another
    sampling run. `trajectory` is the error on latents of a sampling run. `sizes` are the heights and widths of the latents, and
    `times` the times on the trajectory. `rounded` says that the CPU lacks the arithmetic of the precision, so that every node
    ran in float32 and its result was rounded.
    """

    batches: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    times: tuple[float, ...]
    random: float
    trajectory: float
    tolerance: float
    rounded: bool = False


class Manifest(Data, frozen=True, kw_only=True):
    """The contents of a bundle, and its origin.

    `key` is a hash of everything that the bundle depends on. `settings` are the settings of the export, for readers. `weights`
    is the SHA-256 of the file of the weights, or None if the weights did not come from a file.
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

    def __post_init__(self) -> None:
        command = self.settings.get("command", "")
        if not command.startswith("ditzoo export ") or not command.isprintable():
            raise ValueError(f"the settings have no command of an export, but {command[:200]!r}")
        for name, part in self.parts:
            if (name == REUSE_GRAPH) != (part.outer_blocks is not msgspec.UNSET):
                raise ValueError(f"{name[:200]} must have outer_blocks if and only if it is {REUSE_GRAPH}")
        if not any(name == "backbone" for name, _ in self.parts):
            raise ValueError("it has neither a graph nor an engine called backbone")
        self._check_names()

    def _check_names(self) -> None:
        """Raises ValueError if it names a file that could be outside the bundle, or one that it does not list.

        Names of graphs and engines are checked too: a Triton model repository and a refitted engine use them as file names.
        """
        for name in (*self.files, *self.graphs, *self.engines, *(engine.graph for engine in self.engines.values())):
            if not is_file_name(name):
                raise ValueError(f"it names a file outside the bundle: {name!r}; do not use this bundle")
        for kind, made in (("graph", self.graphs.values()), ("engine", self.engines.values())):
            for each in made:
                if each.file not in self.files:
                    raise ValueError(f"it names the {kind} {each.file!r}, but does not list that file; do not use this bundle")

    @property
    def parts(self) -> list[tuple[str, Graph | Engine]]:
        """Every graph and every engine, with the name of its graph."""
        return [*self.graphs.items(), *((engine.graph, engine) for engine in self.engines.values())]


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """An opened bundle. Every file has been checked against the manifest.

    `identity` tells the folder from one that replaces it later. It is None for a copy that nothing replaces.
    """

    path: Path
    manifest: Manifest
    card: Card
    plan: Plan
    identity: Identity | None = None


def owner_of_weights(file: str) -> str:
    """The file of the graph whose weights the graph in `file` reads: the backbone's for "backbone-reuse", else its own."""
    return "backbone.onnx" if file == f"{REUSE_GRAPH}.onnx" else file


def is_bundle(path: Path) -> bool:
    """Whether the folder at `path` has the manifest of a bundle."""
    return (path / MANIFEST).is_file()


def open_bundle(path: str | os.PathLike[str], *, again: bool = False) -> Bundle:
    """Opens the bundle at `path`, and checks its files.

    Sizes are always compared. Checksums are computed on first use, after any change, and if `again` is True. If another export
    replaces the bundle meanwhile, the new one is opened. Raises BundleError if there is no bundle, or with the name of the
    first file that is missing, changed or truncated.
    """
    check_type("path", path, (str, os.PathLike), "the path of a bundle's folder")
    path = Path(path)
    if (problem := path_problem(path)) is not None:
        raise BundleError(f"no bundle at {shortened(str(path))!r}: {problem}; give the path of a bundle's folder")
    _finish(path.absolute())
    while True:
        before = identity(path)
        try:
            bundle = _open(path, before, again=again)
        except BundleError:
            if identity(path) == before:
                raise
        else:
            if identity(path) == before:
                return bundle


def consistently(bundle: Bundle, use: Callable[[Bundle], T]) -> T:
    """The result of `use`, which reads files of `bundle`.

    If another export replaces the bundle meanwhile, `use` may have read files of both. Then it runs again on the new bundle.
    Raises BundleError if the new bundle has other contents.
    """
    while True:
        try:
            result = use(bundle)
        except Exception:
            if bundle.identity in (None, identity(bundle.path)):
                raise
        else:
            if bundle.identity in (None, identity(bundle.path)):
                return result
        fresh = open_bundle(bundle.path)
        if fresh.manifest.key != bundle.manifest.key:
            raise BundleError(f"{bundle.path} was replaced by another bundle since it was opened; run the command again")
        bundle = fresh


def _finish(path: Path) -> None:
    """If a process was killed as it replaced the bundle at `path`, and left none there, puts the previous one back.

    If a process is about to put the new one there, waits for it.
    """
    if not path.exists() and partial_folders(path):
        with suppress(UsageError, OSError), lock_of(path):
            recover(path)


def _open(path: Path, found: Identity | None, *, again: bool) -> Bundle:
    """The bundle at `path`, whose identity is `found`. See `open_bundle`."""
    shown = shown_path(path)
    if path.is_file():
        raise BundleError(f"no bundle at {shown}: it is a file; give a bundle's folder, or see `ditzoo inspect {shown}`")
    if not path.is_dir():
        raise BundleError(f"no bundle at {shown}: there is no such folder; `ditzoo export onnx NAME --out {shown}` creates one")
    if not is_bundle(path):
        raise BundleError(f"no bundle at {shown}: it has no {MANIFEST}; `ditzoo export onnx NAME --out DIR` creates one")
    manifest = read_manifest(path)
    for name, record in manifest.files.items():
        _check_file(
            path, name, record, remedy=f"`{manifest.settings['command']} --out {path} --overwrite` replaces it", again=again
        )
    card = _read(path / CARD, Card)
    try:
        plan = Plan.load(path / PLAN)
        check_plan(card, plan)
        check_network(card, manifest.model, manifest.parts)
    except (PlanError, UsageError, ValueError) as error:
        raise BundleError(f"the bundle {path} contradicts itself: {one_line(error)}; do not use this bundle") from error
    return Bundle(path=path, manifest=manifest, card=card, plan=plan, identity=found)


def read_manifest(path: Path) -> Manifest:
    """The manifest of the bundle at `path`. No file is checked. Raises BundleError if the manifest cannot be read."""
    return _read(path / MANIFEST, Manifest)


def provide(target: Path, key: str, fill: Callable[[Path], None], *, overwrite: bool) -> tuple[Bundle, bool]:
    """The bundle at `target` with that `key`, and whether it existed already. If it did not, `fill` writes it to a new folder.

    The new folder replaces `target` in one step when `fill` succeeds; if `fill` fails, it is deleted. Another process with the
    same target waits. A bundle that is there can be in a folder that cannot be written. Raises UsageError if `target` is not a
    bundle, if it is another bundle and `overwrite` is False, or if it cannot be written.
    """
    check_target(target)
    if (bundle := _whole(target, key)) is not None:
        return bundle, True
    check_writable(target.parent)
    with lock_of(target):
        recover(target.absolute())
        if bundle := find_bundle(target, key):
            return bundle, True
        check_replaceable(target)
        _check_replaceable(target, overwrite=overwrite)
        with disk_errors(target), appearing(target.absolute()) as folder:
            fill(folder)
        return open_bundle(target), False


@contextmanager
def provide_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A new folder that replaces `target` when the block succeeds, for files that are not a bundle.

    Raises UsageError if `target` exists and `overwrite` is False, or if it cannot be written.
    """
    check_target(target)
    check_replaceable(target)
    check_writable(target.parent)
    with lock_of(target):
        recover(target.absolute())
        if target.exists() and not overwrite:
            raise UsageError(f"{target} exists already; add --overwrite to replace it, or choose another folder")
        with disk_errors(target), appearing(target.absolute()) as folder:
            yield folder


def _whole(target: Path, key: str) -> Bundle | None:
    """The bundle at `target` with that `key`. None if it is not there, is damaged, or has leftovers that can be deleted."""
    if partial_folders(target.absolute()) and os.access(target.parent, os.W_OK):
        return None
    if not is_bundle(target):
        return None
    with suppress(BundleError):
        bundle = open_bundle(target)
        return bundle if bundle.manifest.key == key else None
    return None


def find_bundle(target: Path, key: str) -> Bundle | None:
    """The bundle at `target`. None if there is none, if its key is another one, or, with a warning, if it is damaged."""
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
        raise UsageError(f"{target} exists already and is not a bundle; choose another --out")
    if not overwrite:
        raise UsageError(f"there is another bundle at {target}; add --overwrite to replace it, or choose another folder")


def _check_file(folder: Path, name: str, record: FileRecord, *, remedy: str, again: bool) -> None:
    path = folder / name
    if problem := damage(path, record, again=again):
        raise BundleError(f"{path} {problem}; {remedy}")


def _read(path: Path, kind: type[T]) -> T:
    try:
        return from_json(read_limited(path), kind)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"cannot read {shown_path(path)}: {one_line(error)}; export the bundle again (--overwrite), or copy it again"
        ) from error
