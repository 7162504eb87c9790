"""Layers that several networks share.

The letters in shape comments: B batch, C channels, H W size of the latents, h w rows and columns of patches, p patch size,
T tokens, D width, N heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def timestep_embedding(t: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """The sinusoids of each time in `t`, [B] -> [B, width], cosines first.

    The result is float64 if the times are float64, and float32 otherwise.

    Frequency i is max_period^(−i / (width/2)), as in the code of DiT and U-ViT. (diffusers divides by width/2 − 1 for DiT.)
    """
    half, dtype = width // 2, torch.promote_types(t.dtype, torch.float32)
    frequencies = torch.exp(-math.log(max_period) / half * torch.arange(half, dtype=dtype, device=t.device))
    angles = t.to(dtype)[:, None] * frequencies  # B D/2
    sinusoids = torch.cat([angles.cos(), angles.sin()], dim=1)  # B 2·(D/2)
    return F.pad(sinusoids, (0, width % 2))  # B D


def sincos_axis(count: int, width: int, device: torch.device | None = None) -> Tensor:
    """The sines and cosines of the positions 0 to count − 1 on one axis of a grid, [count, width / 2], for `sincos_positions`.

    They are computed in float64 and returned in float32.
    """
    quarter = width // 4
    frequencies = 10_000.0 ** -(torch.arange(quarter, dtype=torch.float64, device=device) / quarter)
    angles = torch.arange(count, dtype=torch.float64, device=device)[:, None] * frequencies  # count D/4
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()  # count D/2


def grid_positions(axis: Tensor, rows: int, columns: int) -> Tensor:
    """The positions of a grid, [1, rows · columns, width], from the table `axis` [count, width / 2].

    `count` has to be at least max(rows, columns).
    """
    column, row = axis[:columns].expand(rows, -1, -1), axis[:rows, None].expand(-1, columns, -1)  # each: h w D/2
    return torch.cat([column, row], dim=2).flatten(0, 1)[None]  # 1 T D


def sincos_positions(rows: int, columns: int, width: int, device: torch.device | None = None) -> Tensor:
    """The fixed two-dimensional sine-cosine positions of a grid of patches, [1, rows · columns, width], float32.

    The first half of the width encodes the column and the second half the row, as in DiT's code.
    """
    return grid_positions(sincos_axis(max(rows, columns), width, device), rows, columns)


def rotary_axis(count: int, width: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """The cosines and sines of rotary positions (RoFormer, arXiv 2104.09864, eq. 15), each [count, width].

    The positions are 0 to count − 1 on one axis of a grid. Each angle occurs twice in a row, once for each number of the pair
    that it rotates. The tables are computed in float64 and returned in float32.
    """
    frequencies = 10_000.0 ** -(torch.arange(0, width, 2, dtype=torch.float64, device=device) / width)
    angles = torch.arange(count, dtype=torch.float64, device=device)[:, None] * frequencies  # count width/2
    angles = torch.stack([angles, angles], dim=2).flatten(1)  # count width
    return angles.cos().float(), angles.sin().float()


def rotary_grid(axis: Tensor, rows: int, columns: int) -> Tensor:
    """The table `axis` of `rotary_axis`, [count, width], combined for a grid of patches: [rows · columns, 2 · width].

    The first half of the last axis encodes the row, the second half the column.
    """
    row, column = axis[:rows, None].expand(-1, columns, -1), axis[:columns].expand(rows, -1, -1)  # each: h w D/2
    return torch.cat([row, column], dim=2).flatten(0, 1)  # T D


def rotated(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotates each pair (a, b) of neighbours on the last axis of `x` by its angle: (a · cos − b · sin, b · cos + a · sin)."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-b, a], dim=-1).flatten(-2)
    return (x * cosines + turned * sines).to(x.dtype)


def unpatchify(tokens: Tensor, rows: int, columns: int, patch: int) -> Tensor:
    """Assembles an image [B, C, rows · p, columns · p] from tokens [B, rows · columns, p · p · C].

    There is one token for each patch, in reading order.
    """
    x = tokens.unflatten(2, (patch, patch, -1)).unflatten(1, (rows, columns))  # B h w p p C
    x = x.permute(0, 5, 1, 3, 2, 4)  # B C h p w p
    return x.flatten(4, 5).flatten(2, 3)  # B C H W


def embedding(rows: int, width: int) -> nn.Embedding:
    """An `nn.Embedding` with normally distributed weights. On the meta device, there is nothing to draw: torch would import
    sympy for it, which takes longer than loading a small network."""
    weights = torch.empty(rows, width)
    return nn.Embedding.from_pretrained(weights if weights.is_meta else weights.normal_(), freeze=False)


def in_own_dtype(module: nn.Module, x: Tensor, *others: Tensor) -> Tensor:
    """Runs a module in the dtype of its weights and returns its output in the dtype of `x` (see `ditzoo.nets.precision`).

    `others` are passed to the module as they are.
    """
    output: Tensor = module(x.to(next(module.parameters()).dtype), *others)
    return output.to(x.dtype)


class PatchEmbed(nn.Module):
    """Turns each patch of an image into a token."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)  # B C H W -> B T D


class Attention(nn.Module):
    """Multi-head self-attention with one matrix for queries, keys and values.

    `qk_norm` makes a norm layer for a given width. It normalizes the queries and keys of each head.
    """

    def __init__(self, width: int, heads: int, *, qkv_bias: bool, qk_norm: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.q_norm = qk_norm(width // heads) if qk_norm else None
        self.k_norm = qk_norm(width // heads) if qk_norm else None
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, *rotary: Tensor) -> Tensor:
        """Tokens [B, T, D] -> [B, T, D]. `rotary` is empty, or the cosines and sines [T, D/N] that rotate queries and keys."""
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1))  # B T 3 N D/N
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each: B N T D/N
        q, k = prepared(q, self.q_norm, *rotary), prepared(k, self.k_norm, *rotary)  # each: B N T D/N
        x = F.scaled_dot_product_attention(q, k, v)  # B N T D/N
        return self.proj(x.transpose(1, 2).flatten(2))  # B T D


def prepared(x: Tensor, norm: nn.Module | None, *rotary: Tensor) -> Tensor:
    """Queries or keys [..., D/N] after `norm` and the rotation by `rotary`, if the network has them."""
    x = norm(x) if norm is not None else x
    return rotated(x, *rotary) if rotary else x


class Mlp(nn.Module):
    """Two linear layers with a GELU between them; `approximate` is "tanh" or "none" (exact)."""

    def __init__(self, width: int, hidden: int, *, approximate: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU(approximate=approximate)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))  # B T D
