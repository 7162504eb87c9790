"""The request that a picture was drawn for, as text inside its PNG file."""

from __future__ import annotations

from pathlib import Path

import msgspec
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ditzoo.errors import UsageError
from ditzoo.records import from_json
from ditzoo.sampling.request import SampleRequest

_KEY = "ditzoo"


def png_info(request: SampleRequest) -> PngInfo:
    """The request as a compressed text chunk, which Pillow writes into a PNG file."""
    info = PngInfo()
    info.add_text(_KEY, msgspec.json.encode(request).decode(), zip=True)
    return info


def read_request(path: Path) -> SampleRequest:
    """The request inside the PNG file at `path`. Raises UsageError if the file holds no request."""
    try:
        with Image.open(path) as image:
            image.load()
            text = getattr(image, "text", {}).get(_KEY)
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise UsageError(f"cannot read the picture {path}: {error}") from error
    if text is None:
        raise UsageError(f"{path} does not say how it was made; only PNG files that `ditzoo sample` wrote do")
    try:
        return from_json(text, SampleRequest)
    except ValueError as error:
        raise UsageError(f"{path} holds a request that cannot be read: {error}") from error
