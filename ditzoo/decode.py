"""From latents to pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from ditzoo.bundle import Bundle
from ditzoo.card import Autoencoder, Card, Pixels
from ditzoo.errors import UsageError
from ditzoo.files import replacing
from ditzoo.graphs import load_graph
from ditzoo.sample import Floats
from ditzoo.specs import Device

Pictures: TypeAlias = npt.NDArray[np.uint8]

PICTURE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg", ".gif", ".bmp", ".tiff")

SLICE = 512 * 512
"""How many pixels are decoded at once."""

CELL, GAP = 64, 4  # on a contact sheet, in pixels: the least side of a picture, and what is between two


class Decoder(Protocol):
    """What turns latents [N, C, h, w] into images [N, channels, H, W] in about −1 ... 1. Any number of latents will do."""

    def __call__(self, latents: Floats) -> Floats: ...


def open_decoder(model: Card | Bundle, *, device: Device = "cpu") -> Decoder:
    """The decoder of a model: ONNX Runtime's where a bundle brings one, torch's for any other; none for models of pixels.

    Few latents at a time are decoded, so that the memory that it takes does not grow with their number.
    """
    card = model.card if isinstance(model, Bundle) else model
    if isinstance(card.decoder, Pixels):
        return lambda latents: latents
    if isinstance(model, Bundle) and "decoder" in model.manifest.graphs:
        run = load_graph(model, "decoder", device=device)
        return _sliced(lambda latents: run({"latents": latents}), card.decoder)
    return _sliced(_torch_decoder(card, device), card.decoder)


def pixel_values(model: Card | Bundle, latents: Floats, *, decoder: Decoder | None = None) -> Floats:
    """Latents [N, C, h, w] as pixel values [N, H, W, channels] from 0 to 255, not rounded: 127.5 · x + 128, as the authors do.

    `decoder` saves opening the model's own once more.
    """
    images = (decoder or open_decoder(model))(latents.astype(np.float32, copy=False))
    values: Floats = np.clip(127.5 * images.transpose(0, 2, 3, 1) + 128, 0, 255)
    return values


def decode(model: Card | Bundle, latents: Floats, *, decoder: Decoder | None = None) -> Pictures:
    """Latents [N, C, h, w] as pictures [N, H, W, channels] of 8 bits a channel."""
    return pixel_values(model, latents, decoder=decoder).astype(np.uint8)


def _torch_decoder(card: Card, device: Device) -> Decoder:
    import torch

    from ditzoo import autoencoders

    net = autoencoders.load(card).to(device)

    def run(latents: Floats) -> Floats:
        with torch.inference_mode():
            images: Floats = net(torch.from_numpy(np.ascontiguousarray(latents)).to(device)).cpu().numpy()
        return images

    return run


def _sliced(decoder: Decoder, config: Autoencoder) -> Decoder:
    """`decoder`, shown no more latents at once than make `SLICE` pixels, but always one."""

    def run(latents: Floats) -> Floats:
        pixels = latents.shape[2] * latents.shape[3] * config.factor**2
        size = max(1, SLICE // pixels)
        return np.concatenate([decoder(latents[i : i + size]) for i in range(0, len(latents), size)])

    return run


def to_image(picture: Pictures) -> Image.Image:
    """One picture [H, W, 1 or 3] as a Pillow image."""
    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def contact_sheet(pictures: Pictures | Sequence[Pictures], *, columns: int, labels: Sequence[str] = ()) -> Image.Image:
    """Pictures [H, W, C] of one size in rows of `columns`, with a label before each row if there are `labels`.

    Small pictures are enlarged by a whole factor, pixel by pixel.
    """
    first = to_image(pictures[0])
    factor = max(1, -(-CELL // max(first.size)))
    width, height = first.width * factor + GAP, first.height * factor + GAP
    font = ImageFont.load_default(size=14)
    margin = max((int(font.getlength(label)) + 4 * GAP for label in labels), default=GAP)
    rows = -(-len(pictures) // columns)
    sheet = Image.new(first.mode, (margin + columns * width, GAP + rows * height), "white")
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        enlarged = to_image(picture).resize((width - GAP, height - GAP), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (margin + column * width, GAP + row * height))
    for row, label in enumerate(labels):
        ImageDraw.Draw(sheet).text((2 * GAP, GAP + (row + 0.5) * height), label, fill="black", font=font, anchor="lm")
    return sheet


def check_picture_path(path: Path) -> None:
    """Raises UsageError unless `path` can be a picture file: not a folder, and of a known format."""
    if path.is_dir() or path.suffix.lower() not in PICTURE_SUFFIXES:
        raise UsageError(f"{path} is no picture file; end its name in one of {', '.join(PICTURE_SUFFIXES)}")


def save_picture(image: Image.Image, path: Path, *, info: PngInfo | None = None) -> None:
    """Writes a picture whole or not at all; a PNG file takes `info` along."""
    with replacing(path) as scratch:
        if info is not None and path.suffix.lower() == ".png":
            image.save(scratch, pnginfo=info)
        else:
            image.save(scratch)
