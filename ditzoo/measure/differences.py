"""The difference of two sets of pictures, as pictures that an eye can see."""

from __future__ import annotations

import msgspec
import numpy as np

from ditzoo.pictures.decode import Pictures
from ditzoo.sampling.noise import Floats


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The absolute difference of pixel values from 0 to 255: its `values` [N, H, W, C], and the `largest` of them.

    `pictures` [N, H, W, C] are the values, amplified `gain` times, so that the largest is white.
    """

    values: Floats
    largest: float
    gain: float
    pictures: Pictures


def picture_difference(value: Floats, reference: Floats) -> Difference:
    """The difference of pixel values from 0 to 255, each [N, H, W, C]. The gain is 1 if they are equal."""
    values = np.abs(value - reference)
    largest = float(values.max())
    gain = 255 / largest if largest else 1.0
    return Difference(values=values, largest=largest, gain=gain, pictures=np.clip(gain * values, 0, 255).astype(np.uint8))
