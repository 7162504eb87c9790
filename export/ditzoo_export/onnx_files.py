"""ONNX files: writing a PyTorch module as ONNX, checking the file, and writing a modified graph."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import IdentityEliminationPass
from onnxscript.optimizer import optimize_ir
from torch import nn

from ditzoo.backends.sessions import open_session
from ditzoo.bundle import Graph
from ditzoo.errors import ExportError
from ditzoo.measure.metrics import relative_l2
from ditzoo.measure.parity import TOLERANCES
from ditzoo.progress import SILENT, Display
from ditzoo_export.scopes import keep_only_scopes

Inputs: TypeAlias = dict[str, np.ndarray]

TRACED_BATCH = 2

_CHECKED_BATCHES = (1, 3)


def write_onnx(module: nn.Module, graph: Graph, path: Path, example: Inputs, *, display: Display = SILENT) -> None:
    """Writes `module` as ONNX to `path`, and its weights into a separate file beside it. The stages appear on `display`.

    ONNX Runtime maps that file into memory, which saves two copies of the weights. An axis is symbolic if the graph's spec has
    a name for it. The file holds no paths of this machine. The arguments of the module have the names of the graph's inputs.
    `example` has a value for each of them.
    """
    axes = {spec.name: {i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)} for spec in graph.inputs}
    with _quiet(), torch.no_grad():
        with display.stage(f"tracing {graph.file}"):
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
        with display.stage(f"optimizing {graph.file}"):
            weights = list(program.model.graph.initializers.values())
            optimize_ir(program.model, num_iterations=1)  # torch's default is 2, but the second only finds identities
            IdentityEliminationPass()(program.model)
            keep_only_scopes(program.model)
        with display.stage(f"writing {graph.file}"):
            program.save(path, external_data=True)
            for weight in weights:
                weight.const_value = None  # onnxscript's rules keep a reference to the last graph


def write_graph(
    module: nn.Module, graph: Graph, folder: Path, example: Callable[[int], np.ndarray], *, display: Display = SILENT
) -> None:
    """Writes `module`, which has one input and one output, to the file of `graph` in `folder`, and checks it.

    `example` makes an input for a batch size. The check compares it with torch at two batch sizes that were not traced.
    Raises ExportError if the error is beyond the tolerance for fp32, or if the file is not valid ONNX.
    """
    path = folder / graph.file
    write_onnx(module, graph, path, {graph.inputs[0].name: example(TRACED_BATCH)}, display=display)
    with display.stage(f"verifying {graph.file}"):
        check_form(path, graph)
        _verify(module, graph, path, example)


def check_form(path: Path, graph: Graph) -> None:
    """Raises ExportError if the file is not valid ONNX, or not in the graph's opset."""
    opset = ir.load(path).opset_imports.get("")
    if opset != graph.opset:
        raise ExportError(f"{graph.file} was written in opset {opset}, not {graph.opset}; this torch cannot export it")
    try:
        onnx.checker.check_model(path)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"{graph.file} is not valid ONNX: {error}; nothing was kept") from error


def write_with_weights(model: onnx.ModelProto, path: Path) -> None:
    """Replaces the graph at `path`. The weights go into a separate file beside it."""
    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=data.name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides the warnings and log messages of torch's exporter."""
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
