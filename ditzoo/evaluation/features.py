"""What a feature network is: a function from pictures to the features that scores are computed on."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from ditzoo.errors import UsageError
from ditzoo.evaluation.frechet import Floats

Pixels = npt.NDArray[np.uint8]


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """The features of N pictures.

    `spaces` has features [N, D] by the name of the distance that they give: "fid", and "sfid" or "pixels" if the network has
    them. `log_probabilities` [N, K] are those of the network's own classes, or None. `read` [N] is the class that the network
    reads, if its classes are those of the model.
    """

    spaces: dict[str, Floats]
    log_probabilities: Floats | None = None
    read: npt.NDArray[np.int64] | None = None


class FeatureNetwork(Protocol):
    """A network that gives features of pictures."""

    @property
    def name(self) -> str:
        """The name of the network for tables."""

    def __call__(self, pictures: Pixels) -> Features:
        """The features of pictures [N, H, W, 3]. Raises UsageError if the network does not take their size."""


def log_softmax(logits: Floats) -> Floats:
    """log softmax over the last axis, in float64."""
    x = logits.astype(np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    result: Floats = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return result


def check_pictures_size(network: str, pictures: npt.NDArray[Any], height: int, width: int, *, hint: str) -> None:
    """Raises UsageError, which ends with the `hint`, if the pictures have another height or width."""
    if pictures.shape[1:3] != (height, width):
        given = f"{pictures.shape[1]}x{pictures.shape[2]}"
        raise UsageError(f"{network} takes pictures of {height}x{width} pixels, not {given}; {hint}")
