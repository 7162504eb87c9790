"""Tracing a network to ONNX, and checking what came out before anybody sees it."""

from __future__ import annotations

import ast
import hashlib
import logging
import platform
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from ditzoo import nets
from ditzoo.backends.onnxruntime import OnnxRuntimeBackend
from ditzoo.backends.torch import TorchBackend
from ditzoo.bundle import (
    CARD,
    MANIFEST,
    PLAN,
    Bundle,
    Graph,
    Manifest,
    Verification,
    appearing,
    check_target,
    is_bundle,
    open_bundle,
    record_files,
)
from ditzoo.card import Card
from ditzoo.errors import BundleError, ExportError
from ditzoo.files import cache_dir
from ditzoo.parity import TOLERANCES, forward_error
from ditzoo.plan import make_plan
from ditzoo.sample import class_condition, evaluation_inputs, sample_steps
from ditzoo.specs import to_json
from ditzoo.text import prompt_condition
from ditzoo_export.decoder import export_decoder
from ditzoo_export.text import export_text

OPSET = 20
"""The newest opset whose attention TensorRT builds as it is: from 23 on it is one op that needs its own handling there."""

SCOPE = "ditzoo.scope"
"""The metadata of an ONNX node that says which module of the network it belongs to, such as "blocks.0.attn.qkv"."""

_SCOPES = "pkg.torch.onnx.name_scopes"
_GRAPH = "backbone.onnx"
_TRACED_BATCH, _CHECKED_BATCHES, _CHECKED_STEPS = 2, (1, 3), 5
_PACKAGES = ("ditzoo", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")

_Inputs = dict[str, np.ndarray]

log = logging.getLogger(__name__)


def export_onnx(card: Card, out: Path, *, overwrite: bool = False) -> Bundle:
    """Exports the card's network to a bundle in the folder `out`, which appears only once it was verified.

    Verified means: ONNX's checker accepts it, the opset is the one asked for, and ONNX Runtime's output is within the fp32
    tolerance of torch's at two batch sizes, on random inputs and on latents of a trajectory. Raises ExportError otherwise, and
    UsageError where `out` cannot be written or is taken.
    """
    check_target(out, overwrite=overwrite)
    with appearing(out) as folder:
        _fill(folder, card)
    return open_bundle(out)


def cached_bundle(card: Card) -> Bundle:
    """The card's bundle in ditzoo's cache, exported on first use. Its name hashes all that it depends on."""
    made_of = hashlib.sha256(to_json(card) + repr((sorted(_made_by().items()), OPSET)).encode()).hexdigest()
    target = cache_dir() / "bundles" / f"{card.name}-{made_of[:16]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    if is_bundle(target):
        try:
            return open_bundle(target)
        except BundleError as error:
            log.warning("%s; making it again", error)
    return export_onnx(card, target, overwrite=True)


def _fill(folder: Path, card: Card) -> None:
    net = nets.load(card)
    _trace(net, folder / _GRAPH)
    graph = Graph(file=_GRAPH, precision="fp32", opset=OPSET, inputs=net.inputs, outputs=net.outputs)
    graphs = {"backbone": graph, **export_decoder(card, folder, opset=OPSET), **export_text(card, folder, opset=OPSET)}
    (folder / PLAN).write_bytes(make_plan(card).to_json())
    (folder / CARD).write_bytes(to_json(card))
    manifest = Manifest(
        model=card.name,
        graphs=graphs,
        files=record_files(folder),
        made_by=_made_by(),
        verified=_verify(folder, graph, card, net),
    )
    (folder / MANIFEST).write_bytes(to_json(manifest))


def _trace(net: nets.Net, path: Path) -> None:
    """Writes `net` as ONNX, with symbolic axes where its specs have them, and without a trace of this machine."""
    rng = np.random.default_rng(0)
    example = {name: torch.from_numpy(value) for name, value in _random_inputs(net, _TRACED_BATCH, rng).items()}
    axes = {spec.name: {i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)} for spec in net.inputs}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            net.eval(),
            kwargs=example,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=axes,
            input_names=[spec.name for spec in net.inputs],
            output_names=[spec.name for spec in net.outputs],
            verbose=False,
        )
        assert program is not None, "the dynamo exporter returns a program"
        _keep_scopes_alone(program.model)
        program.save(path)


