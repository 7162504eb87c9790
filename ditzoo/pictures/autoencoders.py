"""The autoencoders of latent models, from diffusers, in torch."""

from __future__ import annotations

from functools import lru_cache
from pathlib import PurePath
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ditzoo.errors import CheckpointError, MissingPackageError, UsageError
from ditzoo.hub.fetch import fetch
from ditzoo.weights.local import decoder_file
from ditzoo.zoo.card import Autoencoder, Card


def _dc_ae(latent_channels: int, *, stages: int) -> dict[str, Any]:
    """The configuration of the DC-AEs "f32c32-in" and "f64c128-in" (arXiv 2410.10733, table 8), of 6 and 7 stages.

    Three stages of convolutions, then stages with linear attention.
    """
    deep = stages - 3
    widths = [128, 256, 512, 512, 1024, 1024, 2048][:stages]
    blocks = ["ResBlock"] * 3 + ["EfficientViTBlock"] * deep
    return {
        "latent_channels": latent_channels,
        "encoder_block_types": blocks,
        "decoder_block_types": blocks,
        "encoder_block_out_channels": widths,
        "decoder_block_out_channels": widths,
        "encoder_layers_per_block": [0, 4, 8] + [2] * deep,
        "decoder_layers_per_block": [0, 5, 10] + [2] * deep,
        "encoder_qkv_multiscales": [()] * stages,
        "decoder_qkv_multiscales": [()] * stages,
        "decoder_norm_types": ["batch_norm"] * 3 + ["rms_norm"] * deep,
        "decoder_act_fns": ["relu"] * 3 + ["silu"] * deep,
    }


DC_AE = {32: _dc_ae(32, stages=6), 128: _dc_ae(128, stages=7)}
"""The autoencoders that come inside their models' own checkpoints, by the number of their latent channels."""


class LatentDecoder(nn.Module):
    """Latents [B, C, h, w] as a backbone makes them -> images [B, 3, H, W] in about −1 ... 1."""

    def __init__(self, autoencoder: nn.Module, scale: float) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.scale = scale

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.autoencoder.decode(latents / self.scale, return_dict=False)[0]  # type: ignore[operator]
        return images


@lru_cache(maxsize=1)
def load(card: Card) -> LatentDecoder:
    """The decoder of a card, in float32 on the CPU, in evaluation mode; the last one is kept.

    Raises CheckpointError where its files are missing or do not fit, MissingPackageError without diffusers.
    """
    if not isinstance(card.decoder, Autoencoder):
        raise UsageError(f"{card.name} denoises pixels and has no decoder")
    kind, source = _class(card.decoder.architecture), card.decoder.source
    path = decoder_file(card) if source is None else fetch(source) / PurePath(source.files[0].path).parent
    try:
        if source is None:
            autoencoder = kind(**DC_AE[card.backbone.latent_shape[0]])
            autoencoder.load_state_dict(load_file(path), strict=True)
        else:
            autoencoder = kind.from_pretrained(path, local_files_only=True, use_safetensors=True)
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"the decoder of {card.name} in {path} does not load: {error}") from error
    return LatentDecoder(autoencoder, card.decoder.scale).eval().requires_grad_(False)


def _class(architecture: str) -> Any:
    try:
        import diffusers
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"decoding with torch needs the package {error.name}: pip install 'ditzoo[diffusers]'"
        ) from error
    return getattr(diffusers, architecture)
