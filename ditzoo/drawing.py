"""What was asked of a model to get some pictures: enough to get them again. It travels inside PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ditzoo.errors import UsageError
from ditzoo.plan import Plan
from ditzoo.specs import Data, from_json

_KEY = "ditzoo"


class Drawing(Data, frozen=True, kw_only=True):
    """Images number `first` to `first` + `count` − 1 under `seed`, by a model and a plan, of classes or prompts where it takes
    them, one each."""

    format: Literal["ditzoo-drawing/1"] = "ditzoo-drawing/1"
    model: str
    plan: Plan
    seed: int
    first: int = 0
    count: int
    classes: tuple[int, ...] | None = None
    prompts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for shown in (self.classes, self.prompts):
            if shown is not None and len(shown) != self.count:
                raise ValueError(f"{self.count} images, but {len(shown)} of what they show")

    def only(self, i: int) -> Drawing:
        """The drawing of the image at place `i` alone."""
        return msgspec.structs.replace(
            self,
            first=self.first + i,
            count=1,
            classes=self.classes and self.classes[i : i + 1],
            prompts=self.prompts and self.prompts[i : i + 1],
        )

    def png_info(self) -> PngInfo:
        """The drawing as what Pillow writes into a PNG file, compressed."""
        info = PngInfo()
        info.add_text(_KEY, msgspec.json.encode(self).decode(), zip=True)
        return info


def read_drawing(path: Path) -> Drawing:
    """The drawing inside the PNG file at `path`; raises UsageError where there is none."""
    try:
        with Image.open(path) as image:
            image.load()
            text = getattr(image, "text", {}).get(_KEY)
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise UsageError(f"cannot read the picture {path}: {error}") from error
    if text is None:
        raise UsageError(f"{path} does not say how it was made; only PNG files that `ditzoo sample` wrote do")
    try:
        return from_json(text, Drawing)
    except ValueError as error:
        raise UsageError(f"what {path} says of how it was made cannot be read: {error}") from error
