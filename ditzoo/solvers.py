"""The solvers, as plain functions.

Each one walks a grid of points from noise to image and is written for any x that can be added and multiplied by numbers. It is
never run on images: `ditzoo.plan` runs it once on unit vectors, and the table that comes out is what samples.

`denoise(x, point)` is the (guided) prediction of the noise in x; `noise()` is a fresh standard normal draw;
`noise(log_variance=(low, high))` is a draw times the standard deviation that the network itself picks between the two bounds.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import msgspec

from ditzoo.errors import UsageError
from ditzoo.schedules import Point, Spacing
from ditzoo.specs import Array


class Walk(Protocol):
    """What a solver asks of the world."""

    learns_variance: bool

    def denoise(self, x: Array, point: Point) -> Array: ...

    def noise(self, *, log_variance: tuple[float, float] | None = None) -> Array: ...


def ddpm(walk: Walk, x: Array, grid: Sequence[Point], *, variance: str = "auto") -> Array:
    """DDPM's ancestral sampling (arXiv 2006.11239, algorithm 2), on a spaced grid as in arXiv 2102.09672, section 4.

    `variance` is "learned" (arXiv 2102.09672, eq. 15), "fixed_small" (β̃), "fixed_large" (β), or "auto": learned where the
    network has learned one, else fixed_small.
    """
    variance = _ddpm_variance(variance, learned=walk.learns_variance)
    for now, then in pairwise(grid):
        e = walk.denoise(x, now)
        alpha = (now.alpha / then.alpha) ** 2
        beta = 1 - alpha
        mean = (x - beta / now.sigma * e) / math.sqrt(alpha)
        if then.sigma == 0:
            return mean
        small, large = math.log(beta * (then.sigma / now.sigma) ** 2), math.log(beta)
        if variance == "learned":
            x = mean + walk.noise(log_variance=(small, large))
        else:
            x = mean + math.exp((small if variance == "fixed_small" else large) / 2) * walk.noise()
    return x


def ddim(walk: Walk, x: Array, grid: Sequence[Point], *, eta: float = 0.0) -> Array:
    """DDIM (arXiv 2010.02502, eq. 12 and 16): deterministic at `eta` 0, DDPM's small variance at 1."""
    if not eta >= 0:
        raise UsageError(f"eta must be 0 or more, not {eta}")
    for now, then in pairwise(grid):
        e = walk.denoise(x, now)
        clean = (x - now.sigma * e) / now.alpha
        deviation = eta * then.sigma / now.sigma * math.sqrt(1 - (now.alpha / then.alpha) ** 2)
        if deviation > then.sigma:
            raise UsageError(f"eta {eta} asks for more noise than there is at time {then.time:g}; use at most 1")
        x = then.alpha * clean + math.sqrt(then.sigma**2 - deviation**2) * e
        if deviation > 0:
            x = x + deviation * walk.noise()
    return x


def dpmpp(walk: Walk, x: Array, grid: Sequence[Point], *, order: int = 2) -> Array:
    """DPM-Solver++ multistep on data predictions (arXiv 2211.01095, algorithm 2; order 3: the authors' code), orders 1 to 3.

    The first steps, and the last ones, which end on the clean image, use lower orders.
    """
    if order not in (1, 2, 3):
        raise UsageError(f"order must be 1, 2 or 3, not {order}")
    images: list[Array] = []  # data predictions, the newest first
    steps: list[float] = []  # differences of λ, the newest first
    for i, (now, then) in enumerate(pairwise(grid)):
        images.insert(0, (x - now.sigma * walk.denoise(x, now)) / now.alpha)
        steps.insert(0, then.log_snr - now.log_snr)
        usable = min(order, i + 1, len(grid) - 1 - i)
        x = then.sigma / now.sigma * x + then.alpha * _extrapolate(images, steps, usable)
    return x


def _extrapolate(images: Sequence[Array], steps: Sequence[float], order: int) -> Array:
    """∫ e^(λ − λ_then) · image(λ) dλ over the newest step; image(λ) is the polynomial through the last `order` predictions."""
    h = steps[0]
    phi_1 = -math.expm1(-h)
    if order == 1:
        return phi_1 * images[0]
    slope = (images[0] - images[1]) * (h / steps[1])
    if order == 2:
        return phi_1 * (images[0] + 0.5 * slope)
    older = (images[1] - images[2]) * (h / steps[2])
    r0, r1 = steps[1] / h, steps[2] / h
    phi_2 = 1 - phi_1 / h
    first = slope + r0 / (r0 + r1) * (slope - older)
    second = (slope - older) / (r0 + r1)
    return phi_1 * images[0] + phi_2 * first + (0.5 - phi_2 / h) * second


def _ddpm_variance(variance: str, *, learned: bool) -> str:
    valid = ["auto", "fixed_small", "fixed_large", *(["learned"] if learned else [])]
    if variance not in valid:
        raise UsageError(f"variance must be {', '.join(valid)} for this network, not {variance!r}")
    return ("learned" if learned else "fixed_small") if variance == "auto" else variance


class Solver(msgspec.Struct, frozen=True, kw_only=True):
    """A solver in the table: its function, whose keyword arguments are its options, and the spacing it is used with."""

    run: Callable[..., Array]
    spacing: Spacing

    @property
    def options(self) -> dict[str, Any]:
        """The name and default value of each option."""
        parameters = inspect.signature(self.run).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


SOLVERS: dict[str, Solver] = {
    "ddpm": Solver(run=ddpm, spacing="linspace"),
    "ddim": Solver(run=ddim, spacing="linspace"),
    "dpmpp": Solver(run=dpmpp, spacing="trailing"),
}
