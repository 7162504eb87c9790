"""Writing int8 graphs for CPUs with ONNX Runtime's quantizer. They measure their scales as they run ("dynamic")."""

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
    """Writes the float32 graph at `source` to `path` with quantized layers. See `quantized_layers` for `left_out`."""
    model = ir.load(source)
    forget_types(model.graph)  # the quantizer fails on some of them
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
    """Does the same as `add_missing_scopes`, but on the protobuf message of the quantizer.

    onnx_ir would write the types of the values in another order.
    """
    graph = ir.from_proto(model).graph
    add_missing_scopes(graph, scopes)
    for written, node in zip(model.graph.node, graph, strict=True):
        if not written.metadata_props:
            written.metadata_props.add(key=SCOPE, value=scope_of(node))


def _quantize(source: Path, path: Path, layers: list[str | None]) -> None:
    """Runs ONNX Runtime's quantizer from file to file, and hides its log messages."""
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
            extra_options={"DefaultTensorType": ir.DataType.FLOAT.value},  # after operations that ONNX does not define
        )
    finally:
        root.setLevel(level)
