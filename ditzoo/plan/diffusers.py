"""Schedulers of diffusers, by name. They are run once on unit vectors, as the solvers of `ditzoo.solvers` are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from ditzoo.errors import DitzooError, MissingPackageError, PlanError, UsageError, unknown
from ditzoo.plan.tracing import Tracer, Vector
from ditzoo.solvers import read_options
from ditzoo.solvers.schedules import check_steps, point
from ditzoo.zoo.card import Card, LinearFlow

EXACT = 3e-6
"""The largest difference between a compact row and its dense form; many schedulers compute in float32."""

_TRAIN_STEPS, _LINEAR, _PROBES = 1000, 1e-4, 8


def trace_scheduler(card: Card, text: str, steps: int) -> Tracer:
    """A tracer in which the scheduler of "CLASS[:option=value,...]" has run `steps` inference steps on the card's schedule.

    Raises UsageError for an unknown class or option. Raises PlanError, with the reason, for a scheduler whose steps are not
    linear (it clips or thresholds), or that draws noise in a way that cannot be followed.
    """
    check_steps(card, steps)
    run = Scheduler(card, text, steps)
    tracer = Tracer(card, run.evaluations)
    with _refusals(run.name):
        run.walk(tracer)
    if not np.isfinite(np.stack(tracer.inputs)).all():
        raise PlanError(f"{run.name} is no table with these options: its steps have NaN or infinity")
    _check_linear(run, tracer)
    return tracer


class Scheduler:
    """A scheduler of diffusers that can be run several times, each time from its start."""

    def __init__(self, card: Card, text: str, steps: int) -> None:
        self.card, self.steps = card, steps
        self.name, _, given = text.partition(":")
        self.kind = _find(self.name)
        self.config = _config(card, self.kind, read_options(self.name, given, _defaults(self.kind)))
        self.evaluations = len(self.fresh().timesteps)

    def walk(self, tracer: Tracer) -> None:
        """Runs the scheduler on the vectors of `tracer` instead of images."""
        import torch

        scheduler = self.fresh()
        schedule = self.card.schedule
        sign = -schedule.sign if isinstance(schedule, LinearFlow) else 1.0  # there velocity points to the noise

        def tensor(vector: Vector) -> Any:
            return torch.from_numpy(np.asarray(vector, dtype=np.float64))[None, None, None]

        x = tensor(tracer.unit(0)) * float(getattr(scheduler, "init_noise_sigma", 1.0))
        with noise_from(inspect.getmodule(self.kind), lambda: tensor(tracer.noise())):
            for time in scheduler.timesteps:
                shown = scheduler.scale_model_input(x, time) if hasattr(scheduler, "scale_model_input") else x
                output = tracer.network(shown[0, 0, 0].numpy(), point(self.card, self.t(float(time))))
                x = scheduler.step(tensor(sign * output), time, x).prev_sample
        tracer.finish(x[0, 0, 0].numpy())

    def fresh(self) -> Any:
        """A new scheduler with its steps set. Raises UsageError if it refuses its configuration or the number of steps."""
        with _refusals(self.name):
            scheduler = self.kind(**self.config)
            scheduler.set_timesteps(self.steps)
        return scheduler

    def t(self, time: float) -> float:
        """The t of a time of diffusers. Diffusers counts the steps of discrete schedules from 0."""
        return time / _TRAIN_STEPS if isinstance(self.card.schedule, LinearFlow) else (time + 1) / _TRAIN_STEPS


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Turns every error of the scheduler `name` into UsageError. Schedulers check few of their options."""
    try:
        yield
    except DitzooError:
        raise
    except Exception as error:
        raise UsageError(f"{name} does not take this: {' '.join(str(error).split()) or type(error).__name__}") from error


def _check_linear(run: Scheduler, tracer: Tracer) -> None:
    """Runs the scheduler again, on large random numbers. Raises PlanError unless the table predicts the results."""
    values = 30 * np.random.default_rng(0).standard_normal((tracer.evaluations * 2 + 1, _PROBES))
    again = _Probe(run.card, values, tracer.evaluations)
    try:
        run.walk(again)
        foretold = np.stack(tracer.inputs) @ values
        off = np.abs(np.stack(again.inputs) - foretold).max() / np.abs(foretold).max()
    except Exception as error:  # as of any library
        raise PlanError(f"{run.name} is no table: {error}") from error
    if again.drawn.keys() != tracer.drawn.keys() or not off <= _LINEAR:
        raise PlanError(
            f"{run.name} is no table: its steps are not linear (does it clip or threshold?),"
            " or it draws noise that cannot be seen"
        )


