"""The pictures of the icons: any number of them, the same every time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from recipes.icons.icons import ICONS

Part: TypeAlias = Literal[0, 1, 2]

TRAINING: Part = 0
HELD_OUT: Part = 1
AUTOENCODER: Part = 2
"""The three sets of pictures: for the diffusion model, for tests, and for the autoencoder. No seed is in two of them."""


class Icons(msgspec.Struct, frozen=True, kw_only=True):
    """Pictures [N, H, W, 3] with 8 bits per channel, and their labels [N]."""

    pictures: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    @property
    def images(self) -> npt.NDArray[np.float32]:
        """The pictures as a network takes them: [N, 3, H, W], from −1 to 1."""
        return self.pictures.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - 1

    @property
    def pixels(self) -> npt.NDArray[np.float32]:
        """The images at half their height and width, as vectors [N, 768]. The classifier sees these."""
        count, channels, side, _ = self.images.shape
        small = self.images.reshape(count, channels, side // 2, 2, side // 2, 2).mean(axis=(3, 5))
        return small.reshape(count, -1)


def draw_icon(part: Part, number: int) -> npt.NDArray[np.uint8]:
    """Picture `number` [H, W, 3] of a part. It is of class `number` modulo 12."""
    random = np.random.default_rng((part, number))
    return list(ICONS.values())[number % len(ICONS)](random).picture()


def draw_icons(part: Part, numbers: Iterable[int]) -> Icons:
    """The pictures `numbers` of a part."""
    chosen = list(numbers)
    pictures = np.stack([draw_icon(part, number) for number in chosen])
    return Icons(pictures=pictures, labels=np.array(chosen) % len(ICONS))
