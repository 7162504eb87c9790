"""Eight-bit graphs from float32 ones, and the float32 twin that shows on a CPU what a bfloat16 graph computes.

int8 for CPUs measures each input as it runs ("dynamic"). int8 and fp8 for GPUs carry scales, measured beforehand on latents of
the card's own sampling run, in pairs of QuantizeLinear and DequantizeLinear ("Q/DQ") that TensorRT fuses into its kernels.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import msgspec
import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from ditzoo.backends.onnxruntime import OnnxRuntimeBackend
from ditzoo.bundle import Graph
from ditzoo.card import Card
from ditzoo.specs import Precision
from ditzoo_export.record import record
from ditzoo_export.settings import Settings

CALIBRATION_STEPS, CALIBRATION_IMAGES = 10, 4

_INT8_LARGEST, _FP8_LARGEST = 127.0, 448.0
_WHOLE_FILE = 2**31 - 2**20  # what protobuf can hold, less a margin for what is not weights


def quantize(folder: Path, graphs: Mapping[str, Graph], card: Card, settings: Settings) -> dict[str, Graph]:
    """Replaces the float32 graphs in `folder` by eight-bit ones, all but "conditioning": it runs once a plan, and is delicate."""
    largest = _calibrate(folder, graphs, card) if settings.target == "tensorrt" else {}
    quantized = dict(graphs)
    for name, graph in graphs.items():
        if name == "conditioning":
            continue
        if settings.target == "tensorrt":
            _write_qdq(folder / graph.file, settings.precision, largest)
        else:
            _write_dynamic(folder / graph.file)
        quantized[name] = msgspec.structs.replace(graph, precision=settings.precision)
    return quantized


def load(path: Path) -> ModelProto:
    """A graph with all of its weights."""
    return onnx.load(path)


def save(model: ModelProto, path: Path) -> None:
    """Writes a graph over the one at `path`, its weights in a file beside it where protobuf cannot hold them."""
    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _WHOLE_FILE
    onnx.save(model, path, save_as_external_data=large, location=data.name)


def _write_dynamic(path: Path) -> None:
    model = load(path)
    del model.graph.value_info[:]  # onnxruntime's quantizer trips over it
    products = [node.name for node in _products(model)]
    save(model, path)
    del model
    large = path.with_name(f"{path.name}.data").exists()
    result = path.with_name(f"int8-{path.name}")
    quiet, level = logging.getLogger(), logging.getLogger().level
    quiet.setLevel(logging.ERROR)
    try:
        quantize_dynamic(
            path,
            result,
            nodes_to_quantize=products,
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
        )
    finally:
        quiet.setLevel(level)
    model = load(result)
    for leftover in path.parent.glob(f"*{path.name}*"):
        leftover.unlink()
    save(model, path)


def _calibrate(folder: Path, graphs: Mapping[str, Graph], card: Card) -> dict[str, np.ndarray]:
    """The largest magnitude in every channel of every input of a quantized product, over a sampling run of the float32 graphs."""
    graph = graphs["backbone"]
    watched = folder / f"watched-{graph.file}"
    names = _write_watched(folder / graph.file, watched)
    session = ort.InferenceSession(watched, providers=["CPUExecutionProvider"])
    largest: dict[str, np.ndarray] = {}
    with OnnxRuntimeBackend(folder, graphs, card) as backend:
        for seen in record(backend, steps=CALIBRATION_STEPS, images=CALIBRATION_IMAGES):
            values = session.run(list(names.values()), backend.backbone_inputs(seen.inputs))
            largest = {name: np.maximum(value, largest.get(name, 0)) for name, value in zip(names, values, strict=True)}
    watched.unlink()
    return largest


def _write_watched(path: Path, watched: Path) -> dict[str, str]:
    """Writes a graph that also gives the largest magnitudes [D] of every quantized product's input; returns their names."""
    model = onnx.load(path, load_external_data=False)
    names = {name: f"{name}_largest" for name in sorted({node.input[0] for node in _products(model)})}
    axes = numpy_helper.from_array(np.array([0]), "watched_axes")
    model.graph.initializer.append(axes)
    for name, largest in names.items():
        model.graph.node.append(helper.make_node("Abs", [name], [f"{name}_abs"]))
        model.graph.node.append(helper.make_node("Flatten", [f"{name}_abs"], [f"{name}_flat"], axis=-1))
        model.graph.node.append(helper.make_node("ReduceMax", [f"{name}_flat", axes.name], [largest], keepdims=0))
        model.graph.output.append(helper.make_tensor_value_info(largest, TensorProto.FLOAT, None))
    onnx.save(model, watched)
    return names


def _products(model: ModelProto) -> list[NodeProto]:
    """The products with a matrix of weights that are quantized: all but the last, which is small and nothing comes after it."""
    weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    return [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights][:-1]