def _keep_scopes_alone(model: ir.Model) -> None:
    """Strips all metadata, whose stack traces hold local paths, but for the path of the module that each node belongs to."""
    scopes = [(node, ast.literal_eval(node.metadata_props.get(_SCOPES, "['']"))) for node in model.graph]
    ClearMetadataAndDocStringPass()(model)
    for node, modules in scopes:
        node.metadata_props[SCOPE] = modules[-2] if len(modules) > 1 else ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides what torch's exporter says about itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _verify(folder: Path, graph: Graph, card: Card, net: nets.Net) -> Verification:
    _check_graph(folder / graph.file, graph.opset)
    reference = TorchBackend(card, net=net)
    with OnnxRuntimeBackend(folder, graph, card) as candidate:
        return Verification(
            batches=_CHECKED_BATCHES,
            random=_worst(reference, candidate, "random", _random_probes(net)),
            trajectory=_worst(reference, candidate, "mid-trajectory", _trajectory_probes(reference)),
            tolerance=TOLERANCES[graph.precision].forward,
        )


def _check_graph(path: Path, opset: int) -> None:
    """Raises ExportError unless the file is valid ONNX of the opset that was asked for."""
    model = onnx.load(path, load_external_data=False)
    written = {entry.domain: entry.version for entry in model.opset_import}
    if written != {"": opset}:
        raise ExportError(f"{path.name} was written with the opsets {written}, not {opset}; this torch cannot export that one")
    try:
        onnx.checker.check_model(path)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"{path.name} is not valid ONNX: {error}; nothing was kept") from error


def _worst(reference: TorchBackend, candidate: OnnxRuntimeBackend, kind: str, probes: Iterable[_Inputs]) -> float:
    """The largest relative error over `probes`; raises ExportError, naming the place, where it is beyond the tolerance."""
    tolerance = TOLERANCES[candidate.precision].forward
    worst = 0.0
    for inputs in probes:
        error = forward_error(reference, candidate, inputs)
        if not error <= tolerance:
            raise ExportError(
                f"the exported {reference.card.name} is off by {error:.1e} (tolerance {tolerance:.0e})"
                f" on {kind} inputs of batch {len(inputs['x'])} at time {inputs['t'][0]:g}; nothing was kept"
            )
        worst = max(worst, error)
    return worst


def _random_probes(net: nets.Net) -> Iterator[_Inputs]:
    rng = np.random.default_rng(1)
    for batch in _CHECKED_BATCHES:
        yield _random_inputs(net, batch, rng)


def _trajectory_probes(backend: TorchBackend) -> Iterator[_Inputs]:
    """The inputs of each evaluation of a short sampling run, with both halves of guidance where there are two."""
    card = backend.card
    plan = make_plan(card, steps=_CHECKED_STEPS)
    for batch in _CHECKED_BATCHES:
        condition = None
        if card.number_of_classes:
            condition = class_condition(card, [i % card.number_of_classes for i in range(batch)])
        elif card.text is not None:
            condition = prompt_condition(card, [f"prompt {i}" for i in range(batch)])
        for step in sample_steps(backend, plan, count=batch, condition=condition):
            if step.done < len(plan.rows):
                yield evaluation_inputs(backend.numpy(step.x), plan.rows[step.done], condition)


def _random_inputs(net: nets.Net, batch: int, rng: np.random.Generator) -> _Inputs:
    """Inputs of each kind that the network takes: normal latents and text, times up to 1000, any label."""
    labels = net.config.num_classes
    inputs: _Inputs = {}
    for spec in net.inputs:
        shape = spec.concrete(batch=batch)
        if spec.name == "t":
            inputs[spec.name] = rng.uniform(0, 1000, shape).astype(spec.dtype)
        elif spec.dtype == "int64":
            inputs[spec.name] = rng.integers(0, labels, shape)
        else:
            inputs[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
    return inputs


def _made_by() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
