"""Making a plan for a card: which solver, how many steps, and how much guidance."""

from __future__ import annotations

import math
import os
from typing import Any, Protocol, runtime_checkable

import msgspec

from ditzoo.errors import UsageError, check_type, described, real_number, unknown, whole_number, wrong_type
from ditzoo.plan.guidance import with_guidance_every
from ditzoo.plan.reuse import parse_reuse, with_reuse
from ditzoo.plan.table import Plan, Row
from ditzoo.plan.tracing import Move, Tracer, trace
from ditzoo.solvers import SOLVERS, Solver, read_options
from ditzoo.solvers.schedules import SPACINGS, Point, check_steps, grid, own_time
from ditzoo.weights.catalogue import CardLike, card_of
from ditzoo.zoo.card import Card

DIFFUSERS = "diffusers:"
"""The prefix of the name of a diffusers scheduler."""

_EVERYWHERE = (-math.inf, math.inf)
_ROUNDING = 1e-9


@runtime_checkable
class HasPlan(Protocol):
    """A model that brings its plan: an opened bundle."""

    @property
    def plan(self) -> Plan:
        """The plan that the model is sampled with unless something else is asked for."""


def make_plan(
    model: CardLike,
    *,
    solver: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
    guidance_times: tuple[float, float] | None = None,
    guidance_every: int | None = None,
    guided_channels: int | None = None,
    reuse: str | None = None,
) -> Plan:
    """The plan that samples a model with `steps` evaluations of the network.

    `model` is a name, a bundle's folder, a card, or what has a card. What is not given is the card's default; the number of
    steps for another solver than the card's is the one recommended for that solver.

    `solver` is "NAME" or "NAME:option=value,...", for example "ddim:eta=0.5" or "dpmpp:order=3,spacing=karras";
    "diffusers:CLASS" compiles a scheduler of that library, and `steps` is then its number of inference steps. `guidance` is s
    in uncond + s · (cond − uncond), on the first `guided_channels` channels, and, with `guidance_interval` (low, high), only
    where low < sigma / alpha ≤ high (arXiv 2404.07724, eq. 6). With `guidance_times` (low, high), guidance acts only where
    low ≤ t ≤ high, with t as the card counts it. Either one replaces the card's own times. With `guidance_every` N, only every
    N-th row with guidance evaluates both conditions. The others evaluate cond, and take cond − uncond from it (see
    `ditzoo.plan.guidance`).

    With `reuse` "every=N,blocks=K", only every N-th evaluation runs all blocks of the network. The others run the first K and
    the last K blocks, and take from it what the blocks between them contributed (see `ditzoo.plan.reuse`). With
    "full=LIST,blocks=K", the rows of a list such as 0-2,5,9 run all blocks; `ditzoo.tune_reuse` finds such a list.

    Raises UsageError for a model, solver, option or number that does not exist, and PlanError for a scheduler that cannot be
    written as a table.
    """
    card = card_of(model)
    default = card.sampling
    text = default.solver if solver is None else solver
    check_type("solver", text, str, "a solver's name, such as 'ddim:eta=0.5'")
    count = _default_steps(card, text) if steps is None else whole_number("steps", steps, "a whole number of steps")
    scale = default.guidance if guidance is None else real_number("guidance", guidance, "a finite number")
    window = _Window(
        levels=_bounds("guidance_interval", guidance_interval, "two noise levels, such as (0.28, 2.9)") or _EVERYWHERE,
        times=_bounds("guidance_times", guidance_times, "two times, such as (0.125, 1)")
        or (default.guidance_times if guidance_interval is None else None)
        or _EVERYWHERE,
    )
    channels = card.backbone.latent_shape[0]
    guided = (
        default.guided_channels
        if guided_channels is None
        else whole_number("guided_channels", guided_channels, "a whole number of channels")
    )
    _check_guidance(card, scale, window, guided)
    tracer, moves = trace_solver(card, text, count)
    rows = tuple(
        Row(
            time=point.time,
            guidance=scale if window.holds(card, point) else 1.0,
            **msgspec.structs.asdict(move),
        )
        for point, move in zip(tracer.points, moves, strict=True)
    )
    plan = Plan(solver=text, channels=channels, guided_channels=guided, initial=float(tracer.inputs[0][0]), rows=rows)
    if guidance_every is not None:
        plan = with_guidance_every(plan, guidance_every)
    return plan if reuse is None else with_reuse(card, plan, parse_reuse(reuse))


def _default_steps(card: Card, text: str) -> int:
    """The card's own number of steps for its own solver; for any other solver, the recommended one."""
    name = text.partition(":")[0]
    own = name == card.sampling.solver.partition(":")[0] or name not in SOLVERS
    return card.sampling.steps if own else SOLVERS[name].steps


