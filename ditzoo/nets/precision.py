"""Networks in half precision: the big products in it, all else in float32."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)

HALVES = (torch.float16, torch.bfloat16)

PRODUCTS = ("attn", "mlp", "skip_linear", "adaLN_modulation")
"""What the modules are called whose products are nearly all of a network's work and weights."""


def in_dtype(net: Module, dtype: torch.dtype) -> Module:
    """The network in a dtype; `net` stays what it was, and they share what is the same in both.

    Half precision is for its attention, MLPs, skips and modulations. Sums, norms, sinusoids, the patch embedding and the last
    product stay in float32 (as in mixed precision training, arXiv 1710.03740): all in half, a network is off by three to nine
    times as much.
    """
    if dtype not in HALVES:
        return net if next(net.parameters()).dtype == dtype else copied(net, dtype)
    net = copied(net)
    for module in list(net.modules()):
        for name in PRODUCTS:
            if (part := getattr(module, name, None)) is not None:
                setattr(module, name, copied(part, dtype))
    return net


def copied(module: Module, dtype: torch.dtype | None = None) -> Module:
    """A copy of a module: with the weights themselves, or with weights of another type."""
    tensors = (*module.parameters(), *module.buffers())
    own: dict[int, Any] = {id(tensor): tensor if dtype is None else _converted(tensor, dtype) for tensor in tensors}
    return copy.deepcopy(module, own)


def _converted(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    converted = tensor.detach().to(dtype)
    return nn.Parameter(converted, requires_grad=False) if isinstance(tensor, nn.Parameter) else converted
