"""Eight-bit graphs from float32 ones, and the float32 twin that shows on a CPU what a bfloat16 graph computes.

int8 for CPUs measures each input as it runs ("dynamic"). int8 and fp8 for GPUs carry scales, measured beforehand on latents of
the card's own sampling run, in pairs of QuantizeLinear and DequantizeLinear ("Q/DQ") that TensorRT fuses into its kernels.
"""

from __future__ import annotations

import logging
import tempfile
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
from ditzoo_export.graph import scope_of, spread_scopes
from ditzoo_export.record import record
from ditzoo_export.settings import Settings

CALIBRATION_STEPS, CALIBRATION_IMAGES, CALIBRATION_SEED = 10, 4, 1

SMOOTHING = 0.7
"""SmoothQuant's alpha: of 0.5, 0.7 and 0.85 the one with the smallest error on both embedded models."""

_TINY = 1e-5

_INT8_LARGEST, _FP8_LARGEST = 127.0, 448.0
_WHOLE_FILE = 2**31 - 2**20  # what protobuf can hold, less a margin for what is not weights


EXTENTS = ("all products", "all but the second product of each MLP", "attention")
"""What is quantized. Where an extent fails its verification the next one is tried: what comes out of a GELU is the
hardest, then what no norm has been over."""


def quantize(
    source: Path, folder: Path, graphs: Mapping[str, Graph], card: Card, settings: Settings, *, extent: str
) -> dict[str, Graph]:
    """Writes the float32 graphs of `source` into `folder`, in eight bits, all but "conditioning", which runs once a plan."""
    largest = _calibrate(source, graphs, card) if settings.calibrated else {}
    quantized = dict(graphs)
    for name, graph in graphs.items():
        if name == "conditioning":
            save(load(source / graph.file), folder / graph.file)
            continue
        model = load(source / graph.file)
        if settings.calibrated:
            _quantize_qdq(model, settings.precision, largest, extent)
            save(model, folder / graph.file)
        else:
            _write_dynamic(model, folder / graph.file, extent)
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


def _write_dynamic(model: ModelProto, path: Path, extent: str) -> None:
    """Writes a graph whose products measure their inputs as they run: by onnxruntime's quantizer, from file to file."""
    del model.graph.value_info[:]  # the quantizer trips over it
    products, modules = [node.name for node in _products(model, extent)], _modules(model)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        given, result = Path(scratch) / path.name, Path(scratch) / f"int8-{path.name}"
        save(model, given)
        large = given.with_name(f"{given.name}.data").exists()
        try:
            quantize_dynamic(
                given,
                result,
                nodes_to_quantize=products,
                per_channel=True,
                weight_type=QuantType.QInt8,
                use_external_data_format=large,
            )
        finally:
            root.setLevel(level)
        quantized = load(result)
        spread_scopes(quantized, modules)
        save(quantized, path)


def _calibrate(folder: Path, graphs: Mapping[str, Graph], card: Card) -> dict[str, np.ndarray]:
    """The largest magnitude in every channel of every input of a quantized product, over a sampling run in float32."""
    graph = graphs["backbone"]
    watched = folder / f"watched-{graph.file}"
    names = _write_watched(folder / graph.file, watched)
    session = ort.InferenceSession(watched, providers=["CPUExecutionProvider"])
    largest: dict[str, np.ndarray] = {}
    with OnnxRuntimeBackend(folder, graphs, card) as backend:
        for seen in record(backend, steps=CALIBRATION_STEPS, images=CALIBRATION_IMAGES, seed=CALIBRATION_SEED):
            values = session.run(list(names.values()), backend.backbone_inputs(seen.inputs))
            largest = {name: np.maximum(value, largest.get(name, 0)) for name, value in zip(names, values, strict=True)}
    watched.unlink()
    return largest


def _write_watched(path: Path, watched: Path) -> dict[str, str]:
    """Writes a graph that also gives the largest magnitudes [D] of every quantized product's input; returns their names."""
    model = onnx.load(path, load_external_data=False)
    names = {name: f"{name}_largest" for name in sorted({node.input[0] for node in _products(model, EXTENTS[0])})}
    axes = numpy_helper.from_array(np.array([0]), "watched_axes")
    model.graph.initializer.append(axes)
    for name, largest in names.items():
        model.graph.node.append(helper.make_node("Abs", [name], [f"{name}_abs"]))
        model.graph.node.append(helper.make_node("Flatten", [f"{name}_abs"], [f"{name}_flat"], axis=-1))
        model.graph.node.append(helper.make_node("ReduceMax", [f"{name}_flat", axes.name], [largest], keepdims=0))
        model.graph.output.append(helper.make_tensor_value_info(largest, TensorProto.FLOAT, None))
    onnx.save(model, watched)
    return names


def _products(model: ModelProto, extent: str) -> list[NodeProto]:
    """The products with a matrix of weights that are quantized; never the last, which is small and nothing comes after it."""
    weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights][:-1]
    if extent == EXTENTS[0]:
        return products
    behind = {name for node in model.graph.node if node.op_type == "Gelu" for name in node.output}
    before = {name for node in model.graph.node if node.op_type == "Gelu" for name in node.input}
    before |= {name for node in model.graph.node if node.op_type == "Add" and node.output[0] in before for name in node.input}
    products = [node for node in products if node.input[0] not in behind]
    if extent == EXTENTS[1]:
        return products
    skips = {name for node in model.graph.node if node.op_type == "Concat" for name in node.output}
    return [node for node in products if node.output[0] not in before and node.input[0] not in skips]


def _quantize_qdq(model: ModelProto, precision: Precision, largest: Mapping[str, np.ndarray], extent: str) -> None:
    """Puts a Q/DQ pair on the input, and a DQ on the eight-bit weights, of every product with a matrix of weights."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    products, modules = {node.output[0]: node for node in _products(model, extent)}, _modules(model)
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
    spread_scopes(model, modules)


def _modules(model: ModelProto) -> dict[str, str]:
    """The module that each value of a graph is computed in."""
    return {name: scope_of(node) for node in model.graph.node for name in node.output}


def _smoothing(inputs: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """What each channel of an input is divided by and its weights multiplied: it evens both out (SmoothQuant, 2211.10438,
    eq. 4), so that one scale for all channels of the input loses less."""
    inputs, largest = np.maximum(inputs, _TINY), np.maximum(np.abs(weights).max(axis=axis), _TINY)
    return np.asarray(inputs**SMOOTHING / largest ** (1 - SMOOTHING), np.float32)


def _quantize_input(
    model: ModelProto, node: NodeProto, precision: Precision, smooth: np.ndarray, largest: float
) -> list[NodeProto]:
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
