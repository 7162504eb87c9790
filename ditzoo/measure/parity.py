"""Parity: measures how far the results of two backends differ for the same plan and the same noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from ditzoo.backends.base import Backend
from ditzoo.errors import BackendError, UsageError, check_callable, check_count, check_type
from ditzoo.measure.metrics import cosine, lpips_or_why_not, max_abs, psnr, relative_l2, ssim
from ditzoo.pictures.decode import open_decoder, pixel_values
from ditzoo.plan.reuse import without_reuse
from ditzoo.plan.table import Plan, Row
from ditzoo.records import Data
from ditzoo.sampling.classes import Classes
from ditzoo.sampling.condition import Condition, class_condition
from ditzoo.sampling.loop import check_backend, check_request, evaluation_inputs, fitted, predictor, states_of
from ditzoo.sampling.noise import Floats, Noise, noise_of
from ditzoo.sampling.sizes import common_shape
from ditzoo.specs import PRECISION_TRAITS, TF32_TOLERANCE, Arithmetic, Precision, Tolerance
from ditzoo.zoo.card import Card

TIMES, LATENTS = 5, 4
"""Single evaluations are compared at this many timesteps, and at each timestep on this many latents.

Each of these latents is evaluated with every requested label.
"""


TOLERANCES: dict[Arithmetic, Tolerance] = {
    **{name: traits.tolerance for name, traits in PRECISION_TRAITS.items()},
    "tf32": TF32_TOLERANCE,
}
"""What passes as parity with fp32, for each precision, and for fp32 on a GPU that computes it in TF32."""


class LabelError(Data, frozen=True, kw_only=True):
    """The error of single evaluations at one time with one label, over some latents of the reference's trajectory."""

    label: str
    relative_l2: float
    max_abs: float


class ForwardError(Data, frozen=True, kw_only=True):
    """The errors of single evaluations at one time.

    `relative_l2`, `max_abs` and `cosine` compare the raw outputs over all labels and some latents. `guided_relative_l2`
    compares the guided predictions of all images, each with its own label. `labels` has the error of each label, including the
    null label. It is empty for an unconditional network.
    """

    time: float
    relative_l2: float
    max_abs: float
    cosine: float
    guided_relative_l2: float
    labels: tuple[LabelError, ...] = ()

    @property
    def worst(self) -> float:
        """The largest relative L2 error over the labels and over all outputs together."""
        return float(np.max([self.relative_l2, *(error.relative_l2 for error in self.labels)]))


class Report(Data, frozen=True, kw_only=True):
    """The differences of `candidate` from `reference`.

    `forward` is empty if only latents of the candidate are known and not its network. `drift` has the relative L2 error of the
    latents after each step; the last number is that of the final latents. If only the final latents are known, it is the only
    number. `psnr` is in dB over pixel values from 0 to 255. If all pixels are equal, `psnr` is None and `ssim` is 1. If LPIPS
    cannot be computed, `lpips` is None and `no_lpips` is the reason.
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
    lpips: float | None = None
    no_lpips: str = ""
    tolerance: Tolerance

    @property
    def sample_relative_l2(self) -> float:
        """The relative L2 error of the final latents."""
        return self.drift[-1]

    @property
    def worst_forward(self) -> float | None:
        """The largest relative L2 error over all times and labels. None if `forward` is empty."""
        return float(np.max([error.worst for error in self.forward])) if self.forward else None

    @property
    def passed(self) -> bool:
        """Whether every number is within its tolerance. NaN counts as outside."""
        return (
            (self.worst_forward is None or self.worst_forward <= self.tolerance.forward)
            and self.sample_relative_l2 <= self.tolerance.sample
            and (self.psnr is None or self.psnr >= self.tolerance.psnr)
        )


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A report, the final latents [N, C, h, w] of both sides, and their pixel values [N, H, W, channels] from 0 to 255."""

    report: Report
    reference: Floats
    candidate: Floats
    reference_pixels: Floats
    candidate_pixels: Floats


class SamplingTask(msgspec.Struct, frozen=True, kw_only=True):
    """The task of both sides: the plan, the condition (the classes or prompts of the images), and the noise."""

    plan: Plan
    condition: Condition | None
    noise: Noise


