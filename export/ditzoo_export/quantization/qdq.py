"""Writing quantized graphs with scales that were measured beforehand.

The scales are in pairs of QuantizeLinear and DequantizeLinear ("Q/DQ"). TensorRT fuses such pairs into its int8 and fp8
kernels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from ditzoo.specs import PRECISION_TRAITS, Precision
from ditzoo_export.onnx_files import write_with_weights
from ditzoo_export.quantization.layers import forget_types, input_of, output_axis, quantized_layers, weights_of
from ditzoo_export.scopes import add_missing_scopes, scopes_of_values

SMOOTHING = 0.7
"""SmoothQuant's alpha. 0.5, 0.7 and 0.85 were tried; 0.7 has the smallest error on both embedded models."""

_TINY = 1e-5


def write_qdq(source: Path, path: Path, precision: Precision, *, largest: Mapping[str, np.ndarray], left_out: str) -> None:
    """Writes the float32 graph at `source` to `path` with quantized layers.

    Each quantized layer gets a Q/DQ pair on its input, and a DQ on its eight-bit weights. `largest` holds the largest
    magnitudes [D] of each layer's input, by the name of that input. See `quantized_layers` for `left_out`.
    """
    model = ir.from_proto(onnx.load(source))
    _insert_qdq(model.graph, precision, largest, left_out)
    write_with_weights(ir.to_proto(model), path)


def _insert_qdq(graph: ir.Graph, precision: Precision, largest: Mapping[str, np.ndarray], left_out: str) -> None:
    layers, scopes = quantized_layers(graph, left_out), scopes_of_values(graph)
    inputs = [str(input_of(layer).name) for layer in layers]
    users = Counter(inputs)
    for layer, name in zip(layers, inputs, strict=True):
        _quantize_layer(graph, layer, precision, largest[name], alone=users[name] == 1)
    for node in [node for node in graph if node.op_type == "Attention"]:
        _halve_attention(graph, node)
    forget_types(graph)  # they are no longer right
    add_missing_scopes(graph, scopes)


def _quantize_layer(graph: ir.Graph, layer: ir.Node, precision: Precision, largest: np.ndarray, *, alone: bool) -> None:
    """Quantizes one layer. In int8, its input is smoothed too, if the layer is the only one that takes it (`alone`)."""
    weights, axis = weights_of(layer), output_axis(layer)
    assert weights.const_value is not None, "a quantized layer has weights"
    values = weights.const_value.numpy()
    smoothed = alone and _is_integer(precision)
    smoothing = _smoothing(largest, values, axis) if smoothed else np.ones(1, np.float32)
    _quantize_input(graph, layer, precision, smoothing, float((largest / smoothing).max()))
    _quantize_weights(graph, layer, precision, values * np.expand_dims(smoothing, axis), axis)
    graph.initializers.pop(str(weights.name))


def _smoothing(inputs: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """The smoothing factors [D] of the input channels (SmoothQuant, arXiv 2211.10438, eq. 4).

    The input is divided by them, and the weights are multiplied by them. The channels of the input then have similar
    magnitudes, so one scale for all of them loses less.
    """
    inputs, largest = np.maximum(inputs, _TINY), np.maximum(np.abs(weights).max(axis=axis), _TINY)
    return np.asarray(inputs**SMOOTHING / largest ** (1 - SMOOTHING), np.float32)


def _quantize_input(graph: ir.Graph, layer: ir.Node, precision: Precision, smoothing: np.ndarray, largest: float) -> None:
    """Smooths and quantizes the input of a layer, with a single scale."""
    name, value = f"{layer.outputs[0].name}_input", input_of(layer)
    scale = _add(graph, f"{name}_scale", np.array(largest / PRECISION_TRAITS[precision].largest or 1, np.float32))
    zero = _add(graph, f"{name}_zero", np.zeros((), _dtype(precision)))
    if smoothing.size > 1:
        factors = _add(graph, f"{name}_smoothing", 1 / smoothing)
        value = _insert(layer, "Mul", [value, factors], f"{name}_smooth")
    rounded = _insert(layer, "QuantizeLinear", [value, scale, zero], f"{name}_quantized")
    layer.replace_input_with(0, _insert(layer, "DequantizeLinear", [rounded, scale, zero], name))


def _quantize_weights(graph: ir.Graph, layer: ir.Node, precision: Precision, values: np.ndarray, axis: int) -> None:
    """Quantizes the weights of a layer. int8 has a scale for each output channel, fp8 has a single scale."""
    name, integer = f"{layer.outputs[0].name}_weight", _is_integer(precision)
    largest = np.abs(values).max(axis=1 - axis, keepdims=True) if integer else np.abs(values).max()
    scale = np.asarray(np.where(largest > 0, largest / PRECISION_TRAITS[precision].largest, 1), np.float32)
    rounded = (np.rint(values / scale) if integer else values / scale).astype(_dtype(precision))
    scale = scale.reshape(-1) if integer else scale
    added = [
        _add(graph, f"{name}_quantized", rounded),
        _add(graph, f"{name}_scale", scale),
        _add(graph, f"{name}_zero", np.zeros(scale.shape, _dtype(precision))),
    ]
    layer.replace_input_with(1, _insert(layer, "DequantizeLinear", added, name, {"axis": axis}))


def _halve_attention(graph: ir.Graph, attention: ir.Node) -> None:
    """Lets attention compute in fp16, the only precision besides bf16 that TensorRT has fused kernels for."""
    output, half, full = attention.outputs[0], {"to": ir.DataType.FLOAT16.value}, {"to": ir.DataType.FLOAT.value}
    name = output.name
    for index, value in enumerate(attention.inputs):
        assert value is not None, "self-attention takes queries, keys and values"
        attention.replace_input_with(index, _insert(attention, "Cast", [value], f"{name}_input_{index}_half", half))
    output.name = f"{name}_half"
    cast = ir.node("Cast", [output], full, outputs=[ir.Value(name=name)], name="")
    output.replace_all_uses_with(cast.outputs[0])
    cast.replace_input_with(0, output)
    graph.insert_after(attention, cast)


def _add(graph: ir.Graph, name: str, values: np.ndarray) -> ir.Value:
    """Adds an initializer to a graph."""
    value = ir.Value(name=name, const_value=ir.tensor(values, name=name))
    graph.register_initializer(value)
    return value


def _insert(
    layer: ir.Node, operation: str, inputs: list[ir.Value], output: str, attributes: dict[str, int] | None = None
) -> ir.Value:
    """Inserts a node without a name right before a layer. Returns its output, which gets the name `output`."""
    assert layer.graph is not None, "the layer was read from a graph"
    node = ir.node(operation, inputs, attributes, outputs=[ir.Value(name=output)], name="")
    layer.graph.insert_before(layer, node)
    return node.outputs[0]


def _dtype(precision: Precision) -> np.dtype:
    return ir.DataType[PRECISION_TRAITS[precision].onnx].numpy()


def _is_integer(precision: Precision) -> bool:
    return np.issubdtype(_dtype(precision), np.integer)
