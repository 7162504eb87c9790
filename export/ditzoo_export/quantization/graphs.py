"""The quantized graphs of a bundle, made from its float32 ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir

from ditzoo.bundle import Graph
from ditzoo_export.onnx_files import read_with_weights, write_with_weights
from ditzoo_export.quantization.dynamic import write_dynamic
from ditzoo_export.quantization.qdq import insert_qdq
from ditzoo_export.settings import Settings


def write_quantized(
    source: Path,
    folder: Path,
    graphs: Mapping[str, Graph],
    settings: Settings,
    *,
    largest: Mapping[str, np.ndarray],
    left_out: str,
) -> dict[str, Graph]:
    """Writes the float32 graphs in `source` into `folder` in eight bits, and returns them by name.

    The graph "conditioning", which runs once for a whole plan, stays in float32. `left_out` is the pattern of the modules that
    stay in float32 too. `largest` is what `ditzoo_export.quantization.calibration` found, if the settings ask for scales that
    are measured beforehand.
    """
    quantized = dict(graphs)
    for name, graph in graphs.items():
        if name != "conditioning":
            quantized[name] = msgspec.structs.replace(graph, precision=settings.precision)
        if name != "conditioning" and not settings.calibrated:
            write_dynamic(source / graph.file, folder / graph.file, left_out=left_out)
            continue
        model = read_with_weights(source / graph.file)
        if name != "conditioning":
            insert_qdq(model.graph, settings.precision, largest=largest, left_out=left_out)
        write_with_weights(ir.to_proto(model), folder / graph.file)
    return quantized
