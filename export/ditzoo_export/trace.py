"""Tracing networks to ONNX: whole, or split into what depends on the image and what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ditzoo import nets
from ditzoo.backends.torch import DTYPES
from ditzoo.bundle import Graph
from ditzoo.card import Card
from ditzoo.nets.layers import Attention, grid_positions, sincos_axis
from ditzoo.specs import Precision, TensorSpec
from ditzoo_export.graph import TRACED_BATCH, Inputs, write_onnx
from ditzoo_export.settings import LARGEST, Settings, own_size

ONNX_RUNTIMES_ATTENTION: tuple[Precision, ...] = ("fp32", "fp16")
"""What ONNX Runtime has an operation for attention in, on processors and NVIDIA GPUs alike."""


class Positioned(nn.Module):
    """A DiT for latents of any size: the positions are cut out of a table of sines, which every exporter can say."""

    axis: Tensor

    def __init__(self, net: nets.DiT) -> None:
        super().__init__()
        self.net = net
        count = LARGEST * net.config.input_size // net.config.patch_size
        self.register_buffer("axis", sincos_axis(count, net.config.hidden_size))

    def denoise(self, x: Tensor, blocks: Tensor, final: Tensor) -> Tensor:
        """As `DiT.denoise`."""
        patch = self.net.config.patch_size
        return self.net.denoise(
            x, blocks, final, grid_positions(self.axis, x.shape[2] // patch, x.shape[3] // patch)
        )  # B C H W

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """As `DiT.forward`."""
        return self.denoise(x, *self.net.condition(t, y))  # B C H W


class Conditioning(nn.Module):
    """What of a DiT depends on time and label alone. It has no other weights, which the tracer would keep in memory."""

    def __init__(self, net: nets.DiT) -> None:
        super().__init__()
        self.net = nets.copied(net)
        del self.net.x_embedder, self.net.pos_embed, self.net.final_layer.linear
        for block in self.net.blocks:
            del block.attn, block.mlp

    def forward(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """t [B], y [B] -> [B, depth, 6 · D], [B, 2 · D]."""
        return self.net.condition(t, y)


class Backbone(nn.Module):
    """What of a DiT depends on the image."""

    def __init__(self, net: nets.DiT | Positioned) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, blocks: Tensor, final: Tensor) -> Tensor:
        """Latents [B, C, H, W] and modulations -> prediction."""
        return self.net.denoise(x, blocks, final)  # B C H W


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


def trace_graphs(folder: Path, card: Card, net: nets.Net, settings: Settings, *, precision: Precision) -> dict[str, Graph]:
    """Writes the ONNX graphs that `settings` ask for into `folder`, in a `precision` that torch has; returns what they are."""
    net = nets.in_dtype(net, DTYPES[precision]).eval()
    if settings.target == "onnxruntime" and precision in ONNX_RUNTIMES_ATTENTION:
        net = with_fused_attention(net)
    sized = Positioned(net) if isinstance(net, nets.DiT) and settings.size != own_size(card) else net
    specs = {spec.name: resized(spec, settings) for spec in (*net.inputs, *net.outputs)}
    inputs, outputs = [specs[spec.name] for spec in net.inputs], [specs[spec.name] for spec in net.outputs]
    parts: dict[str, tuple[nn.Module, list[TensorSpec], list[TensorSpec]]] = {"backbone": (sized, inputs, outputs)}
    if settings.split and isinstance(net, nets.DiT) and not isinstance(sized, nets.UViT):
        modulations = list(net.modulations)
        parts["backbone"] = (Backbone(sized), [specs["x"], *modulations], outputs)
        parts["conditioning"] = (Conditioning(net), [specs["t"], specs["y"]], modulations)
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


def with_fused_attention(net: nets.Net) -> nets.Net:
    """The net, its weights shared, with attention as ONNX Runtime has it."""
    net = nets.copied(net)
    for parent in list(net.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, Attention):
                setattr(parent, name, FusedAttention(module))
    return net


def resized(spec: TensorSpec, settings: Settings) -> TensorSpec:
    """The spec of an input or output of a network, its latents' size replaced by that of the settings."""
    if len(spec.shape) != 4:
        return spec
    return TensorSpec(name=spec.name, shape=(*spec.shape[:2], *(settings.size or ("height", "width"))), dtype=spec.dtype)


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
