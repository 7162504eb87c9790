"""The DPM-Solvers: exponential integrators of the probability-flow ODE in λ = log(alpha / sigma)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

from ditzoo.errors import UsageError
from ditzoo.solvers.interface import Denoiser
from ditzoo.solvers.schedules import Point
from ditzoo.specs import Array


def dpmpp(denoiser: Denoiser, x: Array, grid: Sequence[Point], *, order: int = 2) -> Array:
    """DPM-Solver++ multistep on data predictions (arXiv 2211.01095, algorithm 2; order 3: the authors' code), orders 1 to 3.

    The first steps use lower orders, because they have fewer predictions behind them, and so do the last ones.
    """
    _check(order)
    images: list[Array] = []  # data predictions, the newest first
    steps: list[float] = []  # differences of λ, the newest first
    for i, (now, then) in enumerate(pairwise(grid)):
        images.insert(0, denoiser.predict(x, now).image)
        steps.insert(0, then.log_snr - now.log_snr)
        usable = min(order, i + 1, len(grid) - 1 - i)
        x = then.sigma / now.sigma * x + then.alpha * _extrapolate(images, steps, usable)
    return x


def _extrapolate(images: Sequence[Array], steps: Sequence[float], order: int) -> Array:
    """The integral of e^(λ − λ_then) · image(λ) over the newest step, where image(λ) is the polynomial through the last `order`
    predictions."""
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


def dpmpp_fast(denoiser: Denoiser, x: Array, grid: Sequence[Point], *, order: int = 3) -> Array:
    """DPM-Solver++ singlestep on data predictions (arXiv 2211.01095, algorithm 1; order 3: the authors' code)."""
    for points in _steps(grid, order):
        x = _singlestep(denoiser, x, points, of_image=True)
    return x


def dpm_fast(denoiser: Denoiser, x: Array, grid: Sequence[Point], *, order: int = 3) -> Array:
    """DPM-Solver-fast on noise predictions (arXiv 2206.00927, algorithms 1 and 2, section 3.4)."""
    for points in _steps(grid, order):
        x = _singlestep(denoiser, x, points, of_image=False)
    return x


def fast_orders(evaluations: int, order: int) -> list[int]:
    """The order of every step, such that the orders add up to `evaluations`: the highest first, lower ones at the end
    (arXiv 2206.00927, section 3.4)."""
    _check(order)
    if order == 3 and evaluations % 3 == 0 and evaluations > 0:
        return [3] * (evaluations // 3 - 1) + [2, 1]
    return [order] * (evaluations // order) + [evaluations % order] * (evaluations % order > 0)


def _steps(grid: Sequence[Point], order: int) -> list[Sequence[Point]]:
    """The points of every step. A step of order k covers k intervals and evaluates the network at the start of each."""
    bounds = [0, *accumulate(fast_orders(len(grid) - 1, order))]
    return [grid[start : stop + 1] for start, stop in pairwise(bounds)]


def _singlestep(denoiser: Denoiser, x: Array, points: Sequence[Point], *, of_image: bool) -> Array:
    """One step of order len(points) − 1 from the first point to the last, with the points between as intermediate ones.

    Data prediction and noise prediction share one formula: alpha and sigma change places, and λ changes its sign.
    """
    start, end = points[0], points[-1]
    sign = -1 if of_image else 1
    span = end.log_snr - start.log_snr

    def predict(x: Array, point: Point) -> Array:
        said = denoiser.predict(x, point)
        return said.image if of_image else said.noise

    def ratio(point: Point) -> float:
        return (point.log_snr - start.log_snr) / span

    def move(point: Point, slope: Array | None = None, weight: float = 0.0) -> Array:
        kept, scale = (point.sigma / start.sigma, point.alpha) if of_image else (point.alpha / start.alpha, point.sigma)
        h = sign * span * ratio(point)
        straight = kept * x - scale * math.expm1(h) * first
        return straight if slope is None else straight - scale * weight * slope

    first = predict(x, start)
    if len(points) == 2:
        return move(end)
    middle = points[1]
    slope = (predict(move(middle), middle) - first) / ratio(middle)
    if len(points) == 3:
        return move(end, slope, 0.5 * math.expm1(sign * span))
    later = points[2]
    bent = move(later, slope, ratio(later) * _phi_2(sign * span * ratio(later)))
    return move(end, (predict(bent, later) - first) / ratio(later), _phi_2(sign * span))


def _phi_2(h: float) -> float:
    return math.expm1(h) / h - 1


def _check(order: int) -> None:
    if order not in (1, 2, 3):
        raise UsageError(f"order must be 1, 2 or 3, not {order}")
