"""The quantized graphs of a bundle, made from its float32 ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnx

from ditzoo.bundle import Graph
from ditzoo_export.onnx_files import write_with_weights
from ditzoo_export.quantization.calibration import by_layer
from ditzoo_export.quantization.dynamic import write_dynamic
from ditzoo_export.quantization.qdq import write_qdq
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
    """Quantizes the float32 graphs in `source`, writes them into `folder`, and returns them by name.

    The graph "conditioning" runs once for a whole plan and stays in float32. So do the modules whose paths match the pattern
    `left_out`. `largest` is the result of `largest_inputs` if the settings ask for scales that are measured beforehand.
    """
    quantized = dict(graphs)
    for name, graph in graphs.items():
        given, made = source / graph.file, folder / graph.file
        if name == "conditioning":
            write_with_weights(onnx.load(given), made)
            continue
        if settings.calibrated:
            own = largest if name == "backbone" else by_layer(largest, source / graphs["backbone"].file, given)
            write_qdq(given, made, settings.precision, largest=own, left_out=left_out)
        else:
            write_dynamic(given, made, left_out=left_out)
        quantized[name] = msgspec.structs.replace(graph, precision=settings.precision)
    return quantized
