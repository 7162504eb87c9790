"""A plan: the exact sampler as a table, traced from a solver, and all that is needed to run it anywhere.

Every solver moves by linear combinations of earlier states x, earlier predictions e and fresh noise z:

    x[i+1] = Σ_l states[l] · x[i−l] + Σ_l predictions[l] · e[i−l] + noise · z[i]

e[i] is the guided prediction for x[i] at row i's time; x[0] is `initial` times a draw of noise; the last x is the image.
So a solver is run once on unit vectors, one for each draw and each prediction, and each x that it hands to the network is a row
of numbers. Those rows are then rewritten over the smallest window of recent states and predictions, and checked.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ditzoo.card import Card
from ditzoo.errors import PlanError, UsageError, unknown
from ditzoo.schedules import SPACINGS, Point, Spacing, grid
from ditzoo.solvers import SOLVERS, Solver
from ditzoo.specs import Array, Data, from_json, to_json

Vector = npt.NDArray[np.float64]

_EXACT = 1e-11  # how far a compact row may be from its dense form, relative to the row's largest number


class Row(Data, frozen=True, kw_only=True):
    """One evaluation of the network and the step that follows it.

    `time` goes into the network as it is. `guidance` is s in uncond + s · (cond − uncond); at 1 only cond is needed.
    `log_variance`, where it is not None, replaces `noise` by exp(½ (f · high + (1 − f) · low)), f = (v + 1) / 2, v being the
    network's second half of channels (arXiv 2102.09672, eq. 15). Lag 0 is the newest state or prediction.
    """

    time: float
    guidance: float
    states: tuple[float, ...]
    predictions: tuple[float, ...]
    noise: float = 0.0
    log_variance: tuple[float, float] | None = None

    @property
    def draws(self) -> bool:
        """Whether the step adds fresh noise."""
        return self.noise != 0 or self.log_variance is not None


class Plan(Data, frozen=True, kw_only=True):
    """A sampler. `channels` is how many of the network's channels are the prediction; guidance acts on the first
    `guided_channels`, the others are the conditional ones. Draw 0 is the initial noise, draw i + 1 the noise of row i."""

    format: Literal["ditzoo-plan/1"] = "ditzoo-plan/1"
    solver: str
    channels: int
    guided_channels: int
    initial: float
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        if not self.rows or not 0 <= self.guided_channels <= self.channels or self.channels < 1:
            raise PlanError("a plan needs rows, channels, and at most as many guided channels as channels")
        for i, row in enumerate(self.rows):
            numbers = [row.time, row.guidance, *row.states, *row.predictions, row.noise, *(row.log_variance or ())]
            if not all(map(math.isfinite, [*numbers, self.initial])):
                raise PlanError(f"row {i} of the plan has a number that is not finite")
            if max(len(row.states), len(row.predictions)) > i + 1:
                raise PlanError(f"row {i} of the plan looks back further than there are states")

    @property
    def window(self) -> int:
        """How many states and predictions the longest row looks back on."""
        return max(max(len(row.states), len(row.predictions)) for row in self.rows)

    def to_json(self) -> bytes:
        """The plan as JSON; every number survives to the last bit."""
        return to_json(self)

    @staticmethod
    def from_json(text: bytes | str) -> Plan:
        """The plan in `text`; raises PlanError, naming the place, if it is none."""
        try:
            return from_json(text, Plan)
        except ValueError as error:
            raise PlanError(f"not a plan: {error}") from error


def make_plan(
    card: Card,
    *,
    solver: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
) -> Plan:
    """The plan that samples `card`; what is not given is the card's default.

    `solver` is "NAME" or "NAME:option=value,...", for example "ddim:eta=0.5" or "dpmpp:order=3,spacing=linspace"; `guidance`
    is s in uncond + s · (cond − uncond). Raises UsageError for a solver, option or number of steps that there is not.
    """
    default = card.sampling
    text = default.solver if solver is None else solver
    chosen, spacing, options = parse_solver(text)
    scale = default.guidance if guidance is None else guidance
    if not math.isfinite(scale):
        raise UsageError(f"guidance must be a finite number, not {scale}")
    if scale != 1 and card.null_label is None:
        raise UsageError(f"{card.name} has no null label, so guidance must be 1, not {scale}")
    points = grid(card, spacing, default.steps if steps is None else steps)
    tracer = trace(chosen, points, options, learns_variance=card.learns_variance)
    return tracer.plan(
        solver=text,
        guidance=scale,
        channels=card.backbone.latent_shape[0],
        guided_channels=default.guided_channels,
    )


def parse_solver(text: str) -> tuple[Solver, Spacing, dict[str, Any]]:
    """The solver, spacing and options of "NAME" or "NAME:option=value,..."; raises UsageError for what there is not."""
    name, _, given = text.partition(":")
    if name not in SOLVERS:
        raise unknown("solver", name, SOLVERS)
    solver = SOLVERS[name]
    values: dict[str, Any] = {**solver.options, "spacing": solver.spacing}
    for item in filter(None, given.split(",")):
        option, _, value = item.partition("=")
        if option not in values:
            raise unknown(f"option of {name}", option, values)
        try:
            values[option] = type(values[option])(value)
        except ValueError:
            raise UsageError(f"option {option} of {name} takes a {type(values[option]).__name__}, not {value!r}") from None
    spacing = values.pop("spacing")
    if spacing not in SPACINGS:
        raise unknown("spacing", spacing, SPACINGS)
    return solver, spacing, values


class Tracer:
    """Runs a solver on vectors over the basis (initial noise, every prediction, every draw), and writes down what it does.

    The basis must be as long as the run has predictions and draws: a first run, on vectors of length 0, counts them.
    """

    def __init__(self, *, evaluations: int, draws: int, learns_variance: bool) -> None:
        self.learns_variance = learns_variance
        self.evaluations, self.draws = evaluations, draws
        self.times: list[float] = []
        self.inputs: list[Vector] = []  # the x of each evaluation, over the basis
        self.drawn_in: list[int] = []  # the evaluation after which each draw was made
        self.log_variances: dict[int, tuple[float, float]] = {}

    def unit(self, index: int) -> Vector:
        """The basis vector `index`: 0 is the initial noise, 1 + k prediction k, then the draws."""
        size = 1 + self.evaluations + self.draws
        return np.eye(1, size, index)[0] if size > index else np.zeros(size)

    def denoise(self, x: Array, point: Point) -> Array:
        """The unit vector of this prediction."""
        self.times.append(point.time)
        self.inputs.append(np.array(x))
        return self.unit(len(self.times))

    def noise(self, *, log_variance: tuple[float, float] | None = None) -> Array:
        """The unit vector of this draw."""
        if log_variance is not None:
            self.log_variances[len(self.times) - 1] = log_variance
        self.drawn_in.append(len(self.times) - 1)
        return self.unit(self.evaluations + len(self.drawn_in))

    def run(self, solver: Solver, points: tuple[Point, ...], options: dict[str, Any]) -> None:
        """Runs `solver`, and takes its last x as one more input."""
        self.inputs.append(np.array(solver.run(self, self.unit(0), points, **options)))

    def plan(self, *, solver: str, guidance: float, channels: int, guided_channels: int) -> Plan:
        """What was traced, as compact rows; raises PlanError where a step needs two fresh draws."""
        if len(set(self.drawn_in)) != len(self.drawn_in):
            raise PlanError(f"{solver} draws noise twice in one step, which a plan cannot say")
        rows = tuple(self._row(i, guidance) for i in range(self.evaluations))
        initial = float(self.inputs[0][0])
        return Plan(solver=solver, channels=channels, guided_channels=guided_channels, initial=initial, rows=rows)

    def _row(self, i: int, guidance: float) -> Row:
        """x[i + 1] over the shortest window of states and predictions that expresses it, and its own draw."""
        target, fresh = self.inputs[i + 1], self._fresh(i)
        for predictions, states in ((p, s) for p in range(1, i + 2) for s in range(1, p + 1)):
            free = [*range(1 + i, 1 + i - predictions, -1), *fresh]  # what predictions and the draw make up for
            rest = np.delete(np.arange(len(target)), free)
            recent = np.stack(self.inputs[i + 1 - states : i + 1][::-1], axis=1)
            weights = np.linalg.lstsq(recent[rest], target[rest], rcond=None)[0]
            remainder = target - recent @ weights
            if np.abs(remainder[rest]).max(initial=0.0) <= _EXACT * np.abs(target).max():
                break
        else:
            raise PlanError(f"step {i} is no combination of earlier states and predictions")
        drawn, learned = float(remainder[fresh].sum()), self.log_variances.get(i)
        if learned and abs(drawn - 1) > _EXACT:
            raise PlanError(f"step {i} scales a draw of learned variance, which a plan cannot say")
        return Row(
            time=self.times[i],
            guidance=guidance,
            states=tuple(map(float, weights)),
            predictions=tuple(map(float, remainder[free[:predictions]])),
            noise=0.0 if learned else drawn,
            log_variance=learned,
        )

    def _fresh(self, i: int) -> list[int]:
        """The basis index of the draw that was made in step i, if there was one."""
        return [1 + self.evaluations + self.drawn_in.index(i)] if i in self.drawn_in else []


def trace(solver: Solver, points: tuple[Point, ...], options: dict[str, Any], *, learns_variance: bool) -> Tracer:
    """A tracer in which `solver` has run over `points`."""
    counter = Tracer(evaluations=0, draws=0, learns_variance=learns_variance)
    counter.run(solver, points, options)
    tracer = Tracer(evaluations=len(counter.times), draws=len(counter.drawn_in), learns_variance=learns_variance)
    tracer.run(solver, points, options)
    return tracer


def load_plan(path: Path) -> Plan:
    """The plan in the file at `path`; raises PlanError if it is none."""
    try:
        return Plan.from_json(path.read_bytes())
    except OSError as error:
        raise PlanError(f"cannot read the plan {path}: {error.strerror}") from error
