"""Writing one module as ONNX, and checking it against torch, for the graphs beside the network."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import nn

from ditzoo.bundle import Graph
from ditzoo.errors import ExportError
from ditzoo.parity import TOLERANCES, relative_l2

_TRACED_BATCH, _CHECKED_BATCHES = 2, (1, 3)


def write_graph(module: nn.Module, graph: Graph, folder: Path, example: Callable[[int], np.ndarray]) -> None:
    """Writes `module`, of one input and one output, as the file of `graph` in `folder`, with a symbolic batch axis.

    `example` makes an input of a batch size. Raises ExportError where ONNX Runtime's output is beyond the fp32 tolerance of
    torch's at one of two other batch sizes.
    """
    spec, result, path = graph.inputs[0], graph.outputs[0], folder / graph.file
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            (torch.from_numpy(example(_TRACED_BATCH)),),
            dynamo=True,
            opset_version=graph.opset,
            dynamic_shapes=({0: "batch"},),
            input_names=[spec.name],
            output_names=[result.name],
            verbose=False,
        )
        assert program is not None, "the dynamo exporter returns a program"
        ClearMetadataAndDocStringPass()(program.model)  # stack traces hold local paths
        program.save(path)
    onnx.checker.check_model(path)
    _verify(module, graph, path, example)


def _verify(module: nn.Module, graph: Graph, path: Path, example: Callable[[int], np.ndarray]) -> None:
    session, tolerance = ort.InferenceSession(path, providers=["CPUExecutionProvider"]), TOLERANCES["fp32"].forward
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
