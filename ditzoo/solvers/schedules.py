"""Noise schedules: how much signal and how much noise there is at each time, and which times a sampler visits.

In this module t runs from 1 (noise) to 0 (clean image) for every schedule. The network gets `Point.time` instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from ditzoo.errors import UsageError, described
from ditzoo.zoo.card import Card, ContinuousVP, DiscreteBetas, LinearFlow, Schedule

Spacing: TypeAlias = Literal["linspace", "leading", "trailing", "uniform", "logsnr", "karras"]

MOST_STEPS = 2000

_KARRAS_RHO, _ROUNDING = 7.0, 1e-9


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A time between noise and image, where x = alpha · image + sigma · noise.

    `time` is in the unit of the network's input. `diffusion` is g² of the reverse SDE, the variance of the noise that it adds
    per unit of t: β(t) of a variance-preserving schedule (arXiv 2011.13456, eq. 32); 2 σ on a straight path, SiT's default
    (arXiv 2401.08740, section 3.4).
    """

    t: float
    time: float
    alpha: float
    sigma: float
    diffusion: float

    @property
    def noise_level(self) -> float:
        """sigma / alpha; infinite where there is no signal."""
        return self.sigma / self.alpha if self.alpha > 0 else math.inf

    @property
    def log_snr(self) -> float:
        """λ = log(alpha / sigma), half the logarithm of the signal-to-noise ratio. It is infinite where alpha or sigma is 0."""
        return -math.log(self.noise_level) if self.noise_level > 0 else math.inf


def betas(schedule: DiscreteBetas) -> npt.NDArray[np.float64]:
    """β of step n = 1 ... N at index n − 1, [N] (DDPM, arXiv 2006.11239, section 2)."""
    start, end, steps = schedule.start, schedule.end, schedule.steps
    if schedule.spacing == "linear":
        return np.linspace(start, end, steps)
    return np.linspace(start**0.5, end**0.5, steps) ** 2


def alpha_bars(schedule: DiscreteBetas) -> npt.NDArray[np.float64]:
    """ᾱ of step n = 0 ... N, [N + 1]; ᾱ[0] = 1 is the clean image: x[n] = √ᾱ[n] · x[0] + √(1 − ᾱ[n]) · noise."""
    return np.concatenate([[1.0], np.cumprod(1 - betas(schedule))])


def point(card: Card, t: float) -> Point:
    """The point of the card's schedule at t, from 1 (noise) to 0 (clean). Between discrete steps, log alpha is linear in t."""
    schedule = card.schedule
    if isinstance(schedule, LinearFlow):
        time = card.time.scale * own_time(schedule, t) + card.time.offset
        return Point(t=t, time=time, alpha=1 - t, sigma=t, diffusion=2 * t)
    if isinstance(schedule, DiscreteBetas):
        n = _snap(t * schedule.steps)
        time, (log_alpha, beta) = n * (card.time.scale / schedule.steps) + card.time.offset, _discrete(schedule, n)
    else:
        time, (log_alpha, beta) = card.time.scale * t + card.time.offset, _continuous(schedule, t)
    return Point(
        t=t,
        time=time,
        alpha=math.exp(log_alpha),
        sigma=math.sqrt(-math.expm1(2 * log_alpha)),
        diffusion=beta,
    )


def own_time(schedule: Schedule, t: float) -> float:
    """t as the schedule itself counts it, which may be from 0, noise, to 1, the image (see `LinearFlow`)."""
    return 1 - t if isinstance(schedule, LinearFlow) and schedule.noise_at == 0 else t


def _snap(n: float) -> float:
    """`n` itself, or the whole number from which it differs by rounding alone."""
    return round(n) if abs(n - round(n)) < _ROUNDING else n


def _discrete(schedule: DiscreteBetas, n: float) -> tuple[float, float]:
    """log alpha at step `n`, whole or not, and β(t) = −2 d log alpha / dt."""
    log_alphas = 0.5 * np.log(alpha_bars(schedule))
    above = min(max(math.ceil(n), 1), schedule.steps)
    slope = float(log_alphas[above] - log_alphas[above - 1])
    return float(log_alphas[above]) + (n - above) * slope, -2 * slope * schedule.steps


def _continuous(schedule: ContinuousVP, t: float) -> tuple[float, float]:
    """log alpha and β(t) = −2 d log alpha / dt."""
    low, high = schedule.beta_min, schedule.beta_max
    return -0.25 * (high - low) * t**2 - 0.5 * low * t, low + (high - low) * t


def time_of(schedule: Schedule, log_snr: float) -> float:
    """The t at which the schedule has this λ = log(alpha / sigma)."""
    if isinstance(schedule, LinearFlow):
        return 1 / (1 + math.exp(log_snr))
    log_alpha = -0.5 * float(np.logaddexp(0.0, -2 * log_snr))
    if isinstance(schedule, DiscreteBetas):
        log_alphas = 0.5 * np.log(alpha_bars(schedule))
        return float(np.interp(-log_alpha, -log_alphas, np.linspace(0, 1, len(log_alphas))))
    low, range_ = schedule.beta_min, schedule.beta_max - schedule.beta_min
    return -4 * log_alpha / (low + math.sqrt(low**2 - 4 * range_ * log_alpha))


