"""The sizes of images and of their latents: how a text says one, and which ones a model's network takes."""

from __future__ import annotations

from typing import SupportsIndex, TypeAlias

from ditzoo.errors import UsageError, described, is_whole_number, shortened, whole_number
from ditzoo.zoo.card import Autoencoder, Card

Size: TypeAlias = tuple[int, int]
"""Height and width of the latents."""

LARGEST = 4
"""How many times as high and wide as in training the latents may be, where a network takes other sizes at all."""


def pixels_per_latent(card: Card) -> int:
    """How many pixels high and wide the square is that one latent stands for."""
    return card.decoder.factor if isinstance(card.decoder, Autoencoder) else 1


def own_size(card: Card) -> Size:
    """The size of the latents that the card's network was trained on."""
    return card.backbone.latent_shape[1:]


def in_pixels(card: Card, size: Size) -> str:
    """The size of the images of latents of a size, as a text such as "256x384" (height x width)."""
    factor = pixels_per_latent(card)
    return f"{size[0] * factor}x{size[1] * factor}"


def resolution_text(resolution: str | SupportsIndex) -> str:
    """A resolution in pixels as the text that `parse_size` reads. Raises UsageError if it is neither a text nor a number."""
    if isinstance(resolution, str):
        return resolution
    return described(whole_number("resolution", resolution, "pixels, such as 256 or '256x384' (height x width)"))


def parse_size(card: Card, text: str, *, examples: str = "256 or 256x384") -> Size:
    """The size of the latents for images of "256" or "256x384" (height x width) pixels.

    Raises UsageError for any other text, which shows the `examples`, and if the network cannot take latents of that size.
    """
    height, _, width = text.partition("x")
    if not (is_whole_number(height) and is_whole_number(width or height)):
        raise UsageError(f"--resolution {shortened(text)!r} is none; write {examples}")
    factor, patch = pixels_per_latent(card), card.backbone.patch_size
    pixels = int(height), int(width or height)
    if any(side % (patch * factor) or side < 1 for side in pixels):
        raise UsageError(f"a resolution of {text} is no multiple of {patch * factor} (patches of {patch}, decoder of {factor})")
    size = pixels[0] // factor, pixels[1] // factor
    check_size(card, size)
    return size


def check_size(card: Card, size: Size) -> None:
    """Raises UsageError, with the sizes that there are, if the card's network cannot take latents of that size."""
    own, patch, text = own_size(card), card.backbone.patch_size, in_pixels(card, size)
    step = patch * pixels_per_latent(card)
    if any(side % patch or side < 1 for side in size):
        raise UsageError(f"a resolution of {text} is no multiple of {step}, the pixels of a patch of {card.name}")
    if max(size) > LARGEST * max(own):
        most = LARGEST * max(own) * pixels_per_latent(card)
        raise UsageError(f"a resolution of {text} is more than {LARGEST} times that of training; at most {most} pixels a side")
    if size != own and not card.backbone.resizable:
        raise UsageError(f"{card.name} learned the positions of {in_pixels(card, own)} pixels; it takes no {text}")
