"""What a solver is given: a denoiser that makes predictions and draws noise."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from ditzoo.solvers.schedules import Point
from ditzoo.specs import Array


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction for x = alpha · image + sigma · noise, in three equivalent forms: the noise, the image, and the velocity
    dx/dt, where t is 1 for noise and 0 for the clean image."""

    noise: Array
    image: Array
    velocity: Array


class Denoiser(Protocol):
    """The network as a solver sees it, and the source of its noise."""

    learns_variance: bool
    evaluations: int
    """How many times the solver has to call `predict`."""

    def predict(self, x: Array, point: Point) -> Prediction:
        """The guided prediction of the network for `x` at `point`."""

    def noise(self, *, log_variance: tuple[float, float] | None = None) -> Array:
        """A fresh draw of standard normal noise. With `log_variance`, it is scaled by the standard deviation that the network
        has learned, between these two bounds of the log-variance."""


def prediction(kind: Literal["noise", "velocity"], output: Array, x: Array, point: Point) -> Prediction:
    """A network's `output` for `x` in all three forms.

    `kind` is "noise" on a variance-preserving schedule, whose ODE is dx/dt = ½ β (noise / sigma − x) (arXiv 2011.13456,
    eq. 13); "velocity" on a straight path, where the output is image − noise (arXiv 2401.08740, eq. 5).
    """
    if kind == "velocity":
        return Prediction(noise=x - point.alpha * output, image=x + point.sigma * output, velocity=-1.0 * output)
    return Prediction(
        noise=output,
        image=(x - point.sigma * output) / point.alpha,
        velocity=0.5 * point.diffusion * (output / point.sigma - x),
    )
