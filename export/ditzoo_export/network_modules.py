"""Modules that are exported instead of a network or a part of it: guidance inside the graph, and attention as one operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from ditzoo.nets.layers import Attention, prepared
from ditzoo.nets.network import Network
from ditzoo.nets.precision import copied

M = TypeVar("M", bound=nn.Module)


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


class FlatLinear(nn.Module):
    """A linear layer that is exported as one Gemm.

    PyTorch's exporter writes other linear layers as MatMul and Add. In half precision, these round twice what PyTorch rounds
    once.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """The same as `nn.Linear.forward`: x [B, ..., K] -> [B, ..., N]."""
        return nn.functional.linear(x.flatten(end_dim=-2), self.weight, self.bias).view(*x.shape[:-1], -1)


class WideSiLU(nn.Module):
    """SiLU in float32. ONNX Runtime computes it as x · sigmoid(x) on GPUs, and rounds each part of that to half precision."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> silu(x), of the same type."""
        return nn.functional.silu(x.float()).to(x.dtype)


def with_fused_attention(net: Network) -> Network:
    """A copy of the network that shares its weights, with attention as one operation of ONNX Runtime."""
    return _replaced(net, Attention, FusedAttention)


def with_fewer_roundings(net: Network) -> Network:
    """A copy of the network that shares its weights, whose graph in half precision rounds only where PyTorch rounds.

    Every linear layer with a bias is one Gemm, and SiLU, whose tensors are small, is in float32.
    """
    net = _replaced(net, nn.Linear, lambda linear: linear if linear.bias is None else FlatLinear(linear))
    return _replaced(net, nn.SiLU, lambda silu: WideSiLU())


def _replaced(net: Network, kind: type[M], other: Callable[[M], nn.Module]) -> Network:
    net = copied(net)
    for parent in list(net.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, kind):
                setattr(parent, name, other(module))
    return net
