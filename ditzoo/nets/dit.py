"""DiT: "Scalable Diffusion Models with Transformers", arXiv 2212.09748, with adaLN-Zero blocks (figure 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ditzoo.errors import InputError
from ditzoo.nets.layers import (
    Attention,
    Mlp,
    PatchEmbed,
    embedding,
    grid_positions,
    in_own_dtype,
    sincos_axis,
    sincos_positions,
    timestep_embedding,
    unpatchify,
)
from ditzoo.nets.network import ConditionedNetwork
from ditzoo.nets.precision import copied
from ditzoo.specs import TensorSpec
from ditzoo.zoo.configs import DiTConfig


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


class DiTBlock(nn.Module):
    """A transformer block whose norms are shifted, scaled and gated by the condition."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, config.num_heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(width, int(width * config.mlp_ratio), approximate="tanh")
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation.chunk(6, dim=1)  # each: B D
        x = x + gate_attn[:, None] * in_own_dtype(self.attn, modulate(self.norm1(x), shift_attn, scale_attn))  # B T D
        return x + gate_mlp[:, None] * in_own_dtype(self.mlp, modulate(self.norm2(x), shift_mlp, scale_mlp))  # B T D


class FinalLayer(nn.Module):
    """The last modulated norm, and the projection of each token to its patch."""

    def __init__(self, config: DiTConfig, out_channels: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, config.patch_size**2 * out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift, scale = modulation.chunk(2, dim=1)  # each: B D
        return self.linear(modulate(self.norm_final(x), shift, scale))  # B T p·p·C


class DiT(ConditionedNetwork):
    """The Diffusion Transformer. Its state dict has the keys of the authors' code.

    There is no label dropout here. A training loop replaces labels by the null label itself.
    """

    pos_embed: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width, side = config.hidden_size, config.input_size // config.patch_size
        self.out_channels = config.in_channels * (2 if config.learn_sigma else 1)
        self.x_embedder = PatchEmbed(config.in_channels, config.patch_size, width)
        self.t_embedder = TimestepEmbedder(width)
        self.y_embedder = LabelEmbedder(config.num_classes + (config.null_label is not None), width)
        positions = sincos_positions(side, side, width, torch.device("cpu"))  # on the meta device, arange takes seconds to load
        self.register_buffer("pos_embed", positions.to(torch.get_default_device()))
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config, self.out_channels)

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
        """The prediction. If the network has learned a variance, as many channels of it follow."""
        size = self.config.input_size
        return (TensorSpec(name="prediction", shape=("batch", self.out_channels, size, size)),)

    @property
    def modulations(self) -> tuple[TensorSpec, ...]:
        """The outputs of `condition`, which are inputs of `denoise`."""
        width, depth = self.config.hidden_size, self.config.depth
        return (
            TensorSpec(name="blocks", shape=("batch", depth, 6 * width)),
            TensorSpec(name="final", shape=("batch", 2 * width)),
        )

    def positions(self, rows: int, columns: int) -> Tensor:
        """The positions of a grid of patches, [1, rows · columns, D]. For another grid than in training, they are computed."""
        side = self.config.input_size // self.config.patch_size
        if (rows, columns) == (side, side):
            return self.pos_embed
        return sincos_positions(rows, columns, self.config.hidden_size, self.pos_embed.device).to(self.pos_embed.dtype)

    def condition(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The modulations of every block and of the final layer. They depend on time and label, not on the image.

        t [B], y [B] -> [B, depth, 6 · D], [B, 2 · D]
        """
        c = self.t_embedder(t) + self.y_embedder(y)  # B D
        blocks = torch.stack([in_own_dtype(block.adaLN_modulation, c) for block in self._blocks()], dim=1)  # B depth 6·D
        return blocks, in_own_dtype(self.final_layer.adaLN_modulation, c)

    def denoise(self, x: Tensor, *modulations: Tensor, positions: Tensor | None = None) -> Tensor:
        """The prediction for latents `x` [B, C, H, W] and the modulations of `condition`. `positions` replaces its own."""
        blocks, final = modulations  # B depth 6·D, B 2·D
        patch = self.config.patch_size
        if x.shape[2] % patch or x.shape[3] % patch:
            raise InputError(f"a latent of {x.shape[2]}x{x.shape[3]} is no multiple of the patch size {patch}")
        rows, columns = x.shape[2] // patch, x.shape[3] // patch
        dtype = x.dtype
        positions = self.positions(rows, columns) if positions is None else positions  # 1 T D
        x = self.x_embedder(x.to(self.pos_embed.dtype)) + positions  # B T D
        for block, modulation in zip(self._blocks(), blocks.unbind(1), strict=True):
            x = block(x, modulation)  # B T D
        return unpatchify(self.final_layer(x, final), rows, columns, patch).to(dtype)  # B C H W

    def _blocks(self) -> list[DiTBlock]:
        return [block for block in self.blocks if isinstance(block, DiTBlock)]


class AnySizeDiT(ConditionedNetwork):
    """A DiT for latents of any size up to `largest` times that of training.

    It takes the positions out of a table of sines, because an exporter can trace that for sizes that are not known yet.
    """

    axis: Tensor

    def __init__(self, net: DiT, *, largest: int) -> None:
        super().__init__()
        self.net = net
        count = largest * net.config.input_size // net.config.patch_size
        self.register_buffer("axis", sincos_axis(count, net.config.hidden_size))

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """As those of the DiT."""
        return self.net.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """As those of the DiT."""
        return self.net.outputs

    @property
    def modulations(self) -> tuple[TensorSpec, ...]:
        """As those of the DiT."""
        return self.net.modulations

    def condition(self, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """As `DiT.condition`."""
        return self.net.condition(t, y)

    def denoise(self, x: Tensor, *modulations: Tensor) -> Tensor:
        """As `DiT.denoise`."""
        patch = self.net.config.patch_size
        positions = grid_positions(self.axis, x.shape[2] // patch, x.shape[3] // patch)  # 1 T D
        return self.net.denoise(x, *modulations, positions=positions)  # B C H W


class DiTConditioning(nn.Module):
    """The part of a DiT that depends on time and label alone. It holds no other weights, so that a tracer keeps none."""

    def __init__(self, net: DiT) -> None:
        super().__init__()
        self.net = copied(net)
        del self.net.x_embedder, self.net.pos_embed, self.net.final_layer.linear
        for block in self.net.blocks:
            del block.attn, block.mlp

    def forward(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """t [B], y [B] -> [B, depth, 6 · D], [B, 2 · D]."""
        return self.net.condition(t, y)
