"""diffusers' DiT with random weights, and the corrections that make it compute what the paper says."""

from __future__ import annotations

import diffusers
import torch
from torch import nn

from ditzoo.families.dit import IN_EVERY_BLOCK
from ditzoo.zoo.configs import DiTConfig

SIZES = (
    DiTConfig(input_size=8, hidden_size=64, depth=2, num_heads=4, num_classes=10),
    DiTConfig(input_size=16, patch_size=4, in_channels=3, hidden_size=144, depth=3, num_heads=6, learn_sigma=False),
    DiTConfig(input_size=16, hidden_size=256, depth=4, num_heads=8, num_classes=100),
)
SMALL = DiTConfig(input_size=32, hidden_size=384, depth=12, num_heads=6)
"""The configuration of DiT-S/2; ditzoo has a card of this model."""


def random_dit(config: DiTConfig) -> nn.Module:
    """diffusers' network with random weights. It has a copy of the embedders in every block; all copies are the same."""
    torch.manual_seed(0)
    net = diffusers.DiTTransformer2DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.hidden_size // config.num_heads,
        in_channels=config.in_channels,
        out_channels=config.in_channels * (2 if config.learn_sigma else 1),
        num_layers=config.depth,
        sample_size=config.input_size,
        patch_size=config.patch_size,
        num_embeds_ada_norm=config.num_classes,
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.05)
        for name in IN_EVERY_BLOCK.values():
            first = net.get_submodule(f"transformer_blocks.0.{name}")
            for block in net.transformer_blocks:
                block.get_submodule(name).load_state_dict(first.state_dict())
    return net.eval()


def correct_sinusoids(net: nn.Module) -> None:
    """Gives the time embedding the frequencies of the paper, which divide by 128 instead of 127."""
    for block in net.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0


def correct_eps(net: nn.Module) -> None:
    """Gives the norms the eps of the paper, 1e-6."""
    for block in net.transformer_blocks:
        block.norm3.eps = 1e-6
