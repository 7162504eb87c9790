"""Prints the result of `ditzoo parity --bisect`: the blocks where a candidate differs from the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ditzoo.cli import output

if TYPE_CHECKING:
    from ditzoo.measure.bisection import Bisection


def show_bisection(bisection: Bisection) -> None:
    """Prints the error of every block at every time, the operations that cause the errors, and the verdict."""
    moments = bisection.moments
    beyond = bisection.tolerance
    rows = [(block, *(_cell(moment.blocks[block], beyond) for moment in moments)) for block in moments[0].blocks]
    output.table([bisection.candidate, *(f">time {moment.time:g}" for moment in moments)], rows)
    faults = [(moment.time, moment.fault) for moment in moments if moment.fault is not None]
    if faults:
        columns = [">time", "first block beyond tolerance", "operation", "node", "module", "~why"]
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


def bisection_facts(bisection: Bisection) -> dict[str, Any]:
    """A bisection as a dictionary for JSON, with its verdict."""
    import msgspec

    return {**msgspec.to_builtins(bisection), "verdict": bisection.verdict}


def _cell(error: float, tolerance: float) -> str:
    return f"{error:.1e}{' ' if error <= tolerance else '!'}"


def _why(changed: bool) -> str:
    return "the graph was changed" if changed else "arithmetic"
