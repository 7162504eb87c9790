"""Describing an exported file: its inputs, profiles, dtypes, operations and size, the GPUs that it runs on, and its origin.

The facts are for programs: `ditzoo.cli.inspect` words them for readers.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ditzoo.bundle import CARD, ENGINE, MANIFEST, PLAN, Bundle, Engine, Manifest, is_bundle, open_bundle
from ditzoo.errors import BundleError, DitzooError, MissingPackageError, shortened, shown_path
from ditzoo.files import path_problem
from ditzoo.plan.table import Plan
from ditzoo.records import Data, from_json, read_limited
from ditzoo.zoo.card import Card

if TYPE_CHECKING:
    import onnx_ir as ir

Facts = dict[str, Any]
"""Facts by their names. The values are numbers, texts, records of tensors and profiles, and lists and dictionaries of these."""

_LARGEST = 2**31
"""The size in bytes that protobuf allows for a file. Larger weights are in a file of their own."""


_READS = f"a bundle's folder, its {PLAN}, {CARD} or {MANIFEST}, a graph or an {ENGINE} file of it, or any ONNX file"

OLDEST_RUNTIME = "1.24.1"
"""The oldest version of ONNX Runtime that runs every graph: older ones do not compute those of opset 23."""


class Value(Data, frozen=True, kw_only=True):
    """An input or output of an ONNX graph, with the fields of `ditzoo.specs.TensorSpec`.

    `shape` is None if it is unknown, and an axis of it is "?".
    """

    name: str
    shape: tuple[int | str, ...] | None
    dtype: str

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{'...' if self.shape is None else ', '.join(map(str, self.shape))}]"


def inspect(path: Path) -> Facts:
    """The facts about a bundle's folder, or about one of its files, or about any ONNX file.

    Raises BundleError for any other `path`, and MissingPackageError for an ONNX file if the packages that read it are not
    installed.
    """
    if (problem := path_problem(path)) is not None:
        raise BundleError(f"cannot inspect {shortened(str(path))!r}: {problem}; inspect reads {_READS}")
    if path.is_dir():
        return _bundle(open_bundle(path))
    shown = shown_path(path)
    if not path.exists():
        raise BundleError(f"there is no {shown}; inspect reads {_READS}")
    if not path.is_file():
        raise BundleError(f"{shown} is not a regular file; inspect reads {_READS}")
    if path.suffix == ".json":
        return _json_file(path)
    return _engine_file(path) if path.suffix == ENGINE or path.name in _engines_beside(path) else _onnx(path)


def _bundle(bundle: Bundle) -> Facts:
    return {
        **_manifest(bundle.manifest, shlex.quote(str(bundle.path))),
        "plan": {"solver": bundle.plan.solver, "evaluations": len(bundle.plan.rows)},
    }


def _manifest(manifest: Manifest, folder: str) -> Facts:
    """The facts in a manifest. `folder` is where its bundle is, as a word of a command line."""
    return {
        "kind": "bundle",
        "model": manifest.model,
        "graphs": {name: _fields(graph) for name, graph in manifest.graphs.items()},
        "engines": {name: _fields(engine) for name, engine in manifest.engines.items()},
        "needs": _needs(manifest),
        "graphs_verified": _fields(manifest.verified),
        "files": {name: record.size for name, record in manifest.files.items()},
        "command": f"{manifest.settings['command']} --out {folder}",
        "made_by": manifest.made_by,
    }


def _fields(record: Data) -> Facts:
    """The fields of a record, without those that are not set."""
    return {name: value for name, value in msgspec.structs.asdict(record).items() if value is not msgspec.UNSET}


def _needs(manifest: Manifest) -> dict[str, str]:
    """The packages that run the bundle, each with its versions: ">=" the oldest, or "==" the one that built the engines."""
    engines = {engine.flavour.replace("_", "-"): f"=={engine.version}" for engine in manifest.engines.values()}
    return engines or {"onnxruntime": f">={OLDEST_RUNTIME}"}


def _json_file(path: Path) -> Facts:
    """The facts about a plan, a card or a manifest, whatever the name of its file is."""
    problems = []
    for kind, look in _RECORDS.items():
        try:
            return look(path)
        except (ValueError, DitzooError) as error:
            problems.append(f"no {kind} ({error})")
    raise BundleError(f"{path} is {', '.join(problems)}")


def _plan_file(path: Path) -> Facts:
    plan = Plan.load(path)
    return {
        "kind": "plan",
        "solver": plan.solver,
        "evaluations": len(plan.rows),
        "initial": plan.initial,
        "channels": plan.channels,
        "guided_channels": plan.guided_channels,
        "times": [row.time for row in plan.rows],
        "guidance": [row.guidance for row in plan.rows],
        "states_kept": max(len(row.states) for row in plan.rows),
        "predictions_kept": max(len(row.predictions) for row in plan.rows),
        "draws_of_noise": sum(row.draws for row in plan.rows),
    }


def _card_file(path: Path) -> Facts:
    card = from_json(read_limited(path), Card)
    return {"kind": "card", **msgspec.to_builtins(card), "parameters": card.backbone.parameters}


def _manifest_file(path: Path) -> Facts:
    return _manifest(from_json(read_limited(path), Manifest), shlex.quote(str(path.parent)))


_RECORDS: dict[str, Callable[[Path], Facts]] = {"plan": _plan_file, "card": _card_file, "manifest": _manifest_file}
"""The functions that describe JSON files, by what they hold."""


def _engine_file(path: Path) -> Facts:
    if not is_bundle(path.parent):
        raise BundleError(
            f"{path} is not in a ditzoo bundle: it has no {MANIFEST} beside it, and TensorRT reads an engine only on its GPU"
        )
    engines = _engines_beside(path)
    if path.name not in engines:
        raise BundleError(f"{path} is not an engine of its bundle; its engines are: {', '.join(engines) or 'none'}")
    engine = engines[path.name]
    return {"kind": "engine", **_fields(engine), "bytes": path.stat().st_size}


def _engines_beside(path: Path) -> dict[str, Engine]:
    """The engines of the bundle that holds the file, by the names of their files. Empty if the file is not in a bundle."""
    engines = open_bundle(path.parent).manifest.engines.values() if is_bundle(path.parent) else ()
    return {engine.file: engine for engine in engines}


def _onnx(path: Path) -> Facts:
    if find_spec("onnx_ir") is None:
        raise MissingPackageError(f"reading {path} needs the package onnx-ir: pip install 'ditzoo[export]'")
    import onnx_ir as ir

    if path.stat().st_size > _LARGEST:
        raise BundleError(f"{path} is not an ONNX graph: it has more than 2 GB; inspect reads {_READS}")
    try:
        model = ir.load(path, format="protobuf")
    except Exception as error:  # a file that is not ONNX can raise anything
        raise BundleError(f"{path} is not an ONNX graph, or it is damaged; inspect reads {_READS}") from error
    if not model.graph.num_nodes():
        raise BundleError(f"{path} is not an ONNX graph: it has no operations; inspect reads {_READS}")
    weights = Counter(value.dtype.name for value in model.graph.initializers.values() if value.dtype is not None)
    return {
        "kind": "onnx",
        "bundle_of": open_bundle(path.parent).manifest.model if is_bundle(path.parent) else None,
        "opset": {domain or "ai.onnx": version for domain, version in model.opset_imports.items()},
        "inputs": tuple(map(_value, model.graph.inputs)),
        "outputs": tuple(map(_value, model.graph.outputs)),
        "weights": dict(weights),
        "ops": dict(Counter(node.op_type for node in model.graph).most_common()),
        "bytes": path.stat().st_size,
        "external_data": _external_data(model, path.parent),
        "producer": f"{model.producer_name or ''} {model.producer_version or ''}".strip(),
    }


def _external_data(model: ir.Model, folder: Path) -> dict[str, int | str]:
    """The size in bytes of each file of weights that a graph refers to; "missing" if the folder does not have it."""
    tensors = [value.const_value for value in model.graph.initializers.values()]
    names = sorted({str(place) for tensor in tensors if (place := getattr(tensor, "location", None)) is not None})
    return {name: (folder / name).stat().st_size if (folder / name).is_file() else "missing" for name in names}


def _value(value: ir.Value) -> Value:
    axes = () if value.shape is None else value.shape
    shape = tuple(axis if isinstance(axis, int) else axis.value or "?" for axis in axes)
    dtype = value.dtype.name.lower() if value.dtype else "unknown"
    return Value(
        name=value.name or "",
        shape=None if value.shape is None else shape,
        dtype={"float": "float32", "double": "float64"}.get(dtype, dtype),
    )
