"""Metrics of the difference between pictures or arrays, as papers use them."""

from __future__ import annotations

import math

import numpy as np

from ditzoo.errors import DitzooError
from ditzoo.sampling.noise import Floats


def psnr(value: Floats, reference: Floats) -> float | None:
    """The peak signal-to-noise ratio in dB of pixel values from 0 to 255. None if they are all equal."""
    error = float(((value.astype(np.float64) - reference) ** 2).mean())
    return 20 * math.log10(255) - 10 * math.log10(error) if error > 0 else None


def ssim(value: Floats, reference: Floats, *, side: int = 7) -> float:
    """The mean structural similarity of pixel values from 0 to 255, each [N, H, W, C].

    The windows are `side` x `side` pixels with uniform weights, and the variances are sample variances. Source:
    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004, eq. 13.
    """
    a, b = (
        np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (side, side), axis=(1, 2)) for x in (value, reference)
    )
    mean_a, mean_b = a.mean(axis=(-2, -1)), b.mean(axis=(-2, -1))
    scale = side**2 / (side**2 - 1)
    variance_a, variance_b = scale * a.var(axis=(-2, -1)), scale * b.var(axis=(-2, -1))
    covariance = scale * ((a * b).mean(axis=(-2, -1)) - mean_a * mean_b)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float((luminance * (2 * covariance + c2) / (variance_a + variance_b + c2)).mean())


def lpips_or_why_not(value: Floats, reference: Floats) -> tuple[float | None, str]:
    """LPIPS (see `ditzoo.measure.lpips`) of pixel values from 0 to 255, and ""; or None, and the reason why it is missing."""
    try:
        from ditzoo.measure.lpips import lpips

        return lpips(value, reference), ""
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return None, "LPIPS needs torch: pip install 'ditzoo[lpips]'"
    except DitzooError as error:
        return None, str(error)


def relative_l2(value: np.ndarray, reference: np.ndarray) -> float:
    """‖value − reference‖ / ‖reference‖, in float64."""
    difference = value.astype(np.float64) - reference.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(reference.astype(np.float64)))


def max_abs(value: np.ndarray, reference: np.ndarray) -> float:
    """The largest absolute difference of two elements at the same place, in float64."""
    return float(np.abs(np.subtract(value, reference, dtype=np.float64)).max())


def cosine(value: np.ndarray, reference: np.ndarray) -> float:
    """The cosine of the angle between two arrays, taken as vectors, in float64."""
    a, b = value.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
