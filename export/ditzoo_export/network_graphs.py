"""Exporting a network to ONNX graphs: one graph, or two if conditioning is separate from the backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from ditzoo.backends.torch import DTYPES
from ditzoo.bundle import Graph
from ditzoo.families import family_of, in_precision
from ditzoo.nets.network import Backbone, ConditionedNetwork, Network
from ditzoo.specs import TensorSpec, resized
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import LARGEST, own_size
from ditzoo_export.network_modules import Guided, with_fused_attention
from ditzoo_export.onnx_files import TRACED_BATCH, Inputs, write_onnx
from ditzoo_export.settings import Settings


def write_network_graphs(folder: Path, card: Card, net: Network, settings: Settings) -> dict[str, Graph]:
    """Writes the ONNX graphs that `settings` ask for into `folder`, and returns them by name.

    For a quantized precision, they are written in fp32; the quantization comes later.
    """
    precision = settings.traced
    family = family_of(card.backbone)
    net = in_precision(net, card.backbone, DTYPES[precision]).eval()
    if settings.target == "onnxruntime":
        net = with_fused_attention(net)
    sized = family.any_size(net, LARGEST) if family.any_size and settings.size != own_size(card) else net
    specs = {spec.name: resized(spec, settings.size) for spec in (*net.inputs, *net.outputs)}
    inputs, outputs = [specs[spec.name] for spec in net.inputs], [specs[spec.name] for spec in net.outputs]
    modules: dict[str, tuple[nn.Module, list[TensorSpec], list[TensorSpec]]] = {"backbone": (sized, inputs, outputs)}
    if settings.split and family.conditioning and isinstance(sized, ConditionedNetwork):
        modulations = list(sized.modulations)
        modules["backbone"] = (Backbone(sized), [specs["x"], *modulations], outputs)
        modules["conditioning"] = (family.conditioning(net), [specs["t"], specs["y"]], modulations)
    if settings.guided:
        scale = TensorSpec(name="guidance", shape=("batch",))
        modules["guided"] = (_guided(sized, card), [*inputs, scale], outputs)
    graphs = {}
    for name, (module, taken, given) in modules.items():
        graph = Graph(file=f"{name}.onnx", precision=precision, opset=settings.opset, inputs=tuple(taken), outputs=tuple(given))
        _trace(module, card, graph, folder / graph.file)
        graphs[name] = graph
    return graphs


def random_inputs(specs: tuple[TensorSpec, ...], card: Card, rng: np.random.Generator, **axes: int) -> Inputs:
    """Random inputs for `specs`: normally distributed latents and embeddings, times from 0 to 1000, and labels.

    The second label is the null label, if the model has one.
    """
    inputs: Inputs = {}
    for spec in specs:
        shape = spec.concrete(**axes)
        if spec.name == "t":
            inputs[spec.name] = rng.uniform(0, 1000, shape).astype(np.float32)
        elif spec.dtype == "int64":
            inputs[spec.name] = rng.integers(0, card.number_of_classes, shape)
            if card.null_label is not None:
                inputs[spec.name][1:2] = card.null_label
        else:
            inputs[spec.name] = rng.standard_normal(shape).astype(np.float32)
    return inputs


def _guided(net: nn.Module, card: Card) -> Guided:
    assert card.null_label is not None, "the settings were checked"
    return Guided(net, null=card.null_label, guided=card.sampling.guided_channels)


def _trace(module: nn.Module, card: Card, graph: Graph, path: Path) -> None:
    height, width = own_size(card)
    sizes = {"batch": TRACED_BATCH, "height": height, "width": width + card.backbone.patch_size}
    write_onnx(module, graph, path, random_inputs(graph.inputs, card, np.random.default_rng(0), **sizes))