def grid(card: Card, spacing: str, parts: Sequence[int], *, end: float, stops: bool, shift: float = 1.0) -> tuple[Point, ...]:
    """The grid of points that a sampler goes over, noisiest first: sum(parts) + 1 points; step i covers parts[i] intervals.

    With `stops`, the last point is t = `end`. Without it, the last point but one is t = `end` and the last is the clean image.
    Spacings by whole steps (linspace, leading, trailing) have an end of their own. With discrete betas, no end is below the
    first step. `shift` moves all times, that of the end too (see `ditzoo.zoo.card.Sampling`). Raises UsageError if there is no
    such grid.
    """
    if spacing not in SPACINGS:
        raise UsageError(f"unknown spacing {spacing!r}; known: {', '.join(SPACINGS)}")
    if not 0 < end < 1:
        raise UsageError(f"end must be a time between 0 (clean) and 1 (noise), not {end}")
    _check_shift(card, shift)
    last = max(end, 1 / card.schedule.steps) if isinstance(card.schedule, DiscreteBetas) else end
    times = SPACINGS[spacing](card, parts if stops else parts[:-1], last)
    return tuple(point(card, _shifted(t, shift)) for t in (times if stops else [*times, 0.0]))


def _shifted(t: float, shift: float) -> float:
    """u → s · u / (1 + (s − 1) · u) for u = 1 − t."""
    return t / (1 + (shift - 1) * (1 - t))


def _check_shift(card: Card, shift: float) -> None:
    if not (math.isfinite(shift) and shift > 0):
        raise UsageError(f"the shift of times must be a number above 0, not {shift:g}")
    if shift != 1 and not isinstance(card.schedule, LinearFlow):
        raise UsageError(f"times are shifted on straight paths alone; {card.name} has another schedule, so its shift must be 1")


def check_steps(card: Card, steps: int) -> None:
    """Raises UsageError if the card's schedule does not have that many steps."""
    most = card.schedule.steps if isinstance(card.schedule, DiscreteBetas) else MOST_STEPS
    if not 1 <= steps <= most:
        raise UsageError(f"steps must be 1 to {most} (the schedule of {card.name}), not {described(steps)}")


def linspace(total: int, steps: int) -> list[int]:
    """Evenly from 1 to `total`, both ends included: the spacing of DiT's authors (`space_timesteps`).

    As in their code, a float stride is added up and rounded with Python's `round`.
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
    """Evenly from `total` down; the last step is one stride away from the clean image (arXiv 2305.08891, table 2)."""
    return [round(total * (1 - step / steps)) for step in range(steps)]


_Times: TypeAlias = Callable[[Card, Sequence[int], float], list[float]]


def _by_steps(space: Callable[[int, int], list[int]]) -> _Times:
    """A spacing by whole steps of a discrete schedule."""

    def times(card: Card, parts: Sequence[int], end: float) -> list[float]:
        if not isinstance(card.schedule, DiscreteBetas):
            raise UsageError(f"spacing {space.__name__} counts discrete steps, which {card.name} has not; use another")
        total = card.schedule.steps
        return [n / total for n in sorted(space(total, sum(parts) + 1), reverse=True)]

    return times


def _linspace(card: Card, parts: Sequence[int], end: float) -> list[float]:
    """The authors' spacing on discrete betas; evenly in t on any other schedule."""
    space = _by_steps(linspace) if isinstance(card.schedule, DiscreteBetas) else _uniform
    return space(card, parts, end)


def _trailing(card: Card, parts: Sequence[int], end: float) -> list[float]:
    """As `_uniform`, but the last point is one step away from the clean image."""
    if isinstance(card.schedule, DiscreteBetas):
        return _by_steps(trailing)(card, parts, end)
    count = sum(parts) + 1
    return [1 - i / count for i in range(count)]


def _uniform(card: Card, parts: Sequence[int], end: float) -> list[float]:
    """Evenly in t."""
    times: list[float] = np.linspace(1.0, end, sum(parts) + 1).tolist()
    return times


def _logsnr(card: Card, parts: Sequence[int], end: float) -> list[float]:
    """Steps of equal length in λ, each divided evenly (DPM-Solver, arXiv 2206.00927, section 3.3)."""
    return _evenly(card, parts, end, lambda log_snr: log_snr, lambda value: value)


def _karras(card: Card, parts: Sequence[int], end: float) -> list[float]:
    """Evenly in the 7th root of the noise level (EDM, arXiv 2206.00364, eq. 5)."""
    return _evenly(
        card, parts, end, lambda log_snr: math.exp(-log_snr / _KARRAS_RHO), lambda value: -_KARRAS_RHO * math.log(value)
    )


def _evenly(
    card: Card, parts: Sequence[int], end: float, of: Callable[[float], float], back: Callable[[float], float]
) -> list[float]:
    """Steps from t = 1 to `end` of equal length in the function `of` of λ; `back` is its inverse."""
    if isinstance(card.schedule, LinearFlow):
        raise UsageError(
            f"{card.name} starts from pure noise, λ = −∞, where this spacing cannot begin; use trailing or uniform"
        )
    first, last = (of(point(card, t).log_snr) for t in (1.0, end))
    steps = np.linspace(first, last, len(parts) + 1)
    values = np.interp(range(sum(parts) + 1), [0, *accumulate(parts)], steps)
    inner = [time_of(card.schedule, back(float(value))) for value in values[1:-1]]
    return [1.0, *inner, end] if parts else [1.0]


SPACINGS: dict[str, _Times] = {
    "linspace": _linspace,
    "leading": _by_steps(leading),
    "trailing": _trailing,
    "uniform": _uniform,
    "logsnr": _logsnr,
    "karras": _karras,
}
