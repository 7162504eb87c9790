"""Layers of transformers whose norms are modulated by time and label: DiT (arXiv 2212.09748, section 3.2) and others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ditzoo.errors import InputError
from ditzoo.nets.layers import (
    PatchEmbed,
    embedding,
    grid_positions,
    in_own_dtype,
    sincos_axis,
    sincos_positions,
    timestep_embedding,
    unpatchify,
)
from ditzoo.nets.network import BlockStack, ConditionedNetwork
from ditzoo.nets.precision import copied
from ditzoo.specs import RESIDUAL, TensorSpec
from ditzoo.zoo.configs import AdaLNConfig


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x · (1 + scale) + shift, with the same shift and scale for all tokens of an image."""
    return x * (1 + scale[:, None]) + shift[:, None]  # B T D


class TimestepEmbedder(nn.Module):
    """Embeds a time: 256 sinusoids, then a two-layer MLP."""

    frequencies = 256

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(self.frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        sinusoids = timestep_embedding(t, self.frequencies)  # B 256
        return self.mlp(sinusoids.to(next(self.mlp.parameters()).dtype))  # B D


class LabelEmbedder(nn.Module):
    """Embeds a class label. If there is a null label, its row is the last one of the table."""

    def __init__(self, labels: int, width: int) -> None:
        super().__init__()
        self.embedding_table = embedding(labels, width)

    def forward(self, y: Tensor) -> Tensor:
        return self.embedding_table(y)  # B D


class ModulatedTransformer(ConditionedNetwork):
    """A transformer over the patches of an image. Time and label modulate its blocks and its last layer.

    Subclasses add `blocks` and `final_layer`. Each block is called with tokens, its modulation and the rotary positions. The
    final layer is called with tokens and its modulation. Each of them has a module `adaLN_modulation`, which computes its
    modulation from the condition.

    This class has no label dropout. A training loop has to replace labels by the null label.
    """

    pos_embed: Tensor
    blocks: nn.ModuleList
    final_layer: nn.Module

    def __init__(self, config: AdaLNConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.side = config.input_size // config.patch_size
        self.out_channels = config.in_channels * (2 if config.learn_sigma else 1)
        self.x_embedder = PatchEmbed(config.in_channels, config.patch_size, width)
        self.t_embedder = TimestepEmbedder(width)
        self.y_embedder = LabelEmbedder(config.num_classes + (config.null_label is not None), width)
        positions = sincos_positions(self.side, self.side, width, torch.device("cpu"))  # arange is slow to load on meta
        self.register_buffer("pos_embed", positions.to(torch.get_default_device()))

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Latents, times (in the network's own unit) and class labels."""
        return (
            TensorSpec(name="x", shape=("batch", *self.config.latent_shape)),
            TensorSpec(name="t", shape=("batch",)),
            TensorSpec(name="y", shape=("batch",), dtype="int64"),
        )

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The prediction. If the network predicts a variance too, its channels follow; they are as many."""
        size = self.config.input_size
        return (TensorSpec(name="prediction", shape=("batch", self.out_channels, size, size)),)

    @property
    def modulations(self) -> tuple[TensorSpec, ...]:
        """The outputs of `condition`, which are inputs of `denoise`."""
        width, depth = self.config.hidden_size, self.config.depth
        return (
            TensorSpec(name="blocks", shape=("batch", depth, self.config.modulation_vectors * width)),
            TensorSpec(name="final", shape=("batch", 2 * width)),
        )

    def tables(self, count: int, device: torch.device | None = None) -> dict[str, Tensor]:
        """The tables of the positions 0 to count − 1 on one axis of a grid, by name. `grid` combines them."""
        return {"axis": sincos_axis(count, self.config.hidden_size, device)}

    def grid(self, tables: Mapping[str, Tensor], rows: int, columns: int) -> tuple[Tensor, ...]:
        """The positions of a grid of patches.

        First come the positions that are added to the tokens, [1, rows · columns, D]. If the network has rotary positions,
        their cosines and sines follow, each [rows · columns, D/N].
        """
        return (grid_positions(tables["axis"], rows, columns),)

    @property
    def own_positions(self) -> tuple[Tensor, ...]:
        """The positions of the grid that the network was trained on, as `grid` gives them."""
        return (self.pos_embed,)

    def positions(self, rows: int, columns: int) -> tuple[Tensor, ...]:
        """The positions of a grid of patches, as `grid` gives them. Only those of the training grid are stored."""
        if (rows, columns) == (self.side, self.side):
            return self.own_positions
        computed = self.grid(self.tables(max(rows, columns), self.pos_embed.device), rows, columns)
        return tuple(positions.to(self.pos_embed.dtype) for positions in computed)

    def condition(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The modulations of every block and of the final layer. They depend on time and label, not on the image.

        t [B], y [B] -> [B, depth, vectors · D], [B, 2 · D]
        """
        c = self.t_embedder(t) + self.y_embedder(y)  # B D
        blocks = torch.stack([_modulation(block, c) for block in self.blocks], dim=1)  # B depth vectors·D
        return blocks, _modulation(self.final_layer, c)

    def residual(self, height: int, width: int) -> TensorSpec:
        """See `BlockNetwork`."""
        count = (height // self.config.patch_size) * (width // self.config.patch_size)
        return TensorSpec(name=RESIDUAL, shape=("batch", count, self.config.hidden_size))

    def stack(self, x: Tensor, *rest: Tensor, positions: tuple[Tensor, ...] = ()) -> BlockStack:
        """See `BlockNetwork`. The inputs beside `x` [B, C, H, W] are the modulations that `condition` gives.

        `positions` replace those of `self.positions`. Raises InputError if the patch size does not divide height and width.
        """
        blocks, final = rest  # B depth vectors·D, B 2·D
        patch = self.config.patch_size
        if x.shape[2] % patch or x.shape[3] % patch:
            raise InputError(f"a latent of {x.shape[2]}x{x.shape[3]} is not a multiple of the patch size {patch}")
        rows, columns = x.shape[2] // patch, x.shape[3] // patch
        dtype = x.dtype
        places, *rotary = positions or self.positions(rows, columns)  # 1 T D, each: T D/N
        tokens = self.x_embedder(x.to(self.pos_embed.dtype)) + places  # B T D
        modulations = blocks.unbind(1)  # each: B vectors·D

        def run(tokens: Tensor, numbers: range) -> Tensor:
            for i in numbers:
                tokens = self.blocks[i](tokens, modulations[i], *rotary)  # B T D
            return tokens

        def finish(tokens: Tensor) -> Tensor:
            return unpatchify(self.final_layer(tokens, final), rows, columns, patch).to(dtype)  # B C H W

        return BlockStack(depth=len(self.blocks), tokens=tokens, run=run, finish=finish)


def _modulation(layer: nn.Module, c: Tensor) -> Tensor:
    """The modulation of a layer, computed from the condition: [B, D] -> [B, vectors · D]."""
    return in_own_dtype(layer.get_submodule("adaLN_modulation"), c)


class AnySize(ConditionedNetwork):
    """A modulated transformer for latents of any size up to `largest` times that of training.

    It slices the positions from tables that cover one axis. An exporter can trace this for sizes that are not known in advance.
    """

    def __init__(self, net: ModulatedTransformer, *, largest: int) -> None:
        super().__init__()
        self.net = net
        for name, table in net.tables(largest * net.side).items():
            self.register_buffer(name, table)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """As those of the network."""
        return self.net.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """As those of the network."""
        return self.net.outputs

    @property
    def modulations(self) -> tuple[TensorSpec, ...]:
        """As those of the network."""
        return self.net.modulations

    def condition(self, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """As `ModulatedTransformer.condition`."""
        return self.net.condition(t, y)

    def residual(self, height: int, width: int) -> TensorSpec:
        """As those of the network."""
        return self.net.residual(height, width)

    def stack(self, x: Tensor, *rest: Tensor) -> BlockStack:
        """As `ModulatedTransformer.stack`."""
        patch, tables = self.net.config.patch_size, dict(self.named_buffers(recurse=False))
        positions = self.net.grid(tables, x.shape[2] // patch, x.shape[3] // patch)  # 1 T D, each: T D/N
        return self.net.stack(x, *rest, positions=positions)


class Conditioning(nn.Module):
    """The part of a network that depends only on time and label. It holds no other weights, so a tracer keeps none."""

    def __init__(self, net: ModulatedTransformer) -> None:
        super().__init__()
        self.net = copied(net)
        _keep(self.net, "t_embedder", "y_embedder", "blocks", "final_layer")
        for layer in (*self.net.blocks, self.net.final_layer):
            _keep(layer, "adaLN_modulation")

    def forward(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """t [B], y [B] -> [B, depth, vectors · D], [B, 2 · D]."""
        return self.net.condition(t, y)


def _keep(module: nn.Module, *kept: str) -> None:
    """Removes all submodules and buffers of a module, except those named in `kept`."""
    for name, _ in [*module.named_children(), *module.named_buffers(recurse=False)]:
        if name not in kept:
            delattr(module, name)
