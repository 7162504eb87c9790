"""A whole parity run: several backends, and latents of other systems, all compared with one reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol, TypeAlias

import msgspec

from ditzoo.backends.base import Backend
from ditzoo.errors import BackendError, UsageError, unknown
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
from ditzoo.sampling.sizes import latent_shape
from ditzoo.specs import Arithmetic, Tolerance

Opener: TypeAlias = Callable[[], AbstractContextManager[Backend]]
"""What opens a backend."""


class Bisect(Protocol):
    """What finds where a candidate departs from the reference. It needs the exporter, so the caller brings it."""

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
        """Compares every block at `rows` of the plan, on the latents that the reference has drawn."""


class ParityRun(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of each candidate, in their order, and the bisection of each backend among them, if that was asked for."""

    comparisons: tuple[Comparison, ...]
    bisections: tuple[Bisection, ...] = ()

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
    """Compares every backend but the first with the first, and what was `recorded` elsewhere too. All are open at once.

    The reference draws its images once; single evaluations are compared at `rows` of the plan. `decoder` makes the images of
    all latents. `bisect` also finds where each backend departs from the reference by more than its forward tolerance. Raises
    UsageError for no backend, for backends that cannot be compared, and for one that does not take latents of the size of the
    task's noise; and BackendError for a number that is not finite.
    """
    if not openers:
        raise UsageError("say at least one backend: the reference")
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
    """Raises UsageError for a backend that does not take latents of the size of the task's noise."""
    height, width = task.noise(0).shape[2:]
    for backend in backends:
        latent_shape(backend, (height, width))


def limits_of(limits: str | Mapping[str, float] | None) -> dict[Arithmetic, Tolerance]:
    """The tolerances of every precision, with other `limits`: a text such as "forward=1e-4,psnr=50", or numbers by name.

    Raises UsageError for a limit that does not exist, and for a value that is not a number.
    """
    given: dict[str, float] = {}
    for name, value in _named(limits):
        if name not in Tolerance.__struct_fields__:
            raise unknown("limit", name, Tolerance.__struct_fields__, hint="--tolerance forward=1e-4,psnr=50")
        try:
            given[name] = float(value)
        except (TypeError, ValueError):
            raise UsageError(f"--tolerance {name} takes a number, not {value!r}") from None
    return {precision: msgspec.structs.replace(known, **given) for precision, known in TOLERANCES.items()}


def _named(limits: str | Mapping[str, float] | None) -> list[tuple[str, str | float]]:
    if not limits:
        return []
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
    """The bisection of one candidate. Raises BackendError, which names the place, for a NaN: nothing else can be compared."""
    with display.status(f"looking into {candidate.name}"):
        found = bisect(reference, candidate, task, drawn, rows=rows, tolerance=tolerance)
    if not found.finite:
        raise BackendError(found.verdict)
    return found
