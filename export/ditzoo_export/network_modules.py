"""Modules that are exported instead of a network or a part of it: guidance inside the graph, and attention as one operation."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ditzoo.nets.layers import Attention, prepared
from ditzoo.nets.network import Network
from ditzoo.nets.precision import copied


class Guided(nn.Module):
    """A network with classifier-free guidance inside (arXiv 2207.12598). It takes one label per image.

    `null` is the null label. `guided` is the number of channels that guidance changes.
    """

    def __init__(self, net: nn.Module, *, null: int, guided: int) -> None:
        super().__init__()
        self.net, self.null, self.guided = net, null, guided

    def forward(self, x: Tensor, t: Tensor, y: Tensor, guidance: Tensor) -> Tensor:
        """x [B, C, H, W], t [B], y [B], guidance [B] -> prediction uncond + guidance · (cond − uncond)."""
        both = self.net(torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, torch.full_like(y, self.null)]))  # 2·B C H W
        cond, null = both[: x.shape[0]], both[x.shape[0] :]  # each: B C H W
        first, rest, uncond = cond[:, : self.guided], cond[:, self.guided :], null[:, : self.guided]
        return torch.cat([uncond + guidance[:, None, None, None] * (first - uncond), rest], dim=1)  # B C H W


class FusedAttention(nn.Module):
    """Self-attention that is exported as one operation of ONNX Runtime, which uses flash attention for it."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = attention.heads, attention.qkv, attention.proj
        self.q_norm, self.k_norm = attention.q_norm, attention.k_norm

    def forward(self, x: Tensor, *rotary: Tensor) -> Tensor:
        """The same as `Attention.forward`, but only PyTorch's exporter can call it."""
        q, k, v = self.qkv(x).chunk(3, dim=2)  # each: B T D
        q, k = self._prepared(q, self.q_norm, *rotary), self._prepared(k, self.k_norm, *rotary)  # each: B T D
        heads: dict[str, Any] = {"num_heads": self.heads}
        operation = "com.microsoft::MultiHeadAttention"
        x = torch.onnx.ops.symbolic(operation, [q, k, v], heads, dtype=q.dtype, shape=q.shape, version=1)  # B T D
        return cast(Tensor, self.proj(x))  # B T D

    def _prepared(self, x: Tensor, norm: nn.Module | None, *rotary: Tensor) -> Tensor:
        """The same as `prepared`, but for x [B, T, D]: the operation takes all heads side by side on the last axis."""
        if norm is None and not rotary:
            return x
        heads = x.view(*x.shape[:2], self.heads, -1)  # B T N D/N
        return prepared(heads, norm, *(table[:, None] for table in rotary)).flatten(2)  # B T D


def head_widths(net: Network) -> set[int]:
    """The widths of the attention heads of a network."""
    return {module.proj.in_features // module.heads for module in net.modules() if isinstance(module, Attention)}


def with_fused_attention(net: Network) -> Network:
    """A copy of the network that shares its weights, with attention as one operation of ONNX Runtime."""
    net = copied(net)
    for parent in list(net.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, Attention):
                setattr(parent, name, FusedAttention(module))
    return net
