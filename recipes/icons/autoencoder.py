"""The autoencoder of the icons: a small DC-AE (arXiv 2410.10733) that turns 3x48x48 pixels into 4x12x12 latents, and back."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderDC
from safetensors.torch import load_file
from torch import Tensor

CHANNELS, FACTOR = 4, 4
"""The number of latent channels, and how many pixels a latent stands for in height and in width."""

AUTOENCODER_FILE = "autoencoder.safetensors"
"""The name of the file of weights in the folder of the training."""

_WIDTHS, _LAYERS = (64, 64, 128), (0, 2, 1)


def make_autoencoder() -> AutoencoderDC:
    """The network with random weights. Everything that is not stated here is as in the published DC-AEs."""
    return AutoencoderDC(
        latent_channels=CHANNELS,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=_WIDTHS,
        decoder_block_out_channels=_WIDTHS,
        encoder_layers_per_block=_LAYERS,
        decoder_layers_per_block=_LAYERS,
        encoder_qkv_multiscales=((),) * len(_WIDTHS),
        decoder_qkv_multiscales=((),) * len(_WIDTHS),
    )


def load_autoencoder(path: Path) -> AutoencoderDC:
    """The network with the weights in a safetensors file."""
    net = make_autoencoder()
    net.load_state_dict(load_file(path))
    return net.eval().requires_grad_(False)


@torch.inference_mode()
def encode(net: AutoencoderDC, images: Tensor, *, batch: int = 256) -> Tensor:
    """The latents [N, 4, 12, 12] of images [N, 3, 48, 48]."""
    return torch.cat([net.encode(part, return_dict=False)[0] for part in images.split(batch)])


@torch.inference_mode()
def decode(net: AutoencoderDC, latents: Tensor, *, batch: int = 256) -> Tensor:
    """The images [N, 3, 48, 48] of latents [N, 4, 12, 12]."""
    return torch.cat([net.decode(part, return_dict=False)[0] for part in latents.split(batch)])
