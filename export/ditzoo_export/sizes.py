"""The sizes that an export is made for: it reads resolutions and batch sizes from texts of the command line."""

from __future__ import annotations

from ditzoo.errors import UsageError, is_whole_number, shortened
from ditzoo.specs import Range
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import Size, in_pixels, own_size, parse_size

MOST_ROWS = 65_536
"""The largest batch of an engine, in rows of the network's input. TensorRT counts the values of a tensor in 31 bits."""


def number_of_tokens(card: Card) -> int:
    """The number of patches that the card's network divides an image of the training size into."""
    height, width = own_size(card)
    return height * width // card.backbone.patch_size**2


def parse_resolution(card: Card, text: str | None) -> Size | None:
    """The size of the latents for a resolution in pixels, such as "256" or "256x384" (height x width). None for "dynamic".

    Without a text, it is the size of training. Raises UsageError if the network cannot take latents of that size.
    """
    if text == "dynamic" and card.backbone.resizable:
        return None
    if text == "dynamic":
        own = in_pixels(card, own_size(card))
        raise UsageError(f"{card.name} learned the positions of {own} pixels and takes no other size; use --resolution {own}")
    return own_size(card) if text is None else parse_size(card, text, examples="256, 256x384 or dynamic")


def parse_resolutions(card: Card, text: str | None) -> list[Size]:
    """The sizes of the latents for a list of resolutions like "256,512". Raises UsageError if one is "dynamic" or not valid."""
    sizes = [parse_resolution(card, part.strip()) for part in text.split(",")] if text else [own_size(card)]
    if None in sizes:
        raise UsageError("an engine cannot be built for the resolution dynamic; give numbers, such as 256,512")
    return [size for size in sizes if size is not None]


def parse_batches(text: str) -> list[Range]:
    """The ranges of batch sizes in a list like "1,4,8-16,2-8-32".

    A part is one number, or smallest-largest, or smallest-best-largest. Engines are optimized for the best size, which is the
    largest if it is not given. Raises UsageError if a part is not a valid range.
    """
    return [_parse_range(part.strip()) for part in text.split(",")]


def exactly(number: int) -> Range:
    """The range that holds only `number`."""
    return Range(min=number, opt=number, max=number)


def _parse_range(text: str) -> Range:
    parts = text.split("-")
    if len(parts) > 3 or not all(map(is_whole_number, parts)):
        shown = shortened(text)
        raise UsageError(f"{shown!r} in --batch is not a batch size; write 4, 8-16 or 2-8-16 (smallest-best-largest)")
    numbers = [int(part) for part in parts]
    if numbers[0] < 1:
        raise UsageError(f"{text!r} in --batch: a batch size must be 1 or more")
    if max(numbers) > MOST_ROWS:
        raise UsageError(f"{text!r} in --batch: a batch size must be at most {MOST_ROWS:,}")
    if numbers != sorted(numbers):
        raise UsageError(f"the batch range {text!r} runs backwards; write {'-'.join(map(str, sorted(numbers)))}")
    return Range(min=numbers[0], opt=numbers[len(numbers) // 2], max=numbers[-1])
