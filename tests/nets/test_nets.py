from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import ditzoo
from ditzoo.errors import InputError
from ditzoo.families import build, in_precision
from ditzoo.nets.dit import DiT
from ditzoo.nets.layers import sincos_positions, timestep_embedding
from ditzoo.nets.uvit import UViT
from ditzoo.zoo.configs import BackboneConfig, DiTConfig, LightningDiTConfig, UViTConfig
from tests.support.golden import Golden, relative_l2

BACKBONES = [
    "dit_patch2_sigma",
    "dit_patch4_nosigma_nonull",
    "lightningdit",
    "uvit_cond_conv",
    "uvit_cond_noconv_mlptime_qkvbias",
    "uvit_cond_noskip",
    "uvit_t2i",
    "uvit_uncond_pixel",
]

WIDTH_DEPTH_HEADS = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}

PARAMETERS = {  # of the authors' code, the fixed positions included
    ("S", 2): 32_963_360,
    ("S", 4): 32_945_024,
    ("S", 8): 33_148_160,
    ("B", 2): 130_512_416,
    ("B", 4): 130_475_648,
    ("B", 8): 130_881_536,
    ("L", 2): 458_102_816,
    ("L", 4): 458_053_760,
    ("L", 8): 458_594_816,
    ("XL", 2): 675_129_632,
    ("XL", 4): 675_074_432,
    ("XL", 8): 675_683_072,
}

UVITS = {  # name: (config, parameters)
    "S/2 cifar10": (UViTConfig(img_size=32, patch_size=2, in_chans=3, embed_dim=512, depth=12, num_heads=8), 44_255_328),
    "M/4 imagenet64": (
        UViTConfig(img_size=64, patch_size=4, in_chans=3, embed_dim=768, depth=16, num_heads=12, num_classes=1000),
        130_940_292,
    ),
    "L/2 256": (
        UViTConfig(img_size=32, patch_size=2, embed_dim=1024, depth=20, num_heads=16, num_classes=1001),
        286_763_172,
    ),
    "H/2 256": (UViTConfig(num_classes=1001, conv=False), 500_832_016),
    "H/4 512": (UViTConfig(img_size=64, patch_size=4, num_classes=1001, conv=False), 500_942_656),
    "S/2 coco": (UViTConfig(embed_dim=512, depth=12, num_heads=8, clip_dim=768), 44_692_644),
    "S/2 coco deep": (UViTConfig(embed_dim=512, depth=16, num_heads=8, clip_dim=768), 58_345_636),
}

SMALL_DIT = DiTConfig(input_size=8, patch_size=2, hidden_size=32, depth=2, num_heads=2, num_classes=10)
SMALL_LIGHTNINGDIT = LightningDiTConfig(input_size=4, hidden_size=32, depth=2, num_heads=2, num_classes=10)
SMALL_UVIT = UViTConfig(img_size=8, patch_size=2, embed_dim=32, depth=2, num_heads=2, num_classes=11)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_match_the_authors_code(name: str) -> None:
    golden = Golden(name)
    net = golden.net()
    out = net(**{spec.name: golden[f"in.{spec.name}"] for spec in net.inputs})
    assert (out - golden["out"]).abs().max() <= 1e-5 * golden["out"].abs().max()


def test_training_checkpoint_average_matches() -> None:
    golden = Golden("dit_training_checkpoint_expected")
    import argparse

    with torch.serialization.safe_globals([argparse.Namespace]):
        checkpoint = torch.load("tests/data/dit_training_checkpoint.pt", weights_only=True)
    net = build(golden.config)
    net.load_state_dict(checkpoint["ema"])
    with torch.no_grad():
        out = net.eval()(**golden.group("in."))
    assert (out - golden["out"]).abs().max() <= 1e-5 * golden["out"].abs().max()


@pytest.mark.parametrize(("size", "patch"), PARAMETERS)
def test_dit_sizes_of_the_paper(size: str, patch: int) -> None:
    width, depth, heads = WIDTH_DEPTH_HEADS[size]
    with torch.device("meta"):
        net = DiT(DiTConfig(hidden_size=width, depth=depth, num_heads=heads, patch_size=patch))
    assert sum(tensor.numel() for tensor in net.state_dict().values()) == PARAMETERS[size, patch]


@pytest.mark.parametrize("name", UVITS)
def test_uvit_sizes_of_the_paper(name: str) -> None:
    config, parameters = UVITS[name]
    with torch.device("meta"):
        net = UViT(config)
    assert sum(tensor.numel() for tensor in net.parameters()) == parameters


@pytest.mark.parametrize("config", [SMALL_DIT, SMALL_LIGHTNINGDIT, SMALL_UVIT])
def test_specs_describe_what_goes_in_and_out(config: BackboneConfig) -> None:
    net = build(config)
    inputs = {spec.name: torch.zeros(spec.concrete(batch=3), dtype=getattr(torch, spec.dtype)) for spec in net.inputs}
    out = net(**inputs)
    assert tuple(out.shape) == net.outputs[0].concrete(batch=3)
    assert f"torch.{net.outputs[0].dtype}" == str(out.dtype)


