"""LightningDiT: "Reconstruction vs. Generation", arXiv 2501.01423: DiT with RMSNorm, SwiGLU and rotary positions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ditzoo.nets.adaln import ModulatedTransformer, modulate
from ditzoo.nets.layers import Attention, Mlp, in_own_dtype, rotary_axis, rotary_grid
from ditzoo.zoo.configs import LightningDiTConfig


class RMSNorm(nn.Module):
    """Divides x by its root mean square and multiplies it by a weight (arXiv 1910.07467, eq. 4), in float32 or wider."""

    eps = 1e-6

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        root = torch.sqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (wide / root).to(x.dtype) * self.weight


class SwiGLU(nn.Module):
    """A gated MLP, w3(silu(a) · b), where a and b are the halves of w12(x) (arXiv 2002.05202, eq. 6)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)  # each: B T hidden
        return self.w3(F.silu(gate) * value)  # B T D


def norm(config: LightningDiTConfig, width: int) -> nn.Module:
    """The norm before a modulation."""
    return RMSNorm(width) if config.use_rmsnorm else nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)


class LightningDiTBlock(nn.Module):
    """A DiT block with rotary positions. Without shift, the condition only scales and gates its norms."""

    def __init__(self, config: LightningDiTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        qk_norm = (RMSNorm if config.use_rmsnorm else nn.LayerNorm) if config.use_qknorm else None
        self.shifts = not config.wo_shift
        self.norm1 = norm(config, width)
        self.attn = Attention(width, config.num_heads, qkv_bias=True, qk_norm=qk_norm)
        self.norm2 = norm(config, width)
        hidden = config.mlp_width
        self.mlp = SwiGLU(width, hidden) if config.use_swiglu else Mlp(width, hidden, approximate="tanh")
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, config.modulation_vectors * width))

    def forward(self, x: Tensor, modulation: Tensor, *rotary: Tensor) -> Tensor:
        for_attn, for_mlp = modulation.chunk(2, dim=1)  # each: B 3·D, without shift B 2·D
        modulated, gate = self._modulated(self.norm1(x), for_attn)  # B T D, B 1 D
        x = x + gate * in_own_dtype(self.attn, modulated, *rotary)  # B T D
        modulated, gate = self._modulated(self.norm2(x), for_mlp)  # B T D, B 1 D
        return x + gate * in_own_dtype(self.mlp, modulated)  # B T D

    def _modulated(self, x: Tensor, modulation: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens after scaling and, if the block has a shift, shifting; and the gate for the layer's output."""
        if self.shifts:
            shift, scale, gate = modulation.chunk(3, dim=1)  # each: B D
            return modulate(x, shift, scale), gate[:, None]
        scale, gate = modulation.chunk(2, dim=1)  # each: B D
        return x * (1 + scale[:, None]), gate[:, None]


class FinalLayer(nn.Module):
    """The last modulated norm, and the projection of each token to its patch. It has a shift even if the blocks have none."""

    def __init__(self, config: LightningDiTConfig, out_channels: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm_final = norm(config, width)
        self.linear = nn.Linear(width, config.patch_size**2 * out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift, scale = modulation.chunk(2, dim=1)  # each: B D
        return self.linear(modulate(self.norm_final(x), shift, scale))  # B T p·p·C


class Rotary(nn.Module):
    """The rotary positions of the grid of training: cosines and sines, each [side · side, width of a head].

    They could be computed. They are buffers because the checkpoints have them.
    """

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(self, side: int, head: int) -> None:
        super().__init__()
        for name, axis in zip(("freqs_cos", "freqs_sin"), rotary_axis(side, head // 2, torch.device("cpu")), strict=True):
            self.register_buffer(name, rotary_grid(axis, side, side).to(torch.get_default_device()))


class LightningDiT(ModulatedTransformer):
    """The network. Its state dict has the keys of the authors' code."""

    def __init__(self, config: LightningDiTConfig) -> None:
        super().__init__(config)
        self.head = config.head_width
        self.feat_rope = Rotary(self.side, self.head) if config.use_rope else None
        self.blocks = nn.ModuleList(LightningDiTBlock(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config, self.out_channels)

    @property
    def own_positions(self) -> tuple[Tensor, ...]:
        """See `ModulatedTransformer`."""
        if self.feat_rope is None:
            return (self.pos_embed,)
        return self.pos_embed, self.feat_rope.freqs_cos, self.feat_rope.freqs_sin

    def tables(self, count: int, device: torch.device | None = None) -> dict[str, Tensor]:
        """See `ModulatedTransformer`."""
        tables = super().tables(count, device)
        if self.feat_rope is not None:
            tables["cosines"], tables["sines"] = rotary_axis(count, self.head // 2, device)
        return tables

    def grid(self, tables: Mapping[str, Tensor], rows: int, columns: int) -> tuple[Tensor, ...]:
        """See `ModulatedTransformer`."""
        rotary = (rotary_grid(tables[name], rows, columns) for name in ("cosines", "sines") if name in tables)
        return *super().grid(tables, rows, columns), *rotary
