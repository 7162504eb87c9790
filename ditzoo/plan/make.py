"""TODO ditzoo.plan.table.make."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from ditzoo.errors import UsageError, unknown
from ditzoo.plan.table import Plan, Row
from ditzoo.plan.tracing import Move, Tracer, trace
from ditzoo.solvers import SOLVERS, Solver, read_options
from ditzoo.solvers.schedules import SPACINGS, Point, check_steps, grid, own_time
from ditzoo.zoo.card import Card

DIFFUSERS = "diffusers:"
"""What stands before the name of a scheduler of diffusers."""

_EVERYWHERE = (-math.inf, math.inf)
_ROUNDING = 1e-9


def make_plan(
    card: Card,
    *,
    solver: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
    guidance_times: tuple[float, float] | None = None,
    guided_channels: int | None = None,
) -> Plan:
    """The plan that samples `card` with `steps` evaluations of the network. What is not given is the card's default; the number
    of steps for another solver than the card's is the one recommended for that solver.

    `solver` is "NAME" or "NAME:option=value,...", for example "ddim:eta=0.5" or "dpmpp:order=3,spacing=karras";
    "diffusers:CLASS" compiles a scheduler of that library, and `steps` is then its number of inference steps. `guidance` is s
    in uncond + s · (cond − uncond), on the first `guided_channels` channels, and, with `guidance_interval` (low, high), only
    where low < sigma / alpha ≤ high (arXiv 2404.07724, eq. 6); with `guidance_times` (low, high) only where low ≤ t ≤ high, t
    as the card counts it. Either one takes the place of the card's own. Raises UsageError for what there is not, PlanError for
    a scheduler that no table can say.
    """
    default = card.sampling
    text = default.solver if solver is None else solver
    scale = default.guidance if guidance is None else guidance
    window = _Window(
        levels=guidance_interval or _EVERYWHERE,
        times=guidance_times or (default.guidance_times if guidance_interval is None else None) or _EVERYWHERE,
    )
    channels = card.backbone.latent_shape[0]
    guided = default.guided_channels if guided_channels is None else guided_channels
    _check_guidance(card, scale, window, guided)
    tracer, moves = trace_solver(card, text, _default_steps(card, text) if steps is None else steps)
    rows = tuple(
        Row(
            time=point.time,
            guidance=scale if window.holds(card, point) else 1.0,
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
        raise UsageError(f"guided channels must be 0 to {channels}, not {guided_channels}")


def trace_solver(card: Card, text: str, steps: int) -> tuple[Tracer, list[Move]]:
    """The dense and the compact table of the solver that `text` names."""
    if text.startswith(DIFFUSERS):
        from ditzoo.plan.diffusers import EXACT, trace_scheduler

        tracer = trace_scheduler(card, text.removeprefix(DIFFUSERS), steps)
        return tracer, tracer.moves(exact=EXACT)
    chosen = parse_solver(text, shift=card.sampling.shift)
    tracer = trace(card, chosen.solver.run, chosen.grid(card, steps), steps, chosen.options)
    return tracer, tracer.moves()


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """A solver with its options, and what its grid is made of."""

    name: str
    solver: Solver
    spacing: str
    end: float
    shift: float
    options: dict[str, Any]

    def grid(self, card: Card, steps: int) -> tuple[Point, ...]:
        """The points that the solver walks over on the card's schedule in `steps` evaluations."""
        if not isinstance(card.schedule, self.solver.schedules):
            fitting = [name for name, solver in SOLVERS.items() if isinstance(card.schedule, solver.schedules)]
            raise UsageError(f"{self.name} is not for the schedule of {card.name}; use {', '.join(fitting)}")
        check_steps(card, steps)
        parts = self.solver.parts(steps, self.options)
        return grid(card, self.spacing, parts, end=self.end, stops=self.solver.stops, shift=self.shift)


def parse_solver(text: str, *, shift: float = 1.0) -> Chosen:
    """The solver of "NAME" or "NAME:option=value,..."; raises UsageError for what there is not.

    `shift` is that of its times where the text says none.
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
