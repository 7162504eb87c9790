"""Runs a solver on unit vectors instead of images, and records its steps as numbers.

The initial noise, every prediction of the network and every draw of noise is a unit vector of its own. So each x that the
solver gives to the network is a row of numbers; all rows are the dense table. Each row is then expressed by the smallest window
of recent states and predictions that gives it exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ditzoo.errors import PlanError
from ditzoo.solvers.interface import Prediction, prediction
from ditzoo.solvers.schedules import Point
from ditzoo.specs import Array
from ditzoo.zoo.card import Card, LinearFlow

Vector = npt.NDArray[np.float64]

EXACT = 1e-11
"""The largest difference between a compact row and its dense form, relative to the row's largest number."""


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One step: x[i+1] = Σ states[l] · x[i−l] + Σ predictions[l] · e[i−l] + noise · z[i]. See `ditzoo.plan.table.Row`."""

    states: tuple[float, ...]
    predictions: tuple[float, ...]
    noise: float
    log_variance: tuple[float, float] | None


class Tracer:
    """A `ditzoo.solvers.interface.Denoiser` of unit vectors, for a solver that makes `evaluations` evaluations of the network.

    `points` are the points of the evaluations. `inputs` are the x of each evaluation and, at the end, the last x: the dense
    table. Unit vector 0 is the initial noise, 1 + k is prediction k, and 1 + `evaluations` + k is the noise drawn after it.
    """

    def __init__(self, card: Card, evaluations: int) -> None:
        self.learns_variance = card.learns_variance
        self.evaluations = evaluations
        self.points: list[Point] = []
        self.inputs: list[Vector] = []
        self.drawn: dict[int, tuple[float, float] | None] = {}
        self._kind = card.prediction
        self._sign = card.schedule.sign if isinstance(card.schedule, LinearFlow) else 1.0

    def unit(self, index: int) -> Vector:
        """The unit vector number `index`."""
        vector: Vector = np.eye(1, 1 + 2 * self.evaluations, index)[0]
        return vector

    def network(self, x: Array, point: Point) -> Vector:
        """The unit vector of this evaluation."""
        self.points.append(point)
        self.inputs.append(np.array(x, dtype=np.float64))
        return self.unit(len(self.points))

    def predict(self, x: Array, point: Point) -> Prediction:
        """The unit vector of this evaluation, in the forms that solvers use."""
        return prediction(self._kind, self._sign * self.network(x, point), x, point)

    def noise(self, *, log_variance: tuple[float, float] | None = None) -> Array:
        """The unit vector of this draw. Raises PlanError for a second draw in one step."""
        step = len(self.points) - 1
        if step in self.drawn or step < 0:
            raise PlanError(f"step {step} draws noise twice; a plan has one draw a step")
        self.drawn[step] = log_variance
        return self.unit(1 + self.evaluations + step)

    def finish(self, x: Array) -> None:
        """Records the last x."""
        self.inputs.append(np.array(x, dtype=np.float64))

    def moves(self, *, exact: float = EXACT) -> list[Move]:
        """The recorded steps in compact form. Raises PlanError if a step cannot be expressed in a plan."""
        return [self._move(i, exact) for i in range(self.evaluations)]

    def _move(self, i: int, exact: float) -> Move:
        """x[i + 1] as a combination of the smallest window of states and predictions, and of its own draw."""
        target, fresh = self.inputs[i + 1], 1 + self.evaluations + i
        for predictions, states in _windows(i + 1):
            free = [
                *range(1 + i, 1 + i - predictions, -1),
                fresh,
            ]  # the coefficients that the predictions and the draw can set freely
            rest = np.delete(np.arange(len(target)), free)
            recent = np.stack(self.inputs[i + 1 - states : i + 1][::-1], axis=1)
            try:
                weights = np.linalg.lstsq(recent[rest], target[rest], rcond=None)[0]
            except np.linalg.LinAlgError as error:
                raise PlanError(f"step {i} has numbers that are too large or not finite") from error
            remainder = target - recent @ weights
            if np.abs(remainder[rest]).max(initial=0.0) <= exact * np.abs(target).max():
                break
        else:
            raise PlanError(f"step {i} is no combination of earlier states and predictions")
        drawn, learned = float(remainder[fresh]), self.drawn.get(i)
        if learned and abs(drawn - 1) > EXACT:
            raise PlanError(f"step {i} scales a draw of learned variance; a plan has no place for that")
        return Move(
            states=tuple(map(float, weights)),
            predictions=tuple(map(float, remainder[free[:-1]])),
            noise=0.0 if learned else drawn,
            log_variance=learned,
        )


def _windows(longest: int) -> Iterator[tuple[int, int]]:
    """The windows to try, each a number of predictions and a number of states: the smallest windows first."""
    for total in range(2, 2 * longest + 1):
        for states in range(total // 2, max(1, total - longest) - 1, -1):
            yield total - states, states


def trace(card: Card, run: Any, points: tuple[Point, ...], evaluations: int, options: dict[str, Any]) -> Tracer:
    """A tracer with the record of the solver `run` on `points`, with `evaluations` evaluations of the network."""
    tracer = Tracer(card, evaluations)
    tracer.finish(run(tracer, tracer.unit(0), points, **options))
    return tracer
