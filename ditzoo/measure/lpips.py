"""LPIPS, a perceptual distance of pictures (arXiv 1801.03924, version 0.1 on AlexNet). Its weights must be on the disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ditzoo.errors import CheckpointError, MissingPackageError, UsageError
from ditzoo.sampling.noise import Floats

ALEXNET, LINEAR = "alexnet-owt-7be5be79.pth", "weights/v0.1/alex.pth"
LEAST, SLICE = 31, 8
"""The smallest side of a picture in pixels, and the number of pictures in one batch."""

_CONVOLUTIONS = ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1))  # of AlexNet: index, stride, padding
_POOLED = (3, 6)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


def lpips(value: Floats, reference: Floats) -> float:
    """The mean LPIPS of two arrays of pixel values from 0 to 255, each [N, H, W, 1 or 3]. It is 0 if they are equal.

    Nothing is ever downloaded. Raises UsageError if the pictures are too small. Raises MissingPackageError if the weights of
    AlexNet or the package lpips are not on the disk; the message says how to get them. Raises CheckpointError if the weights
    cannot be read.
    """
    if min(value.shape[1:3]) < LEAST:
        raise UsageError(f"LPIPS needs pictures of {LEAST} pixels or more; these have {min(value.shape[1:3])}")
    linear, alexnet = _read(_linear()), _read(_alexnet())
    distances = []
    for i in range(0, len(value), SLICE):
        pair = [_scaled(pixels[i : i + SLICE]) for pixels in (value, reference)]
        with torch.inference_mode():
            distances.append(_distance(pair[0], pair[1], alexnet, linear).numpy())
    return float(np.concatenate(distances).mean())


def _linear() -> Path:
    found = find_spec("lpips")
    if found is None or not found.submodule_search_locations:
        raise MissingPackageError("LPIPS needs a package: pip install 'ditzoo[lpips]'")
    return Path(found.submodule_search_locations[0]) / LINEAR


def _alexnet() -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET
    if not path.is_file():
        raise MissingPackageError(
            f"LPIPS needs AlexNet's weights in {path}; ditzoo does not download them; run python -c"
            " \"import torchvision; torchvision.models.alexnet(weights='DEFAULT')\""
        )
    return path


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        weights: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
        raise CheckpointError(f"LPIPS cannot read {path}: {error}") from error
    return weights


def _scaled(pixels: Floats) -> Tensor:
    """Pixel values [N, H, W, 1 or 3], normalised as in AlexNet's training, as [N, 3, H, W]."""
    x = torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1  # N C H W
    shift, scale = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (_SHIFT, _SCALE))
    return (x - shift) / scale  # N 3 H W


def _distance(a: Tensor, b: Tensor, alexnet: Mapping[str, Tensor], linear: Mapping[str, Tensor]) -> Tensor:
    """LPIPS of each pair, [N]: the weighted squared differences of the normalised feature vectors (eq. 1)."""
    total = torch.zeros(len(a))
    for i, pair in enumerate(zip(_features(a, alexnet), _features(b, alexnet), strict=True)):
        first, second = (x / (x.norm(dim=1, keepdim=True) + 1e-10) for x in pair)  # N C h w
        weights = linear[f"lin{i}.model.1.weight"]  # 1 C 1 1
        total = total + ((first - second) ** 2 * weights).sum(dim=1).mean(dim=(1, 2))
    return total


def _features(x: Tensor, weights: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """The activations of AlexNet (arXiv 1404.5997, as in torchvision) after each convolution, [N, C, h, w]."""
    for number, stride, padding in _CONVOLUTIONS:
        x = F.max_pool2d(x, 3, 2) if number in _POOLED else x
        weight, bias = weights[f"features.{number}.weight"], weights[f"features.{number}.bias"]
        x = F.relu(F.conv2d(x, weight, bias, stride=stride, padding=padding))  # N C h w
        yield x
