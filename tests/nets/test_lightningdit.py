"""LightningDiT's parts, held against their papers' formulas; the golden file of its authors' code is in `test_nets`."""

from __future__ import annotations

import math

import msgspec
import pytest
import torch
from random_models import random_net
from torch import Tensor

from ditzoo.families import build
from ditzoo.nets.layers import rotary_axis, rotary_grid, rotated
from ditzoo.nets.lightningdit import RMSNorm
from ditzoo.zoo.configs import LightningDiTConfig
from tests.support.golden import relative_l2

SMALL = LightningDiTConfig(input_size=4, in_channels=8, hidden_size=48, depth=2, num_heads=3, num_classes=10)

OPTIONS = {
    "as published": SMALL,
    "norms of q and k": msgspec.structs.replace(SMALL, use_qknorm=True),
    "LayerNorms of q and k": msgspec.structs.replace(SMALL, use_qknorm=True, use_rmsnorm=False),
    "without shift": msgspec.structs.replace(SMALL, wo_shift=True),
    "without rotary positions": msgspec.structs.replace(SMALL, use_rope=False),
    "with DiT's MLP": msgspec.structs.replace(SMALL, use_swiglu=False),
    "two channels an output, patches of 2": msgspec.structs.replace(SMALL, learn_sigma=True, patch_size=2),
}


def inputs(channels: int = 8, height: int = 4, width: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, height, width, generator=generator), torch.tensor([0.1, 0.8]), torch.tensor([3, 10])


def test_the_published_size() -> None:
    """The authors' XL/1: DiT-XL with a gated MLP of two thirds of its width, RMSNorms, and the tables of positions."""
    with torch.device("meta"):
        net = build(LightningDiTConfig())
    shapes = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    assert shapes["blocks.27.mlp.w12.weight"] == (6144, 1152)
    assert shapes["blocks.27.mlp.w3.weight"] == (1152, 3072)
    assert shapes["feat_rope.freqs_cos"] == shapes["feat_rope.freqs_sin"] == (256, 72)
    assert shapes["final_layer.linear.weight"] == (32, 1152)
    assert not any("q_norm" in key for key in shapes)


@pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS)
def test_every_option_runs_and_counts_its_parameters(config: LightningDiTConfig) -> None:
    net = random_net(config)
    assert sum(tensor.numel() for tensor in net.state_dict().values()) == config.parameters
    out = net(*inputs())
    assert tuple(out.shape) == net.outputs[0].concrete(batch=2)
    assert out.abs().max() > 0


def test_rotary_positions_turn_by_the_row_first() -> None:
    """The token of row 2 and column 3 in a head of 8: two pairs turn by 2 and 2/100, two by 3 and 3/100."""
    cosines, sines = (rotary_grid(axis, 4, 5) for axis in rotary_axis(5, 4))
    token = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0])
    turned = rotated(token, cosines[2 * 5 + 3], sines[2 * 5 + 3])
    angles = (2.0, 0.02, 3.0, 0.03)
    expected = [math.cos(angles[0]), math.sin(angles[0]), math.cos(angles[1]), math.sin(angles[1])]
    expected += [-math.sin(angles[2]), math.cos(angles[2]), -math.sin(angles[3]), math.cos(angles[3])]
    assert torch.allclose(turned, torch.tensor(expected), atol=1e-6)


def test_rotary_positions_are_relative() -> None:
    """What a query and a key have in common depends on how far they are apart (RoFormer, eq. 16)."""
    cosines, sines = (rotary_grid(axis, 6, 6) for axis in rotary_axis(6, 8))
    q, k = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))

    def score(row: int, column: int, other_row: int, other_column: int) -> float:
        here, there = row * 6 + column, other_row * 6 + other_column
        return float(rotated(q, cosines[here], sines[here]) @ rotated(k, cosines[there], sines[there]))

    assert score(0, 1, 2, 4) == pytest.approx(score(3, 2, 5, 5), abs=1e-4)
    assert abs(score(0, 1, 2, 4) - score(0, 1, 4, 2)) > 1e-2


def test_rms_norm_keeps_large_numbers_of_half_precision() -> None:
    """The square of 300 is beyond float16."""
    norm = RMSNorm(4).half()
    assert torch.allclose(norm(torch.tensor([300.0, -300, 300, 300]).half()).float(), torch.tensor([1.0, -1, 1, 1]), atol=1e-3)


def test_attention_with_norms_and_rotary_positions_is_the_formula() -> None:
    attention = random_net(OPTIONS["norms of q and k"]).double().get_submodule("blocks.0.attn")
    torch.nn.init.normal_(attention.q_norm.weight)
    x = torch.randn(2, 16, 48, dtype=torch.float64)
    rotary = [rotary_grid(axis, 4, 4).double() for axis in rotary_axis(4, 8)]
    q, k, v = attention.qkv(x).view(2, 16, 3, 3, 16).unbind(2)  # each: B T N D/N
    q = q / (q**2).mean(-1, keepdim=True).add(1e-6).sqrt() * attention.q_norm.weight
    k = k / (k**2).mean(-1, keepdim=True).add(1e-6).sqrt() * attention.k_norm.weight
    turn = torch.polar(torch.ones(16, 8, dtype=torch.float64), torch.atan2(rotary[1], rotary[0])[:, ::2])  # T D/2N, complex

    def turned(heads: Tensor) -> Tensor:
        pairs = torch.view_as_complex(heads.contiguous().view(2, 16, 3, 8, 2)) * turn[None, :, None]
        return torch.view_as_real(pairs).flatten(3)

    scores = torch.einsum("btnd,bsnd->bnts", turned(q), turned(k)) / 4
    expected = attention.proj(torch.einsum("bnts,bsnd->btnd", scores.softmax(-1), v).flatten(2))
    assert torch.allclose(attention(x, *rotary), expected, atol=1e-10)


def test_without_shift_is_a_shift_of_zero() -> None:
    without, shifted = random_net(OPTIONS["without shift"]), build(SMALL).eval().requires_grad_(False)
    weights = without.state_dict()
    for key in [key for key in weights if key.startswith("blocks") and "adaLN" in key]:
        scale_attn, gate_attn, scale_mlp, gate_mlp = weights[key].chunk(4)
        zero = torch.zeros_like(scale_attn)
        weights[key] = torch.cat([zero, scale_attn, gate_attn, zero, scale_mlp, gate_mlp])
    shifted.load_state_dict(weights)
    assert relative_l2(shifted(*inputs()), without(*inputs())) < 1e-6


@pytest.mark.parametrize("size", [(4, 6), (8, 8), (2, 5)])
def test_other_and_oblong_resolutions(size: tuple[int, int]) -> None:
    net = random_net(SMALL)
    x, t, y = inputs(8, *size)
    out = net(x, t, y)
    assert out.shape == x.shape
    assert relative_l2(net(x.flip(3), t, y).flip(3), out) > 1e-4


def test_rotary_positions_need_pairs_on_both_axes() -> None:
    with pytest.raises(ValueError, match="a multiple of 4, not 6"):
        msgspec.structs.replace(SMALL, hidden_size=36, num_heads=6)