def choose_plan(
    model: CardLike,
    plan: Plan | str | os.PathLike[str] | None,
    *,
    solver: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
    guidance_times: tuple[float, float] | None = None,
    guidance_every: int | None = None,
    reuse: str | None = None,
) -> Plan:
    """`plan` itself, or that in the file at this path; without it, the plan that `make_plan` makes of the other arguments.

    Where no argument is given, the plan is the model's own: a bundle has one in its plan.json, and a card says how to make it.
    Raises UsageError for a plan together with any of the others; else as `make_plan` and `Plan.load`.
    """
    settings = (solver, steps, guidance, guidance_interval, guidance_times, guidance_every, reuse)
    given = any(setting is not None for setting in settings)
    if plan is None and not given and isinstance(model, HasPlan):
        return model.plan
    if plan is None:
        return make_plan(
            model,
            solver=solver,
            steps=steps,
            guidance=guidance,
            guidance_interval=guidance_interval,
            guidance_times=guidance_times,
            guidance_every=guidance_every,
            reuse=reuse,
        )
    if given:
        raise UsageError(
            "--plan says it all: leave out --solver, --steps, --guidance, --guidance-interval, --guidance-times,"
            " --guidance-every and --reuse"
        )
    check_type("plan", plan, (Plan, str, os.PathLike), "a Plan, or the path of one that was saved")
    return plan if isinstance(plan, Plan) else Plan.load(plan)


def _bounds(name: str, given: tuple[float, float] | None, takes: str) -> tuple[float, float] | None:
    """The two bounds of an interval as floats. Raises UsageError, naming the argument, if they are no two numbers."""
    if given is None:
        return None
    try:
        low, high = given
    except (TypeError, ValueError):
        raise wrong_type(name, given, takes) from None
    return real_number(name, low, takes), real_number(name, high, takes)


class _Window(msgspec.Struct, frozen=True, kw_only=True):
    """Where guidance acts: bounds of the noise level, the lower one not included, and of the time, both included."""

    levels: tuple[float, float]
    times: tuple[float, float]

    def holds(self, card: Card, point: Point) -> bool:
        """Whether a point lies within."""
        low, high = self.levels
        first, last = self.times
        return low < point.noise_level <= high and first - _ROUNDING <= own_time(card.schedule, point.t) <= last + _ROUNDING


def _check_guidance(card: Card, scale: float, window: _Window, guided_channels: int) -> None:
    if not math.isfinite(scale):
        raise UsageError(f"guidance must be a finite number, not {scale}")
    if scale != 1 and card.null_label is None and card.text is None:
        raise UsageError(f"{card.name} has no null label, so guidance must be 1, not {scale}")
    if not window.levels[0] < window.levels[1]:
        raise UsageError(
            "the guidance interval must be two noise levels, the lower one first, not {:g}, {:g}".format(*window.levels)
        )
    if not window.times[0] <= window.times[1]:
        raise UsageError("guidance times must be two times, the lower one first, not {:g}, {:g}".format(*window.times))
    channels = card.backbone.latent_shape[0]
    if not 0 <= guided_channels <= channels:
        raise UsageError(f"guided channels must be 0 to {channels}, not {described(guided_channels)}")


def trace_solver(card: Card, text: str, steps: int) -> tuple[Tracer, list[Move]]:
    """Runs the solver that `text` names on unit vectors; returns the tracer and the compact steps."""
    if text.startswith(DIFFUSERS):
        from ditzoo.plan.diffusers import EXACT, trace_scheduler

        tracer = trace_scheduler(card, text.removeprefix(DIFFUSERS), steps)
        return tracer, tracer.moves(exact=EXACT)
    chosen = parse_solver(text, shift=card.sampling.shift)
    tracer = trace(card, chosen.solver.run, chosen.grid(card, steps), steps, chosen.options)
    return tracer, tracer.moves()


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """A solver with the values of its options, and the spacing and end of its grid."""

    name: str
    solver: Solver
    spacing: str
    end: float
    shift: float
    options: dict[str, Any]

    def grid(self, card: Card, steps: int) -> tuple[Point, ...]:
        """The points of the card's schedule that the solver goes over in `steps` evaluations."""
        if not isinstance(card.schedule, self.solver.schedules):
            fitting = [name for name, solver in SOLVERS.items() if isinstance(card.schedule, solver.schedules)]
            raise UsageError(f"{self.name} is not for the schedule of {card.name}; use {', '.join(fitting)}")
        check_steps(card, steps)
        parts = self.solver.parts(steps, self.options)
        return grid(card, self.spacing, parts, end=self.end, stops=self.solver.stops, shift=self.shift)


def parse_solver(text: str, *, shift: float = 1.0) -> Chosen:
    """Reads "NAME" or "NAME:option=value,...". Raises UsageError for an unknown solver, option or spacing.

    `shift` is the shift of the times if the text has none.
    """
    name, _, given = text.partition(":")
    if name not in SOLVERS:
        raise unknown("solver", name, [*SOLVERS, f"{DIFFUSERS}CLASS"])
    solver = SOLVERS[name]
    values: dict[str, Any] = {**solver.options, "spacing": solver.spacing, "end": solver.end, "shift": shift}
    values |= read_options(name, given, values)
    if values["spacing"] not in SPACINGS:
        raise unknown("spacing", values["spacing"], SPACINGS)
    grid_of = {key: values.pop(key) for key in ("spacing", "end", "shift")}
    return Chosen(name=name, solver=solver, options=values, **grid_of)