class SampledStates(msgspec.Struct, frozen=True, kw_only=True):
    """The results of one side: its states [N, C, H, W] before the first step and after each step, or only the last state."""

    name: str
    precision: Precision
    states: tuple[Floats, ...]


def compare(
    reference: Backend,
    candidate: Backend,
    plan: Plan,
    *,
    classes: Classes | None = None,
    condition: Condition | None = None,
    count: int = 4,
    seed: int = 0,
    times: int = TIMES,
    tolerance: Tolerance = TOLERANCES["fp32"],
    advance: Callable[[], object] = lambda: None,
) -> Comparison:
    """Samples the same images on both backends, and evaluates both networks on latents of the reference's trajectory.

    There is one image for each of `classes`, or for each value of `condition`. An unconditional model draws `count` images. The
    size is the one that both backends take, or that of training if both take any. Single evaluations are compared at `times`
    timesteps. `advance` is called after each step. Raises UsageError if `times` is below 1 or if the backends cannot be
    compared, and BackendError if a number is not finite.
    """
    check_backend("reference", reference)
    check_backend("candidate", candidate)
    check_type("plan", plan, Plan, "a Plan, such as make_plan makes")
    check_type("tolerance", tolerance, Tolerance, "a Tolerance (ditzoo.specs)")
    check_callable("advance", advance, "a function without arguments")
    if classes is not None:
        condition = class_condition(reference.card, classes)
    count = count if condition is None else len(condition.values)
    check_request(count=count, batch=count, seed=seed)
    check_comparable(reference, candidate)
    rows = compared_rows(plan, times)
    noise = noise_of(seed, range(count), common_shape(reference, candidate))
    work = SamplingTask(plan=plan, condition=condition, noise=noise)
    ours, theirs = (follow(backend, work, advance=advance) for backend in (reference, candidate))
    forward = forward_errors(reference, candidate, work, ours, rows=rows)
    decoder = open_decoder(reference.card)
    pixels = [pixel_values(reference.card, drawn.states[-1], decoder=decoder) for drawn in (ours, theirs)]
    return measure(reference.card, ours, theirs, work, pixels=pixels, forward=forward, tolerance=tolerance)


def arithmetic(backend: Backend) -> Arithmetic:
    """What a backend computes in, by the names of `TOLERANCES`."""
    return "tf32" if backend.tf32 else backend.precision


def check_comparable(reference: Backend, candidate: Backend) -> None:
    """Raises UsageError if two backends run different models, or the same model on latents of different sizes."""
    if reference.card != candidate.card:
        raise UsageError(
            f"{reference.name} runs {reference.card.name}, but {candidate.name} runs another model; both must run the same"
        )
    theirs = {spec.name: spec for spec in candidate.inputs}
    for spec in reference.inputs:
        sizes = zip(spec.shape, theirs[spec.name].shape, strict=True)
        if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in sizes):
            raise UsageError(
                f"{reference.name} takes {spec}, but {candidate.name} takes {theirs[spec.name]}: their resolutions differ;"
                " export both for the same resolution"
            )


def follow(backend: Backend, work: SamplingTask, *, advance: Callable[[], object] = lambda: None) -> SampledStates:
    """Draws the images on a backend. Raises BackendError, with the step, time and image, if a number is not finite."""
    states = list[Floats]()
    for done, x in enumerate(states_of(backend, work.plan, condition=work.condition, noise=work.noise)):
        states.append(backend.numpy(x))
        if done:
            advance()
    return SampledStates(name=backend.name, precision=backend.precision, states=tuple(states))


def compared_rows(plan: Plan, times: int) -> list[int]:
    """The indices of up to `times` rows, spread over the plan. Raises UsageError if `times` is below 1."""
    check_count("the number of timesteps to compare", times)
    return sorted({round(i) for i in np.linspace(0, len(plan.rows) - 1, min(times, len(plan.rows)))})


