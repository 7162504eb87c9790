"""Describing an exported file: its inputs, profiles, dtypes, operations and size, the GPUs that it runs on, and its origin."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ditzoo.bundle import ENGINE, MANIFEST, Bundle, Engine, is_bundle, open_bundle
from ditzoo.errors import BundleError

Facts = dict[str, Any]

_LARGEST = 2**31
"""The size in bytes that protobuf allows for a file. Larger weights are in a file of their own."""


def inspect(path: Path) -> Facts:
    """The facts about a bundle's folder, an ONNX file or an engine of a bundle. Raises BundleError for any other `path`."""
    if path.is_dir():
        return _bundle(open_bundle(path))
    if not path.is_file():
        raise BundleError(f"there is no {path}; give a bundle's folder, an .onnx file or an {ENGINE} file")
    return _engine_file(path) if path.suffix == ENGINE or path.name in _engines_beside(path) else _onnx(path)


def _bundle(bundle: Bundle) -> Facts:
    manifest = bundle.manifest
    return {
        "kind": f"bundle of {manifest.model}",
        "graphs": {name: f"{graph.precision}, opset {graph.opset}, {graph.file}" for name, graph in manifest.graphs.items()},
        "engines": {name: _runs_on(engine) for name, engine in manifest.engines.items()},
        "verified": f"{manifest.verified.random:.1e} random, {manifest.verified.trajectory:.1e} along a trajectory,"
        f" tolerance {manifest.verified.tolerance:.1e}",
        "plan": f"{bundle.plan.solver}, {len(bundle.plan.rows)} evaluations",
        "files": {name: record.size for name, record in manifest.files.items()},
        "made with": manifest.settings["command"],
        "made by": manifest.made_by,
    }


def _engine_file(path: Path) -> Facts:
    if not is_bundle(path.parent):
        raise BundleError(
            f"{path} is not in a ditzoo bundle: it has no {MANIFEST} beside it, and TensorRT reads an engine only on its GPU"
        )
    engines = _engines_beside(path)
    if path.name not in engines:
        raise BundleError(f"{path} is not an engine of its bundle; its engines are: {', '.join(engines) or 'none'}")
    engine = engines[path.name]
    return {
        "kind": f"engine of {engine.graph}",
        "runs on": _runs_on(engine),
        "inputs": list(map(str, engine.inputs)),
        "outputs": list(map(str, engine.outputs)),
        "profiles": list(map(str, engine.profiles)),
        "options": list(engine.options),
        "bytes": path.stat().st_size,
        "built in": f"{engine.seconds} s",
    }


def _engines_beside(path: Path) -> dict[str, Engine]:
    """The engines of the bundle that holds the file, by the names of their files. Empty if the file is not in a bundle."""
    engines = open_bundle(path.parent).manifest.engines.values() if is_bundle(path.parent) else ()
    return {engine.file: engine for engine in engines}


def _runs_on(engine: Engine) -> str:
    return f"{engine.flavour} {engine.version} {engine.precision} on {', '.join(engine.gpus)}"


def _onnx(path: Path) -> Facts:
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
        "opset": ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in model.opset_imports.items()),
        "inputs": list(map(_value, model.graph.inputs)),
        "outputs": list(map(_value, model.graph.outputs)),
        "weights": dict(weights),
        "ops": dict(Counter(node.op_type for node in model.graph).most_common()),
        "bytes": sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")),
        "producer": f"{model.producer_name or ''} {model.producer_version or ''}".strip(),
    }


def _value(value: ir.Value) -> str:
    """An input or output as text: "x: float[batch, 4, 32, 32]"."""
    shape = ", ".join(str(axis) for axis in value.shape or ())
    return f"{value.name}: {value.dtype.name.lower() if value.dtype else 'unknown'}[{shape}]"
