"""The noise of each image: it depends on the seed, the image's number and the draw alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
"""Float32, or float64 from a backend that computes in that."""

Noise: TypeAlias = Callable[[int], Floats]
"""From the number of a draw to the noise of a batch, [N, C, H, W]."""

MAX_SEED = 2**64 - 1


def gaussian(seed: int, image: int, draw: int, shape: Sequence[int]) -> Floats:
    """Draw `draw` of standard normal noise of image number `image` under `seed`: float32 of `shape`.

    Philox 4x64-10 with the key (seed, image), from the counter (1, 0, draw, 0) on, gives 64-bit integers; each pair of them
    becomes two normal numbers (Box-Muller). So it depends on nothing else, and any language can repeat it.
    """
    size = int(np.prod(shape))
    key, counter = np.array([seed, image], dtype=np.uint64), np.array([0, 0, draw, 0], dtype=np.uint64)
    bits = np.random.Philox(key=key, counter=counter).random_raw(size + size % 2)
    uniform = ((bits >> np.uint64(11)) + 0.5) * 2.0**-53  # inside (0, 1)
    radius, angle = np.sqrt(-2 * np.log(uniform[0::2])), 2 * np.pi * uniform[1::2]
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return normal.reshape(-1)[:size].reshape(shape).astype(np.float32)


def noise_of(seed: int, images: range, shape: Sequence[int]) -> Noise:
    """The noise of some images under `seed`: each draw is [N, *shape]."""
    return lambda draw: np.stack([gaussian(seed, image, draw, shape) for image in images])
