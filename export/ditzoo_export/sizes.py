"""The sizes that an export is made for: resolutions and batch sizes, read from the texts of the command line."""

from __future__ import annotations

from ditzoo.errors import UsageError
from ditzoo.specs import Range
from ditzoo.zoo.card import Autoencoder, Card

Size = tuple[int, int]
"""Height and width of the latents."""

LARGEST = 4
"""How many times as high and wide as in training the latents may be, where a network takes other sizes at all."""


def pixels_per_latent(card: Card) -> int:
    """How many pixels high and wide the square is that one latent stands for."""
    return card.decoder.factor if isinstance(card.decoder, Autoencoder) else 1


def own_size(card: Card) -> Size:
    """The size of the latents that the card's network was trained on."""
    return card.backbone.latent_shape[1:]


def number_of_tokens(card: Card) -> int:
    """How many patches the card's network cuts an image into."""
    height, width = own_size(card)
    return height * width // card.backbone.patch_size**2


def parse_resolution(card: Card, text: str | None) -> Size | None:
    """The size of the latents for images of "256" or "256x384" (height x width) pixels; None for "dynamic".

    Raises UsageError if the network cannot take latents of that size.
    """
    if text is None:
        return own_size(card)
    factor, patch, own = pixels_per_latent(card), card.backbone.patch_size, own_size(card)
    movable = card.backbone.resizable
    if text == "dynamic" and movable:
        return None
    height, _, width = text.partition("x")
    if text != "dynamic" and not (height.isdecimal() and (width or height).isdecimal()):
        raise UsageError(f"--resolution {text!r} is none; write 256, 256x384 or dynamic")
    size = own if text == "dynamic" else (int(height) // factor, int(width or height) // factor)
    if text != "dynamic" and any(int(pixels) % (patch * factor) or int(pixels) < 1 for pixels in (height, width or height)):
        raise UsageError(f"a resolution of {text} is no multiple of {patch * factor} (patches of {patch}, decoder of {factor})")
    if max(size) > LARGEST * max(own):
        most = LARGEST * max(own) * factor
        raise UsageError(f"a resolution of {text} is more than {LARGEST} times that of training; at most {most} pixels a side")
    if not movable and (size != own or text == "dynamic"):
        raise UsageError(f"{card.name} learned the positions of {own[0] * factor}x{own[1] * factor} pixels; it takes no {text}")
    return size


def parse_resolutions(card: Card, text: str | None) -> list[Size]:
    """The sizes of the latents of a list like "256,512"."""
    sizes = [parse_resolution(card, part.strip()) for part in text.split(",")] if text else [own_size(card)]
    if None in sizes:
        raise UsageError("an engine is built for resolutions that are numbers, such as 256,512; not for dynamic")
    return [size for size in sizes if size is not None]


def parse_batches(text: str) -> list[Range]:
    """The ranges of a list like "1,4,8-16,2-8-32": a number, smallest-largest (best at that), or smallest-best-largest."""
    return [_parse_range(part.strip()) for part in text.split(",")]


def exactly(number: int) -> Range:
    """The range of one number."""
    return Range(min=number, opt=number, max=number)


def _parse_range(text: str) -> Range:
    parts = text.split("-")
    if len(parts) > 3 or not all(part.isdecimal() for part in parts):
        raise UsageError(f"{text!r} in --batch is no batch size; write 4, 8-16 or 2-8-16 (smallest-best-largest)")
    numbers = [int(part) for part in parts]
    if numbers[0] < 1:
        raise UsageError(f"{text!r} in --batch: a batch has 1 or more")
    if numbers != sorted(numbers):
        raise UsageError(f"the batch range {text!r} runs backwards; write {'-'.join(map(str, sorted(numbers)))}")
    return Range(min=numbers[0], opt=numbers[len(numbers) // 2], max=numbers[-1])
