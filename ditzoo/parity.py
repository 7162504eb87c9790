"""Parity: how far one backend is from another, on the same plan and the same noise, in numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ditzoo.backends.base import Backend
from ditzoo.decode import pixel_values
from ditzoo.errors import UsageError
from ditzoo.plan import Plan
from ditzoo.sample import Condition, Floats, class_condition, evaluation_inputs, sample_steps
from ditzoo.specs import Data, Precision


class Tolerance(Data, frozen=True, kw_only=True):
    """The largest relative L2 errors of one evaluation and of the final sample, and the least PSNR, that still pass."""

    forward: float
    sample: float
    psnr: float


TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(forward=1e-5, sample=1e-4, psnr=60.0),
    "bf16": Tolerance(forward=1.5e-2, sample=1e-1, psnr=25.0),
    "fp16": Tolerance(forward=2e-3, sample=2e-2, psnr=40.0),
    "int8": Tolerance(forward=3e-2, sample=2e-1, psnr=20.0),
    "fp8": Tolerance(forward=1e-1, sample=4e-1, psnr=15.0),
}


class ForwardError(Data, frozen=True, kw_only=True):
    """The error of one evaluation at one time."""

    time: float
    relative_l2: float
    max_abs: float


class Report(Data, frozen=True, kw_only=True):
    """How far `candidate` is from `reference`. `psnr` is in dB over pixel values 0 ... 255, None where all are equal."""

    model: str
    reference: str
    candidate: str
    solver: str
    steps: int
    images: int
    forward: tuple[ForwardError, ...]
    sample_relative_l2: float
    psnr: float | None
    tolerance: Tolerance

    @property
    def worst_forward(self) -> float:
        """The largest relative L2 error of all times."""
        return max(error.relative_l2 for error in self.forward)

    @property
    def passed(self) -> bool:
        """Whether every number is within its tolerance. A NaN never is."""
        return (
            self.worst_forward <= self.tolerance.forward
            and self.sample_relative_l2 <= self.tolerance.sample
            and (self.psnr is None or self.psnr >= self.tolerance.psnr)
        )


def compare(
    reference: Backend,
    candidate: Backend,
    plan: Plan,
    *,
    classes: Sequence[int] | None = None,
    count: int = 4,
    seed: int = 0,
    times: int = 5,
    tolerance: Tolerance = TOLERANCES["fp32"],
    advance: Callable[[], object] = lambda: None,
) -> Report:
    """Samples the same images on both backends, and evaluates both networks on the latents of the reference's trajectory.

    The images are one for each of `classes`, or `count` of an unconditional model. The forward error is measured at `times`
    steps spread over the plan, on the conditional and the unconditional half. `advance` is called after each evaluation.
    Raises UsageError for fewer than 1 times.
    """
    if times < 1:
        raise UsageError(f"the number of timesteps to compare at must be 1 or more, not {times}")
    if reference.card != candidate.card:
        raise UsageError(
            f"{reference.name} runs {reference.card.name}, {candidate.name} another model; compare one with itself"
        )
    condition = None if classes is None else class_condition(reference.card, classes)
    count = count if classes is None else len(classes)
    first, second = (
        _states(backend, plan, condition=condition, count=count, seed=seed, advance=advance)
        for backend in (reference, candidate)
    )
    rows = sorted({round(i) for i in np.linspace(0, len(plan.rows) - 1, times)})
    probes = [evaluation_inputs(first[row], plan.rows[row], condition) for row in rows]
    pixels = [pixel_values(reference.card, states[-1]) for states in (second, first)]
    return Report(
        model=reference.card.name,
        reference=reference.name,
        candidate=candidate.name,
        solver=plan.solver,
        steps=len(plan.rows),
        images=count,
        forward=tuple(forward_error(reference, candidate, probe) for probe in probes),
        sample_relative_l2=relative_l2(second[-1], first[-1]),
        psnr=psnr(*pixels),
        tolerance=tolerance,
    )


def forward_error(reference: Backend, candidate: Backend, inputs: Mapping[str, np.ndarray]) -> ForwardError:
    """The error of `candidate` on one evaluation of numpy `inputs`."""
    first, second = (
        backend.numpy(backend({name: backend.asarray(value) for name, value in inputs.items()}))
        for backend in (reference, candidate)
    )
    return ForwardError(
        time=float(inputs["t"][0]),
        relative_l2=relative_l2(second, first),
        max_abs=float(np.abs(second.astype(np.float64) - first).max()),
    )


def _states(
    backend: Backend, plan: Plan, *, condition: Condition | None, count: int, seed: int, advance: Callable[[], object]
) -> list[Floats]:
    """Every state of the trajectory, as numpy arrays."""
    states = []
    for step in sample_steps(backend, plan, count=count, condition=condition, seed=seed):
        states.append(backend.numpy(step.x))
        if step.done:
            advance()
    return states


def relative_l2(value: np.ndarray, reference: np.ndarray) -> float:
    """‖value − reference‖ / ‖reference‖, in float64."""
    difference = value.astype(np.float64) - reference.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(reference.astype(np.float64)))


def psnr(value: Floats, reference: Floats) -> float | None:
    """The peak signal-to-noise ratio in dB of pixel values 0 ... 255; None where they are equal."""
    error = float(((value.astype(np.float64) - reference) ** 2).mean())
    return 20 * math.log10(255) - 10 * math.log10(error) if error > 0 else None
