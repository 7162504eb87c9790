"""Pictures as Pillow images, on contact sheets, and in files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from ditzoo.errors import UsageError
from ditzoo.files import replacing
from ditzoo.pictures.decode import Pictures

PICTURE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg", ".gif", ".bmp", ".tiff")

CELL, GAP, TEXT = 64, 4, 14
"""The sizes on a contact sheet, in pixels: the smallest side of a picture, the gap between two pictures, and the text."""


def to_image(picture: Pictures) -> Image.Image:
    """One picture [H, W, 1 or 3] as a Pillow image."""
    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def contact_sheet(
    pictures: Pictures | Sequence[Pictures], *, columns: int, labels: Sequence[str] = (), captions: Sequence[str] = ()
) -> Image.Image:
    """A sheet of pictures [H, W, C] that have the same size, with `columns` pictures in a row.

    If there are `labels`, each row begins with its label. If there are `captions`, one for each picture, they stand above the
    pictures. Small pictures are enlarged by an integer factor, without smoothing.
    """
    first = to_image(pictures[0])
    factor = max(1, -(-CELL // max(first.size)))
    width, height = first.width * factor + GAP, first.height * factor + GAP
    font = ImageFont.load_default(size=TEXT)
    margin = max((int(font.getlength(label)) + 4 * GAP for label in labels), default=GAP)
    above = TEXT + GAP if captions else 0
    rows = -(-len(pictures) // columns)
    sheet = Image.new(first.mode, (margin + columns * width, GAP + rows * (above + height)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        left, top = margin + column * width, GAP + row * (above + height) + above
        enlarged = to_image(picture).resize((width - GAP, height - GAP), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (left, top))
        if captions:
            middle = left + (width - GAP) / 2
            draw.text((middle, top - GAP), captions[i], fill="black", font=_fitting(captions[i], width - GAP), anchor="ms")
    for row, label in enumerate(labels):
        middle = GAP + row * (above + height) + above + height / 2
        draw.text((2 * GAP, middle), label, fill="black", font=font, anchor="lm")
    return sheet


def _fitting(text: str, width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font for a text, which is smaller if the text is wider than `width` pixels."""
    font = ImageFont.load_default(size=TEXT)
    return ImageFont.load_default(size=max(1.0, TEXT * min(1.0, width / max(1.0, font.getlength(text)))))


def check_picture_path(path: Path) -> None:
    """Raises UsageError if `path` is a folder, or if its suffix is not that of a known picture format."""
    if path.is_dir() or path.suffix.lower() not in PICTURE_SUFFIXES:
        raise UsageError(f"{path} is not a picture file; end its name in one of {', '.join(PICTURE_SUFFIXES)}")


def save_picture(image: Image.Image, path: Path, *, info: PngInfo | None = None) -> None:
    """Writes a picture to a file. `info` goes into PNG files only. An error leaves no incomplete file."""
    with replacing(path) as scratch:
        if info is not None and path.suffix.lower() == ".png":
            image.save(scratch, pnginfo=info)
        else:
            image.save(scratch)


def png_bytes(image: Image.Image, *, info: PngInfo | None = None) -> bytes:
    """A picture as the bytes of a PNG file with the texts of `info`."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()
