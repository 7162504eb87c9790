"""Float32 graphs that compute on a CPU what graphs in half precision compute on a GPU. They round every result.

A GPU sums a matrix multiplication in float32 and rounds the result once. A CPU has no such arithmetic. On a CPU, ONNX Runtime
omits the rounding: only the weights of a graph in fp16 are rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import onnx_ir as ir

from ditzoo.bundle import Graph
from ditzoo.specs import PRECISION_TRAITS


@contextmanager
def rounded_twins(folder: Path, graphs: Mapping[str, Graph]) -> Iterator[dict[str, Graph]]:
    """The graphs in `folder`, in which float32 twins replace those in half precision.

    The files of the twins are removed at the end of the block.
    """
    halves = {name: graph for name, graph in graphs.items() if PRECISION_TRAITS[graph.precision].half}
    twins = {name: write_rounded(folder, graph) for name, graph in halves.items()}
    try:
        yield {**graphs, **twins}
    finally:
        for twin in twins.values():
            (folder / twin.file).unlink()


def write_rounded(folder: Path, graph: Graph) -> Graph:
    """Writes the float32 twin of a graph in half precision beside that graph, and returns the twin.

    Both share the file with the weights. Every node of the twin computes in float32. The twin rounds each result that is in
    half precision in the graph.
    """
    half = ir.DataType[PRECISION_TRAITS[graph.precision].onnx]
    model = ir.load(folder / graph.file)
    for weight in list(model.graph.initializers.values()):
        if weight.dtype == half:
            _widen(model.graph, weight)
    for node in list(model.graph):
        if node.op_type == "Cast" and node.attributes.get_int("to", 0) == half:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
        for value in node.outputs:
            if value.dtype == half:
                _round(node, value, half)
    twin = msgspec.structs.replace(graph, file=f"rounded-{graph.file}", precision="fp32")
    ir.save(model, folder / twin.file)
    return twin


def _widen(graph: ir.Graph, weight: ir.Value) -> None:
    """Casts a weight in half precision to float32 for every node that takes it."""
    users = weight.uses()
    cast = ir.node("Cast", [weight], {"to": ir.DataType.FLOAT.value})
    cast.outputs[0].name = f"{weight.name}_wide"
    for node, index in users:
        node.replace_input_with(index, cast.outputs[0])
    graph.insert_before(graph[0], cast)


def _round(node: ir.Node, value: ir.Value, half: ir.DataType) -> None:
    """Rounds a float32 output of a node to half precision for all nodes that take it."""
    assert node.graph is not None, "the node was read from a graph"
    users = value.uses()
    value.dtype = ir.DataType.FLOAT
    narrow = ir.node("Cast", [value], {"to": half.value})
    wide = ir.node("Cast", narrow.outputs, {"to": ir.DataType.FLOAT.value})
    narrow.outputs[0].name, wide.outputs[0].name = f"{value.name}_narrow", f"{value.name}_rounded"
    for user, index in users:
        user.replace_input_with(index, wide.outputs[0])
    node.graph.insert_after(node, [narrow, wide])
