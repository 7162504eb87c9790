"""The layers that are quantized: matrix multiplications with weights, except for the last one and for excluded modules."""

from __future__ import annotations

import re
from pathlib import Path

import onnx_ir as ir

from ditzoo.families.family import Family
from ditzoo_export.scopes import scope_of


def quantized_layers(graph: ir.Graph, left_out: str) -> list[ir.Node]:
    """The matrix multiplications with weights that are quantized, in the order in which they run.

    `left_out` is a regular expression. Modules with a matching path stay in float32. So does the last layer of the graph: it is
    small, and no later layer reduces its error.
    """
    layers = [node for node in graph if node.op_type in ("MatMul", "Gemm") and _is_matrix_of_weights(node.inputs[1])][:-1]
    return [node for node in layers if not re.search(left_out, scope_of(node))]


def output_axis(layer: ir.Node) -> int:
    """The axis of a layer's weights that corresponds to the channels of its output."""
    return 0 if layer.attributes.get_int("transB", 0) else 1


def distinct_extents(path: Path, family: Family) -> dict[str, str]:
    """The extents to which the graph at `path` can be quantized, in the family's order.

    The result maps the name of each extent to the pattern of the modules that stay in float32. An extent is left out if it
    quantizes as many layers as the extent before it.
    """
    graph = ir.load(path).graph
    chosen, last = dict[str, str](), None
    for extent, left_out in family.extents.items():
        count = len(quantized_layers(graph, left_out))
        if count != last:
            chosen[extent] = left_out
        last = count
    return chosen


def input_of(layer: ir.Node) -> ir.Value:
    """The value that a layer multiplies with its weights."""
    assert layer.inputs[0] is not None, "a matrix multiplication has two inputs"
    return layer.inputs[0]


def weights_of(layer: ir.Node) -> ir.Value:
    """The weights of a layer, an initializer of its graph."""
    assert layer.inputs[1] is not None, "a matrix multiplication has two inputs"
    return layer.inputs[1]


def forget_types(graph: ir.Graph) -> None:
    """Removes the types, shapes and metadata of the values inside a graph. The weights keep their data."""
    computed = [value for node in graph for value in node.outputs if not value.is_graph_output()]
    for value in (*computed, *graph.initializers.values()):
        value.type = value.shape = None
        value.metadata_props.clear()


def _is_matrix_of_weights(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None and len(value.const_value.shape) == 2
