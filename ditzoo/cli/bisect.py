"""`ditzoo parity --bisect`: where a candidate departs from the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ditzoo.cli import output
from ditzoo.errors import BackendError

if TYPE_CHECKING:
    from ditzoo.backends.base import Backend
    from ditzoo.measure.bisection import Bisection
    from ditzoo.measure.parity import SampledStates, SamplingTask
    from ditzoo.specs import Tolerance


def bisect_all(
    reference: Backend,
    candidates: Sequence[tuple[Backend, Tolerance]],
    work: SamplingTask,
    drawn: SampledStates,
    *,
    rows: Sequence[int],
) -> list[Bisection]:
    """Where each candidate departs from the reference by more than its forward tolerance, at `rows` of the plan, on what the
    reference has drawn. Raises BackendError, naming the place, for a NaN, which leaves nothing to be compared."""
    from ditzoo.cli.models import exporter

    exporter()
    from ditzoo_export.bisection.search import bisect, evaluations

    found, seen = [], evaluations(drawn, work, rows=rows)
    for candidate, tolerance in candidates:
        with output.status(f"looking into {candidate.name}"):
            bisection = bisect(reference, candidate, seen, tolerance=tolerance.forward)
        if not bisection.finite:
            raise BackendError(bisection.verdict)
        found.append(bisection)
    return found


def show_bisection(bisection: Bisection) -> None:
    """Prints the error of every block at every time, the places, and the verdict."""
    moments = bisection.moments
    beyond = bisection.tolerance
    rows = [(block, *(_cell(moment.blocks[block], beyond) for moment in moments)) for block in moments[0].blocks]
    output.table([bisection.candidate, *(f">time {moment.time:g}" for moment in moments)], rows)
    faults = [(moment.time, moment.fault) for moment in moments if moment.fault is not None]
    if faults:
        columns = [">time", "first block beyond", "operation", "node", "module", "why"]
        output.table(
            columns,
            [
                (
                    f"{time:g}",
                    fault.block,
                    fault.place.operation,
                    fault.place.node,
                    fault.place.module,
                    _why(fault.place.changed),
                )
                for time, fault in faults
            ],
        )
    output.data(bisection.verdict)


def told(bisection: Bisection) -> dict[str, Any]:
    """A bisection for JSON."""
    import msgspec

    return {**msgspec.to_builtins(bisection), "verdict": bisection.verdict}


def _cell(error: float, tolerance: float) -> str:
    return f"{error:.1e}{' ' if error <= tolerance else '!'}"


def _why(changed: bool) -> str:
    return "the graph was changed" if changed else "arithmetic"
