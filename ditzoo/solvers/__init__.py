"""The solvers, as plain functions.

Each one walks a grid of points from noise to image and is written for any x that can be added and multiplied by numbers. It is
never run on images: `ditzoo.plan.table` runs it once on unit vectors, and the table that comes out is what samples.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ditzoo.errors import UsageError, unknown
from ditzoo.solvers.ddpm import ddim, ddpm
from ditzoo.solvers.dpm import dpm_fast, dpmpp, dpmpp_fast, fast_orders
from ditzoo.solvers.schedules import Spacing
from ditzoo.solvers.sde import euler, euler_maruyama, heun
from ditzoo.specs import Array
from ditzoo.zoo.card import ContinuousVP, DiscreteBetas, LinearFlow

Parts = Callable[[int, Mapping[str, Any]], Sequence[int]]
"""From the number of evaluations and the options to the steps of the solver: into how many intervals each divides its way."""

_END_OF_DPM_FAST = 9.974254e-5  # the authors' 1e-4, whose λ their float32 arithmetic rounds to that of this time

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}

VP, FLOW = (DiscreteBetas, ContinuousVP), (LinearFlow,)


def _single(evaluations: int, options: Mapping[str, Any]) -> Sequence[int]:
    return [1] * evaluations


def _fast(evaluations: int, options: Mapping[str, Any]) -> Sequence[int]:
    return fast_orders(evaluations, options["order"])


def _twice(evaluations: int, options: Mapping[str, Any]) -> Sequence[int]:
    return [1] * (evaluations // 2 + evaluations % 2)


def _twice_then_once(evaluations: int, options: Mapping[str, Any]) -> Sequence[int]:
    """As `_twice`, but the last step, whose clean end has no finite velocity, evaluates once."""
    return [1] * (evaluations // 2 + 1)


class Solver(msgspec.Struct, frozen=True, kw_only=True):
    """A solver in the table: its function, whose keyword arguments are its options, the schedules it is for, and its grid.

    `steps` is how many evaluations are recommended for it.
    `stops`: its last point is t = `end`; otherwise it goes on to the clean image (see `ditzoo.solvers.schedules.grid`).
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
    """The options in "option=value,..." of the solver `name`, each of its default's type; raises UsageError for what there is
    not."""
    values: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        option, _, value = item.partition("=")
        if option not in defaults:
            raise unknown(f"option of {name}", option, defaults)
        kind = type(defaults[option])
        try:
            values[option] = _BOOLEANS[value.lower()] if kind is bool else kind(value)
        except (ValueError, KeyError):
            raise UsageError(f"option {option} of {name} takes a {kind.__name__}, not {value!r}") from None
    return values
