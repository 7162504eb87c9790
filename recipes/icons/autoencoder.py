"""The autoencoder of the icons: a small DC-AE (arXiv 2410.10733) that turns 3x32x32 pixels into 8x8x8 latents, and back."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_dc import DCDownBlock2d, DCUpBlock2d, ResBlock
from safetensors.torch import load_file
from torch import Tensor

from ditzoo.zoo.card import Autoencoder, Card

CHANNELS, FACTOR = 8, 4
"""The number of latent channels, and how many pixels a latent stands for in height and in width."""

AUTOENCODER_FILE = "autoencoder.safetensors"
"""The name of the file of weights in the folder of the training."""

_WIDTHS, _LAYERS = (64, 64, 128), (0, 2, 1)
_SMALL = 0.2


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


@torch.no_grad()
def initialise(net: AutoencoderDC) -> None:
    """Sets weights with which the training starts well: the first latents are the mean colours of the patches.

    Residual blocks begin as the identity. The convolutions beside a shortcut begin small, so the shortcuts carry the colours.
    """
    for module in net.modules():
        if isinstance(module, ResBlock):
            module.norm.weight.zero_()
        if isinstance(module, DCUpBlock2d | DCDownBlock2d):
            module.conv.weight *= _SMALL if module.shortcut or module is net.encoder.conv_in else 1.0
    net.encoder.conv_out.weight *= _SMALL
    net.decoder.conv_in.weight *= _SMALL
    first = net.encoder.conv_in.conv.weight  # 16 3 3 3
    each = len(first) // CHANNELS
    for colour in range(3):
        first[colour * each : (colour + 1) * each, colour, 1, 1] += 1.0


def load_autoencoder(path: Path) -> AutoencoderDC:
    """The network with the weights in a safetensors file."""
    net = make_autoencoder()
    net.load_state_dict(load_file(path))
    return net.eval().requires_grad_(False)


@torch.inference_mode()
def encode(net: AutoencoderDC, images: Tensor, *, batch: int = 256) -> Tensor:
    """The latents [N, 8, 8, 8] of images [N, 3, 32, 32]."""
    return torch.cat([net.encode(part, return_dict=False)[0] for part in images.split(batch)])


@torch.inference_mode()
def decode(net: AutoencoderDC, latents: Tensor, *, batch: int = 256) -> Tensor:
    """The images [N, 3, 32, 32] of latents [N, 8, 8, 8]."""
    return torch.cat([net.decode(part, return_dict=False)[0] for part in latents.split(batch)])


def scaled(latents: Tensor, card: Card) -> Tensor:
    """Latents [N, C, h, w] of the autoencoder, shifted and scaled to what the card's network denoises."""
    decoder = card.decoder
    if not isinstance(decoder, Autoencoder):
        raise TypeError(f"{card.name} denoises pixels")
    mean, std = (torch.tensor(values)[:, None, None] for values in (decoder.mean, decoder.std))
    return (latents - mean) / std * decoder.scale
