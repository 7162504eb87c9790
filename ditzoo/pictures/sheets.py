"""Pictures as Pillow images, on contact sheets, and in files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from ditzoo.errors import UsageError, check_count, check_type, each_of
from ditzoo.files import replacing
from ditzoo.pictures.decode import Pictures

PICTURE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg", ".gif", ".bmp", ".tiff")

CELL, GAP, TEXT = 64, 4, 14
"""The sizes on a contact sheet, in pixels: the smallest side of a picture, the gap between two pictures, and the text."""


MOST_COLUMNS = 10_000
"""The largest number of pictures in a row of a contact sheet."""

_PICTURES = "arrays [H, W, 1 or 3] of uint8, such as decode gives"


def to_image(picture: Pictures) -> Image.Image:
    """One picture [H, W, 1 or 3] as a Pillow image."""
    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def contact_sheet(
    pictures: Pictures | Sequence[Pictures], *, columns: int, labels: Sequence[str] = (), captions: Sequence[str] = ()
) -> Image.Image:
    """A sheet of pictures [H, W, C] that have the same size, with `columns` pictures in a row.

    If there are `labels`, each row begins with its label. If there are `captions`, one for each picture, they stand above the
    pictures. Small pictures are enlarged by an integer factor, without smoothing. Raises UsageError if an argument is wrong.
    """
    _check_pictures(pictures)
    check_count("columns", columns, most=MOST_COLUMNS)
    rows = -(-len(pictures) // columns)
    _check_texts("labels", labels, rows, "row")
    _check_texts("captions", captions, len(pictures), "picture")
    first = to_image(pictures[0])
    factor = max(1, -(-CELL // max(first.size)))
    width, height = first.width * factor + GAP, first.height * factor + GAP
    font = ImageFont.load_default(size=TEXT)
    margin = max((int(font.getlength(label)) + 4 * GAP for label in labels), default=GAP)
    above = TEXT + GAP if captions else 0
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


def _check_pictures(pictures: Pictures | Sequence[Pictures]) -> None:
    """Raises UsageError unless there are pictures, and all of them have the same size."""
    check_type("pictures", pictures, (np.ndarray, list, tuple), _PICTURES)
    each = list(each_of("pictures", pictures, _PICTURES))
    if not each:
        raise UsageError("pictures is empty; give at least one picture")
    for picture in each:
        check_type("pictures", picture, np.ndarray, _PICTURES)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] not in (1, 3) or picture.size == 0:
            raise UsageError(f"pictures must be {_PICTURES}, not {picture.dtype} {list(picture.shape)}")
        if picture.shape != each[0].shape:
            raise UsageError(f"pictures must have one size, not {list(each[0].shape)} and {list(picture.shape)}")


def _check_texts(argument: str, texts: Sequence[str], count: int, place: str) -> None:
    """Raises UsageError unless `texts` is empty or a list of `count` texts, one for each `place`."""
    takes = f"a list of texts, one for each {place}"
    check_type(argument, texts, (list, tuple), takes)
    for text in texts:
        check_type(argument, text, str, takes)
    if len(texts) not in (0, count):
        raise UsageError(f"{argument} must be {takes}: {count} of them, not {len(texts)}")


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
