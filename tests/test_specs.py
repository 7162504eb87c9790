"""The table of precisions: what it says of a type is what the libraries say."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch

from ditzoo.specs import GRAPH_PRECISIONS, PRECISION_TRAITS, PRECISIONS, Precision


def test_every_precision_has_a_row() -> None:
    assert tuple(PRECISION_TRAITS) == PRECISIONS
    assert GRAPH_PRECISIONS == ("fp32", "bf16", "fp16", "int8", "fp8")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_onnx_has_the_type(precision: Precision) -> None:
    traits = PRECISION_TRAITS[precision]
    dtype = ir.DataType[traits.onnx].numpy()
    limits = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    assert float(limits.max) == traits.largest
    assert dtype.itemsize == traits.bytes
    assert traits.half == (traits.bytes == 2)
    assert traits.eight_bits == (traits.bytes == 1)


@pytest.mark.parametrize("precision", [name for name, traits in PRECISION_TRAITS.items() if traits.torch])
def test_torch_has_the_type(precision: Precision) -> None:
    traits = PRECISION_TRAITS[precision]
    dtype = getattr(torch, str(traits.torch))
    assert torch.finfo(dtype).max == traits.largest
    assert dtype.itemsize == traits.bytes
