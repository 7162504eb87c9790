"""Graphs in int8 that measure their inputs as they run ("dynamic"), for CPUs: by ONNX Runtime's own quantizer."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir
from onnxruntime.quantization import QuantType, quantize_dynamic

from ditzoo_export.onnx_files import write_with_weights
from ditzoo_export.quantization.layers import forget_types, quantized_layers
from ditzoo_export.scopes import SCOPE, add_missing_scopes, scope_of, scopes_of_values


def write_dynamic(source: Path, path: Path, *, left_out: str) -> None:
    """Writes the float32 graph at `source` to `path` with quantized layers; `left_out` is as in `quantized_layers`."""
    model = ir.load(source)
    forget_types(model.graph)  # the quantizer cannot cope with them
    untyped = source.with_name(f"untyped-{source.name}")
    ir.save(model, untyped)
    layers, scopes = [layer.name for layer in quantized_layers(model.graph, left_out)], scopes_of_values(model.graph)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        result = Path(scratch) / path.name
        _quantize(untyped, result, layers)
        quantized = onnx.load(result)
    _add_missing_scopes(quantized, scopes)
    write_with_weights(quantized, path)


def _add_missing_scopes(model: onnx.ModelProto, scopes: dict[str, str]) -> None:
    """See `add_missing_scopes`. It works on what the quantizer wrote: onnx_ir would change the order of the values' types."""
    graph = ir.from_proto(model).graph
    add_missing_scopes(graph, scopes)
    for written, node in zip(model.graph.node, graph, strict=True):
        if not written.metadata_props:
            written.metadata_props.add(key=SCOPE, value=scope_of(node))


def _quantize(source: Path, path: Path, layers: list[str | None]) -> None:
    """Runs ONNX Runtime's quantizer from file to file, and keeps what it says to itself."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        quantize_dynamic(
            source,
            path,
            nodes_to_quantize=layers,
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            extra_options={"DefaultTensorType": ir.DataType.FLOAT.value},  # behind operations that ONNX itself does not know
        )
    finally:
        root.setLevel(level)
