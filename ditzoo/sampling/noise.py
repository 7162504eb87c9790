"""The noise of each image. It depends only on the seed, the image's number and the draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
"""A float32 array, or a float64 array of a backend that computes in float64."""

Noise: TypeAlias = Callable[[int], Floats]
"""A function that maps the number of a draw to the noise of a batch, [N, C, H, W]."""

MAX_SEED = 2**64 - 1


def gaussian(seed: int, image: int, draw: int, shape: Sequence[int]) -> Floats:
    """The standard normal noise of image number `image` under `seed`, for the draw number `draw`: float32 of `shape`.

    Philox 4x64-10 with the key (seed, image) generates 64-bit integers, starting at the counter (1, 0, draw, 0). Each pair of
    integers becomes two normal numbers (Box-Muller). The noise depends on nothing else, and any language can reproduce it.
    """
    size = int(np.prod(shape))
    key, counter = np.array([seed, image], dtype=np.uint64), np.array([0, 0, draw, 0], dtype=np.uint64)
    bits = np.random.Philox(key=key, counter=counter).random_raw(size + size % 2)
    uniform = ((bits >> np.uint64(11)) + 0.5) * 2.0**-53  # inside (0, 1)
    radius, angle = np.sqrt(-2 * np.log(uniform[0::2])), 2 * np.pi * uniform[1::2]
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return normal.reshape(-1)[:size].reshape(shape).astype(np.float32)


def noise_of(seed: int, images: range, shape: Sequence[int]) -> Noise:
    """The noise of the images with the numbers `images` under `seed`. Each draw has the shape [N, *shape]."""
    return lambda draw: np.stack([gaussian(seed, image, draw, shape) for image in images])
