"""Parity: how far one backend is from another, on the same plan and the same noise, in numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from ditzoo.backends.base import Backend
from ditzoo.decode import pixel_values
from ditzoo.errors import BackendError, UsageError
from ditzoo.plan import Plan, Row
from ditzoo.sample import Condition, Floats, class_condition, evaluation_inputs, predictor, sample_steps
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
    """The error of one evaluation at one time: of the raw output, both halves of guidance, and of the guided prediction."""

    time: float
    relative_l2: float
    max_abs: float
    cosine: float
    guided_relative_l2: float


class Report(Data, frozen=True, kw_only=True):
    """How far `candidate` is from `reference`.

    `drift` is the relative L2 error of the latents after each step, the last being that of the final sample. `psnr` is in dB
    over pixel values 0 ... 255, None where all are equal; `ssim` is 1 where they are.
    """

    model: str
    reference: str
    candidate: str
    precision: Precision
    solver: str
    steps: int
    images: int
    forward: tuple[ForwardError, ...]
    drift: tuple[float, ...]
    psnr: float | None
    ssim: float
    tolerance: Tolerance

    @property
    def sample_relative_l2(self) -> float:
        """The relative L2 error of the final latents."""
        return self.drift[-1]

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


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A report, and the final latents [N, C, H, W] that it is about."""

    report: Report
    reference: Floats
    candidate: Floats


def compare(
    reference: Backend,
    candidate: Backend,
    plan: Plan,
    *,
    classes: Sequence[int] | None = None,
    condition: Condition | None = None,
    count: int = 4,
    seed: int = 0,
    times: int = 5,
    tolerance: Tolerance = TOLERANCES["fp32"],
    advance: Callable[[], object] = lambda: None,
) -> Comparison:
    """Samples the same images on both backends, and evaluates both networks on the latents of the reference's trajectory.

    The images are one for each of `classes`, or for each value of `condition`, or `count` of an unconditional model. The
    forward error is measured at `times` steps spread over the plan, on the conditional and the unconditional half. `advance` is
    called after each evaluation.
    Raises UsageError for fewer than 1 times or different models, BackendError where an output is not finite.
    """
    if reference.card != candidate.card:
        raise UsageError(
            f"{reference.name} runs {reference.card.name}, {candidate.name} another model; compare one with itself"
        )
    rows = compared_rows(plan, times)
    if classes is not None:
        condition = class_condition(reference.card, classes)
    count = count if condition is None else len(condition.values)
    first, second = (
        _states(backend, plan, condition=condition, count=count, seed=seed, advance=advance)
        for backend in (reference, candidate)
    )
    pixels = [pixel_values(reference.card, states[-1]) for states in (second, first)]
    report = Report(
        model=reference.card.name,
        reference=reference.name,
        candidate=candidate.name,
        precision=candidate.precision,
        solver=plan.solver,
        steps=len(plan.rows),
        images=count,
        forward=tuple(_forward(reference, candidate, plan, plan.rows[row], first[row], condition) for row in rows),
        drift=tuple(relative_l2(b, a) for a, b in zip(first[1:], second[1:], strict=True)),
        psnr=psnr(*pixels),
        ssim=ssim(*pixels),
        tolerance=tolerance,
    )
    return Comparison(report=report, reference=first[-1], candidate=second[-1])


def compared_rows(plan: Plan, times: int) -> list[int]:
    """The rows of a plan at which single evaluations are compared, `times` of them if it has as many, spread over it.

    Raises UsageError for fewer than 1.
    """
    if times < 1:
        raise UsageError(f"the number of timesteps to compare at must be 1 or more, not {times}")
    return sorted({round(i) for i in np.linspace(0, len(plan.rows) - 1, times)})


def _evaluate(backend: Backend, inputs: Mapping[str, np.ndarray]) -> Floats:
    return backend.numpy(backend({name: backend.asarray(value) for name, value in inputs.items()}))


def _forward(
    reference: Backend, candidate: Backend, plan: Plan, row: Row, x: Floats, condition: Condition | None
) -> ForwardError:
    """All errors of one evaluation at latents `x` [B, C, H, W]."""
    inputs = evaluation_inputs(x, row, condition)
    raw = [_evaluate(backend, inputs) for backend in (candidate, reference)]
    guided = [
        backend.numpy(predictor(backend, plan, condition)(backend.asarray(x), row))[:, : plan.channels]
        for backend in (candidate, reference)
    ]
    return ForwardError(
        time=row.time,
        relative_l2=relative_l2(*raw),
        max_abs=float(np.abs(np.subtract(*raw, dtype=np.float64)).max()),
        cosine=cosine(*raw),
        guided_relative_l2=relative_l2(*guided),
    )


def _states(
    backend: Backend, plan: Plan, *, condition: Condition | None, count: int, seed: int, advance: Callable[[], object]
) -> list[Floats]:
    """Every state of the trajectory, as numpy arrays."""
    states = []
    for step in sample_steps(backend, plan, count=count, condition=condition, seed=seed):
        states.append(backend.numpy(step.x))
        if not np.isfinite(states[-1]).all():
            time = plan.rows[max(step.done - 1, 0)].time
            raise BackendError(f"{backend.name} gave NaN or infinity in step {step.done} of {len(plan.rows)}, at time {time:g}")
        if step.done:
            advance()
    return states


def relative_l2(value: np.ndarray, reference: np.ndarray) -> float:
    """‖value − reference‖ / ‖reference‖, in float64."""
    difference = value.astype(np.float64) - reference.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(reference.astype(np.float64)))


def cosine(value: np.ndarray, reference: np.ndarray) -> float:
    """The cosine of the angle between two arrays as vectors, in float64."""
    a, b = value.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def psnr(value: Floats, reference: Floats) -> float | None:
    """The peak signal-to-noise ratio in dB of pixel values 0 ... 255; None where they are equal."""
    error = float(((value.astype(np.float64) - reference) ** 2).mean())
    return 20 * math.log10(255) - 10 * math.log10(error) if error > 0 else None


def ssim(value: Floats, reference: Floats, *, side: int = 7) -> float:
    """The mean structural similarity of pixel values 0 ... 255, [N, H, W, C] each, over flat windows of `side` x `side`.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004, eq. 13; sample variances.
    """
    a, b = (
        np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (side, side), axis=(1, 2)) for x in (value, reference)
    )
    mean_a, mean_b = a.mean(axis=(-2, -1)), b.mean(axis=(-2, -1))
    scale = side**2 / (side**2 - 1)
    variance_a, variance_b = scale * a.var(axis=(-2, -1)), scale * b.var(axis=(-2, -1))
    covariance = scale * ((a * b).mean(axis=(-2, -1)) - mean_a * mean_b)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float((luminance * (2 * covariance + c2) / (variance_a + variance_b + c2)).mean())
