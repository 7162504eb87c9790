"""Solvers of the probability-flow ODE and of the reverse SDE (arXiv 2011.13456; on straight paths arXiv 2401.08740)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from ditzoo.solvers.interface import Denoiser
from ditzoo.solvers.schedules import Point
from ditzoo.specs import Array


def euler(denoiser: Denoiser, x: Array, grid: Sequence[Point]) -> Array:
    """Euler on the probability-flow ODE (arXiv 2011.13456, eq. 13; on a straight path arXiv 2401.08740, eq. 4)."""
    for now, then in pairwise(grid):
        x = x + (then.t - now.t) * denoiser.predict(x, now).velocity
    return x


def heun(denoiser: Denoiser, x: Array, grid: Sequence[Point]) -> Array:
    """Heun on the probability-flow ODE (arXiv 2011.13456, appendix D): each step evaluates the network at both of its ends.

    If the evaluations do not suffice for two at every step, the last steps are Euler steps (as in EDM, arXiv 2206.00364,
    algorithm 1).
    """
    twice = denoiser.evaluations - (len(grid) - 1)
    for now, then in pairwise(grid[: twice + 1]):
        velocity = denoiser.predict(x, now).velocity
        ahead = x + (then.t - now.t) * velocity
        x = x + (then.t - now.t) / 2 * (velocity + denoiser.predict(ahead, then).velocity)
    return euler(denoiser, x, grid[twice:])


def euler_maruyama(denoiser: Denoiser, x: Array, grid: Sequence[Point]) -> Array:
    """Euler-Maruyama on the reverse SDE, dx = (velocity + ½ g² noise / sigma) dt + g dw (arXiv 2011.13456, eq. 6 and 13).

    The last step, to the clean image, adds no noise.
    """
    for now, then in pairwise(grid):
        said, dt = denoiser.predict(x, now), now.t - then.t
        x = x - dt * (said.velocity + 0.5 * now.diffusion / now.sigma * said.noise)
        if then.sigma > 0:
            x = x + math.sqrt(now.diffusion * dt) * denoiser.noise()
    return x
