"""The solvers, as plain functions.

A solver goes over a grid of points from noise to image. It works on any x that can be added and multiplied by numbers. It never
runs on images: `ditzoo.plan` runs it once on unit vectors, and the table that this gives is what samples images.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ditzoo.errors import UsageError, shortened, unknown
from ditzoo.solvers.ddpm import ddim, ddpm
from ditzoo.solvers.dpm import dpm_fast, dpmpp, dpmpp_fast, fast_orders
from ditzoo.solvers.schedules import Spacing
from ditzoo.solvers.sde import euler, euler_maruyama, heun
from ditzoo.specs import Array
from ditzoo.zoo.card import ContinuousVP, DiscreteBetas, LinearFlow

Parts = Callable[[int, Mapping[str, Any]], Sequence[int]]
"""Maps the number of evaluations and the options to the number of grid intervals that each step of a solver covers."""

_END_OF_DPM_FAST = 9.974254e-5  # the authors have 1e-4; their float32 arithmetic rounds its λ to that of this time

_LARGEST = 100_000
"""The largest whole number that an option may have. Some solvers make lists of that length."""

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}

VP, FLOW = (DiscreteBetas, ContinuousVP), (LinearFlow,)


def _single(evaluations: int, options: Mapping[str, Any]) -> Sequence[int]:
    return [1] * evaluations


def _fast(evaluations: int, options: Mapping[str, Any]) -> Sequence[int]:
    return fast_orders(evaluations, options["order"])


def _twice(evaluations: int, options: Mapping[str, Any]) -> Sequence[int]:
    return [1] * (evaluations // 2 + evaluations % 2)


def _twice_then_once(evaluations: int, options: Mapping[str, Any]) -> Sequence[int]:
    """As `_twice`, but the last step evaluates once, because the velocity is not finite at its clean end."""
    return [1] * (evaluations // 2 + 1)


class Solver(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table of solvers.

    `run` is the function; its keyword arguments are the solver's options. `schedules` are those that it can sample. `steps` is
    the recommended number of evaluations. `spacing`, `end` and `parts` make its grid of points. If `stops` is set, the last
    point is t = `end`. Otherwise one more step goes to the clean image (see `ditzoo.solvers.schedules.grid`).
    """

    run: Callable[..., Array]
    schedules: tuple[type, ...]
    steps: int
    spacing: Spacing
    end: float = 1e-3
    stops: bool = False
    parts: Parts = _single

    @property
    def options(self) -> dict[str, Any]:
        """The name and default value of each option."""
        parameters = inspect.signature(self.run).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


SOLVERS: dict[str, Solver] = {
    "ddpm": Solver(run=ddpm, schedules=VP, steps=250, spacing="linspace"),
    "ddim": Solver(run=ddim, schedules=VP, steps=50, spacing="linspace"),
    "dpmpp": Solver(run=dpmpp, schedules=VP, steps=20, spacing="trailing"),
    "dpmpp-fast": Solver(run=dpmpp_fast, schedules=VP, steps=50, spacing="uniform", stops=True, parts=_fast),
    "dpm-fast": Solver(run=dpm_fast, schedules=VP, steps=50, spacing="logsnr", end=_END_OF_DPM_FAST, stops=True, parts=_fast),
    "euler-maruyama": Solver(run=euler_maruyama, schedules=VP, steps=1000, spacing="uniform"),
    "ode-euler": Solver(run=euler, schedules=VP, steps=100, spacing="uniform"),
    "ode-heun": Solver(run=heun, schedules=VP, steps=51, spacing="uniform", parts=_twice_then_once),
    "flow-euler": Solver(run=euler, schedules=FLOW, steps=50, spacing="trailing"),
    "flow-heun": Solver(run=heun, schedules=FLOW, steps=50, spacing="trailing", parts=_twice),
    "flow-sde": Solver(run=euler_maruyama, schedules=FLOW, steps=250, spacing="uniform", end=0.04),
}


def read_options(name: str, text: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the options of the solver `name` from "option=value,...". Each value gets the type of its default.

    Raises UsageError for an unknown option, a value of another type, or a number that is too large.
    """
    values: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        option, _, value = item.partition("=")
        if option not in defaults:
            raise unknown(f"option of {name}", option, defaults)
        kind = type(defaults[option])
        try:
            values[option] = _BOOLEANS[value.lower()] if kind is bool else kind(value)
        except (ValueError, KeyError):
            raise UsageError(f"option {option} of {name} takes a {kind.__name__}, not {shortened(value)!r}") from None
        if isinstance(values[option], float) and not math.isfinite(values[option]):
            raise UsageError(f"option {option} of {name} takes a finite number, not {value!r}")
        if isinstance(values[option], int) and abs(values[option]) > _LARGEST:
            raise UsageError(f"option {option} of {name} takes a whole number of at most {_LARGEST:,}, not {shortened(value)}")
    return values
