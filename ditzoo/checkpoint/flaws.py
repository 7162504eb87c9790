"""The reasons why the values of a tensor cannot be used. They are found without reading the values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
"""The types of safetensors whose elements are one floating-point number each. Types of 4 and 6 bits are packed."""


_LARGEST = 2**60


def flaw_in_header(dtype: str, shape: Sequence[int]) -> str:
    """The flaw of a tensor of that type and shape in the header of a safetensors file; "" if there is none.

    A tensor without elements may have axes whose product has more than 64 bits. torch does not load it.
    """
    if dtype not in _FLOATS:
        return f"not floating point ({dtype})"
    return "" if math.prod(max(axis, 1) for axis in shape) < _LARGEST else "tensors with an axis that is too large"


def flaw_of(tensor: Tensor) -> str:
    """The flaw of a tensor of a torch file; "" if there is none. See `ditzoo.families.tensors.Entry`."""
    if tensor.is_nested:
        return "nested tensors"
    if tensor.is_quantized or not tensor.dtype.is_floating_point or tensor.dtype == torch.float4_e2m1fn_x2:
        return f"not floating point ({str(tensor.dtype).removeprefix('torch.')})"
    if tensor.layout != torch.strided:
        return "sparse tensors"
    if tensor.device.type != "cpu":
        return "tensors without values"
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        return "tensors whose elements share memory"
    return ""


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """The shape of a tensor. Nested tensors have none, so theirs is ()."""
    return () if tensor.is_nested else tuple(tensor.shape)