def test_timestep_embedding_has_the_papers_frequencies() -> None:
    embedding = timestep_embedding(torch.tensor([500.0]), 256)[0].double()
    frequencies = 10_000.0 ** (-torch.arange(128, dtype=torch.float64) / 128)
    assert torch.allclose(embedding[:128], torch.cos(500 * frequencies), atol=1e-4)
    assert torch.allclose(embedding[128:], torch.sin(500 * frequencies), atol=1e-4)


def test_positions_of_a_wider_image_contain_those_of_the_square() -> None:
    square, wide = sincos_positions(4, 4, 32), sincos_positions(4, 6, 32)
    assert torch.equal(wide.view(4, 6, 32)[:, :4], square.view(4, 4, 32))


@pytest.mark.parametrize("size", [(8, 12), (16, 16), (4, 10)])
def test_dit_takes_other_and_oblong_resolutions(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = DiT(SMALL_DIT).eval().requires_grad_(False)
    x, t, y = torch.randn(2, 4, *size), torch.tensor([3.0, 700.0]), torch.tensor([1, 10])
    out = net(x, t, y)
    assert out.shape == (2, 8, *size)
    moved = net(x.flip(3), t, y)  # with positions in place a mirrored image is not merely mirrored
    assert relative_l2(moved.flip(3), out) > 1e-4


def test_dit_refuses_a_latent_that_patches_do_not_cover() -> None:
    with pytest.raises(InputError, match="7x8 is not a multiple of the patch size 2"):
        DiT(SMALL_DIT)(torch.zeros(1, 4, 7, 8), torch.zeros(1), torch.zeros(1, dtype=torch.int64))


def test_uvit_refuses_another_resolution_until_its_positions_are_interpolated() -> None:
    net = UViT(SMALL_UVIT)
    torch.nn.init.normal_(net.pos_embed)
    x, t, y = torch.randn(1, 4, 8, 12), torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(InputError, match=r"8x8 latents, not 8x12; to interpolate them, call interpolate_positions\(8, 12\)"):
        net(x, t, y)
    before = net.pos_embed.detach()
    net.interpolate_positions(8, 12)
    assert net(x, t, y).shape == (1, 4, 8, 12)
    assert torch.equal(net.pos_embed[:, :2], before[:, :2])  # label and time keep theirs
    image = before[:, 2:].transpose(1, 2).unflatten(2, (4, 4))
    stretched = F.interpolate(image, size=(4, 6), mode="bicubic").flatten(2).transpose(1, 2)
    assert torch.allclose(net.pos_embed[:, 2:], stretched)
    assert net.inputs[0].shape == ("batch", 4, 8, 12)


def test_uvit_that_lacks_its_condition_says_which() -> None:
    with pytest.raises(InputError, match="takes the input y"):
        UViT(SMALL_UVIT)(torch.zeros(1, 4, 8, 8), torch.zeros(1))


@pytest.mark.parametrize(
    "fields",
    [{"patch_size": 3}, {"hidden_size": 33}, {"num_heads": 0}, {"input_size": -2}],
    ids=lambda fields: next(iter(fields)),
)
def test_impossible_configurations_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"multiple|positive"):
        DiTConfig(**{"input_size": 8, "patch_size": 2, "hidden_size": 32, "num_heads": 2, **fields})


def test_half_precision_keeps_time_in_full() -> None:
    """Times up to 1000 in bfloat16 would be off by 4; the sinusoids are taken in float32."""
    golden = Golden("dit_patch2_sigma")
    inputs = golden.group("in.")
    inputs["t"] = torch.tensor([999.0, 997.0, 501.0, 499.0])
    full = golden.net()(**inputs)
    half = golden.net().to(torch.bfloat16)(**inputs)
    assert half.dtype == torch.float32
    assert relative_l2(half, full) < 2e-2


def test_another_dtype_leaves_the_network_as_it_is() -> None:
    net = build(SMALL_DIT)
    assert in_precision(net, net.config, torch.float32) is net
    assert {weight.dtype for weight in in_precision(net, net.config, torch.float64).state_dict().values()} == {torch.float64}
    assert {weight.dtype for weight in net.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("config", [SMALL_DIT, SMALL_LIGHTNINGDIT, SMALL_UVIT], ids=["dit", "lightningdit", "uvit"])
def test_half_precision_is_for_the_products_of_the_blocks(config: BackboneConfig) -> None:
    net = build(config)
    half = in_precision(net, net.config, torch.bfloat16)
    before, after = dict(net.named_parameters()), dict(half.named_parameters())
    narrow = {name for name, weight in after.items() if weight.dtype == torch.bfloat16}
    assert narrow == {name for name in before if re.search(r"attn|mlp|skip_linear|adaLN", name)}
    assert all(weight.dtype == torch.float32 for weight in before.values())
    assert all(after[name] is before[name] for name in before.keys() - narrow)


@pytest.mark.parametrize("name", ["dit-digits", "uvit-digits"])
def test_nothing_is_drawn_at_random_on_the_meta_device(name: str) -> None:
    """Torch imports sympy for that, which takes longer than loading a small network."""
    called: list[str] = []

    class Calls(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(func.__name__)
            return func(*args, **(kwargs or {}))

    with torch.device("meta"), Calls():
        build(ditzoo.card(name).backbone)
    assert "empty" in called
    assert not {"randn", "normal_"} & set(called)