def forward_errors(
    reference: Backend, candidate: Backend, work: SamplingTask, drawn: SampledStates, *, rows: Sequence[int]
) -> tuple[ForwardError, ...]:
    """The errors of single evaluations at `rows` of the plan, on the reference's latents before these rows.

    Raises BackendError if an output is not finite.
    """
    return tuple(_forward(reference, candidate, work, work.plan.rows[row], drawn.states[row]) for row in rows)


def measure(
    card: Card,
    reference: SampledStates,
    candidate: SampledStates,
    work: SamplingTask,
    *,
    pixels: Sequence[Floats],
    forward: tuple[ForwardError, ...] = (),
    tolerance: Tolerance,
) -> Comparison:
    """Compares the candidate's states and pictures with the reference's. States that the candidate lacks are left out.

    `pixels` are the pixel values [N, H, W, channels] of the final latents, first the reference's, then the candidate's.
    """
    known = min(len(candidate.states), len(work.plan.rows))
    ours, theirs = pixels
    distance, why = lpips_or_why_not(theirs, ours)
    report = Report(
        model=card.name,
        reference=reference.name,
        candidate=candidate.name,
        precision=candidate.precision,
        solver=work.plan.solver,
        steps=len(work.plan.rows),
        images=len(ours),
        forward=forward,
        drift=tuple(relative_l2(b, a) for a, b in zip(reference.states[-known:], candidate.states[-known:], strict=True)),
        psnr=psnr(theirs, ours),
        ssim=ssim(theirs, ours),
        lpips=distance,
        no_lpips=why,
        tolerance=tolerance,
    )
    return Comparison(
        report=report,
        reference=reference.states[-1],
        candidate=candidate.states[-1],
        reference_pixels=ours,
        candidate_pixels=theirs,
    )


def _forward(reference: Backend, candidate: Backend, work: SamplingTask, row: Row, x: Floats) -> ForwardError:
    """The errors at latents `x` [B, C, H, W]: for every label on the first few, and guided for each image's label.

    All blocks of the networks run, and both conditions are evaluated, even if the row reuses some in a sampling run.
    """
    plan = without_reuse(work.plan)
    row = msgspec.structs.replace(row, evaluation=msgspec.UNSET, difference=msgspec.UNSET)
    grid = {
        label: [_evaluate(backend, label, x[:LATENTS], row, condition) for backend in (candidate, reference)]
        for label, condition in _labels(work.condition).items()
    }
    raw = [np.stack(outputs) for outputs in zip(*grid.values(), strict=True)]
    guided = [
        backend.numpy(predictor(backend, plan, work.condition)(fitted(backend, {"x": x})["x"], row))
        for backend in (candidate, reference)
    ]
    return ForwardError(
        time=row.time,
        relative_l2=relative_l2(*raw),
        max_abs=max_abs(*raw),
        cosine=cosine(*raw),
        guided_relative_l2=relative_l2(*(output[:, : work.plan.channels] for output in guided)),
        labels=tuple(
            LabelError(label=label, relative_l2=relative_l2(*outputs), max_abs=max_abs(*outputs))
            for label, outputs in grid.items()
            if work.condition is not None
        ),
    )


def _labels(condition: Condition | None) -> dict[str, Condition | None]:
    """The conditions to evaluate, by label: each class or prompt of the images, and the null label."""
    if condition is None:
        return {"": None}
    names = condition.values.tolist() if condition.name == "y" else [f"prompt {i}" for i in range(len(condition.values))]
    values = {str(name): value for name, value in zip(names, condition.values, strict=True)}
    if condition.null is not None:
        values["null"] = condition.null
    return {name: Condition(name=condition.name, values=np.asarray(value), null=None) for name, value in values.items()}


def _evaluate(backend: Backend, label: str, x: Floats, row: Row, condition: Condition | None) -> Floats:
    """The output for all latents with the same condition, whose values have no batch axis."""
    if condition is not None:
        condition = msgspec.structs.replace(condition, values=np.repeat(condition.values[None], len(x), axis=0))
    output = backend.numpy(backend(fitted(backend, evaluation_inputs(x, row, condition))))
    if not np.isfinite(output).all():
        under = f" under label {label}" if label else ""
        raise BackendError(f"{backend.name} gave NaN or infinity as its {backend.outputs[0].name} at time {row.time:g}{under}")
    return output
