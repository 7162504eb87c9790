"""Guidance at less cost: some rows take the difference of the two conditions from an earlier row.

A guided prediction is uncond + s · (cond − uncond) = cond + (s − 1) · d with d = cond − uncond (arXiv 2207.12598). A row t that
evaluates both conditions also gives d(t). A later row evaluates only cond, so half as many rows of the network, and takes

    e(t) = cond(t) + (s − 1) · d(s),

where s is the last row that evaluated both. FasterCache (arXiv 2410.19355, "CFG-Cache") keeps such a difference of the two
predictions, because it changes less from step to step than the predictions do. It also weights the difference by frequency,
which is left out here. Compress Guidance (arXiv 2408.11194) guides in some steps only, and Adaptive Guidance (arXiv 2312.12487)
replaces evaluations of the null condition by earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ditzoo.errors import UsageError, described, whole_number
from ditzoo.plan.table import Plan, Row


def with_guidance_every(plan: Plan, every: int) -> Plan:
    """The plan in which at least every `every`-th row with guidance evaluates both conditions. The others reuse the difference.

    It is `plan` itself if no row can reuse a difference, as with `every` = 1. Raises UsageError if `every` is below 1.
    """
    if whole_number("guidance_every", every, "a whole number of rows") < 1:
        raise UsageError(f"guidance_every must be 1 or more, not {described(every)}")
    rows = tuple(_rows(plan.rows, every))
    return plan if rows == plan.rows else msgspec.structs.replace(plan, rows=rows)


def _rows(rows: Sequence[Row], every: int) -> Iterator[Row]:
    since = every
    for row in rows:
        if not row.guided or since >= every:
            since = 0 if row.guided else since
            yield row
        else:
            yield msgspec.structs.replace(row, difference="reuse")
        since += 1
