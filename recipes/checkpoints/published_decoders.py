"""Full-size decoders with random weights, in the layouts in which they are published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

_DCAE_STAGES = ((256, 5), (512, 10), (512, 2), (1024, 2), (1024, 2))
"""The width and the number of blocks of stages 1 to 5 of DC-AE f32c32 (arXiv 2410.10733, table 8); stage 0 has no blocks."""

_WITH_ATTENTION = 3
"""The first stage that has transformer blocks."""


def sd_vae(folder: Path) -> None:
    """Writes Stable Diffusion's autoencoder into a folder, in the layout of diffusers."""
    from diffusers import AutoencoderKL

    net = AutoencoderKL(
        latent_channels=4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    net.save_pretrained(folder)


def vavae(folder: Path) -> None:
    """Writes the decoder of VA-VAE, with the tensor names of LDM, and the statistics of its latents."""
    torch.save(
        {"state_dict": dict(ldm_decoder(128, (1, 1, 2, 2, 4), latent=32))}, folder / "vavae-imagenet256-f16d32-dinov2.pt"
    )
    torch.save({"mean": torch.zeros(1, 32, 1, 1), "std": torch.ones(1, 32, 1, 1)}, folder / "latents_stats.pt")


def ldm_decoder(width: int, multiples: tuple[int, ...], *, latent: int) -> Iterator[tuple[str, Tensor]]:
    """The weights of a decoder of latent diffusion (LDM), by name.

    It has three residual blocks per level, and attention in the middle and at the deepest level.
    """
    widths = [width * multiple for multiple in multiples]
    deepest = widths[-1]
    yield from layer("post_quant_conv", latent, latent, kernel=1)
    yield from layer("decoder.conv_in", latent, deepest)
    for i in (1, 2):
        yield from residual(f"decoder.mid.block_{i}", deepest, deepest)
    yield from attention("decoder.mid.attn_1", deepest)
    before = deepest
    for level in reversed(range(len(widths))):
        for i in range(3):
            yield from residual(f"decoder.up.{level}.block.{i}", before, widths[level])
            before = widths[level]
            if level == len(widths) - 1:
                yield from attention(f"decoder.up.{level}.attn.{i}", before)
        if level:
            yield from layer(f"decoder.up.{level}.upsample.conv", before, before)
    yield from norm("decoder.norm_out", before)
    yield from layer("decoder.conv_out", before, 3)


def residual(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, Tensor]]:
    """The weights of a residual block of LDM."""
    for i, (before, after) in enumerate(((inputs, outputs), (outputs, outputs)), start=1):
        yield from norm(f"{name}.norm{i}", before)
        yield from layer(f"{name}.conv{i}", before, after)
    if inputs != outputs:
        yield from layer(f"{name}.nin_shortcut", inputs, outputs, kernel=1)


def attention(name: str, width: int) -> Iterator[tuple[str, Tensor]]:
    """The weights of an attention layer of LDM. Its matrices are 1x1 convolutions."""
    yield from norm(f"{name}.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        yield from layer(f"{name}.{part}", width, width, kernel=1)


def dcae_decoder() -> dict[str, Tensor]:
    """The weights of the decoder of DC-AE f32c32, with the tensor names of the authors' code."""
    return dict(_dcae_decoder())


def _dcae_decoder() -> Iterator[tuple[str, Tensor]]:
    widths = [width for width, _ in _DCAE_STAGES]
    yield from layer("decoder.project_in.main.conv", 32, widths[-1])
    for stage, (width, depth) in enumerate(_DCAE_STAGES, start=1):
        name, above = f"decoder.stages.{stage}.op_list", widths[stage:]
        if above:
            yield from layer(f"{name}.0.main.conv.conv", above[0], 4 * width)
        for block in range(depth):
            make = dcae_transformer if stage >= _WITH_ATTENTION else dcae_residual
            yield from make(f"{name}.{block + len(above[:1])}", width)
    yield from norm("decoder.project_out.op_list.0", widths[0])
    yield from layer("decoder.project_out.op_list.2.conv.conv", widths[0], 4 * 3)


def dcae_residual(name: str, width: int) -> Iterator[tuple[str, Tensor]]:
    """The weights of a residual block of DC-AE with a batch norm."""
    yield from layer(f"{name}.main.conv1.conv", width, width)
    yield f"{name}.main.conv2.conv.weight", torch.randn(width, width, 3, 3) * 0.02
    yield from norm(f"{name}.main.conv2.norm", width)
    yield f"{name}.main.conv2.norm.running_mean", torch.zeros(width)
    yield f"{name}.main.conv2.norm.running_var", torch.ones(width)


def dcae_transformer(name: str, width: int) -> Iterator[tuple[str, Tensor]]:
    """The weights of a block of DC-AE with linear attention and a gated convolution."""
    context, local = f"{name}.context_module.main", f"{name}.local_module.main"
    yield f"{context}.qkv.conv.weight", torch.randn(3 * width, width, 1, 1) * 0.02
    yield f"{context}.proj.conv.weight", torch.randn(width, width, 1, 1) * 0.02
    yield from norm(f"{context}.proj.norm", width)
    yield from layer(f"{local}.inverted_conv.conv", width, 8 * width, kernel=1)
    yield from layer(f"{local}.depth_conv.conv", 1, 8 * width)
    yield f"{local}.point_conv.conv.weight", torch.randn(width, 4 * width, 1, 1) * 0.02
    yield from norm(f"{local}.point_conv.norm", width)


def layer(name: str, inputs: int, outputs: int, *, kernel: int = 3) -> Iterator[tuple[str, Tensor]]:
    """The weights of a convolution with a bias."""
    yield f"{name}.weight", torch.randn(outputs, inputs, kernel, kernel) * 0.02
    yield f"{name}.bias", torch.zeros(outputs)


def norm(name: str, width: int) -> Iterator[tuple[str, Tensor]]:
    """The weight and the bias of a norm."""
    yield f"{name}.weight", torch.ones(width)
    yield f"{name}.bias", torch.zeros(width)
