"""A plan: the exact sampler as a table, traced from a solver, and all that is needed to run it anywhere.

Every solver moves by linear combinations of earlier states x, earlier predictions e and fresh noise z:

    x[i+1] = Σ_l states[l] · x[i−l] + Σ_l predictions[l] · e[i−l] + noise · z[i]

e[i] is the guided prediction for x[i] at row i's time; x[0] is `initial` times a draw of noise; the last x is the image.
So a solver is run once on unit vectors (see `ditzoo.tracing`), and nothing but the table is needed afterwards.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, Literal

import msgspec

from ditzoo.card import Card
from ditzoo.errors import PlanError, UsageError, unknown
from ditzoo.schedules import SPACINGS, Point, check_steps, grid
from ditzoo.solvers import SOLVERS, Solver, read_options
from ditzoo.specs import Data, from_json, to_json
from ditzoo.tracing import Move, Tracer, trace

DIFFUSERS = "diffusers:"
"""What stands before the name of a scheduler of diffusers."""


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
    `guided_channels`, the others are the conditional ones. Draw 0 is the initial noise, draw i + 1 the noise of row i.
    `sha256` is the checksum of the rest, in files alone."""

    format: Literal["ditzoo-plan/1"] = "ditzoo-plan/1"
    solver: str
    channels: int
    guided_channels: int
    initial: float
    rows: tuple[Row, ...]
    sha256: str = ""

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
        """The plan as JSON; every number survives to the last bit, and a checksum tells if one was changed."""
        return to_json(msgspec.structs.replace(self, sha256=self._checksum()))

    @staticmethod
    def from_json(text: bytes | str) -> Plan:
        """The plan in `text`; raises PlanError, naming the place, if it is none, or has changed since it was written."""
        try:
            plan = from_json(text, Plan)
        except ValueError as error:
            raise PlanError(f"not a plan: {error}") from error
        if plan.sha256 not in ("", plan._checksum()):
            raise PlanError("the plan was changed since it was written; if on purpose, empty its field sha256")
        return msgspec.structs.replace(plan, sha256="")

    def _checksum(self) -> str:
        return hashlib.sha256(to_json(msgspec.structs.replace(self, sha256=""))).hexdigest()


def make_plan(
    card: Card,
    *,
    solver: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
    guided_channels: int | None = None,
) -> Plan:
    """The plan that samples `card` with `steps` evaluations of the network. What is not given is the card's default; the number
    of steps for another solver than the card's is the one recommended for that solver.

    `solver` is "NAME" or "NAME:option=value,...", for example "ddim:eta=0.5" or "dpmpp:order=3,spacing=karras";
    "diffusers:CLASS" compiles a scheduler of that library, and `steps` is then its number of inference steps. `guidance` is s
    in uncond + s · (cond − uncond), on the first `guided_channels` channels, and, with `guidance_interval` (low, high), only
    where low < sigma / alpha ≤ high (arXiv 2404.07724, eq. 6). Raises UsageError for what there is not, PlanError for a
    scheduler that no table can say.
    """
    default = card.sampling
    text = default.solver if solver is None else solver
    scale = default.guidance if guidance is None else guidance
    low, high = guidance_interval or (-math.inf, math.inf)
    channels = card.backbone.latent_shape[0]
    guided = default.guided_channels if guided_channels is None else guided_channels
    _check_guidance(card, scale, low, high, guided)
    tracer, moves = trace_solver(card, text, _default_steps(card, text) if steps is None else steps)
    rows = tuple(
        Row(
            time=point.time,
            guidance=scale if low < point.noise_level <= high else 1.0,
            **msgspec.structs.asdict(move),
        )
        for point, move in zip(tracer.points, moves, strict=True)
    )
    return Plan(solver=text, channels=channels, guided_channels=guided, initial=float(tracer.inputs[0][0]), rows=rows)


def _default_steps(card: Card, text: str) -> int:
    """The card's own number for its own solver, otherwise the one that is recommended for the solver."""
    name = text.partition(":")[0]
    own = name == card.sampling.solver.partition(":")[0] or name not in SOLVERS
    return card.sampling.steps if own else SOLVERS[name].steps


def _check_guidance(card: Card, scale: float, low: float, high: float, guided_channels: int) -> None:
    if not math.isfinite(scale):
        raise UsageError(f"guidance must be a finite number, not {scale}")
    if scale != 1 and card.null_label is None and card.text is None:
        raise UsageError(f"{card.name} has no null label, so guidance must be 1, not {scale}")
    if not low < high:
        raise UsageError(f"the guidance interval must be two noise levels, the lower one first, not {low:g}, {high:g}")
    channels = card.backbone.latent_shape[0]
    if not 0 <= guided_channels <= channels:
        raise UsageError(f"guided channels must be 0 to {channels}, not {guided_channels}")


def trace_solver(card: Card, text: str, steps: int) -> tuple[Tracer, list[Move]]:
    """The dense and the compact table of the solver that `text` names."""
    if text.startswith(DIFFUSERS):
        from ditzoo.solvers.diffusers import EXACT, trace_scheduler

        tracer = trace_scheduler(card, text.removeprefix(DIFFUSERS), steps)
        return tracer, tracer.moves(exact=EXACT)
    chosen = parse_solver(text)
    tracer = trace(card, chosen.solver.run, chosen.grid(card, steps), steps, chosen.options)
    return tracer, tracer.moves()


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """A solver with its options, and what its grid is made of."""

    name: str
    solver: Solver
    spacing: str
    end: float
    options: dict[str, Any]

    def grid(self, card: Card, steps: int) -> tuple[Point, ...]:
        """The points that the solver walks over on the card's schedule in `steps` evaluations."""
        if not isinstance(card.schedule, self.solver.schedules):
            fitting = [name for name, solver in SOLVERS.items() if isinstance(card.schedule, solver.schedules)]
            raise UsageError(f"{self.name} is not for the schedule of {card.name}; use {', '.join(fitting)}")
        check_steps(card, steps)
        parts = self.solver.parts(steps, self.options)
        return grid(card, self.spacing, parts, end=self.end, stops=self.solver.stops)


def parse_solver(text: str) -> Chosen:
    """The solver of "NAME" or "NAME:option=value,..."; raises UsageError for what there is not."""
    name, _, given = text.partition(":")
    if name not in SOLVERS:
        raise unknown("solver", name, [*SOLVERS, f"{DIFFUSERS}CLASS"])
    solver = SOLVERS[name]
    values: dict[str, Any] = {**solver.options, "spacing": solver.spacing, "end": solver.end}
    values |= read_options(name, given, values)
    if values["spacing"] not in SPACINGS:
        raise unknown("spacing", values["spacing"], SPACINGS)
    return Chosen(name=name, solver=solver, spacing=values.pop("spacing"), end=values.pop("end"), options=values)


def check_plan(card: Card, plan: Plan) -> None:
    """Raises UsageError for a plan that cannot be one of the card's model."""
    if plan.channels != card.backbone.latent_shape[0]:
        raise UsageError(f"this plan is for {plan.channels} channels, and {card.name} has {card.backbone.latent_shape[0]}")
    if any(row.log_variance for row in plan.rows) and not card.learns_variance:
        raise UsageError(f"this plan asks for a learned variance, and {card.name} has none")


def load_plan(path: Path) -> Plan:
    """The plan in the file at `path`; raises PlanError if it is none."""
    try:
        return Plan.from_json(path.read_bytes())
    except OSError as error:
        raise PlanError(f"cannot read the plan {path}: {error.strerror}") from error
