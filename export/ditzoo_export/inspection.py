"""Describing an exported file: its inputs, profiles, dtypes, operations and size, the GPUs that it runs on, and its origin."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ditzoo.bundle import ENGINE, MANIFEST, Bundle, Engine, Graph, Manifest, is_bundle, open_bundle
from ditzoo.errors import BundleError, DitzooError, MissingPackageError, shortened, shown_path
from ditzoo.files import path_problem
from ditzoo.plan.table import Plan
from ditzoo.records import from_json, read_limited
from ditzoo.zoo.card import Card

if TYPE_CHECKING:
    import onnx_ir as ir

Facts = dict[str, Any]

_LARGEST = 2**31
"""The size in bytes that protobuf allows for a file. Larger weights are in a file of their own."""


def inspect(path: Path) -> Facts:
    """The facts about a bundle's folder, or about one of its files, or about any ONNX file.

    The values are numbers, texts, and lists and dictionaries of them. Raises BundleError for any other `path`, and
    MissingPackageError for an ONNX file if the packages that read it are not installed.
    """
    if (problem := path_problem(path)) is not None:
        raise BundleError(f"cannot inspect {shortened(str(path))!r}: {problem}; give the path of a bundle or of a file of it")
    if path.is_dir():
        return _bundle(open_bundle(path))
    shown = shown_path(path)
    if not path.exists():
        raise BundleError(f"there is no {shown}; give a bundle's folder, or a .json, an .onnx or an {ENGINE} file of it")
    if not path.is_file():
        raise BundleError(f"{shown} is not a regular file; give a bundle's folder, or a file of it")
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
    checked = manifest.verified
    return {
        "kind": f"bundle of {manifest.model}",
        "graphs": {name: _graph(graph) for name, graph in manifest.graphs.items()},
        "engines": {name: _engine(engine) for name, engine in manifest.engines.items()},
        "needs": _needs(manifest),
        "verified": {"random": checked.random, "trajectory": checked.trajectory, "tolerance": checked.tolerance},
        "files": {name: record.size for name, record in manifest.files.items()},
        "made with": f"{manifest.settings['command']} --out {folder}",
        "made by": manifest.made_by,
    }


def _graph(graph: Graph) -> Facts:
    return {
        "file": graph.file,
        "precision": graph.precision,
        "opset": graph.opset,
        "inputs": list(map(str, graph.inputs)),
        "outputs": list(map(str, graph.outputs)),
    }


def _needs(manifest: Manifest) -> list[str]:
    """The runtimes that run the bundle, each with its oldest version, or the one version of TensorRT that built an engine."""
    engines = {f"{engine.flavour} {engine.version}, {', '.join(engine.gpus)}" for engine in manifest.engines.values()}
    return sorted(engines) if engines else [f"onnxruntime {_OLDEST_RUNTIME} or newer"]


_OLDEST_RUNTIME = "1.23"
"""The oldest version of ONNX Runtime that graphs of either opset were run with."""


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
        "kind": f"plan of {plan.solver}",
        "evaluations": len(plan.rows),
        "initial": plan.initial,
        "channels": plan.channels,
        "guided channels": plan.guided_channels,
        "times": [row.time for row in plan.rows],
        "guidance": [row.guidance for row in plan.rows],
        "states kept": max(len(row.states) for row in plan.rows),
        "predictions kept": max(len(row.predictions) for row in plan.rows),
        "draws of noise": sum(row.draws for row in plan.rows),
    }


def _card_file(path: Path) -> Facts:
    card = from_json(read_limited(path), Card)
    return {"kind": f"card of {card.name}", **msgspec.to_builtins(card), "parameters": card.backbone.parameters}


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
    return {"kind": f"engine of {engine.graph}", **_engine(engine), "bytes": path.stat().st_size}


def _engine(engine: Engine) -> Facts:
    return {
        "file": engine.file,
        "graph": engine.graph,
        "runs on": f"{engine.flavour} {engine.version} {engine.precision} on {', '.join(engine.gpus)}",
        "inputs": list(map(str, engine.inputs)),
        "outputs": list(map(str, engine.outputs)),
        "profiles": list(map(str, engine.profiles)),
        "options": list(engine.options),
        "seconds to build": engine.seconds,
    }


def _engines_beside(path: Path) -> dict[str, Engine]:
    """The engines of the bundle that holds the file, by the names of their files. Empty if the file is not in a bundle."""
    engines = open_bundle(path.parent).manifest.engines.values() if is_bundle(path.parent) else ()
    return {engine.file: engine for engine in engines}


def _onnx(path: Path) -> Facts:
    if find_spec("onnx_ir") is None:
        raise MissingPackageError(f"reading {path} needs the package onnx-ir: pip install onnx-ir")
    import onnx_ir as ir

    if path.stat().st_size > _LARGEST:
        raise BundleError(f"{path} is not an ONNX file: it has more than 2 GB")
    try:
        model = ir.load(path, format="protobuf")
    except Exception as error:  # a file that is not ONNX can raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BundleError(f"{path} is not an ONNX file: {reason}") from error
    if not model.graph.num_nodes():
        raise BundleError(f"{path} is not an ONNX file: it holds no graph")
    ours = is_bundle(path.parent)
    weights = Counter(value.dtype.name for value in model.graph.initializers.values() if value.dtype is not None)
    return {
        "kind": f"ONNX graph of a bundle of {open_bundle(path.parent).manifest.model}"
        if ours
        else "ONNX graph, not of a ditzoo bundle",
        "opset": {domain or "ai.onnx": version for domain, version in model.opset_imports.items()},
        "inputs": list(map(_value, model.graph.inputs)),
        "outputs": list(map(_value, model.graph.outputs)),
        "weights": dict(weights),
        "ops": dict(Counter(node.op_type for node in model.graph).most_common()),
        "bytes": path.stat().st_size,
        "external data": _external_data(model, path.parent),
        "producer": f"{model.producer_name or ''} {model.producer_version or ''}".strip(),
    }


def _external_data(model: ir.Model, folder: Path) -> dict[str, int | str]:
    """The size in bytes of each file of weights that a graph refers to; "missing" if the folder does not have it."""
    tensors = [value.const_value for value in model.graph.initializers.values()]
    names = sorted({str(place) for tensor in tensors if (place := getattr(tensor, "location", None)) is not None})
    return {name: (folder / name).stat().st_size if (folder / name).is_file() else "missing" for name in names}


def _value(value: ir.Value) -> str:
    """An input or output as text: "x: float[batch, 4, 32, 32]"."""
    shape = ", ".join(str(axis) for axis in value.shape or ())
    return f"{value.name}: {value.dtype.name.lower() if value.dtype else 'unknown'}[{shape}]"
