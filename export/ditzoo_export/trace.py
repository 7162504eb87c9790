"""Tracing networks to ONNX: whole, or split into what depends on the image and what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ditzoo.backends.torch import DTYPES
from ditzoo.bundle import Graph
from ditzoo.families import family_of, in_precision
from ditzoo.nets.layers import Attention
from ditzoo.nets.network import Backbone, ConditionedNetwork, Network
from ditzoo.nets.precision import copied
from ditzoo.specs import Precision, TensorSpec, resized
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import LARGEST, own_size
from ditzoo_export.graph import TRACED_BATCH, Inputs, write_onnx
from ditzoo_export.settings import Settings

ONNX_RUNTIMES_ATTENTION: tuple[Precision, ...] = ("fp32", "fp16")
"""What ONNX Runtime has an operation for attention in, on processors and NVIDIA GPUs alike."""


class Guided(nn.Module):
    """A network with classifier-free guidance inside (arXiv 2207.12598): one label an image in, the guided prediction out."""

    def __init__(self, net: nn.Module, *, null: int, guided: int) -> None:
        super().__init__()
        self.net, self.null, self.guided = net, null, guided

    def forward(self, x: Tensor, t: Tensor, y: Tensor, guidance: Tensor) -> Tensor:
        """x [B, C, H, W], t [B], y [B], guidance [B], the s in uncond + s · (cond − uncond) -> prediction."""
        both = self.net(torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, torch.full_like(y, self.null)]))  # 2·B C H W
        cond, null = both[: x.shape[0]], both[x.shape[0] :]  # each: B C H W
        first, rest, uncond = cond[:, : self.guided], cond[:, self.guided :], null[:, : self.guided]
        return torch.cat([uncond + guidance[:, None, None, None] * (first - uncond), rest], dim=1)  # B C H W


def trace_graphs(folder: Path, card: Card, net: Network, settings: Settings, *, precision: Precision) -> dict[str, Graph]:
    """Writes the ONNX graphs that `settings` ask for into `folder`, in a `precision` that torch has; returns what they are."""
    family = family_of(card.backbone)
    net = in_precision(net, card.backbone, DTYPES[precision]).eval()
    if settings.target == "onnxruntime" and precision in ONNX_RUNTIMES_ATTENTION:
        net = with_fused_attention(net)
    sized = family.any_size(net, LARGEST) if family.any_size and settings.size != own_size(card) else net
    specs = {spec.name: resized(spec, settings.size) for spec in (*net.inputs, *net.outputs)}
    inputs, outputs = [specs[spec.name] for spec in net.inputs], [specs[spec.name] for spec in net.outputs]
    parts: dict[str, tuple[nn.Module, list[TensorSpec], list[TensorSpec]]] = {"backbone": (sized, inputs, outputs)}
    if settings.split and family.conditioning and isinstance(sized, ConditionedNetwork):
        modulations = list(sized.modulations)
        parts["backbone"] = (Backbone(sized), [specs["x"], *modulations], outputs)
        parts["conditioning"] = (family.conditioning(net), [specs["t"], specs["y"]], modulations)
    if settings.guided:
        scale = TensorSpec(name="guidance", shape=("batch",))
        parts["guided"] = (_guided(sized, card), [*inputs, scale], outputs)
    graphs = {}
    for name, (module, taken, given) in parts.items():
        graph = Graph(file=f"{name}.onnx", precision=precision, opset=settings.opset, inputs=tuple(taken), outputs=tuple(given))
        _trace(module, card, graph, folder / graph.file)
        graphs[name] = graph
    return graphs


class FusedAttention(nn.Module):
    """Self-attention that is exported as one operation, ONNX Runtime's own, which has flash attention for it."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = attention.heads, attention.qkv, attention.proj

    def forward(self, x: Tensor) -> Tensor:
        """As `Attention.forward`; only an exporter can call it."""
        q, k, v = self.qkv(x).chunk(3, dim=2)  # each: B T D
        heads: dict[str, Any] = {"num_heads": self.heads}
        operation = "com.microsoft::MultiHeadAttention"
        x = torch.onnx.ops.symbolic(operation, [q, k, v], heads, dtype=q.dtype, shape=q.shape, version=1)  # B T D
        return cast(Tensor, self.proj(x))  # B T D


def with_fused_attention(net: Network) -> Network:
    """The net, its weights shared, with attention as ONNX Runtime has it."""
    net = copied(net)
    for parent in list(net.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, Attention):
                setattr(parent, name, FusedAttention(module))
    return net


def random_inputs(specs: tuple[TensorSpec, ...], card: Card, rng: np.random.Generator, **axes: int) -> Inputs:
    """Inputs of each kind that a network takes: normal latents and text, times up to 1000, any labels, the null label among
    several."""
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
