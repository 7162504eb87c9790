"""Cards of each kind of schedule, and the "Gaussian world": images with a Gaussian distribution, for exact solutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import torch

import ditzoo
from ditzoo.plan.make import trace_solver
from ditzoo.plan.table import Plan, Row
from ditzoo.plan.tracing import Move, Tracer
from ditzoo.sampling.loop import trajectory
from ditzoo.solvers.schedules import Point
from ditzoo.zoo.card import Card, ContinuousVP, LinearFlow, TimeInput

DISCRETE = ditzoo.card("uvit-digits")
LEARNED = ditzoo.card("dit-digits")
VP = msgspec.structs.replace(DISCRETE, name="vp", schedule=ContinuousVP(), time=TimeInput(scale=999.0))
FLOW = msgspec.structs.replace(DISCRETE, name="flow", schedule=LinearFlow(), time=TimeInput(scale=1.0), prediction="velocity")

DEVIATION = 0.5
"""The standard deviation of the images in the Gaussian world."""


class NetBackend:
    """The part of a backend that `predictor` needs. The network computes in float32, everything else in float64."""

    inputs = ()

    def __init__(self, net: Callable[..., torch.Tensor]) -> None:
        self.net = net

    def asarray(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array)

    def __call__(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        inputs = {name: value.float() if value.is_floating_point() else value for name, value in inputs.items()}
        return self.net(**inputs).double()


def deviation(point: Point) -> float:
    """The exact standard deviation of x at a point of the Gaussian world."""
    return float(np.hypot(point.alpha * DEVIATION, point.sigma))


def gaussian_network(card: Card, x: np.ndarray, point: Point) -> np.ndarray:
    """The prediction of the best possible network in the Gaussian world."""
    noise = point.sigma * x / deviation(point) ** 2
    image = point.alpha * DEVIATION**2 * x / deviation(point) ** 2
    return noise if card.prediction == "noise" else image - noise


def as_plan(tracer: Tracer, moves: Sequence[Move]) -> Plan:
    """A plan for one channel. If the network chooses the noise, its standard deviation is 1."""
    rows = tuple(
        Row(
            time=0.0,
            guidance=1.0,
            states=move.states,
            predictions=move.predictions,
            noise=1.0 if move.log_variance else move.noise,
        )
        for move in moves
    )
    return Plan(solver="", channels=1, guided_channels=1, initial=float(tracer.inputs[0][0]), rows=rows)


def final_coefficients(card: Card, tracer: Tracer, moves: Sequence[Move]) -> np.ndarray:
    """The coefficients of the last x in the Gaussian world, for the initial noise and each draw.

    Their norm is the standard deviation of x.
    """
    units = np.eye(1 + len(moves))
    points = iter(tracer.points)

    def predict(x: np.ndarray, row: Row) -> np.ndarray:
        return gaussian_network(card, x, next(points))

    *_, last = trajectory(as_plan(tracer, moves), predict, lambda draw: units[draw][None, None])
    return last[0, 0]


def solve(card: Card, text: str, steps: int) -> np.ndarray:
    """The result of `final_coefficients` for the solver named `text`."""
    return final_coefficients(card, *trace_solver(card, text, steps))
