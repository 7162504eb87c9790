"""Parity runs: several backends, and latents that another system drew, are compared with one reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol, TypeAlias

import msgspec

from ditzoo.backends.base import Backend
from ditzoo.errors import BackendError, UsageError, check_type, described, unknown
from ditzoo.measure.bisection import Bisection
from ditzoo.measure.parity import (
    TOLERANCES,
    Comparison,
    ForwardError,
    SampledStates,
    SamplingTask,
    arithmetic,
    check_comparable,
    follow,
    forward_errors,
    measure,
)
from ditzoo.pictures.decode import Decoder, pixel_values
from ditzoo.progress import SILENT, Display
from ditzoo.sampling.request import SampleRequest
from ditzoo.sampling.sizes import latent_shape
from ditzoo.specs import Arithmetic, Tolerance

Opener: TypeAlias = Callable[[], AbstractContextManager[Backend]]
"""A function that opens a backend."""


class Bisect(Protocol):
    """A function that finds the blocks where a candidate differs from the reference. The exporter provides it."""

    def __call__(
        self,
        reference: Backend,
        candidate: Backend,
        task: SamplingTask,
        drawn: SampledStates,
        *,
        rows: Sequence[int],
        tolerance: float,
    ) -> Bisection:
        """Compares every block at `rows` of the plan, on the latents that the reference drew."""


class ParityRun(msgspec.Struct, frozen=True, kw_only=True):
    """The comparisons of all candidates in order, and the bisections of those that are backends, if requested.

    `request` is what was drawn, if a request says it.
    """

    comparisons: tuple[Comparison, ...]
    bisections: tuple[Bisection, ...] = ()
    request: SampleRequest | None = None

    @property
    def passed(self) -> bool:
        """Whether every candidate is within its tolerance."""
        return all(comparison.report.passed for comparison in self.comparisons)


def run_parity(
    openers: Sequence[Opener],
    task: SamplingTask,
    *,
    rows: Sequence[int],
    decoder: Decoder,
    recorded: SampledStates | None = None,
    tolerances: Mapping[Arithmetic, Tolerance] = TOLERANCES,
    bisect: Bisect | None = None,
    display: Display = SILENT,
) -> ParityRun:
    """Compares every backend, and the latents `recorded` elsewhere, with the first backend. All backends are open at once.

    The reference draws its images once. Single evaluations are compared at `rows` of the plan. `decoder` decodes all latents.
    `bisect` also finds the blocks where a backend differs from the reference by more than its forward tolerance. Raises
    UsageError if there is no backend, if the backends cannot be compared, or if one does not take latents of the size of the
    task's noise. Raises BackendError if a number is not finite.
    """
    if not openers:
        raise UsageError("name at least one backend, the reference")
    with ExitStack() as stack:
        reference, *candidates = [stack.enter_context(opener()) for opener in openers]
        for candidate in candidates:
            check_comparable(reference, candidate)
        _check_size(task, reference, *candidates)
        ours = _follow(reference, task, display)
        images = pixel_values(reference.card, ours.states[-1], decoder=decoder)

        def compared(theirs: SampledStates, limits: Tolerance, forward: tuple[ForwardError, ...] = ()) -> Comparison:
            pixels = images, pixel_values(reference.card, theirs.states[-1], decoder=decoder)
            return measure(reference.card, ours, theirs, task, pixels=pixels, forward=forward, tolerance=limits)

        bisections = []
        for candidate in candidates:
            if bisect is not None:
                limit = tolerances[arithmetic(candidate)].forward
                bisections.append(_bisect(bisect, reference, candidate, task, ours, rows, limit, display))
        comparisons = []
        for candidate in candidates:
            theirs = _follow(candidate, task, display)
            forward = forward_errors(reference, candidate, task, ours, rows=rows)
            comparisons.append(compared(theirs, tolerances[arithmetic(candidate)], forward))
        if recorded is not None:
            comparisons.append(compared(recorded, tolerances[recorded.precision]))
    return ParityRun(comparisons=tuple(comparisons), bisections=tuple(bisections))


def _check_size(task: SamplingTask, *backends: Backend) -> None:
    """Raises UsageError if a backend does not take latents of the size of the task's noise."""
    height, width = task.noise(0).shape[2:]
    for backend in backends:
        latent_shape(backend, (height, width))


def limits_of(limits: str | Mapping[str, float] | None) -> dict[Arithmetic, Tolerance]:
    """The tolerances of every precision, changed by `limits`: a text such as "forward=1e-4,psnr=50", or a dictionary.

    Raises UsageError if the name of a limit is unknown or if a value is not a number.
    """
    given: dict[str, float] = {}
    for name, value in _named(limits):
        if name not in Tolerance.__struct_fields__:
            raise unknown("limit", name, Tolerance.__struct_fields__, hint="--tolerance forward=1e-4,psnr=50")
        try:
            given[name] = float(value)
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"--tolerance {name} takes a number, not {described(value)}") from None
    return {precision: msgspec.structs.replace(known, **given) for precision, known in TOLERANCES.items()}


def _named(limits: str | Mapping[str, float] | None) -> list[tuple[str, str | float]]:
    if limits is None or limits == "":
        return []
    check_type("tolerance", limits, (str, Mapping), "a text such as 'forward=1e-4,psnr=50', or a dictionary")
    if not isinstance(limits, str):
        return list(limits.items())
    parts = [item.strip().partition("=") for item in limits.split(",")]
    return [(name, value) for name, _, value in parts]


def _follow(backend: Backend, task: SamplingTask, display: Display) -> SampledStates:
    with display.progress(f"{backend.card.name}: {backend.name}", len(task.plan.rows)) as advance:
        return follow(backend, task, advance=advance)


def _bisect(
    bisect: Bisect,
    reference: Backend,
    candidate: Backend,
    task: SamplingTask,
    drawn: SampledStates,
    rows: Sequence[int],
    tolerance: float,
    display: Display,
) -> Bisection:
    """The bisection of one candidate. Raises BackendError, with the place, for NaN or infinity, which cannot be compared."""
    with display.status(f"bisecting {candidate.name}"):
        found = bisect(reference, candidate, task, drawn, rows=rows, tolerance=tolerance)
    if not found.finite:
        raise BackendError(found.verdict)
    return found