class _Probe(Tracer):
    """A tracer whose vectors are rows of given numbers instead of unit vectors."""

    def __init__(self, card: Card, values: Vector, evaluations: int) -> None:
        super().__init__(card, evaluations)
        self._values = values

    def unit(self, index: int) -> Vector:
        """The numbers used in place of the unit vector `index`."""
        row: Vector = self._values[index]
        return row


@contextmanager
def noise_from(module: ModuleType | None, draw: Callable[[], Any]) -> Iterator[None]:
    """Replaces `randn_tensor` in a scheduler's module by `draw` while the block runs."""
    if not hasattr(module, "randn_tensor"):
        yield
        return
    original = module.randn_tensor  # type: ignore[union-attr]
    module.randn_tensor = lambda *_, **__: draw()  # type: ignore[union-attr]
    try:
        yield
    finally:
        module.randn_tensor = original  # type: ignore[union-attr]


def _find(name: str) -> Any:
    """The scheduler class called `name`."""
    try:
        import diffusers
        import torch  # noqa: F401  (without it diffusers has placeholders for classes)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"compiling a diffusers scheduler needs the package {error.name}: pip install 'ditzoo[diffusers]'"
        ) from error
    known = [item for item in dir(diffusers) if item.endswith("Scheduler") and not item.startswith("Flax")]
    if name not in known:
        raise unknown("scheduler of diffusers", name, known)
    if "Inverse" in name:
        raise PlanError(f"{name} goes from images to noise, not the way of a sampler")
    kind = getattr(diffusers, name)
    try:
        step = inspect.signature(kind.step).parameters.values() if hasattr(kind, "step") else []
    except ImportError as error:  # a placeholder
        raise MissingPackageError(f"diffusers says of {name}: {error}") from error
    if [p.name for p in step if p.default is p.empty] != ["self", "model_output", "timestep", "sample"]:
        raise PlanError(f"{name} is no table: its steps take more, or less, than a prediction, a time and x")
    return kind


def _defaults(kind: Any) -> dict[str, Any]:
    parameters = inspect.signature(kind.__init__).parameters.values()
    return {p.name: "" if p.default is None else p.default for p in parameters if p.name != "self" and p.default is not p.empty}


def _config(card: Card, kind: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the scheduler: the card's schedule and prediction, no clipping, and the options that were given."""
    taken = _defaults(kind)
    if isinstance(card.schedule, LinearFlow):
        fits = "use_flow_sigmas" in taken or kind.__name__.startswith("FlowMatch")
        own: dict[str, Any] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    else:
        fits = {"beta_start", "trained_betas"} <= taken.keys()
        own = {"trained_betas": _betas(card), "prediction_type": "epsilon"}
    if not fits:
        raise UsageError(f"{kind.__name__} is not for the schedule and the prediction of {card.name}")
    fixed = {*own, "num_train_timesteps"} & options.keys()
    if fixed:
        raise UsageError(f"{', '.join(sorted(fixed))} of {kind.__name__} come from the card, not from options")
    if card.sampling.shift != 1:  # theirs is for times from 0, the image, to 1, noise (arXiv 2403.03206, eq. 23)
        fits_in = {name for name in ("shift", "flow_shift") if name in taken}
        if isinstance(card.schedule, LinearFlow) and not fits_in & options.keys():
            options = {**dict.fromkeys(fits_in, 1 / card.sampling.shift), **options}
    defaults = {"num_train_timesteps": _TRAIN_STEPS, "clip_sample": False, **own}
    return {name: value for name, value in defaults.items() if name in taken} | options


def _betas(card: Card) -> Vector:
    """The β of 1000 discrete steps that pass through the card's schedule."""
    alphas = np.array([point(card, n / _TRAIN_STEPS).alpha for n in range(_TRAIN_STEPS + 1)])
    betas: Vector = 1 - (alphas[1:] / alphas[:-1]) ** 2
    return betas
