"""What was asked of a model to get some pictures: enough to get them again. It travels inside PNG files."""

from __future__ import annotations

from typing import Literal

import msgspec

from ditzoo.plan.table import Plan
from ditzoo.records import Data


class SampleRequest(Data, frozen=True, kw_only=True):
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

    def only(self, i: int) -> SampleRequest:
        """The drawing of the image at place `i` alone."""
        return msgspec.structs.replace(
            self,
            first=self.first + i,
            count=1,
            classes=self.classes and self.classes[i : i + 1],
            prompts=self.prompts and self.prompts[i : i + 1],
        )
