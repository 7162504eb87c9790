"""Writing one module as ONNX, and checking the file."""

from __future__ import annotations

import ast
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, IdentityEliminationPass
from onnxscript.optimizer import optimize_ir
from torch import nn

from ditzoo.backends.sessions import open_session
from ditzoo.bundle import Graph
from ditzoo.errors import ExportError
from ditzoo.measure.metrics import relative_l2
from ditzoo.measure.parity import TOLERANCES

Inputs: TypeAlias = dict[str, np.ndarray]

SCOPE = "ditzoo.scope"
"""The metadata of an ONNX node that says which module of the network it belongs to, such as "blocks.0.attn.qkv"."""

TRACED_BATCH = 2

_SCOPES = "pkg.torch.onnx.name_scopes"
_CHECKED_BATCHES = (1, 3)


def write_onnx(module: nn.Module, graph: Graph, path: Path, example: Inputs) -> None:
    """Writes `module` as ONNX, with symbolic axes where the graph's specs have them, and without a trace of this machine; its
    weights into a file beside it, which ONNX Runtime maps instead of copying it twice.

    The module's arguments are named as the graph's inputs; `example` has a value for each.
    """
    axes = {spec.name: {i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)} for spec in graph.inputs}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            kwargs={name: torch.from_numpy(value) for name, value in example.items()},
            dynamo=True,
            opset_version=graph.opset,
            dynamic_shapes=axes,
            input_names=[spec.name for spec in graph.inputs],
            output_names=[spec.name for spec in graph.outputs],
            verbose=False,
            optimize=False,
        )
        assert program is not None, "the dynamo exporter returns a program"
        weights = list(program.model.graph.initializers.values())
        optimize_ir(program.model, num_iterations=1)  # torch has two, and the second finds nothing but identities
        IdentityEliminationPass()(program.model)
        _keep_scopes_alone(program.model)
        program.save(path, external_data=True)
        for weight in weights:
            weight.const_value = None  # onnxscript's rules hold on to the last graph that they saw


def write_graph(module: nn.Module, graph: Graph, folder: Path, example: Callable[[int], np.ndarray]) -> None:
    """Writes `module`, of one input and one output, as the file of `graph` in `folder`, and checks it.

    `example` makes an input of a batch size. Raises ExportError where ONNX Runtime's output is beyond the fp32 tolerance of
    torch's at one of two other batch sizes.
    """
    path = folder / graph.file
    write_onnx(module, graph, path, {graph.inputs[0].name: example(TRACED_BATCH)})
    check_form(path, graph)
    _verify(module, graph, path, example)


def check_form(path: Path, graph: Graph) -> None:
    """Raises ExportError unless the file is valid ONNX of the graph's opset."""
    model = onnx.load(path, load_external_data=False)
    opset = {opset.domain: opset.version for opset in model.opset_import}.get("")
    if opset != graph.opset:
        raise ExportError(f"{graph.file} was written in opset {opset}, not {graph.opset}; this torch cannot export it")
    try:
        onnx.checker.check_model(path)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"{graph.file} is not valid ONNX: {error}; nothing was kept") from error


def scope_of(node: onnx.NodeProto) -> str:
    """The path of the module that a node belongs to; empty for the network itself, and where nothing is known."""
    return next((entry.value for entry in node.metadata_props if entry.key == SCOPE), "")


def spread_scopes(model: onnx.ModelProto, modules: Mapping[str, str]) -> None:
    """Gives nodes that were added to a graph the module of the value that they give, as `modules` has it by the value's name,
    or else that of the node that takes what they give."""
    known = dict(modules)
    for node in reversed(model.graph.node):
        if not any(entry.key == SCOPE for entry in node.metadata_props):
            module = next((known[name] for name in node.output if name in known), "")
            node.metadata_props.add(key=SCOPE, value=module)
        for name in node.input:
            known.setdefault(name, scope_of(node))


def _keep_scopes_alone(model: ir.Model) -> None:
    """Strips all metadata, whose stack traces hold local paths, but for the path of the module that each node belongs to."""
    scopes = [(node, ast.literal_eval(node.metadata_props.get(_SCOPES, "['']"))) for node in model.graph]
    ClearMetadataAndDocStringPass()(model)
    for node, modules in scopes:
        inner = modules[-2] if len(modules) > 1 else ""
        node.metadata_props[SCOPE] = re.sub(r"^(net(\.|$))+", "", inner)  # what the exporter has wrapped around it


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


def _verify(module: nn.Module, graph: Graph, path: Path, example: Callable[[int], np.ndarray]) -> None:
    session, tolerance = open_session(path), TOLERANCES["fp32"].forward
    for batch in _CHECKED_BATCHES:
        values = example(batch)
        with torch.inference_mode():
            expected = module(torch.from_numpy(values)).numpy()
        error = relative_l2(session.run(None, {graph.inputs[0].name: values})[0], expected)
        if not error <= tolerance:
            raise ExportError(
                f"the exported {graph.file} is off by {error:.1e} (tolerance {tolerance:.0e}) at batch {batch};"
                " nothing was kept"
            )
