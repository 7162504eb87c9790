"""Calibration: the largest magnitudes in the inputs of the quantized layers, over a sampling run in float32."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir

from ditzoo.backends.onnxruntime import OnnxRuntimeBackend
from ditzoo.bundle import Graph
from ditzoo.families.family import NO_MODULE
from ditzoo.specs import TensorSpec
from ditzoo.zoo.card import Card
from ditzoo_export.quantization.layers import input_of, output_axis, quantized_layers, weights_of
from ditzoo_export.sampling_run import run_evaluations
from ditzoo_export.scopes import scope_of
from ditzoo_export.sizes import number_of_tokens

SEED = 1

IMAGES, TOKENS = 4, 512
"""The smallest number of images in the calibration run, and the smallest total number of their tokens."""

STEPS, ALL_TOKENS = 5, 5120
"""The smallest number of steps of the run, and the smallest number of tokens of its images over all steps."""

_SUFFIX = "_largest"


def largest_inputs(folder: Path, graphs: Mapping[str, Graph], card: Card) -> dict[str, np.ndarray]:
    """The largest magnitudes [D] in the channels of each quantized layer's input, by the name of that input.

    They are measured over a sampling run of the float32 graphs in `folder`.
    """
    measuring = _write_measuring_graph(folder, graphs["backbone"])
    tokens = number_of_tokens(card)
    images = max(IMAGES, TOKENS // tokens)
    steps = max(STEPS, -(-ALL_TOKENS // (images * tokens)))
    with OnnxRuntimeBackend(folder, {**graphs, "backbone": measuring}, card) as backend:
        run = run_evaluations(backend, steps=steps, images=images, seed=SEED, read_outputs=backend.values)
    names = [spec.name for spec in measuring.outputs if spec.name.endswith(_SUFFIX)]
    return {name.removesuffix(_SUFFIX): np.max([step.other_outputs[name] for step in run], axis=0) for name in names}


def by_layer(largest: Mapping[str, np.ndarray], measured: Path, path: Path) -> dict[str, np.ndarray]:
    """The result of `largest_inputs` for another graph with the same layers.

    It was measured on the graph at `measured`. The names of the inputs are those in the graph at `path`.
    """
    there, here = (
        {scope_of(layer): str(input_of(layer).name) for layer in quantized_layers(ir.load(file).graph, NO_MODULE)}
        for file in (measured, path)
    )
    return {name: largest[there[scope]] for scope, name in here.items()}


def _write_measuring_graph(folder: Path, graph: Graph) -> Graph:
    """Writes a copy of a graph, and returns it. It also outputs the largest magnitudes [D] of each quantized layer's input."""
    model = ir.load(folder / graph.file)
    layers = {str(input_of(layer).name): layer for layer in quantized_layers(model.graph, NO_MODULE)}
    specs = []
    for name, layer in sorted(layers.items()):
        channels = weights_of(layer).const_value
        assert channels is not None, "a quantized layer has weights"
        specs.append(TensorSpec(name=name + _SUFFIX, shape=(channels.shape.numpy()[1 - output_axis(layer)],)))
        _add_largest_magnitudes(model.graph, input_of(layer), name + _SUFFIX)
    ir.save(model, folder / f"measuring-{graph.file}")
    return msgspec.structs.replace(graph, file=f"measuring-{graph.file}", outputs=(*graph.outputs, *specs))


def _add_largest_magnitudes(graph: ir.Graph, value: ir.Value, name: str) -> None:
    """Adds an output `name` [D] to a graph: the largest magnitude of `value` [..., D] over all axes but the last."""
    axes = ir.Value(name=f"{name}_axes", const_value=ir.tensor(np.array([0]), name=f"{name}_axes"))
    graph.register_initializer(axes)
    magnitude = ir.node("Abs", [value], graph=graph)
    flat = ir.node("Flatten", magnitude.outputs, {"axis": -1}, graph=graph)
    output = ir.val(name, ir.DataType.FLOAT)
    ir.node("ReduceMax", [flat.outputs[0], axes], {"keepdims": 0}, outputs=[output], graph=graph)
    graph.outputs.append(output)
