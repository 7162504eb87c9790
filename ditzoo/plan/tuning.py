"""Which rows of a plan run all blocks: the list with the least error among those that save enough.

Let r(t) be the residual of the middle blocks in row t of a trajectory in which every row is full (`ditzoo.nets.reuse`), and
c(s, t) its change from row s to row t. If a row t reuses the residual of the full row s, its error is c(s, t), and the error of
a list of full rows is the sum over all rows that reuse. The list with the least sum is found exactly, for each number of saved
rows, by dynamic programming over the last full row.

TeaCache (arXiv 2411.19108) adds up relative changes from step to step until a threshold is reached, and then evaluates the
network. InvarDiff (arXiv 2512.05134) decides ahead from a few runs, as this does. Δ-DiT (arXiv 2406.01125) keeps the residual.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ditzoo.errors import UsageError
from ditzoo.plan.table import Plan

Numbers = npt.NDArray[np.floating]

_ROUNDING = 1e-9


def halves_of(plan: Plan) -> list[int]:
    """The rows of the network that each row of the plan takes for one image: 2 if it evaluates both conditions."""
    return [2 if row.evaluates_null else 1 for row in plan.rows]


def block_runs(plan: Plan, blocks: int) -> int:
    """How many blocks run for one image, if the network has `blocks` blocks. A row with both conditions runs them twice."""
    ran = (2 * int(plan.outer_blocks) if row.reuses else blocks for row in plan.rows)  # type: ignore[arg-type]
    return sum(halves * count for halves, count in zip(halves_of(plan), ran, strict=True))


def least_changes(changes: Numbers, halves: Sequence[int], *, saved: int) -> list[int]:
    """The full rows with the least sum of changes, if rows that reuse must stand for `saved` rows of the network or more.

    `changes` [N, N] has c(s, t) at s < t. It is infinite where row t cannot reuse the residual of row s. `halves` [N] are the
    rows of the network that each row of the plan takes. The first row is full. The list is empty if `saved` cannot be reached.
    """
    least, before = _table(changes, halves)
    end = len(halves)
    place = saved + int(np.argmin(least[end, saved:])) if saved < least.shape[1] else -1
    if place < 0 or not math.isfinite(least[end, place]):
        return []
    full: list[int] = []
    while end > 0:
        start = int(before[end, place])
        place -= sum(halves[start + 1 : end])
        end = start
        full.insert(0, end)
    return full


def most_saved(changes: Numbers, halves: Sequence[int]) -> int:
    """The most rows of the network that rows with reuse can stand for."""
    least, _ = _table(changes, halves)
    return int(np.flatnonzero(np.isfinite(least[-1]))[-1])


def rows_to_save(plan: Plan, target: float, *, blocks: int, outer: int) -> int:
    """How many rows of the network must reuse, for one image, so that `target` times fewer blocks run than in `plan`.

    Raises UsageError unless `target` is a number of 1 or more that can be reached if all rows but the first reuse.
    """
    if not (math.isfinite(target) and target >= 1):
        raise UsageError(f"the target must be a factor of 1 or more, such as 1.8, not {target:g}")
    first, *others = halves_of(plan)
    saved = math.ceil((first + sum(others)) * blocks * (1 - 1 / target) / (blocks - 2 * outer) - _ROUNDING)
    if saved > sum(others):
        raise unreachable(plan, target, most=sum(others), blocks=blocks, outer=outer)
    return saved


def unreachable(plan: Plan, target: float, *, most: int, blocks: int, outer: int) -> UsageError:
    """The error for a target that is too high if `most` rows of the network, for one image, can reuse."""
    total = sum(halves_of(plan)) * blocks
    factor = total / (total - most * (blocks - 2 * outer))
    return UsageError(
        f"no rows with blocks={outer} make the plan {target:g}x cheaper; it is at most {int(100 * factor) / 100:g}x:"
        f" choose a smaller target{' or fewer blocks' if outer > 1 else ''}"
    )


def _table(changes: Numbers, halves: Sequence[int]) -> tuple[Numbers, npt.NDArray[np.int64]]:
    """The least sum of changes [N + 1, saved + 1] before a full row, by row and by rows saved, and the full row before it.

    Row N is the end of the plan.
    """
    count, most = len(halves), sum(halves[1:])
    least = np.full((count + 1, most + 1), np.inf)
    before = np.zeros((count + 1, most + 1), np.int64)
    least[0, 0] = 0
    for start in range(count):
        error, saves = 0.0, 0
        for end in range(start + 1, count + 1):
            reached = least[start, : most + 1 - saves] + error
            better = reached < least[end, saves:]
            least[end, saves:][better] = reached[better]
            before[end, saves:][better] = start
            if end == count or not math.isfinite(changes[start, end]):
                break
            error, saves = error + float(changes[start, end]), saves + halves[end]
    return least, before
