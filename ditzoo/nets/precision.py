"""Networks in half precision: the large matrix multiplications are in half precision, and everything else is in float32."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any, TypeVar

import torch
from torch import nn

from ditzoo.specs import PRECISION_TRAITS

Module = TypeVar("Module", bound=nn.Module)

_HALVES = [getattr(torch, traits.torch) for traits in PRECISION_TRAITS.values() if traits.half and traits.torch]


def in_dtype(net: Module, dtype: torch.dtype, *, modules: Collection[str]) -> Module:
    """A copy of a network in another dtype. `net` stays as it was. Both share the tensors that do not change.

    Only the modules with a name in `modules` compute in half precision; they do nearly all of the work. Sums, norms, sinusoids,
    the patch embedding and the last projection stay in float32, as in mixed precision training (arXiv 1710.03740): with
    everything in half precision, the error is three to nine times as large.
    """
    if dtype not in _HALVES:
        return net if next(net.parameters()).dtype == dtype else copied(net, dtype)
    net = copied(net)
    for module in list(net.modules()):
        for name in modules:
            if (part := getattr(module, name, None)) is not None:
                setattr(module, name, copied(part, dtype))
    return net


def copied(module: Module, dtype: torch.dtype | None = None) -> Module:
    """A copy of a module that shares the weights, or, if `dtype` is given, has weights of that dtype."""
    tensors = (*module.parameters(), *module.buffers())
    own: dict[int, Any] = {id(tensor): tensor if dtype is None else _converted(tensor, dtype) for tensor in tensors}
    return copy.deepcopy(module, own)


def placed(module: Module, device: torch.device) -> Module:
    """A copy of a module on a device, without gradients. `module` stays as and where it is; on its own device, both share the
    weights."""
    tensors = (*module.parameters(), *module.buffers())
    return copy.deepcopy(module, {id(tensor): _like(tensor, tensor.detach().to(device)) for tensor in tensors})


def _converted(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return _like(tensor, tensor.detach().to(dtype))


def _like(tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A value in place of a tensor of a module: a parameter without gradient if that is a parameter."""
    return nn.Parameter(value, requires_grad=False) if isinstance(tensor, nn.Parameter) else value
