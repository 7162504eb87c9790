"""DiT: "Scalable Diffusion Models with Transformers", arXiv 2212.09748, with adaLN-Zero blocks (figure 3)."""

from __future__ import annotations

from torch import Tensor, nn

from ditzoo.nets.adaln import ModulatedTransformer, modulate
from ditzoo.nets.layers import Attention, Mlp, in_own_dtype
from ditzoo.zoo.configs import DiTConfig


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


class DiT(ModulatedTransformer):
    """The Diffusion Transformer. Its state dict has the keys of the authors' code."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config, self.out_channels)
