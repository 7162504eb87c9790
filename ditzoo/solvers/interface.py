"""What a solver asks of the world, and the three forms of what a network says."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from ditzoo.solvers.schedules import Point
from ditzoo.specs import Array


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What the network says of x = alpha · image + sigma · noise: the noise in it, the image behind it, and dx/dt, t being 1 at
    the noisy end and 0 at the clean one."""

    noise: Array
    image: Array
    velocity: Array


class Denoiser(Protocol):
    """What a solver asks of the world."""

    learns_variance: bool
    evaluations: int
    """How many predictions the solver is to ask for."""

    def predict(self, x: Array, point: Point) -> Prediction:
        """The (guided) network at `x`."""

    def noise(self, *, log_variance: tuple[float, float] | None = None) -> Array:
        """A fresh standard normal draw; with `log_variance` one times the standard deviation that the network itself picks
        between the two bounds."""


def prediction(kind: Literal["noise", "velocity"], output: Array, x: Array, point: Point) -> Prediction:
    """The three forms of a network's `output` at `x`.

    "noise" on a variance-preserving schedule, whose ODE is dx/dt = ½ β (noise / sigma − x) (arXiv 2011.13456, eq. 13);
    "velocity" on a straight path, where the output is image − noise (arXiv 2401.08740, eq. 5).
    """
    if kind == "velocity":
        return Prediction(noise=x - point.alpha * output, image=x + point.sigma * output, velocity=-1.0 * output)
    return Prediction(
        noise=output,
        image=(x - point.sigma * output) / point.alpha,
        velocity=0.5 * point.diffusion * (output / point.sigma - x),
    )
