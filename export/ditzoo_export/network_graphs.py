"""Exporting a network to ONNX graphs: one graph, or two if conditioning is separate from the backbone."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np
from torch import nn

from ditzoo.backends.torch import DTYPES
from ditzoo.bundle import REUSE_GRAPH, Graph
from ditzoo.families import family_of, in_precision
from ditzoo.nets.network import Backbone, BlockNetwork, ConditionedNetwork, Network
from ditzoo.nets.reuse import Outer, OuterBackbone
from ditzoo.progress import SILENT, Display
from ditzoo.specs import PRECISION_TRAITS, TensorSpec, resized
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import LARGEST, own_size
from ditzoo_export.network_modules import Guided, head_widths, with_fewer_roundings, with_fused_attention
from ditzoo_export.onnx_files import TRACED_BATCH, Inputs, write_onnx
from ditzoo_export.settings import ATTENTION_OPSET, OPSET, Settings

Modules: TypeAlias = dict[str, tuple[nn.Module, list[TensorSpec], list[TensorSpec]]]
"""The modules that become graphs, each with its inputs and outputs, by the name of the graph."""

_FUSED_HEADS = range(16, 257, 8)
"""The widths of attention heads that TensorRT has fused kernels for, on all GPUs, in half precision.

It pads other widths from 9 to 255. The kernels that it builds for them are larger, and no documentation promises them.
"""


def write_network_graphs(
    folder: Path, card: Card, net: Network, settings: Settings, *, display: Display = SILENT
) -> dict[str, Graph]:
    """Writes the ONNX graphs that `settings` ask for into `folder`, and returns them by name. The stages appear on `display`.

    For a quantized precision, they are written in fp32; the quantization comes later.
    """
    precision = settings.traced
    family = family_of(card.backbone)
    net = in_precision(net, card.backbone, DTYPES[precision]).eval()
    if settings.target == "onnxruntime":
        net = with_fused_attention(net)
        if not PRECISION_TRAITS[precision].on_cpu:
            net = with_fewer_roundings(net)
    sized = family.any_size(net, LARGEST) if family.any_size and settings.size != own_size(card) else net
    specs = {spec.name: resized(spec, settings.size) for spec in (*net.inputs, *net.outputs)}
    inputs, outputs = [specs[spec.name] for spec in net.inputs], [specs[spec.name] for spec in net.outputs]
    modules: Modules = {"backbone": (sized, inputs, outputs)}
    if settings.split and family.conditioning and isinstance(sized, ConditionedNetwork):
        modulations = list(sized.modulations)
        modules["backbone"] = (Backbone(sized), [specs["x"], *modulations], outputs)
        modules["conditioning"] = (family.conditioning(net), [specs["t"], specs["y"]], modulations)
    if settings.outer_blocks is not None:
        modules |= _with_reuse(sized, *modules["backbone"][1:], settings)
    if settings.guided:
        scale = TensorSpec(name="guidance", shape=("batch",))
        modules["guided"] = (_guided(sized, card), [*inputs, scale], outputs)
    graphs, opset = {}, opset_for(net, settings)
    for name, (module, taken, given) in modules.items():
        graph = Graph(file=f"{name}.onnx", precision=precision, opset=opset, inputs=tuple(taken), outputs=tuple(given))
        if name == REUSE_GRAPH and settings.outer_blocks is not None:
            graph = msgspec.structs.replace(graph, outer_blocks=settings.outer_blocks)
        _trace(module, card, graph, folder / graph.file, display)
        graphs[name] = graph
    return graphs


def _with_reuse(net: nn.Module, inputs: list[TensorSpec], outputs: list[TensorSpec], settings: Settings) -> Modules:
    """The backbone that also gives the residual of its middle blocks, and the one that takes a residual."""
    outer, size = settings.outer_blocks, settings.size
    assert isinstance(net, BlockNetwork), "all networks that are exported have blocks"
    assert outer is not None, "the caller checked it"
    assert size is not None, "the settings were checked"
    split = settings.split and isinstance(net, ConditionedNetwork)
    module = OuterBackbone(net, outer) if split else Outer(net, outer)
    residual = net.residual(*size)
    return {"backbone": (module, inputs, [*outputs, residual]), REUSE_GRAPH: (module, [*inputs, residual], outputs)}


def opset_for(net: Network, settings: Settings) -> int:
    """The opset of the graphs of a network.

    In `ATTENTION_OPSET`, attention is one operation. TensorRT refuses that operation if it has no fused kernel for it: in fp32,
    and for heads of unusual widths. Graphs for TensorRT therefore have the operation only where TensorRT fuses it. In `OPSET`,
    PyTorch's exporter takes attention apart.
    """
    traits = PRECISION_TRAITS[settings.precision]
    halves = traits.half or traits.eight_bits  # attention of quantized graphs is in half precision
    fused = settings.target == "tensorrt" and halves and all(width in _FUSED_HEADS for width in head_widths(net))
    return ATTENTION_OPSET if fused else OPSET


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


def _trace(module: nn.Module, card: Card, graph: Graph, path: Path, display: Display) -> None:
    height, width = own_size(card)
    sizes = {"batch": TRACED_BATCH, "height": height, "width": width + card.backbone.patch_size}
    write_onnx(module, graph, path, random_inputs(graph.inputs, card, np.random.default_rng(0), **sizes), display=display)
