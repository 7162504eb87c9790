"""TODO ditzoo_export.rounding."""

from __future__ import annotations

from pathlib import Path

import msgspec
import onnx
from onnx import TensorProto, helper

from ditzoo.bundle import Graph
from ditzoo.specs import Precision

HALVES: dict[Precision, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def write_rounded(folder: Path, graph: Graph) -> Graph:
    """Writes the float32 twin of a graph in half precision beside it: every node in float32, every result in half rounded to
    it. Both have the same file of weights. Returns what it is.

    That is how GPUs do it: products are summed in float32 and rounded once. A CPU has no such arithmetic, and on it ONNX
    Runtime leaves the rounding out: of a graph in fp16 only the weights are.
    """
    half = HALVES[graph.precision]
    model = onnx.load(folder / graph.file, load_external_data=False)
    rounded = {info.name for info in model.graph.value_info if info.type.tensor_type.elem_type == half}
    weights = {tensor.name: f"{tensor.name}_wide" for tensor in model.graph.initializer if tensor.data_type == half}
    nodes = [helper.make_node("Cast", [name], [wide], to=TensorProto.FLOAT) for name, wide in weights.items()]
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == half:
                attribute.i = TensorProto.FLOAT
        for i, name in enumerate(node.input):
            node.input[i] = weights.get(name, name)
        outputs = [name for name in node.output if name in rounded]
        for i, name in enumerate(node.output):
            node.output[i] = f"{name}_exact" if name in rounded else name
        nodes.append(node)
        for name in outputs:
            nodes.append(helper.make_node("Cast", [f"{name}_exact"], [f"{name}_narrow"], to=half))
            nodes.append(helper.make_node("Cast", [f"{name}_narrow"], [name], to=TensorProto.FLOAT))
    del model.graph.value_info[:]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    twin = msgspec.structs.replace(graph, file=f"rounded-{graph.file}", precision="fp32")
    onnx.save(model, folder / twin.file)
    return twin
