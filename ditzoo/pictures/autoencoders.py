"""The autoencoders of latent models: the torch modules of diffusers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ditzoo.checkpoint import open_checkpoint, read_decoder
from ditzoo.checkpoint.autoencoders import build, diffusers_class
from ditzoo.errors import CheckpointError, UsageError
from ditzoo.hub.fetch import fetch
from ditzoo.pictures.decoding import Decoding
from ditzoo.weights.local import decoder_file
from ditzoo.zoo.card import Architecture, Autoencoder, Card, OnHub

TILE = 256
"""The height and width of a tile in pixels. Neighbouring tiles overlap by a quarter."""

_LARGEST_NUMBER = 16_384
"""The largest whole number in the configuration of a decoder that is believed: a width, a size or a number of layers."""


class LatentDecoder(nn.Module):
    """Decodes latents [B, C, h, w] of a backbone to images [B, 3, H, W] with values of about −1 to 1.

    image = decoder(latent / scale · std + mean): see `ditzoo.zoo.card.Autoencoder`.
    """

    std: Tensor | None
    mean: Tensor | None

    def __init__(self, autoencoder: nn.Module, config: Autoencoder, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.autoencoder = nn.Module.to(autoencoder, dtype)  # `to` of diffusers warns of modules that these classes do not have
        self.dtype = dtype
        self.scale = config.scale
        for name, values in (("std", config.std), ("mean", config.mean)):
            self.register_buffer(name, torch.tensor(values)[:, None, None] if values else None)  # C 1 1

    def forward(self, latents: Tensor) -> Tensor:
        """Images [B, 3, H, W] in float32, whatever the dtype of the autoencoder."""
        latents = latents / self.scale  # B C h w
        latents = latents if self.std is None else latents * self.std
        latents = latents if self.mean is None else latents + self.mean
        images: Tensor = self.autoencoder.decode(latents.to(self.dtype), return_dict=False)[0]  # type: ignore[operator]
        return images.float()


@lru_cache(maxsize=1)
def load(card: Card, decoding: Decoding) -> LatentDecoder:
    """The decoder of a card on the CPU, in evaluation mode, which decodes as `decoding` says. The last one stays in memory.

    Raises CheckpointError if its files are missing or do not fit, UsageError if the model denoises pixels, and
    MissingPackageError if diffusers is not installed.
    """
    decoder = with_statistics(card).decoder
    if not isinstance(decoder, Autoencoder):
        raise UsageError(f"{card.name} denoises pixels and has no decoder")
    if decoder.source is not None and _is_config(decoder.source.files[0].path):
        autoencoder = _pretrained(card, decoder.architecture, decoder.source)
    else:
        path = decoder_file(card) if decoder.source is None else fetch(decoder.source) / decoder.source.files[0].path
        autoencoder = _from_checkpoint(card, decoder.architecture, path)
    if decoding.tiles:
        _use_tiles(autoencoder, decoder)
    dtype = torch.bfloat16 if decoding.precision == "bf16" else torch.float32
    return LatentDecoder(autoencoder, decoder, dtype=dtype).eval().requires_grad_(False)


def _use_tiles(autoencoder: Any, config: Autoencoder) -> None:
    """Makes a module of diffusers decode larger pictures in tiles of `TILE` pixels, whatever size its own configuration
    says."""
    if config.architecture == "AutoencoderDC":
        stride = TILE * 3 // 4
        autoencoder.enable_tiling(TILE, TILE, stride, stride)
    else:
        autoencoder.enable_tiling()
        autoencoder.tile_sample_min_size, autoencoder.tile_latent_min_size = TILE, TILE // config.factor


def with_statistics(card: Card) -> Card:
    """The card, completed by the mean and the standard deviation of its latents, if a file beside its decoder holds them.

    Raises CheckpointError if that file does not hold a mean and a standard deviation for each latent channel.
    """
    decoder = card.decoder
    if not isinstance(decoder, Autoencoder) or decoder.source is None or decoder.statistics is None:
        return card
    if decoder.mean and decoder.std:  # the card of a bundle
        return card
    path = fetch(decoder.source) / decoder.statistics
    found, channels = open_checkpoint(path).entries, card.backbone.latent_shape[0]
    names = ("mean", "std")
    wrong = [name for name in names if name not in found or found[name].flaw or math.prod(found[name].shape) != channels]
    if wrong:
        raise CheckpointError(f"{path} does not hold {channels} numbers, one per latent channel, as {' and as '.join(wrong)}")
    mean, std = (tuple(found[name].load().float().flatten().tolist()) for name in names)
    try:
        return msgspec.structs.replace(card, decoder=msgspec.structs.replace(decoder, mean=mean, std=std))
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error


def _is_config(path: str) -> bool:
    return path.endswith("config.json")


def _pretrained(card: Card, architecture: Architecture, source: OnHub) -> nn.Module:
    """The autoencoder in a folder that has diffusers' layout."""
    kind, folder = diffusers_class(architecture), fetch(source) / PurePath(source.files[0].path).parent
    try:
        _check_sizes(kind, folder)
        net: nn.Module = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, LookupError, ValueError, TypeError, RuntimeError, ArithmeticError, SafetensorError) as error:
        raise CheckpointError(f"the decoder of {card.name} in {folder} does not load: {error}") from error
    return net


def _check_sizes(kind: Any, folder: Path) -> None:
    """Raises ValueError if a config.json describes more parameters than its files have bytes. Nothing is allocated."""
    config = kind.load_config(folder, local_files_only=True)
    largest = max(_numbers(config), default=0)
    if largest > _LARGEST_NUMBER:
        raise ValueError(f"its config.json has the number {largest}; at most {_LARGEST_NUMBER} is plausible")
    with torch.device("meta"):
        described = sum(tensor.numel() for tensor in kind.from_config(config).state_dict().values())
    held = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if described > held:
        raise ValueError(f"its config.json describes {described:,} parameters, but its files have {held:,} bytes")


def _numbers(value: object) -> Iterator[int]:
    """The whole numbers anywhere in a configuration."""
    if isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers(inner)
    elif isinstance(value, int):
        yield value


def _from_checkpoint(card: Card, architecture: Architecture, path: Path) -> nn.Module:
    """The autoencoder in a checkpoint file, without its encoder. Its sizes are inferred from the shapes of the tensors."""
    entries = read_decoder(path, architecture, channels=card.backbone.latent_shape[0])
    net = build(architecture, {key: entry.shape for key, entry in entries.items()})
    try:
        net.load_state_dict({key: entry.load().float() for key, entry in entries.items()}, strict=True, assign=True)
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"the decoder of {card.name} in {path} does not load: {error}") from error
    return net
