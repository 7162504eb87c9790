"""Autoencoders in their authors' layouts become the decoders of diffusers' classes; what does not fit is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ditzoo.checkpoint import convert, convert_decoder
from ditzoo.checkpoint.autoencoders import build
from ditzoo.errors import CheckpointError
from ditzoo.zoo.card import Architecture
from tests.support.golden import Golden
from tests.support.hub_models import TINY_UVIT, dcae, state

diffusers = pytest.importorskip("diffusers", reason="needs diffusers: pip install 'ditzoo[diffusers]'")

DCAE = Golden("dcae_uvit_f32").group("weights.autoencoder.")
VAVAE = Golden("lightningdit").group("tokenizer.")


def published_dcae(channels: int, stages: int) -> torch.nn.Module:
    """The DC-AE "f32c32-in" or "f64c128-in" (arXiv 2410.10733, table 8), of 6 or 7 stages, without its numbers.

    Three stages of convolutions, then stages with linear attention.
    """
    deep = stages - 3
    widths = [128, 256, 512, 512, 1024, 1024, 2048][:stages]
    blocks = ["ResBlock"] * 3 + ["EfficientViTBlock"] * deep
    with torch.device("meta"):
        return diffusers.AutoencoderDC(
            latent_channels=channels,
            encoder_block_types=blocks,
            decoder_block_types=blocks,
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            encoder_layers_per_block=[0, 4, 8] + [2] * deep,
            decoder_layers_per_block=[0, 5, 10] + [2] * deep,
            encoder_qkv_multiscales=[()] * stages,
            decoder_qkv_multiscales=[()] * stages,
            decoder_norm_types=["batch_norm"] * 3 + ["rms_norm"] * deep,
            decoder_act_fns=["relu"] * 3 + ["silu"] * deep,
        )


def published_kl(*, attention: bool) -> torch.nn.Module:
    """The decoder of VA-VAE (ch 128, ch_mult 1, 1, 2, 2, 4, z 32, attention at 16) or of Stable Diffusion (1, 2, 4, 4, z 4)."""
    widths = [128, 128, 256, 256, 512] if attention else [128, 256, 512, 512]
    first = "AttnUpDecoderBlock2D" if attention else "UpDecoderBlock2D"
    with torch.device("meta"):
        return diffusers.AutoencoderKL(
            latent_channels=32 if attention else 4,
            block_out_channels=widths,
            layers_per_block=2,
            down_block_types=["DownEncoderBlock2D"] * len(widths),
            up_block_types=[first] + ["UpDecoderBlock2D"] * (len(widths) - 1),
        )


PUBLISHED: dict[str, tuple[Architecture, torch.nn.Module, int]] = {
    "dc-ae-f32c32-in-1.0": ("AutoencoderDC", published_dcae(32, 6), 32),
    "dc-ae-f64c128-in-1.0": ("AutoencoderDC", published_dcae(128, 7), 64),
    "vavae-f16d32": ("AutoencoderKL", published_kl(attention=True), 16),
    "sd-vae": ("AutoencoderKL", published_kl(attention=False), 8),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sizes_of_published_decoders_are_read_off_their_shapes(name: str) -> None:
    architecture, published, factor = PUBLISHED[name]
    shapes = {key: tuple(value.shape) for key, value in published.state_dict().items() if not key.startswith("encoder.")}
    net: Any = build(architecture, {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")})
    assert str(net.decoder) == str(published.decoder)  # every layer, its kind and its sizes
    latents = torch.zeros(1, shapes["decoder.conv_in.weight"][1], 2, 2, device="meta")
    assert net.decode(latents).sample.shape == (1, 3, 2 * factor, 2 * factor)


@pytest.mark.parametrize(("name", "parameters"), [("dc-ae-f32c32-in-1.0", 323_369_275), ("dc-ae-f64c128-in-1.0", 676_908_955)])
def test_the_published_autoencoders_have_as_many_numbers_as_the_authors(name: str, parameters: int) -> None:
    _, published, _ = PUBLISHED[name]
    assert sum(value.numel() for value in published.state_dict().values()) == parameters


def canonical(weights: dict[str, Tensor], architecture: Architecture, channels: int, tmp_path: Path) -> dict[str, Tensor]:
    save_file(weights, tmp_path / "published.safetensors")
    convert_decoder(tmp_path / "published.safetensors", architecture, tmp_path / "ours.safetensors", channels=channels)
    return load_file(tmp_path / "ours.safetensors")


CASES: dict[Architecture, tuple[dict[str, Tensor], int, str]] = {
    "AutoencoderDC": (DCAE, 4, "decoder.stages.3.op_list.1.context_module.main.proj.norm.bias"),
    "AutoencoderKL": (VAVAE, 8, "decoder.up.4.attn.1.proj_out.bias"),
}


@pytest.mark.parametrize("architecture", CASES)
def test_a_decoder_that_diffusers_named_stays_as_it_is(architecture: Architecture, tmp_path: Path) -> None:
    weights, channels, _ = CASES[architecture]
    once = canonical(weights, architecture, channels, tmp_path)
    again = canonical(once | {"encoder.conv_in.weight": torch.ones(1)}, architecture, channels, tmp_path)
    assert again.keys() == once.keys()
    assert all(torch.equal(again[key], once[key]) for key in once)


@pytest.mark.parametrize("architecture", CASES)
def test_what_is_wrong_with_a_decoder_is_named(architecture: Architecture, tmp_path: Path) -> None:
    weights, channels, missing = CASES[architecture]
    damaged = {key: value for key, value in weights.items() if key != missing}
    damaged["decoder.stranger"] = torch.zeros(1)
    damaged["decoder.conv_in.weight" if architecture == "AutoencoderKL" else "decoder.project_in.main.conv.weight"] *= torch.nan
    with pytest.raises(CheckpointError) as error:
        canonical(damaged, architecture, channels + 1, tmp_path)
    where = {"AutoencoderDC": "up_blocks.3.1.attn.norm_out.bias", "AutoencoderKL": "up_blocks.0.attentions.1.to_out.0.bias"}
    assert f"missing: decoder.{where[architecture]}" in str(error.value)
    assert "unexpected: decoder.stranger" in str(error.value)
    assert f"for latents of {channels} channels, not {channels + 1}" in str(error.value)
    assert "NaN or Inf: decoder.conv_in.weight" in str(error.value)


def test_a_network_whose_autoencoder_does_not_fit_is_not_taken_in(tmp_path: Path) -> None:
    path, out = dcae(state(TINY_UVIT), tmp_path / "dcae.safetensors"), tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match=r"the autoencoder: it is not a decoder of AutoencoderKL"):
        convert(path, TINY_UVIT, out, decoder=tmp_path / "decoder.safetensors", architecture="AutoencoderKL")
    assert not out.exists()
