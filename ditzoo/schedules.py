"""Noise schedules: how much signal and how much noise there is at each time, and which times a sampler visits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from ditzoo.card import Card, DiscreteBetas
from ditzoo.errors import UsageError

Spacing: TypeAlias = Literal["linspace", "leading", "trailing"]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A time on the way from noise to image, where x = alpha · image + sigma · noise.

    `time` is in the unit of the network's input.
    """

    time: float
    alpha: float
    sigma: float

    @property
    def log_snr(self) -> float:
        """λ = log(alpha / sigma), half the logarithm of the signal-to-noise ratio; infinite at the clean end."""
        return math.log(self.alpha / self.sigma) if self.sigma > 0 else math.inf


def betas(schedule: DiscreteBetas) -> npt.NDArray[np.float64]:
    """β of step n = 1 ... N at index n − 1, [N] (DDPM, arXiv 2006.11239, section 2)."""
    start, end, steps = schedule.start, schedule.end, schedule.steps
    if schedule.spacing == "linear":
        return np.linspace(start, end, steps)
    return np.linspace(start**0.5, end**0.5, steps) ** 2


def alpha_bars(schedule: DiscreteBetas) -> npt.NDArray[np.float64]:
    """ᾱ of step n = 0 ... N, [N + 1]; ᾱ[0] = 1 is the clean image: x[n] = √ᾱ[n] · x[0] + √(1 − ᾱ[n]) · noise."""
    return np.concatenate([[1.0], np.cumprod(1 - betas(schedule))])


def grid(card: Card, spacing: Spacing, steps: int) -> tuple[Point, ...]:
    """The `steps` points at which a sampler asks the network, noisiest first, and the clean end: steps + 1 points.

    Raises UsageError if the schedule has no such number of steps in that spacing.
    """
    if not isinstance(card.schedule, DiscreteBetas):
        raise UsageError(f"the solvers here walk discrete schedules; {card.name} has another kind")
    total = card.schedule.steps
    if not 1 <= steps <= total:
        raise UsageError(f"steps must be 1 to {total} (the schedule of {card.name}), not {steps}")
    bars = alpha_bars(card.schedule)
    visited = [*sorted(SPACINGS[spacing](total, steps), reverse=True), 0]
    return tuple(
        Point(
            time=n * (card.time.scale / total) + card.time.offset,
            alpha=math.sqrt(bars[n]),
            sigma=math.sqrt(1 - bars[n]),
        )
        for n in visited
    )


def linspace(total: int, steps: int) -> list[int]:
    """Evenly from 1 to `total`, both ends included: the spacing of DiT's authors (`space_timesteps`).

    As in their code the stride is a float that is added up, and Python's `round` decides.
    """
    stride = (total - 1) / (steps - 1) if steps > 1 else 1.0
    visited, current = [], 0.0
    for _ in range(steps):
        visited.append(1 + round(current))
        current += stride
    return visited


def leading(total: int, steps: int) -> list[int]:
    """The smallest whole stride that gives `steps` steps, from 1 on: the authors' "ddimN" spacing (DDIM, arXiv 2010.02502)."""
    for stride in range(1, total + 1):
        visited = list(range(1, total + 1, stride))
        if len(visited) == steps:
            return visited
    raise UsageError(f"no whole stride through {total} steps gives {steps} of them; use another number or another spacing")


def trailing(total: int, steps: int) -> list[int]:
    """Evenly from `total` down, the last one a stride away from the clean image (arXiv 2305.08891, table 2)."""
    return [round(total * (1 - step / steps)) for step in range(steps)]


SPACINGS: dict[str, Callable[[int, int], list[int]]] = {"linspace": linspace, "leading": leading, "trailing": trailing}
