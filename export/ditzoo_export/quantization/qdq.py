"""Eight-bit graphs from float32 ones, and the float32 twin that shows on a CPU what a graph in half precision computes.

int8 for CPUs measures each input as it runs ("dynamic"). int8 and fp8 for GPUs carry scales, measured beforehand on latents of
the card's own sampling run, in pairs of QuantizeLinear and DequantizeLinear ("Q/DQ") that TensorRT fuses into its kernels.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import msgspec
import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from ditzoo.backends.onnxruntime import OnnxRuntimeBackend
from ditzoo.bundle import Graph
from ditzoo.families.family import NO_MODULE, Family
from ditzoo.specs import Precision, TensorSpec
from ditzoo.zoo.card import Card
from ditzoo_export.evaluations import record
from ditzoo_export.graph import scope_of, spread_scopes
from ditzoo_export.settings import Settings, number_of_tokens

CALIBRATION_STEPS, CALIBRATION_SEED = 10, 1

CALIBRATION_IMAGES, CALIBRATION_TOKENS = 4, 512
"""Images of the calibrating run: at least so many, and more of small ones, until they have so many tokens."""

SMOOTHING = 0.7
"""SmoothQuant's alpha: of 0.5, 0.7 and 0.85 the one with the smallest error on both embedded models."""

_TINY = 1e-5

_LARGEST = "_largest"

_INT8_LARGEST, _FP8_LARGEST = 127.0, 448.0


def extents(source: Path, graphs: Mapping[str, Graph], family: Family) -> dict[str, str]:
    """The extents of a family, in order, without those that leave out no more of the graphs than the one before."""
    model = onnx.load(source / graphs["backbone"].file, load_external_data=False)
    chosen, last = {}, None
    for extent, left_out in family.extents.items():
        count = len(_products(model, left_out))
        if count != last:
            chosen[extent] = left_out
        last = count
    return chosen


def quantize(
    source: Path,
    folder: Path,
    graphs: Mapping[str, Graph],
    settings: Settings,
    *,
    largest: Mapping[str, np.ndarray],
    left_out: str,
) -> dict[str, Graph]:
    """Writes the float32 graphs of `source` into `folder`, in eight bits, all but "conditioning", which runs once a plan.

    `left_out` is a pattern of the modules that stay in float32, and `largest` is what `calibrate` found in the graphs, if the settings ask for scales that were measured beforehand.
    """
    quantized = dict(graphs)
    for name, graph in graphs.items():
        if name == "conditioning":
            save(load(source / graph.file), folder / graph.file)
            continue
        model = load(source / graph.file)
        if settings.calibrated:
            _quantize_qdq(model, settings.precision, largest, left_out)
            save(model, folder / graph.file)
        else:
            _write_dynamic(model, folder / graph.file, left_out)
        quantized[name] = msgspec.structs.replace(graph, precision=settings.precision)
    return quantized


def load(path: Path) -> ModelProto:
    """A graph with all of its weights."""
    return onnx.load(path)


def save(model: ModelProto, path: Path) -> None:
    """Writes a graph over the one at `path`, its weights in a file beside it."""
    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=data.name)


def _write_dynamic(model: ModelProto, path: Path, left_out: str) -> None:
    """Writes a graph whose products measure their inputs as they run: by onnxruntime's quantizer, from file to file."""
    del model.graph.value_info[:]  # the quantizer trips over it
    products, modules = [node.name for node in _products(model, left_out)], _modules(model)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        given, result = Path(scratch) / path.name, Path(scratch) / f"int8-{path.name}"
        save(model, given)
        try:
            quantize_dynamic(
                given,
                result,
                nodes_to_quantize=products,
                per_channel=True,
                weight_type=QuantType.QInt8,
                use_external_data_format=True,
                extra_options={"DefaultTensorType": TensorProto.FLOAT},  # behind operations that ONNX itself does not know
            )
        finally:
            root.setLevel(level)
        quantized = load(result)
        spread_scopes(quantized, modules)
        save(quantized, path)


