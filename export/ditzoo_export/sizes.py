"""The sizes that an export is made for: resolutions and batch sizes, read from the texts of the command line."""

from __future__ import annotations

from ditzoo.errors import UsageError
from ditzoo.specs import Range
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import Size, in_pixels, own_size, parse_size


def number_of_tokens(card: Card) -> int:
    """How many patches the card's network cuts an image into."""
    height, width = own_size(card)
    return height * width // card.backbone.patch_size**2


def parse_resolution(card: Card, text: str | None) -> Size | None:
    """The size of the latents for images of "256" or "256x384" (height x width) pixels; None for "dynamic".

    Raises UsageError if the network cannot take latents of that size.
    """
    if text == "dynamic" and card.backbone.resizable:
        return None
    if text == "dynamic":
        raise UsageError(f"{card.name} learned the positions of {in_pixels(card, own_size(card))} pixels; it takes no {text}")
    return own_size(card) if text is None else parse_size(card, text, examples="256, 256x384 or dynamic")


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