def _write_qdq(path: Path, precision: Precision, largest: Mapping[str, np.ndarray]) -> None:
    """Puts a Q/DQ pair on the input, and a DQ on the eight-bit weights, of every product with a matrix of weights."""
    model = load(path)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    products = {node.output[0]: node for node in _products(model)}
    users = Counter(node.input[0] for node in products.values())
    nodes: list[NodeProto] = []
    for node in list(model.graph.node):
        if node.output[0] in products:
            name, weight = node.input[0], weights[node.input[1]]
            axis = 0 if any(attribute.name == "transB" and attribute.i for attribute in node.attribute) else 1
            values = numpy_helper.to_array(weight)
            alone = precision == "int8" and users[name] == 1
            smooth = _smoothing(largest[name], values, axis) if alone else np.ones(1, np.float32)
            nodes += _quantize_input(model, node, precision, smooth, float((largest[name] / smooth).max()))
            model.graph.initializer.remove(weight)
            nodes.append(_quantize_weight(model, node, precision, values * np.expand_dims(smooth, axis), axis))
        nodes.append(node)
    del model.graph.value_info[:]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    save(model, path)


def _smoothing(inputs: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """What each channel of an input is divided by, and its weights multiplied: it evens out both (SmoothQuant, arXiv 2211.10438,
    eq. 4, with an alpha of a half), so that one scale for all channels of the input loses less."""
    ratio = inputs / np.maximum(np.abs(weights).max(axis=axis), np.finfo(np.float32).tiny)
    return np.asarray(np.sqrt(np.where(ratio > 0, ratio, 1)), np.float32)


def _quantize_input(model: ModelProto, node: NodeProto, precision: Precision, smooth: np.ndarray, largest: float) -> list[NodeProto]:
    """The nodes that smooth and round the input of a product, their parameters added to the graph."""
    name, new = node.input[0], f"{node.output[0]}_input"
    nodes, scale = [], np.array(largest / _largest(precision) or 1, np.float32)
    _add(model, f"{new}_scale", scale)
    _add(model, f"{new}_zero", np.zeros((), _dtype(precision)))
    if smooth.size > 1:
        _add(model, f"{new}_smoothing", 1 / smooth)
        nodes.append(helper.make_node("Mul", [name, f"{new}_smoothing"], [f"{new}_smooth"]))
        name = f"{new}_smooth"
    nodes.append(helper.make_node("QuantizeLinear", [name, f"{new}_scale", f"{new}_zero"], [f"{new}_quantized"]))
    nodes.append(helper.make_node("DequantizeLinear", [f"{new}_quantized", f"{new}_scale", f"{new}_zero"], [new]))
    node.input[0] = new
    return nodes


def _quantize_weight(model: ModelProto, node: NodeProto, precision: Precision, values: np.ndarray, axis: int) -> NodeProto:
    """Adds eight-bit weights, with a scale for each output where they are integers; returns the node that reads them."""
    new = f"{node.output[0]}_weight"
    largest = np.abs(values).max(axis=1 - axis, keepdims=True) if precision == "int8" else np.abs(values).max()
    scale = np.asarray(np.where(largest > 0, largest / _largest(precision), 1), np.float32)
    eight = (np.rint(values / scale) if precision == "int8" else values / scale).astype(_dtype(precision))
    scale = scale.reshape(-1) if precision == "int8" else scale
    _add(model, f"{new}_quantized", eight)
    _add(model, f"{new}_scale", scale)
    _add(model, f"{new}_zero", np.zeros(scale.shape, _dtype(precision)))
    node.input[1] = new
    return helper.make_node("DequantizeLinear", [f"{new}_{part}" for part in ("quantized", "scale", "zero")], [new], axis=axis)


def _add(model: ModelProto, name: str, values: np.ndarray) -> None:
    model.graph.initializer.append(numpy_helper.from_array(values, name))


def _largest(precision: Precision) -> float:
    return _INT8_LARGEST if precision == "int8" else _FP8_LARGEST


def _dtype(precision: Precision) -> np.dtype:
    return np.dtype(np.int8 if precision == "int8" else ml_dtypes.float8_e4m3fn)


def write_rounded(path: Path, twin: Path) -> None:
    """Writes the float32 twin of a bfloat16 graph: every node in float32, every result rounded to bfloat16.

    That is how hardware does it: products are summed in float32 and rounded once. It runs where there is no such arithmetic.
    """
    model = load(path)
    rounded = _bfloat16_values(model)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
        outputs = [name for name in node.output if name in rounded]
        for i, name in enumerate(node.output):
            node.output[i] = f"{name}_exact" if name in rounded else name
        nodes.append(node)
        for name in outputs:
            nodes.append(helper.make_node("Cast", [f"{name}_exact"], [f"{name}_narrow"], to=TensorProto.BFLOAT16))
            nodes.append(helper.make_node("Cast", [f"{name}_narrow"], [name], to=TensorProto.FLOAT))
    del model.graph.value_info[:]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    save(model, twin)


def _bfloat16_values(model: ModelProto) -> set[str]:
    """The names of all bfloat16 results in a graph."""
    return {info.name for info in model.graph.value_info if info.type.tensor_type.elem_type == TensorProto.BFLOAT16}