def calibrate(source: Path, graphs: Mapping[str, Graph], card: Card) -> dict[str, np.ndarray]:
    """The largest magnitude in every channel of every input of a quantized product, over a sampling run in float32."""
    watched = _write_watched(source, graphs["backbone"])
    images = max(CALIBRATION_IMAGES, CALIBRATION_TOKENS // number_of_tokens(card))
    with OnnxRuntimeBackend(source, {**graphs, "backbone": watched}, card) as backend:
        run = record(backend, steps=CALIBRATION_STEPS, images=images, seed=CALIBRATION_SEED, watch=backend.values)
    names = [spec.name for spec in watched.outputs[1:]]
    return {name.removesuffix(_LARGEST): np.max([seen.watched[name] for seen in run], axis=0) for name in names}


def _write_watched(folder: Path, graph: Graph) -> Graph:
    """Writes a graph that also gives the largest magnitudes [D] of every quantized product's input; returns what it is."""
    model = onnx.load(folder / graph.file, load_external_data=False)
    channels = _channels(model)
    names = sorted(channels)
    axes = numpy_helper.from_array(np.array([0]), "watched_axes")
    model.graph.initializer.append(axes)
    for name in names:
        model.graph.node.append(helper.make_node("Abs", [name], [f"{name}_abs"]))
        model.graph.node.append(helper.make_node("Flatten", [f"{name}_abs"], [f"{name}_flat"], axis=-1))
        model.graph.node.append(helper.make_node("ReduceMax", [f"{name}_flat", axes.name], [name + _LARGEST], keepdims=0))
        model.graph.output.append(helper.make_tensor_value_info(name + _LARGEST, TensorProto.FLOAT, None))
    onnx.save(model, folder / f"watched-{graph.file}")
    largest = [TensorSpec(name=name + _LARGEST, shape=(channels[name],)) for name in names]
    return msgspec.structs.replace(graph, file=f"watched-{graph.file}", outputs=(*graph.outputs, *largest))


def _channels(model: ModelProto) -> dict[str, int]:
    """How many channels the input of each quantized product has, by its name."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    return {node.input[0]: weights[node.input[1]].dims[1 - _output_axis(node)] for node in _products(model, NO_MODULE)}


def _output_axis(node: NodeProto) -> int:
    """The axis of a product's weights that its output has."""
    return 0 if any(attribute.name == "transB" and attribute.i for attribute in node.attribute) else 1


def _products(model: ModelProto, left_out: str) -> list[NodeProto]:
    """The products with a matrix of weights that are quantized; never the last, which is small and nothing comes after it."""
    weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights][:-1]
    return [node for node in products if not re.search(left_out, scope_of(node))]


def _quantize_qdq(model: ModelProto, precision: Precision, largest: Mapping[str, np.ndarray], left_out: str) -> None:
    """Puts a Q/DQ pair on the input, and a DQ on the eight-bit weights, of every product with a matrix of weights."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    products, modules = {node.output[0]: node for node in _products(model, left_out)}, _modules(model)
    users = Counter(node.input[0] for node in products.values())
    nodes: list[NodeProto] = []
    for node in list(model.graph.node):
        if node.output[0] in products:
            name, weight = node.input[0], weights[node.input[1]]
            axis = _output_axis(node)
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
    nodes, scale = [], np.array(largest / _top(precision) or 1, np.float32)
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
    scale = np.asarray(np.where(largest > 0, largest / _top(precision), 1), np.float32)
    eight = (np.rint(values / scale) if precision == "int8" else values / scale).astype(_dtype(precision))
    scale = scale.reshape(-1) if precision == "int8" else scale
    _add(model, f"{new}_quantized", eight)
    _add(model, f"{new}_scale", scale)
    _add(model, f"{new}_zero", np.zeros(scale.shape, _dtype(precision)))
    node.input[1] = new
    return helper.make_node("DequantizeLinear", [f"{new}_{part}" for part in ("quantized", "scale", "zero")], [new], axis=axis)


def _add(model: ModelProto, name: str, values: np.ndarray) -> None:
    model.graph.initializer.append(numpy_helper.from_array(values, name))


def _top(precision: Precision) -> float:
    return _INT8_LARGEST if precision == "int8" else _FP8_LARGEST


def _dtype(precision: Precision) -> np.dtype:
    return np.dtype(np.int8 if precision == "int8" else ml_dtypes.float8_e4m3fn)
