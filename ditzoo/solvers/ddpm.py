"""DDPM and DDIM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from ditzoo.errors import UsageError
from ditzoo.solvers.interface import Denoiser
from ditzoo.solvers.schedules import Point
from ditzoo.specs import Array


def ddpm(denoiser: Denoiser, x: Array, grid: Sequence[Point], *, variance: str = "auto") -> Array:
    """DDPM's ancestral sampling (arXiv 2006.11239, algorithm 2), on a spaced grid as in arXiv 2102.09672, section 4.

    `variance` is "learned" (arXiv 2102.09672, eq. 15), "fixed_small" (β̃), "fixed_large" (β), or "auto": learned where the
    network has learned one, else fixed_small.
    """
    variance = _ddpm_variance(variance, learned=denoiser.learns_variance)
    for now, then in pairwise(grid):
        e = denoiser.predict(x, now).noise
        alpha = (now.alpha / then.alpha) ** 2
        beta = 1 - alpha
        mean = (x - beta / now.sigma * e) / math.sqrt(alpha)
        if then.sigma == 0:
            return mean
        small, large = math.log(beta * (then.sigma / now.sigma) ** 2), math.log(beta)
        if variance == "learned":
            x = mean + denoiser.noise(log_variance=(small, large))
        else:
            x = mean + math.exp((small if variance == "fixed_small" else large) / 2) * denoiser.noise()
    return x


def ddim(denoiser: Denoiser, x: Array, grid: Sequence[Point], *, eta: float = 0.0) -> Array:
    """DDIM (arXiv 2010.02502, eq. 12 and 16): deterministic at `eta` 0, DDPM's small variance at 1."""
    if not eta >= 0:
        raise UsageError(f"eta must be 0 or more, not {eta}")
    for now, then in pairwise(grid):
        said = denoiser.predict(x, now)
        deviation = eta * then.sigma / now.sigma * math.sqrt(1 - (now.alpha / then.alpha) ** 2)
        if deviation > then.sigma:
            raise UsageError(f"eta {eta} asks for more noise than there is at time {then.time:g}; use at most 1")
        x = then.alpha * said.image + math.sqrt(then.sigma**2 - deviation**2) * said.noise
        if deviation > 0:
            x = x + deviation * denoiser.noise()
    return x


def _ddpm_variance(variance: str, *, learned: bool) -> str:
    valid = ["auto", "fixed_small", "fixed_large", *(["learned"] if learned else [])]
    if variance not in valid:
        raise UsageError(f"variance must be {', '.join(valid)} for this network, not {variance!r}")
    return ("learned" if learned else "fixed_small") if variance == "auto" else variance
